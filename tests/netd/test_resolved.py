"""What systemd-resolved is told, on a recording bus, and D-Bus itself against a server of a few lines.

The real systemd-resolved is in `tests/netd_resolved`.
"""

from __future__ import annotations

import socket
import threading
from functools import partial
from typing import TYPE_CHECKING

import pytest
from telehelper.errors import ResolverError
from telehelper.messages import SetDns
from telehelper.netd.resolved import UNKNOWN, Resolved, by_bus, leads_here

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ORDER = SetDns(
    "resolved", "198.19.240.2", (), domains=("shop.svc.cluster.local", "cluster.local", "~svc", "~shop")
)


class RecordingBus:
    """Writes calls down, and answers those in `refused` with an error."""

    def __init__(self, **refused: str) -> None:
        self.calls: list[tuple[str, str, tuple[object, ...]]] = []
        self.refused = refused

    def __call__(self, *calls: tuple[str, str, tuple[object, ...]]) -> Iterator[str]:
        for call in calls:
            self.calls.append(call)
            yield self.refused.get(call[0], "")


def test_everything_is_told_of_one_link() -> None:
    bus = RecordingBus()
    Resolved(bus).point(7, ORDER)
    assert bus.calls == [
        ("SetLinkDNS", "ia(iay)", (7, [(2, bytes([198, 19, 240, 2]))])),
        (
            "SetLinkDomains",
            "ia(sb)",
            (7, [("shop.svc.cluster.local", False), ("cluster.local", False), ("svc", True), ("shop", True)]),
        ),
        ("SetLinkDefaultRoute", "ib", (7, False)),
        ("SetLinkLLMNR", "is", (7, "no")),
        ("SetLinkMulticastDNS", "is", (7, "no")),
        ("SetLinkDNSOverTLS", "is", (7, "no")),
        ("SetLinkDNSSEC", "is", (7, "no")),
        ("FlushCaches", "", ()),
    ]


def test_an_ipv6_nameserver() -> None:
    bus = RecordingBus()
    Resolved(bus).point(7, SetDns("resolved", "fd12::1", (), domains=("cluster.local",)))
    assert bus.calls[0][2] == (7, [(10, b"\xfd\x12" + bytes(13) + b"\1")])


def test_an_older_one_does_without_what_it_does_not_know() -> None:
    bus = RecordingBus(SetLinkDefaultRoute=UNKNOWN, SetLinkDNSOverTLS=UNKNOWN)
    Resolved(bus).point(7, ORDER)
    assert bus.calls[-1][0] == "FlushCaches"


@pytest.mark.parametrize(
    ("method", "error"),
    [
        ("SetLinkDNS", UNKNOWN),
        ("SetLinkDefaultRoute", "org.freedesktop.DBus.Error.AccessDenied"),
        ("SetLinkDomains", "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired"),
    ],
)
def test_a_refusal_is_told(method: str, error: str) -> None:
    bus = RecordingBus(**{method: error})
    with pytest.raises(ResolverError, match=f"refused {method}: {error}"):
        Resolved(bus).point(7, ORDER)


def test_undo_reverts_the_link_once() -> None:
    bus = RecordingBus()
    resolved = Resolved(bus)
    resolved.revert()
    assert bus.calls == []
    resolved.point(7, ORDER)
    resolved.revert()
    resolved.revert()
    assert [call[0] for call in bus.calls[-2:]] == ["RevertLink", "FlushCaches"]
    assert [call[0] for call in bus.calls].count("RevertLink") == 1


def test_undo_that_fails_says_so() -> None:
    bus = RecordingBus(RevertLink="org.freedesktop.resolve1.NoSuchLink")
    resolved = Resolved(bus)
    resolved.point(7, ORDER)
    with pytest.raises(ResolverError, match="NoSuchLink"):
        resolved.revert()


def test_no_bus_at_all(tmp_path: Path) -> None:
    with pytest.raises(ResolverError, match="cannot be told") as caught:
        Resolved(partial(by_bus, path=str(tmp_path / "nobody"))).point(7, ORDER)
    assert "--dns resolvconf" in caught.value.hint


def test_a_bus_that_hangs_up(tmp_path: Path) -> None:
    path = tmp_path / "bus"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()

        def hang_up() -> None:
            connection, _ = server.accept()
            connection.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        with pytest.raises(ResolverError, match="cannot be told"):
            Resolved(partial(by_bus, path=str(path))).point(7, ORDER)
        thread.join()


@pytest.mark.parametrize(
    ("text", "leads"),
    [
        ("nameserver 127.0.0.53\noptions edns0 trust-ad\nsearch .\n", True),
        ("nameserver 127.0.0.53\nnameserver 10.0.0.1\n", False),
        ("nameserver 10.0.0.1\n", False),
        ("nameserver\n", False),
        ("# nameserver 127.0.0.53\n", False),
        ("", False),
    ],
)
def test_where_a_file_leads(text: str, leads: bool) -> None:
    assert leads_here(text) is leads
