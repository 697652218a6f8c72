"""The network of a demo cluster: the node, and one network namespace per pod.

::

      node's namespace (the daemon's own)                 pod's namespace
      lo    node address, kubernetes service address      lo    127.0.0.1, ::1
      v1 ── route to the pod and its services ─────────── eth0  pod address, its services' addresses
      v2 ── …                                                   default route to the node
      blackhole routes for services that never answer

All addresses are single ones (/32 and /128), and all of this is there once for each family. The pods' way to the node
is its own address in IPv4, where ARP asks for that on any interface, and in IPv6 the fe80::1 that each of its
interfaces has. Nobody else is on these links, so no address waits for duplicate detection.

A service's address is simply one more address of its only pod, so a connection to it arrives without rewriting. That
leaves out what kube-proxy does: a port that differs from the pod's own, several pods behind one service, session
affinity, node ports and load balancers; a pod that is not ready still gets its service's traffic; and a port that no
service declares is open all the same. The API server is on the node and answers at the service address itself.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from telemagic.demo import namespaces

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from telemagic.demo.plan import Address

_FORWARDING: Final = Path("/proc/sys/net/ipv4/ip_forward")
_IPV6: Final = Path("/proc/sys/net/ipv6/conf/all")
_PING_GROUPS: Final = Path("/proc/sys/net/ipv4/ping_group_range")  # for IPv6 too
_NODAD: Final = 0x2  # IFA_F_NODAD, linux/if_addr.h
_GATEWAY_V6: Final = "fe80::1"


@dataclass(frozen=True, slots=True)
class PodNetwork:
    """What a pod's network needs: a namespace to configure and the addresses to give it.

    The pod's own come first in their family.
    """

    namespace: int
    addresses: Sequence[Address]


def has_ipv6() -> bool:
    """Whether this kernel has IPv6; that it is switched off outside does not matter to namespaces of our own."""
    return _IPV6.exists()


def build(
    node_addresses: Sequence[Address], pods: Iterable[PodNetwork], blackholes: Iterable[Address]
) -> None:
    """Connect the pods with the caller's network namespace, which becomes the node's.

    Blocking, and slow at first (pyroute2 loads in 0.4 s): call it in a thread without a running loop.

    Parameters
    ----------
    node_addresses
        The first is the node's own IPv4 address.
    pods, blackholes
        May have addresses of both families, IPv6 ones only if `has_ipv6`.

    Raises
    ------
    OSError, NetlinkError
        The kernel refuses a step.
    """
    from pyroute2 import IPRoute

    namespaces.loopback_up()
    _FORWARDING.write_text("1")
    if has_ipv6():
        _switch_on_ipv6()
        (_IPV6 / "forwarding").write_text("1")
    with IPRoute() as netlink:
        loopback = netlink.link_lookup(ifname="lo")[0]
        for address in node_addresses:
            _add_address(netlink, loopback, address)
        for address in blackholes:
            netlink.route("add", dst=_alone(address), type="blackhole")
        for number, pod in enumerate(pods, 1):
            _plug(netlink, f"v{number}", pod, node_addresses[0])


def _plug(netlink: Any, device: str, pod: PodNetwork, node: Address) -> None:  # noqa: ANN401 - pyroute2 is untyped
    netlink.link("add", ifname=device, kind="veth", peer={"ifname": "eth0", "net_ns_fd": pod.namespace})
    index = netlink.link_lookup(ifname=device)[0]
    netlink.link("set", index=index, state="up")
    if any(address.version == 6 for address in pod.addresses):
        netlink.addr("add", index=index, address=_GATEWAY_V6, prefixlen=64, flags=_NODAD)
    in_thread_of(pod.namespace, lambda: _configure_pod(pod.addresses, node))
    own: dict[int, Address] = {}
    for address in pod.addresses:
        if address.version in own:
            netlink.route("add", dst=_alone(address), gateway=str(own[address.version]), oif=index)
        else:
            own[address.version] = address
            scope = {"scope": "link"} if address.version == 4 else {}  # IPv6 routes have none
            netlink.route("add", dst=_alone(address), oif=index, **scope)


def _configure_pod(addresses: Iterable[Address], node: Address) -> None:
    from pyroute2 import IPRoute

    namespaces.loopback_up()
    _PING_GROUPS.write_text(f"{os.getegid()} {os.getegid()}")  # as container runtimes do: pods may ping
    if has_ipv6():
        _switch_on_ipv6()
    own: dict[int, Address] = {}
    with IPRoute() as netlink:
        index = netlink.link_lookup(ifname="eth0")[0]
        for address in addresses:
            own.setdefault(address.version, address)
            _add_address(netlink, index, address)
        netlink.link("set", index=index, state="up")
        netlink.route("add", dst=_alone(node), oif=index, scope="link")
        netlink.route("add", dst="0.0.0.0/0", gateway=str(node), oif=index, prefsrc=str(own[4]))
        if 6 in own:
            netlink.route("add", dst="::/0", gateway=_GATEWAY_V6, oif=index, prefsrc=str(own[6]))


def _alone(address: Address) -> str:
    return f"{address}/{address.max_prefixlen}"


def _add_address(netlink: Any, index: int, address: Address) -> None:  # noqa: ANN401 - pyroute2 is untyped
    flags = {"flags": _NODAD} if address.version == 6 else {}
    netlink.addr("add", index=index, address=str(address), prefixlen=address.max_prefixlen, **flags)


def _switch_on_ipv6() -> None:
    """Give this network namespace IPv6, also where new ones start without, and let no address be tentative."""
    for scope in (_IPV6, _IPV6.with_name("default")):
        (scope / "disable_ipv6").write_text("0")
        (scope / "accept_dad").write_text("0")


def in_thread_of(namespace: int, work: Callable[[], None]) -> None:
    """Work inside another network namespace; pyroute2 may make its sockets late, so a whole thread goes there."""
    from pyroute2.netlink.exceptions import NetlinkError

    failed: list[Exception] = []

    def run() -> None:
        try:
            namespaces.setns(namespace, namespaces.NETWORK)
            work()
        except (OSError, NetlinkError) as error:
            failed.append(error)

    thread = threading.Thread(target=run, name="pod-network")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
