"""The manager as a process."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

from telehelper.manager.config import ManagerConfig, parse_config

COMMAND = [sys.executable, "-m", "telehelper.manager"]


def test_ready_then_drained_by_sigterm() -> None:
    environ = {"PATH": "/usr/bin", "KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": "1"}
    with subprocess.Popen(
        [*COMMAND, "--grpc-port", "0", "--carrier-port", "0", "--service-account", "/nonexistent"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environ,
    ) as process:
        assert process.stdout is not None
        ready = re.fullmatch(r"ready grpc=(\d+) carrier=(\d+)\n", process.stdout.readline())
        assert ready
        for port in ready.groups():
            socket.create_connection(("127.0.0.1", int(port)), timeout=5).close()
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (0, "")
    assert "no access to the API server" in err
    assert "draining" in err


def test_port_in_use_is_one_line_and_status_1() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [*COMMAND, "--grpc-port", "0", "--carrier-port", port],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.startswith("cannot listen: ")
    assert done.stderr.count("\n") == 1


def test_command_line() -> None:
    assert parse_config([], {}) == ManagerConfig()
    config = parse_config(
        [
            "--grpc-port",
            "1",
            "--carrier-port",
            "2",
            "--resolv-conf",
            "/r",
            "--grace",
            "1",
            "--allow-loopback",
        ],
        {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "6443"},
    )
    assert (config.grpc_port, config.carrier_port, config.resolv_conf) == (1, 2, Path("/r"))
    assert (config.api_host, config.api_port, config.grace, config.allow_loopback) == (
        "10.0.0.1",
        6443,
        1.0,
        True,
    )
