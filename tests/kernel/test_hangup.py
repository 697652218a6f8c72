"""Connections from some addresses end at once, with an error; all others stay."""

from __future__ import annotations

import os
import socket
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from telemagic.hangup import hang_up

if TYPE_CHECKING:
    from collections.abc import Iterator

OURS, OTHER = "127.7.7.1", "127.7.7.2"


@pytest.fixture
def far() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def connected(far: socket.socket, source: str) -> socket.socket:
    return socket.create_connection(far.getsockname(), source_address=(source, 0))


def test_whoever_waits_is_told(far: socket.socket) -> None:
    said: list[object] = []

    def wait(sock: socket.socket) -> None:
        try:
            said.append(sock.recv(1))
        except ConnectionError as error:  # reset, or a broken pipe
            said.append(error)

    with connected(far, OURS) as sock:
        thread = threading.Thread(target=wait, args=(sock,))
        thread.start()
        stat = Path(f"/proc/self/task/{thread.native_id}/stat")
        while stat.read_text().rpartition(")")[2].split()[0] != "S":
            time.sleep(0.001)
        assert hang_up({OURS}) == 1
        thread.join(10)
    assert len(said) == 1
    assert isinstance(said[0], ConnectionError) or said == [
        b""
    ]  # an end, where the kernel refuses under a waiting thread


def test_what_comes_from_elsewhere_stays(far: socket.socket) -> None:
    with connected(far, OTHER) as sock, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        datagrams.bind((OURS, 0))
        assert hang_up({OURS}) == 0
        sock.sendall(b"x")
        assert hang_up(frozenset()) == 0


def test_no_descriptor_is_left_and_none_is_closed(far: socket.socket) -> None:
    with connected(far, OURS) as sock:
        before = sorted(os.listdir("/proc/self/fd"))
        hang_up({OURS})
        assert sorted(os.listdir("/proc/self/fd")) == before
        with pytest.raises(OSError):  # noqa: PT011  # which one is the kernel's choice
            sock.sendall(b"x" * 10)


def test_sockets_stay_as_they_are_whatever_the_default_timeout(far: socket.socket) -> None:
    # It is global, and Python applies it to each socket object that is made, of a foreign descriptor too.
    with connected(far, OTHER) as sock, socket.socket(socket.AF_UNIX) as other:
        sock.settimeout(None)
        socket.setdefaulttimeout(5)
        try:
            assert hang_up({OURS}) == 0
        finally:
            socket.setdefaulttimeout(None)
        assert os.get_blocking(sock.fileno())
        assert os.get_blocking(other.fileno())


def test_a_socket_of_both_families_is_known_by_its_ipv4_address() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.socket(socket.AF_INET6) as sock,
    ):
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        try:
            sock.bind((f"::ffff:{OURS}", 0))
        except OSError:
            pytest.skip("no IPv6 here")
        sock.connect((f"::ffff:{server.getsockname()[0]}", server.getsockname()[1]))
        assert hang_up({OTHER}) == 0
        assert hang_up({OURS}) == 1


def test_an_address_that_is_not_known_is_nobody_s(far: socket.socket) -> None:
    one, other = socket.socketpair()
    with one, other, connected(far, OTHER) as sock:
        assert hang_up({""}) == 0
        one.sendall(b"x")
        sock.sendall(b"x")
