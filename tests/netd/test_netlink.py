"""Which requests pyroute2 gets, what becomes of its answers, and that the real kernel says what we expect."""

from __future__ import annotations

import errno
import os
import socket
from ipaddress import ip_interface, ip_network
from typing import Any

import pytest
from pyroute2 import IPRoute, NetlinkError
from pyroute2.netlink.exceptions import NetlinkDumpInterrupted
from telehelper.errors import VifError
from telehelper.netd import netlink
from telehelper.netd.netlink import Netlink
from telehelper.netd.plan import Change, Held

LO = socket.if_nametoindex("lo")
TEN = ip_network("10.0.0.0/8")
OURS = {"dst": "10.0.0.0/8", "oif": 7, "table": 254, "proto": 84, "scope": 253}  # main, ours, link


class Kernel:
    """An IPRoute that writes requests down, fails with `code` if there is one, and has `tables` to read."""

    def __init__(self, *tables: list[dict[str, Any]] | Exception, code: int = 0) -> None:
        self.asked: list[tuple[str, str, dict[str, Any]]] = []
        self._tables = list(tables)
        self._code = code

    def _request(self, what: str, verb: str, values: dict[str, Any]) -> None:
        self.asked.append((what, verb, values))
        if self._code:
            raise NetlinkError(self._code)

    def link(self, verb: str, **values: object) -> None:
        self._request("link", verb, values)

    def addr(self, verb: str, **values: object) -> None:
        self._request("addr", verb, values)

    def route(self, verb: str, **values: object) -> None:
        self._request("route", verb, values)

    def get_addr(self) -> list[dict[str, Any]]:
        table = self._tables.pop(0)
        if isinstance(table, Exception):
            raise table
        return table

    get_routes = get_addr


# --- reading -----------------------------------------------------------------------------------------------------


def test_an_address_is_the_network_it_is_in() -> None:
    six = {"family": 10, "prefixlen": 64, "index": 6, "address": "2001:2::1"}
    four = {"family": 2, "prefixlen": 24, "index": 5, "address": "10.0.3.4"}
    to_a_peer = four | {"address": "10.0.9.9", "local": "10.0.3.4"}
    kernel = Kernel([four, to_a_peer, six, {"family": 2, "prefixlen": 24, "index": 7}])
    assert Netlink(kernel).addresses() == [
        Held(ip_network("10.0.3.0/24"), 5),
        Held(ip_network("10.0.3.0/24"), 5),
        Held(ip_network("2001:2::/64"), 6),
    ]


ROUTE = {"family": 2, "dst": "10.0.0.0", "dst_len": 8, "oif": 5, "type": 1, "table": 254}


def test_a_route_is_its_prefix_and_interface() -> None:
    blackhole = {"family": 2, "dst": "10.0.0.0", "dst_len": 8, "type": 6, "table": 254}
    assert Netlink(Kernel([ROUTE, blackhole, ROUTE | {"table": 1000}])).routes() == [
        Held(TEN, 5),
        Held(TEN, 0),
        Held(TEN, 5),
    ]


def test_a_default_route_holds_its_gateways_address() -> None:
    default = ROUTE | {"dst": None, "dst_len": 0, "gateway": "172.31.1.1"}
    six = {"family": 10, "dst": None, "dst_len": 0, "oif": 5, "type": 1, "table": 254, "gateway": "fe80::1"}
    assert Netlink(Kernel([default, six])).routes() == [
        Held(ip_network("172.31.1.1/32"), 5),
        Held(ip_network("fe80::1/128"), 5),
    ]


@pytest.mark.parametrize(
    "change",
    [{"dst": None, "dst_len": 0}, {"table": 255}, {"type": 3}, {"family": 28, "dst": [{"label": 1}]}],
)
def test_routes_that_capture_nothing_are_skipped(change: dict[str, Any]) -> None:
    assert Netlink(Kernel([ROUTE | change])).routes() == []


def test_a_table_that_changed_meanwhile_is_read_again() -> None:
    assert Netlink(Kernel(NetlinkDumpInterrupted(), [ROUTE])).routes() == [Held(TEN, 5)]


def test_but_not_for_ever() -> None:
    kernel = Kernel(*[NetlinkDumpInterrupted() for _ in range(netlink.READ_TRIES)])
    with pytest.raises(VifError, match="too fast"):
        Netlink(kernel).routes()


def test_a_table_that_cannot_be_read_is_said() -> None:
    with pytest.raises(VifError, match="cannot read the machine's routes: Operation not permitted"):
        Netlink(Kernel(NetlinkError(errno.EPERM))).addresses()


# --- changing ----------------------------------------------------------------------------------------------------


def test_bringing_up_sets_the_mtu() -> None:
    kernel = Kernel()
    Netlink(kernel).set_up(7, 9000)
    assert kernel.asked == [("link", "set", {"index": 7, "mtu": 9000, "txqlen": 10_000, "state": "up"})]
    with pytest.raises(VifError, match="cannot bring the interface up: No such device"):
        Netlink(Kernel(code=errno.ENODEV)).set_up(7, 9000)


def add(text: str) -> Change:
    return Change("add", ip_network(text))


def test_addresses() -> None:
    kernel = Kernel()
    Netlink(kernel).change(7, Change("add", ip_interface("198.19.240.1/32")))
    Netlink(kernel).change(7, Change("drop", ip_interface("2001:2::1/128")))
    assert kernel.asked == [
        ("addr", "add", {"index": 7, "address": "198.19.240.1", "prefixlen": 32, "flags": 0}),
        ("addr", "del", {"index": 7, "address": "2001:2::1", "prefixlen": 128, "flags": 2}),  # IFA_F_NODAD
    ]


def test_routes() -> None:
    kernel = Kernel()
    net = Netlink(kernel)
    for change in (add("10.0.0.0/8"), Change("drop", TEN), add("fd00::/64")):
        net.change(7, change)
    assert kernel.asked == [
        ("route", "add", OURS),
        ("route", "del", OURS),
        ("route", "add", OURS | {"dst": "fd00::/64", "scope": 0}),  # IPv6 knows no scope
    ]


def test_a_refusal_says_what_of() -> None:
    with pytest.raises(VifError, match=r"cannot add route 10.0.0.0/8: File exists"):
        Netlink(Kernel(code=errno.EEXIST)).change(7, add("10.0.0.0/8"))


@pytest.mark.parametrize("code", netlink.GONE)
def test_dropping_what_is_gone_is_done(code: int) -> None:
    Netlink(Kernel(code=code)).change(7, Change("drop", TEN))
    with pytest.raises(VifError, match=os.strerror(code)):
        Netlink(Kernel(code=code)).change(7, add("10.0.0.0/8"))


def test_other_failures_of_dropping_are_errors() -> None:
    with pytest.raises(VifError, match=r"cannot drop address 198.19.240.1/32: Operation not permitted"):
        Netlink(Kernel(code=errno.EPERM)).change(7, Change("drop", ip_interface("198.19.240.1/32")))


def test_a_link_is_deleted_by_index_and_name() -> None:
    kernel = Kernel(code=errno.EOPNOTSUPP)
    Netlink(kernel).delete_link(LO, "tele0")  # another interface has the index now
    Netlink(kernel).delete_link(2**31 - 1, "tele0")  # nobody has
    with pytest.raises(VifError, match=os.strerror(errno.EOPNOTSUPP)):
        Netlink(kernel).delete_link(LO, "lo")
    assert kernel.asked == [("link", "del", {"index": LO})]


# --- the real one ------------------------------------------------------------------------------------------------


def test_the_real_kernel_can_be_read() -> None:
    with IPRoute() as ip:
        assert isinstance(Netlink(ip).routes(), list)
        assert isinstance(Netlink(ip).addresses(), list)
