"""The few changes netd makes, by pyroute2 (rtnetlink(7)), in this process's network namespace."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import contextmanager
from ipaddress import ip_interface, ip_network
from typing import TYPE_CHECKING, Any, Final

from pyroute2 import IPRoute, NetlinkError
from pyroute2.netlink.exceptions import NetlinkDumpInterrupted

from telehelper.errors import VifError
from telehelper.netd.plan import Held, device_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from telehelper.netd.plan import Interface, Network

# linux/rtnetlink.h, linux/if_addr.h
TABLE_MAIN, TABLE_LOCAL, SCOPE_LINK, SCOPE_UNIVERSE = 254, 255, 253, 0
CAPTURING_TYPES: Final = (1, 6, 7, 8)  # unicast, blackhole, unreachable, prohibit: where packets go
IFA_F_NODAD: Final = 2

# Packets that wait for the data plane. With the kernel's 500 a few dozen uploads overflow it, and each packet lost costs
# a whole window; what can wait is bounded by the flows' windows anyway.
QUEUE_LENGTH: Final = 10_000
ROUTE_PROTO: Final = 84  # marks our routes in `ip route`; unassigned in /etc/iproute2/rt_protos
# What a needless removal answers:
GONE: Final = (errno.ENODEV, errno.ESRCH, errno.EADDRNOTAVAIL, errno.ENOENT)
READ_TRIES: Final = 6  # the tables may change while they are read: then the list is inconsistent
_VERBS: Final = {"add": "add", "change": "change", "drop": "del"}  # ours: pyroute2's


@contextmanager
def _changing(verb: str) -> Iterator[None]:
    try:
        yield
    except NetlinkError as error:
        if verb != "drop" or error.code not in GONE:
            raise OSError(error.code, os.strerror(error.code)) from error


class Netlink:
    """The real :class:`~telehelper.netd.plan.NetConfig`."""

    def __init__(self, ip: IPRoute) -> None:
        self._ip = ip

    def set_up(self, index: int, mtu: int) -> None:
        """Set the MTU and bring the interface up."""
        try:
            self._ip.link("set", index=index, mtu=mtu, txqlen=QUEUE_LENGTH, state="up")
        except NetlinkError as error:
            raise VifError(f"cannot bring the interface up: {os.strerror(error.code)}") from error

    def delete_link(self, index: int, name: str) -> None:
        """Delete the interface if it is still there under this name."""
        if device_name(index) == name:
            with _changing("drop"):
                self._ip.link("del", index=index)

    def address(self, verb: str, index: int, address: Interface) -> None:
        """Add or drop an address; without duplicate detection, nobody else is on a TUN."""
        flags = {} if address.version == 4 else {"flags": IFA_F_NODAD}
        host, prefix = str(address.ip), address.network.prefixlen
        with _changing(verb):
            self._ip.addr(_VERBS[verb], index=index, address=host, prefixlen=prefix, **flags)

    def route(self, verb: str, index: int, network: Network, mtu: int) -> None:
        """Add, change or drop a route to the interface."""
        scope = SCOPE_LINK if network.version == 4 else SCOPE_UNIVERSE  # IPv6 routes have no scope
        what = {"dst": str(network), "oif": index, "table": TABLE_MAIN, "proto": ROUTE_PROTO, "scope": scope}
        metrics = {"metrics": {"mtu": mtu}} if mtu else {}
        with _changing(verb):
            self._ip.route(_VERBS[verb], **what, **metrics)

    def addresses(self) -> list[Held]:
        """Every address of every interface, as the network it is in."""
        return [
            Held(ip_interface(f"{host}/{message['prefixlen']}").network, message["index"])
            for message in _read(self._ip.get_addr)
            if (host := message.get("local") or message.get("address"))
        ]

    def routes(self) -> list[Held]:
        """Every route of every table that takes packets somewhere; of a default one, its gateway."""
        return [
            Held(ip_network(to, strict=False), message.get("oif") or 0)
            for message in _read(self._ip.get_routes)
            if message.get("table") != TABLE_LOCAL
            and message["type"] in CAPTURING_TYPES
            and (
                to := f"{dst}/{message['dst_len']}" if (dst := message.get("dst")) else message.get("gateway")
            )
        ]


def _read(dump: Callable[[], Iterable[Any]]) -> list[Any]:
    for _ in range(READ_TRIES):
        try:
            return [message for message in dump() if message["family"] in (socket.AF_INET, socket.AF_INET6)]
        except NetlinkDumpInterrupted:
            continue
        except NetlinkError as error:
            raise VifError(f"cannot read the machine's routes: {os.strerror(error.code)}") from error
    raise VifError("the machine's routes change too fast to be read", hint="try again")
