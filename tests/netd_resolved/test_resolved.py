"""A real systemd-resolved: the cluster's names come to us by the link, all others go where they went."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

import pytest

from tests.company import COMPANY, WIKI
from tests.e2e.inside import helpers, inside, kill, wait_until
from tests.netd_resolved.resolved import PACKAGE, machine, resolvectl

pytestmark = pytest.mark.skipif(
    (os.environ.get("CI") != "true" and not (PACKAGE / "usr/bin/resolvectl").exists())
    or not shutil.which("dbus-daemon"),
    reason="systemd-resolved is not unpacked: .ci/setup test",
)


def addresses(name: str) -> set[str]:
    return {str(item[4][0]) for item in socket.getaddrinfo(name, 80, socket.AF_INET, socket.SOCK_STREAM)}


def sniffer() -> socket.socket:
    """Return a socket that sees every packet of our interface, from now on."""
    sniffing = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
    sniffing.bind(("tele0", 0))
    sniffing.setblocking(False)
    return sniffing


def seen(sniffing: socket.socket) -> bytes:
    data = b""
    try:
        while True:
            data += sniffing.recv(65536)
    except BlockingIOError:
        return data.lower()


def others_are_untouched(company_asked: list[str]) -> None:
    """Look up public and company names: the company's server is asked, and answers."""
    company_asked.clear()
    assert addresses("www.example.com") == {WIKI}
    assert addresses("wiki.corp.example") == {WIKI}
    assert addresses("wiki") == {WIKI}  # by the company's search domain
    assert {"www.example.com.", "wiki.corp.example."} <= set(company_asked)


def nothing_is_left() -> bool:
    try:
        told = resolvectl("dns") + resolvectl("domain")
    except AssertionError:  # our link went between resolvectl's list of links and its question about that one
        return False
    return "tele0" not in told and "cluster.local" not in told and not helpers()


@inside(timeout=90)
def test_names_by_the_link_and_nothing_else() -> None:
    import telemagic

    with machine() as host:
        resolv_conf = Path("/etc/resolv.conf")
        before = resolv_conf.readlink(), resolv_conf.read_text()
        others_are_untouched(host.company.asked)
        with telemagic.connect() as tele:
            assert tele.status.to_dict()["dns"] == "resolved", tele.status.to_dict()["notices"]
            assert resolv_conf.readlink() == before[0]
            sniffing = sniffer()
            for name in ("postgres", "postgres.shop", "postgres.shop.svc", "postgres.shop.svc.cluster.local"):
                (address,) = addresses(name)
                assert address.startswith("198.18."), name
            assert b"\x08postgres" in seen(sniffing)
            assert "198.18." in resolvectl("query", "postgres.shop.svc.cluster.local")
            assert "postgres.shop" in resolvectl("query", address)  # the reverse name
            # A name without a dot is tried under all search domains, the company's too; no other comes to the company.
            assert {name for name in host.company.asked if "postgres" in name} <= {"postgres.corp.example."}
            seen(sniffing)
            others_are_untouched(host.company.asked)
            assert b"example" not in seen(sniffing)
            sniffing.close()
        assert wait_until(nothing_is_left)
        assert (resolv_conf.readlink(), resolv_conf.read_text()) == before
        others_are_untouched(host.company.asked)
        with pytest.raises(socket.gaierror):
            addresses("postgres.shop")


@inside(timeout=90)
def test_killed_and_nothing_is_left() -> None:
    import telemagic

    with machine() as host:
        tele = telemagic.connect(dns="resolved")
        assert addresses("postgres.shop")
        kill(*helpers())
        assert wait_until(nothing_is_left)
        others_are_untouched(host.company.asked)
        tele.disconnect()
        with telemagic.connect() as again:
            assert again.status.to_dict()["dns"] == "resolved"
            assert addresses("postgres.shop")


@inside(timeout=90)
def test_a_restarted_systemd_resolved_is_told_again() -> None:
    import telemagic

    with machine() as host, telemagic.connect() as tele:
        host.restart()
        assert COMPANY in resolvectl("dns")
        assert wait_until(lambda: "cluster.local" in resolvectl("domain"), 20)
        assert addresses("postgres.shop")
        assert wait_until(lambda: any("set again" in line for line in tele.status.to_dict()["notices"]))
        others_are_untouched(host.company.asked)
