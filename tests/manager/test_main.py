"""The manager as a process."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

from telehelper.endpoint import Endpoint
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


def test_direct_carriers_are_named_in_the_ready_line() -> None:
    listen = ["--carrier-listen", "tls://127.0.0.1:0", "--carrier-listen", "tcp://127.0.0.1:0"]
    with subprocess.Popen(
        [*COMMAND, "--grpc-port", "0", "--carrier-port", "0", *listen],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        ready = re.fullmatch(
            r"ready grpc=\d+ carrier=\d+ tls://127\.0\.0\.1:(\d+) tcp://127\.0\.0\.1:(\d+)\n",
            process.stdout.readline(),
        )
        assert ready
        for port in ready.groups():
            socket.create_connection(("127.0.0.1", int(port)), timeout=5).close()
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
    assert process.returncode == 0


def test_what_cannot_be_listened_at_is_one_line() -> None:
    without = f"import sys; sys.modules['cryptography'] = None; sys.argv[1:] = {['--carrier-listen', 'tls://127.0.0.1:0']}"
    run_it = "import runpy; runpy.run_module('telehelper.manager', run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", f"{without}; {run_it}"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("cannot listen: a tls:// listener needs the package cryptography")
    assert done.stderr.count("\n") == 1
    foreign = [*COMMAND, "--grpc-port", "0", "--carrier-port", "0", "--carrier-listen", "tcp://192.0.2.1:1"]
    done = subprocess.run(foreign, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "cannot listen" in done.stderr
    bad = subprocess.run(
        [*COMMAND, "--carrier-listen", "udp://x:1"], capture_output=True, text=True, timeout=30, check=False
    )
    assert bad.returncode == 2
    assert "begins with neither tcp:// nor tls://" in bad.stderr


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
            "--carrier-listen",
            "tls://0.0.0.0:8083",
            "--carrier-listen",
            "tcp://[::]:0",
            "--grace",
            "1",
            "--allow-loopback",
        ],
        {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "6443"},
    )
    assert (config.grpc_port, config.carrier_port, config.resolv_conf) == (1, 2, Path("/r"))
    assert config.carrier_listen == (Endpoint("tls", "0.0.0.0", 8083), Endpoint("tcp", "::", 0))
    assert ManagerConfig().carrier_listen == ()
    assert (config.api_host, config.api_port, config.grace, config.allow_loopback) == (
        "10.0.0.1",
        6443,
        1.0,
        True,
    )


def test_the_nodes_addresses_are_not_to_be_dialed_unless_that_is_allowed() -> None:
    environ = {"NODE_IPS": "10.0.0.7,fd00::7"}
    assert list(map(str, parse_config([], environ).node_addresses)) == ["10.0.0.7", "fd00::7"]
    assert parse_config(["--allow-node"], environ).node_addresses == ()
    assert parse_config([], {"NODE_IPS": ""}).node_addresses == ()
