"""The demo's DNS server as a process of its own."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import dns.message
import dns.query

ROOT = Path(__file__).parents[2]
ZONE = {"domain": "cluster.local", "reverse": [], "services": [], "pods": []}


def free_port() -> int:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port: int = unused.getsockname()[1]
        return port


def test_an_interrupt_ends_it_whoever_is_still_connected(tmp_path: Path) -> None:
    port, zone = free_port(), tmp_path / "zone.json"
    zone.write_text(json.dumps(ZONE))
    command = [sys.executable, "-m", "telemagic.demo.nameserver", "--port", str(port), str(zone)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == f"ready dns={port}\n".encode()
            query = dns.message.make_query("dns-version.cluster.local", "TXT")
            with socket.create_connection(("127.0.0.1", port)) as client:
                (answer,) = dns.query.tcp(query, "127.0.0.1", timeout=5, sock=client).answer
                assert answer[0].to_text() == '"1.1.0"'
                process.send_signal(signal.SIGINT)
                process.wait(timeout=5)  # a connection may idle for ten seconds
        finally:
            process.kill()
