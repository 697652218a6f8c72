"""What to change on the interface: the difference of two configurations, as data, and doing all of it or nothing.

What that needs of the kernel is in `netlink.py`; `fakes.py` has a stand-in for tests.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network
from typing import TYPE_CHECKING, NamedTuple

from telehelper.errors import VifError

if TYPE_CHECKING:
    from telehelper.netd.netlink import Netlink

Network = IPv4Network | IPv6Network
Interface = IPv4Interface | IPv6Interface
Item = Interface | Network  # an address, or a route
Log = Callable[[str], None]  # takes a line for people

# All addresses and routes that the interface should have, each once. Addresses come first: a route may need one.
VifConfig = tuple[Item, ...]


def network_of(item: Item) -> Network:
    """Return the prefix whose packets an address or a route takes."""
    return item.network if isinstance(item, Interface) else item


@dataclass(frozen=True, slots=True)
class Held:
    """A prefix that an interface has: by its address, or by a route. ``index`` 0: a route without one interface."""

    network: Network
    index: int


def device_name(index: int) -> str:
    """Name of an interface, for messages to people."""
    try:
        return socket.if_indextoname(index)
    except OSError:
        return "another route"


class Change(NamedTuple):
    """An address or a route appears or disappears. ``verb``: add or drop."""

    verb: str
    item: Item

    def __str__(self) -> str:
        kind = "address" if isinstance(self.item, Interface) else "route"
        return f"{self.verb} {kind} {self.item}"


def difference(before: VifConfig, after: VifConfig) -> list[Change]:
    """List the changes that lead from one to the other: adds before drops, so that nothing is without in between."""
    old, new = set(before), set(after)
    adds = [Change("add", item) for item in after if item not in old]
    return adds + [Change("drop", item) for item in reversed(before) if item not in new]


def apply(net: Netlink, index: int, changes: list[Change], log: Log) -> None:
    """Make all changes or, if the kernel refuses one, none, as far as it lets us take them back; then VifError."""
    done: list[Change] = []
    try:
        for change in changes:
            net.change(index, change)
            done.append(change)
    except VifError:
        for change in reversed(done):
            try:
                net.change(index, Change("drop" if change.verb == "add" else "add", change.item))
            except VifError as second:
                log(f"cannot take back: {second}")
        raise
    for change in changes:
        log(str(change))
