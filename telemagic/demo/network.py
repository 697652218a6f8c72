"""The network of a demo cluster: the node, and one network namespace per pod.

::

      node's namespace (the daemon's own)                 pod's namespace
      lo    node address, kubernetes service address      lo    127.0.0.1, ::1
      v1 ── route to the pod and its services ─────────── eth0  pod address, its services' addresses
      v2 ── …                                                   default route to the node
      routes that lead nowhere for services without pods

All addresses are single ones (/32 and /128), and all of this is there once for each family. The pods' way to the node
is its own address in IPv4, where ARP asks for that on any interface, and in IPv6 the fe80::1 that each of its
interfaces has. Nobody else is on these links, so no address waits for duplicate detection.

A service's address is simply one more address of its pods, and the node's route to it leads to one of them, so a
connection to it arrives without rewriting. That leaves out what kube-proxy does: a port that differs from the pod's own,
sharing load among several pods, session affinity, node ports and load balancers; a port that no service declares is open
all the same; and a pod that asks for a service it is behind itself gets itself. The API server is on the node and answers
at the service address itself.
"""

from __future__ import annotations

import functools
import itertools
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from telemagic.demo import namespaces

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from telemagic.demo.plan import Address

_FORWARDING: Final = Path("/proc/sys/net/ipv4/ip_forward")
_IPV6: Final = Path("/proc/sys/net/ipv6/conf/all")
_PING_GROUPS: Final = Path("/proc/sys/net/ipv4/ping_group_range")  # for IPv6 too
_NODAD: Final = 0x2  # IFA_F_NODAD, linux/if_addr.h
_GATEWAY_V6: Final = "fe80::1"


def has_ipv6() -> bool:
    """Whether this kernel has IPv6; that it is switched off outside does not matter to namespaces of our own."""
    return _IPV6.exists()


@dataclass(frozen=True, slots=True)
class Backend:
    """Where a service's address leads: the pods that have it, the chosen one first. Without any, nowhere."""

    pods: tuple[int, ...] = ()
    is_silent: bool = False


@dataclass(slots=True)
class _Plugged:
    """A pod's end of its cable."""

    device: str
    addresses: tuple[Address, ...]
    services: set[Address]


class NodeNetwork:
    """The node's side of the network, in the network namespace of whoever calls.

    Pods are known by the descriptors of their namespaces. Every method blocks, the first one long (pyroute2 loads in
    0.4 s): call them in threads without a running loop, one at a time. They raise OSError or NetlinkError where the
    kernel refuses a step.

    Parameters
    ----------
    addresses
        The node's; the first is its own IPv4 address. Of both families, IPv6 ones only if `has_ipv6`.
    """

    def __init__(self, addresses: Sequence[Address]) -> None:
        self._addresses = addresses
        self._plugged: dict[int, _Plugged] = {}
        self._routed: dict[Address, tuple[int | None, bool]] = {}
        self._numbers = itertools.count(1)

    def build(self) -> None:
        """Bring the node up."""
        from pyroute2 import IPRoute

        namespaces.loopback_up()
        _FORWARDING.write_text("1")
        if has_ipv6():
            _switch_on_ipv6()
            (_IPV6 / "forwarding").write_text("1")
        with IPRoute() as netlink:
            loopback = netlink.link_lookup(ifname="lo")[0]
            for address in self._addresses:
                _add_address(netlink, loopback, address)

    def plug(self, pod: int, addresses: Sequence[Address]) -> None:
        """Connect a pod, whose own addresses these are, one of each family."""
        from pyroute2 import IPRoute

        device = f"v{next(self._numbers)}"
        with IPRoute() as netlink:
            _plug(netlink, device, pod, addresses, self._addresses[0])
        self._plugged[pod] = _Plugged(device, tuple(addresses), set())

    def unplug(self, pod: int) -> None:
        """Disconnect a pod; all its routes go with the cable."""
        from pyroute2 import IPRoute

        plugged = self._plugged.pop(pod)
        self._routed = {address: to for address, to in self._routed.items() if to[0] != pod}
        with IPRoute() as netlink:
            for index in netlink.link_lookup(ifname=plugged.device):
                netlink.link("del", index=index)

    def serve(self, services: Mapping[Address, Backend]) -> None:
        """Let every service's address lead to its pods, and no other address to any."""
        from pyroute2 import IPRoute

        with IPRoute() as netlink:
            for pod, plugged in self._plugged.items():
                wanted = {address for address, backend in services.items() if pod in backend.pods}
                missing, surplus = wanted - plugged.services, plugged.services - wanted
                if missing or surplus:
                    in_thread_of(pod, functools.partial(_readdress, missing, surplus))
                    plugged.services = wanted
            for address in self._routed.keys() - services.keys():
                netlink.route("del", dst=_alone(address))
                del self._routed[address]
            for address, backend in services.items():
                pods = [pod for pod in backend.pods if pod in self._plugged]
                self._route(netlink, address, pods[0] if pods else None, is_silent=backend.is_silent)

    def _route(self, netlink: Any, address: Address, pod: int | None, *, is_silent: bool) -> None:  # noqa: ANN401 - pyroute2 is untyped
        if self._routed.get(address) == (pod, is_silent):
            return
        if address in self._routed:
            netlink.route("del", dst=_alone(address))
            del self._routed[address]
        if pod is None:
            netlink.route("add", dst=_alone(address), type="blackhole" if is_silent else "unreachable")
        else:
            plugged = self._plugged[pod]
            index = netlink.link_lookup(ifname=plugged.device)[0]
            via = next(own for own in plugged.addresses if own.version == address.version)
            netlink.route("add", dst=_alone(address), gateway=str(via), oif=index)
        self._routed[address] = (pod, is_silent)


def _plug(netlink: Any, device: str, pod: int, addresses: Sequence[Address], node: Address) -> None:  # noqa: ANN401 - pyroute2 is untyped
    netlink.link("add", ifname=device, kind="veth", peer={"ifname": "eth0", "net_ns_fd": pod})
    index = netlink.link_lookup(ifname=device)[0]
    netlink.link("set", index=index, state="up")
    if any(address.version == 6 for address in addresses):
        netlink.addr("add", index=index, address=_GATEWAY_V6, prefixlen=64, flags=_NODAD)
    in_thread_of(pod, lambda: _configure_pod(addresses, node))
    for address in addresses:
        scope = {"scope": "link"} if address.version == 4 else {}  # IPv6 routes have none
        netlink.route("add", dst=_alone(address), oif=index, **scope)


def _readdress(missing: Iterable[Address], surplus: Iterable[Address]) -> None:
    from pyroute2 import IPRoute

    with IPRoute() as netlink:
        index = netlink.link_lookup(ifname="eth0")[0]
        for address in surplus:
            netlink.addr("del", index=index, address=str(address), prefixlen=address.max_prefixlen)
        for address in missing:
            _add_address(netlink, index, address)


def _configure_pod(addresses: Iterable[Address], node: Address) -> None:
    from pyroute2 import IPRoute

    namespaces.loopback_up()
    _PING_GROUPS.write_text(f"{os.getegid()} {os.getegid()}")  # as container runtimes do: pods may ping
    if has_ipv6():
        _switch_on_ipv6()
    own = {address.version: address for address in addresses}
    with IPRoute() as netlink:
        index = netlink.link_lookup(ifname="eth0")[0]
        for address in addresses:
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
