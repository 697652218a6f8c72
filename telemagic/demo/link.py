"""Lay a cable into a demo cluster's pod: a veth pair between the caller's network namespace and the pod's.

For what must reach a pod without the product under test, such as a measurement of the bare link.
"""

from __future__ import annotations

import contextlib
import socket
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Any

from telemagic.demo.network import in_thread_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from ipaddress import IPv4Interface


def join(device: str, near: IPv4Interface, namespace: int, far: IPv4Interface) -> None:
    """Make a pair of interfaces called `device` on both sides, with an address each.

    Blocking, as :func:`telemagic.demo.network.build`.

    Raises
    ------
    OSError, NetlinkError
        The kernel refuses a step.
    """
    from pyroute2 import IPRoute

    with IPRoute() as netlink:
        netlink.link("add", ifname=device, kind="veth", peer={"ifname": device, "net_ns_fd": namespace})
        _configure(netlink, device, near)

    def configure_far() -> None:
        with IPRoute() as netlink:
            _configure(netlink, device, far)

    in_thread_of(namespace, configure_far)


@contextlib.contextmanager
def routed(address: IPv4Address, device: str) -> Iterator[None]:
    """Send what is for an address to an interface of the caller's network namespace, for a while."""
    from pyroute2 import IPRoute

    with IPRoute() as netlink:
        index = netlink.link_lookup(ifname=device)[0]
        netlink.route("add", dst=f"{address}/32", oif=index, scope="link")
    try:
        yield
    finally:
        with IPRoute() as netlink:
            netlink.route("del", dst=f"{address}/32", oif=index, scope="link")


def address_of(namespace: int, device: str = "eth0") -> IPv4Address:
    """Return the first address of an interface in another network namespace: of `eth0`, the pod's own."""
    from pyroute2 import IPRoute

    found: list[IPv4Address] = []

    def look() -> None:
        with IPRoute() as netlink:
            index = netlink.link_lookup(ifname=device)[0]
            messages = netlink.get_addr(family=socket.AF_INET, index=index)
            found.extend(IPv4Address(message.get_attr("IFA_ADDRESS")) for message in messages)

    in_thread_of(namespace, look)
    return found[0]


def _configure(netlink: Any, device: str, address: IPv4Interface) -> None:  # noqa: ANN401 - pyroute2 is untyped
    index = netlink.link_lookup(ifname=device)[0]
    netlink.addr("add", index=index, address=str(address.ip), prefixlen=address.network.prefixlen)
    netlink.link("set", index=index, state="up")
