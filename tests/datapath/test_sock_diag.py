"""Real sockets, looked up in the real kernel."""

from __future__ import annotations

import os
import socket
import time
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING, Final

import pytest
from telehelper.core.frames import Proto
from telehelper.datapath import sock_diag
from telehelper.datapath.sock_diag import SockDiag, Socket

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE, HERE6 = IPv4Address("127.0.0.1"), IPv6Address("::1")
UNDER: Final = 0.0005  # seconds for a look-up, on a machine that is busy with others; alone it takes 7 µs


@pytest.fixture
def diag() -> Iterator[SockDiag]:
    found = SockDiag()
    yield found
    found.close()


def inode(sock: socket.socket) -> int:
    return os.fstat(sock.fileno()).st_ino


def ours(sock: socket.socket) -> Socket:
    return Socket(os.geteuid(), inode(sock))


def port(sock: socket.socket) -> int:
    number: int = sock.getsockname()[1]
    return number


def test_it_works_here(diag: SockDiag) -> None:
    assert diag.works()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_each_end_of_a_tcp_connection(diag: SockDiag, host: str) -> None:
    family, address = (socket.AF_INET6, HERE6) if ":" in host else (socket.AF_INET, HERE)
    with (
        socket.create_server((host, 0), family=family) as server,
        socket.create_connection((host, port(server))) as client,
    ):
        accepted, _ = server.accept()
        with accepted:
            assert diag.find(Proto.TCP, address, port(client), address, port(server)) == ours(client)
            assert diag.find(Proto.TCP, address, port(server), address, port(client)) == ours(accepted)


def test_a_dual_stack_socket_that_speaks_ipv4(diag: SockDiag) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_INET6) as client:
        client.connect(("::ffff:127.0.0.1", port(server)))
        assert diag.find(Proto.TCP, HERE, port(client), HERE, port(server)) == ours(client)


def test_a_connection_that_waits_for_its_answer(diag: SockDiag) -> None:
    with (
        socket.create_server(("127.0.0.1", 0), backlog=0) as server,
        socket.create_connection(("127.0.0.1", port(server))),
        socket.socket() as waiting,
    ):
        waiting.setblocking(False)
        waiting.connect_ex(("127.0.0.1", port(server)))  # the queue is full: it stays in SYN-SENT
        assert diag.find(Proto.TCP, HERE, port(waiting), HERE, port(server)) == ours(waiting)


def test_a_listener_is_not_who_called(diag: SockDiag) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert diag.find(Proto.TCP, HERE, port(server), HERE, 1) is None


def test_a_connection_in_time_wait_is_nobodys_and_not_roots(diag: SockDiag) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(("127.0.0.1", port(server)))
        accepted, _ = server.accept()
        own = port(client)
        client.close()
        accepted.close()
        assert diag.find(Proto.TCP, HERE, own, HERE, port(server)) is None


def test_a_connection_that_was_closed_and_still_sends_is_nobodys(diag: SockDiag) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(("127.0.0.1", port(server)))
        accepted, _ = server.accept()
        with accepted:
            own = port(client)
            client.close()  # FIN-WAIT-2: the kernel has it on, without a program
            assert diag.find(Proto.TCP, HERE, own, HERE, port(server)) is None


@pytest.mark.parametrize("local", ["127.0.0.1", "0.0.0.0", ""])
def test_an_unconnected_udp_socket(diag: SockDiag, local: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((local, 0))
        assert diag.find(Proto.UDP, HERE, port(sock), ip_address("198.18.0.1"), 53) == ours(sock)


def test_a_connected_udp_socket_wins_over_one_that_takes_all(diag: SockDiag) -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as everything,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as connected,
    ):
        for sock in (everything, connected):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        everything.bind(("0.0.0.0", 0))
        connected.bind(("127.0.0.1", port(everything)))
        connected.connect(("127.0.0.1", 9))
        assert diag.find(Proto.UDP, HERE, port(connected), HERE, 9) == ours(connected)
        assert diag.find(Proto.UDP, HERE, port(connected), HERE, 10) == ours(everything)


@pytest.mark.parametrize("target", ["::1", "::ffff:127.0.0.1"])
def test_udp_over_ipv6_sockets(diag: SockDiag, target: str) -> None:
    address = HERE6 if target == "::1" else HERE
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"", (target, 9))
        assert diag.find(Proto.UDP, address, port(sock), address, 9) == ours(sock)


def test_what_is_not_there_is_not_known(diag: SockDiag) -> None:
    assert diag.find(Proto.TCP, HERE, 1, HERE, 2) is None
    assert diag.find(Proto.UDP, HERE, 1, HERE, 2) is None
    assert diag.find(Proto.ICMP, HERE, 1, HERE, 0) is None


def test_after_an_error_the_next_answer_is_not_taken_for_it(diag: SockDiag) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        for _ in range(3):
            assert diag.find(Proto.UDP, HERE, 1, HERE, 2) is None
            assert diag.find(Proto.UDP, HERE, port(sock), HERE, 9) == ours(sock)


def test_a_stale_answer_is_skipped(diag: SockDiag) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        assert diag._netlink is not None
        diag._netlink.send(_request_of_nobody())  # its answer stays in the queue
        assert diag.find(Proto.UDP, HERE, port(sock), HERE, 9) == ours(sock)


def _request_of_nobody() -> bytes:
    """Return a request with the number of no later one."""
    body = sock_diag._REQUEST.pack(
        socket.AF_INET, Proto.UDP, 0, 0, b"\0\1", b"\0\2", bytes(4), bytes(4), 0, sock_diag.NO_COOKIE
    )
    return sock_diag._HEADER.pack(sock_diag._SIZE, sock_diag.SOCK_DIAG_BY_FAMILY, 1, 0xFFFF0000, 0) + body


def test_without_sock_diag_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sock_diag, "NETLINK_SOCK_DIAG", 31)  # a protocol that no kernel has
    without = SockDiag()
    assert not without.works()
    assert without.find(Proto.UDP, HERE, 1, HERE, 2) is None
    without.close()


def test_closed_it_knows_nothing_any_more(diag: SockDiag) -> None:
    diag.close()
    assert not diag.works()
    diag.close()


def test_another_users_socket_shows_its_owner(diag: SockDiag) -> None:
    if os.geteuid():
        pytest.skip("only root can give a socket away")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        os.fchown(sock.fileno(), 54321, -1)
        sock.bind(("127.0.0.1", 0))
        assert diag.find(Proto.UDP, HERE, port(sock), HERE, 9) == Socket(54321, inode(sock))


def test_a_look_up_among_a_thousand_connections_takes_microseconds(diag: SockDiag) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=600) as server:
        clients = [socket.create_connection(("127.0.0.1", port(server))) for _ in range(500)]
        wanted = [(port(client), ours(client)) for client in clients]
        best = min(_seconds_each(diag, wanted, port(server)) for _ in range(3))
        for client in clients:
            client.close()
    assert best < UNDER


def _seconds_each(diag: SockDiag, wanted: list[tuple[int, Socket]], there: int) -> float:
    began = time.perf_counter()
    for sport, expected in wanted:
        assert diag.find(Proto.TCP, HERE, sport, HERE, there) == expected
    return (time.perf_counter() - began) / len(wanted)
