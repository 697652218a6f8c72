"""The far end as a process: what it serves, what it refuses, and that nothing of it is left."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from telemagic.bench import bulk_service
from telemagic.bench.echo_service import REQUEST
from telemagic.bench.udp_service import COUNT, KEY
from tests.bench import far

if TYPE_CHECKING:
    from collections.abc import Iterator

    from telemagic.bench.ports import Ports


@pytest.fixture(scope="module")
def ports() -> Iterator[Ports]:
    with far.running("--no-iperf3") as ports:
        yield ports


def dial(port: int, host: str = far.LOOPBACK) -> socket.socket:
    return socket.create_connection((host, port), timeout=far.WITHIN)


def read_all(connection: socket.socket) -> bytes:
    found = b""
    while more := connection.recv(1 << 20):
        found += more
    return found


# --- echo --------------------------------------------------------------------------------------------------------


def test_echo_answers_again_and_again(ports: Ports) -> None:
    with dial(ports.echo) as connection:
        for request in (b"?", b"x" * 64, b"!" * REQUEST):
            connection.sendall(request)
            assert connection.recv(len(request), socket.MSG_WAITALL) == request


def test_echo_serves_many_at_once_in_any_order(ports: Ports) -> None:
    connections = [dial(ports.echo) for _ in range(100)]
    for number, connection in enumerate(connections):
        connection.sendall(bytes([number]))
    assert [connection.recv(1)[0] for connection in reversed(connections)] == list(range(99, -1, -1))
    for connection in connections:
        connection.close()


def test_echo_closes_after_its_client(ports: Ports) -> None:
    with dial(ports.echo) as connection:
        connection.sendall(b"?")
        assert connection.recv(1) == b"?"
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""


def test_who_does_not_read_its_echo_is_cut_off_and_others_are_served(ports: Ports) -> None:
    with dial(ports.echo) as deaf, dial(ports.echo) as other:
        with pytest.raises(ConnectionError):
            deaf.sendall(bytes(256 << 20))  # more than all buffers between us hold
        other.sendall(b"?")
        assert other.recv(1) == b"?"


# --- sink and source ---------------------------------------------------------------------------------------------


def test_a_sink_tells_when_how_much_arrived(ports: Ports) -> None:
    with dial(ports.sink) as connection:
        connection.sendall(bytes(3_000_000))
        connection.shutdown(socket.SHUT_WR)
        line = json.loads(read_all(connection))
    assert line[-1][1] == 3_000_000
    assert line == sorted(line)


def test_a_sink_of_nothing_tells_nothing(ports: Ports) -> None:
    with dial(ports.sink) as connection:
        connection.shutdown(socket.SHUT_WR)
        assert read_all(connection) == b"[]\n"


def test_a_source_sends_as_long_as_it_is_asked_to(ports: Ports) -> None:
    with dial(ports.source) as connection:
        connection.sendall(b"0.0")
        connection.sendall(b"5\n")
        begun = time.monotonic()
        assert len(read_all(connection)) >= 1 << 20
        assert time.monotonic() - begun >= 0.04


@pytest.mark.parametrize(
    "request_",
    [b"\n", b"nonsense\n", b"0\n", b"-1\n", b"nan\n", b"inf\n", b"121\n", b"1" * 100, b"\xff\n", b""],
)
def test_a_source_refuses_nonsense(ports: Ports, request_: bytes) -> None:
    with dial(ports.source) as connection:
        connection.sendall(request_)
        with contextlib.suppress(OSError):  # it may be closed already, before it has read all of it
            connection.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(1) == b""


def test_a_source_outlives_a_client_that_goes(ports: Ports) -> None:
    with dial(ports.source) as connection:
        connection.sendall(b"100\n")
        assert connection.recv(1)
    with dial(ports.source) as connection:
        connection.sendall(b"0.01\n")
        assert read_all(connection)


def test_half_a_number_is_no_number() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(b"1")
        ours.shutdown(socket.SHUT_WR)
        bulk_service.source(theirs)
        theirs.close()
        assert ours.recv(1) == b""


# --- UDP ---------------------------------------------------------------------------------------------------------


def test_datagrams_are_counted_by_their_key(ports: Ports) -> None:
    keys = [os.urandom(KEY), os.urandom(KEY)]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender, dial(ports.udp) as asking:
        sender.connect((far.LOOPBACK, ports.udp))
        for datagram in (keys[0] + b"data", b"short", b"", keys[1], keys[0]):
            sender.send(datagram)
        deadline = time.monotonic() + far.WITHIN
        found: list[int] = []
        while found != [2, 1] and time.monotonic() < deadline:
            found = []
            for key in keys:
                asking.sendall(key)
                found += COUNT.unpack(asking.recv(COUNT.size, socket.MSG_WAITALL))
        assert found == [2, 1]


# --- its life ----------------------------------------------------------------------------------------------------


def wait_until_gone(pids: set[int]) -> set[int]:
    deadline = time.monotonic() + far.WITHIN
    while (left := far.alive(pids)) and time.monotonic() < deadline:
        time.sleep(0.01)
    return left


def test_it_ends_at_the_end_of_its_input_with_all_that_it_started() -> None:
    server = far.start()  # with iperf3, where there is one
    far.ready(server)
    pids = far.family(server.pid)
    assert len(pids) >= 4
    assert far.end(server) == 0
    assert wait_until_gone(pids) == set()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_is_left_when_it_is_killed(number: signal.Signals) -> None:
    server = far.start()
    far.ready(server)
    pids = far.family(server.pid)
    server.send_signal(number)
    server.communicate(timeout=far.WITHIN)
    assert server.returncode == (130 if number is signal.SIGINT else -number)
    assert wait_until_gone(pids) == set()


def test_it_ends_while_clients_are_busy() -> None:
    server = far.start("--no-iperf3")
    ports = far.ready(server)
    with dial(ports.source) as busy, dial(ports.echo):
        busy.sendall(b"100\n")
        assert busy.recv(1)
        assert far.end(server) == 0


def test_it_listens_on_two_addresses_with_the_same_ports() -> None:
    server = far.start("--no-iperf3", "--host", "::1")
    ports = far.ready(server)
    for host in (far.LOOPBACK, "::1"):
        with dial(ports.echo, host) as connection:
            connection.sendall(b"?")
            assert connection.recv(1) == b"?"
    assert far.end(server) == 0


@pytest.mark.parametrize(
    ("host", "status", "said"),
    [
        ("192.0.2.1", 1, "cannot listen on 192.0.2.1"),  # TEST-NET-1: nobody's
        ("localhost", 2, "does not appear to be an IPv4 or IPv6 address"),
    ],
)
def test_an_address_that_is_none_of_ours_is_refused(host: str, status: int, said: str) -> None:
    server = far.start(host=host)
    out, error = server.communicate(timeout=far.WITHIN)
    assert (server.returncode, out) == (status, "")
    assert said in error
    assert "Traceback" not in error


def test_without_a_host_it_does_not_start() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "telemagic.bench.server"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "--host" in done.stderr
