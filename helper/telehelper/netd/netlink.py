"""The few changes netd makes, by pyroute2 (rtnetlink(7)), in this process's network namespace."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from ipaddress import ip_interface, ip_network
from typing import Any, Final

from pyroute2 import IPRoute, NetlinkError
from pyroute2.netlink.exceptions import NetlinkDumpInterrupted

from telehelper.errors import VifError
from telehelper.netd.plan import Change, Held, Interface, device_name

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


@contextmanager
def _doing(what: str, harmless: tuple[int, ...] = ()) -> Iterator[None]:
    try:
        yield
    except NetlinkError as error:
        if error.code not in harmless:
            raise VifError(f"cannot {what}: {os.strerror(error.code)}") from error


class Netlink:
    """What netd asks of the kernel. Raises VifError."""

    def __init__(self, ip: IPRoute) -> None:
        self._ip = ip

    def set_up(self, index: int, mtu: int) -> None:
        """Set the MTU and bring the interface up."""
        with _doing("bring the interface up"):
            self._ip.link("set", index=index, mtu=mtu, txqlen=QUEUE_LENGTH, state="up")

    def delete_link(self, index: int, name: str) -> None:
        """Delete the interface if it is still there under this name."""
        if device_name(index) == name:
            with _doing(f"delete {name}", GONE):
                self._ip.link("del", index=index)

    def change(self, index: int, change: Change) -> None:
        """Add an address or a route (an equal one of anybody is an error), or drop one that may be gone already."""
        verb, item = change
        if isinstance(item, Interface):  # without duplicate detection: nobody else is on a TUN
            host = {"index": index, "address": str(item.ip), "prefixlen": item.network.prefixlen}
            request = partial(self._ip.addr, **host, flags=IFA_F_NODAD if item.version == 6 else 0)
        else:
            scope = SCOPE_LINK if item.version == 4 else SCOPE_UNIVERSE  # IPv6 routes have no scope
            what = {"dst": str(item), "oif": index, "table": TABLE_MAIN, "proto": ROUTE_PROTO}
            request = partial(self._ip.route, **what, scope=scope)
        with _doing(str(change), GONE if verb == "drop" else ()):
            request("del" if verb == "drop" else verb)

    def addresses(self) -> list[Held]:
        """List every address of every interface, as the network it is in."""
        return [
            Held(ip_interface(f"{host}/{message['prefixlen']}").network, message["index"])
            for message in _read(self._ip.get_addr)
            if (host := message.get("local") or message.get("address"))
        ]

    def routes(self) -> list[Held]:
        """List every route of every table that takes packets somewhere; of a default one, its gateway."""
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
        with _doing("read the machine's routes"), suppress(NetlinkDumpInterrupted):
            return [message for message in dump() if message["family"] in (socket.AF_INET, socket.AF_INET6)]
    raise VifError("the machine's routes change too fast to be read", hint="try again")
