"""What to change on the interface: the difference of two configurations, as data, and doing all of it or nothing.

:class:`NetConfig` is what that needs of the kernel: `netlink.py` is the real one, `fakes.py` has one for tests.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network
from typing import TYPE_CHECKING, Protocol

from telehelper.errors import VifError

if TYPE_CHECKING:
    from collections.abc import Callable

Network = IPv4Network | IPv6Network
Interface = IPv4Interface | IPv6Interface

# All that the interface should have: each address with 0, each route with its MTU or 0 for the interface's own.
# Addresses come first: a route may need one for its source address.
VifConfig = dict[Interface | Network, int]


def network_of(item: Interface | Network) -> Network:
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


class NetConfig(Protocol):
    """What netd asks of the kernel. ``verb``: add (an equal one of anybody is an error), change or drop.

    Changes raise OSError, but for dropping what is gone; reading raises VifError.
    """

    def set_up(self, index: int, mtu: int) -> None:
        """Set the MTU and bring the interface up. Raises VifError."""

    def delete_link(self, index: int, name: str) -> None:
        """Delete the interface if it is still there under this name."""

    def address(self, verb: str, index: int, address: Interface) -> None:
        """Add or drop an address of the interface."""

    def route(self, verb: str, index: int, network: Network, mtu: int) -> None:
        """Add, change or drop a route to the interface."""

    def addresses(self) -> list[Held]:
        """List every address of every interface, as the network it is in."""
        ...

    def routes(self) -> list[Held]:
        """List every route of every table that takes packets somewhere; of the default ones, their gateway."""
        ...


@dataclass(frozen=True, slots=True)
class Change:
    """An address or a route appears, changes its MTU or disappears. None: it is not there."""

    item: Interface | Network
    before: int | None
    after: int | None

    @property
    def verb(self) -> str:
        """What to do: add, change or drop."""
        return "add" if self.before is None else "drop" if self.after is None else "change"

    def __str__(self) -> str:
        kind = "address" if isinstance(self.item, Interface) else "route"
        return f"{self.verb} {kind} {self.item}" + (f" mtu {self.after}" if self.after else "")

    def reverse(self) -> Change:
        """Return the change that takes this one back."""
        return Change(self.item, self.after, self.before)

    def perform(self, net: NetConfig, index: int) -> None:
        """Make the change on an interface, or raise OSError."""
        if isinstance(self.item, Interface):
            net.address(self.verb, index, self.item)
        else:
            net.route(self.verb, index, self.item, self.after or 0)


def difference(before: VifConfig, after: VifConfig) -> list[Change]:
    """List the changes that lead from one to the other: adds before drops, so that nothing is without in between."""
    changes = [Change(item, before.get(item), mtu) for item, mtu in after.items() if before.get(item) != mtu]
    return changes + [Change(item, mtu, None) for item, mtu in reversed(before.items()) if item not in after]


def apply(net: NetConfig, index: int, changes: list[Change], log: Callable[[str], None]) -> None:
    """Make all changes or, if the kernel refuses one, none, as far as it lets us take them back; then VifError."""
    done: list[Change] = []
    try:
        for change in changes:
            change.perform(net, index)
            done.append(change)
    except OSError as error:
        for back in (change.reverse() for change in reversed(done)):
            try:
                back.perform(net, index)
            except OSError as second:
                log(f"cannot take back: {back}: {second.strerror}")
        what = str(changes[len(done)])
        raise VifError(f"cannot {what}: {os.strerror(error.errno or 0)}", change=what) from error
    for change in changes:
        log(str(change))
