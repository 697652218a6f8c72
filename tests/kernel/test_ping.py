"""Connects over real sockets of the loopback: taken, refused, silent, closed at once, and counted."""

from __future__ import annotations

import contextlib
import errno
import socket
import threading
from typing import TYPE_CHECKING

import pytest
from telehelper.errors import UsageError

from telemagic import ping

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def listening(says: bytes | None = None) -> Iterator[int]:
    """Listen; say something to each client, and hang up at once if that is empty."""
    kept: list[socket.socket] = []

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = server.accept()
                kept.append(client)
                if says:
                    client.sendall(says)
                elif says is not None:
                    client.close()

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()
            for client in kept:
                client.close()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


def tries(port: int, count: int = 1, rtt: float = 0.0, timeout: float = 5.0) -> list[ping.Try]:
    pauses: list[float] = []
    found = list(
        ping.ping("127.0.0.1", port, count=count, timeout=timeout, rtt=lambda: rtt, sleep=pauses.append)
    )
    assert pauses == [ping.PAUSE] * (count - 1)
    return found


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ping, "FIRST_BYTE", 0.05)


def test_a_server_that_waits_for_us() -> None:
    with listening() as port:
        found = tries(port, count=3)
    assert [one.number for one in found] == [1, 2, 3]
    for one in found:
        assert (one.state, one.reason, one.port, one.address) == ("connected", "", port, "127.0.0.1")
        assert one.connect > 0
        assert one.cluster == one.connect
        assert one.first_byte == ping.UNKNOWN


def test_a_server_that_speaks_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ping, "FIRST_BYTE", 5.0)
    with listening(b"SSH-2.0\r\n") as port:
        assert tries(port)[0].first_byte >= 0


def test_a_server_that_hangs_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ping, "FIRST_BYTE", 5.0)
    with listening(b"") as port:
        (found,) = tries(port)
    assert (found.state, found.reason) == ("connected", "the other side closed at once")


def test_nobody_listens() -> None:
    (found,) = tries(free_port(), rtt=0.002)
    assert (found.state, found.connect, found.cluster, found.tunnel) == ("refused", -1.0, -1.0, 0.002)
    assert found.reason == "refused: nothing listens on this port"


def test_nobody_answers() -> None:
    # A backlog that is full: the kernel drops further SYNs, as a firewall does.
    with socket.socket() as server, contextlib.ExitStack() as waiting:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        address = server.getsockname()
        for _ in range(4):
            sock = waiting.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(address)
        (found,) = tries(address[1], timeout=0.2)
    assert (found.state, found.reason) == ("timeout", "no answer within 0.2 s")


def test_the_clusters_part_is_what_the_tunnel_does_not_explain() -> None:
    with listening() as port:
        assert tries(port, rtt=60.0)[0].cluster == ping.UNKNOWN  # quicker than the tunnel was: nobody knows
        (found,) = tries(port, rtt=1e-9)
        assert 0 < found.cluster == found.connect - 1e-9
        assert tries(port, rtt=-1.0)[0].cluster == ping.UNKNOWN


@pytest.mark.parametrize(
    ("number", "state", "reason"),
    [
        (errno.ECONNREFUSED, "refused", "refused: nothing listens on this port"),
        (
            errno.EHOSTUNREACH,
            "unreachable",
            "unreachable: no such host, or a firewall in the cluster refuses",
        ),
        (errno.ENETUNREACH, "unreachable", "unreachable: no route to it"),
        (errno.EPERM, "forbidden", "forbidden by a firewall"),
        (errno.EADDRNOTAVAIL, "failed", "Cannot assign requested address"),
    ],
)
def test_each_refusal_has_its_words(number: int, state: str, reason: str) -> None:
    assert ping.explain(OSError(number, "x")) == (state, reason)


@pytest.mark.parametrize(
    ("count", "timeout"),
    [(0, 1.0), (-1, 1.0), (10**9, 1.0), (1, 0.0), (1, -1.0), (1, 1e9), (1, float("nan"))],
)
def test_numbers_that_make_no_sense(count: int, timeout: float) -> None:
    with pytest.raises(UsageError, match="no sense"):
        ping.check(count, timeout)
