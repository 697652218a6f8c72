"""The network of a demo cluster: the node, and one network namespace per pod.

::

      node's namespace (the daemon's own)                 pod's namespace
      lo    node address, kubernetes service address      lo    127.0.0.1
      v1 ── route to the pod and its services ─────────── eth0  pod address, its services' addresses, all /32
      v2 ── …                                                   default route through the node address
      a blackhole route for the service that never answers

A service's address is simply one more address of its only pod, so a connection to it arrives without rewriting. That
leaves out what kube-proxy does: a port that differs from the pod's own, several pods behind one service, session
affinity, node ports and load balancers; a pod that is not ready still gets its service's traffic; and a port that no
service declares is open all the same. The API server is on the node and answers at the service address itself.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from telemagic.demo import namespaces

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from ipaddress import IPv4Address

_FORWARDING: Final = Path("/proc/sys/net/ipv4/ip_forward")


@dataclass(frozen=True, slots=True)
class PodNetwork:
    """What a pod's network needs: a namespace to configure and the addresses to give it, the pod's own first."""

    namespace: int
    addresses: Sequence[IPv4Address]


def build(
    node_addresses: Sequence[IPv4Address], pods: Iterable[PodNetwork], blackholes: Iterable[IPv4Address]
) -> None:
    """Connect the pods with the caller's network namespace, which becomes the node's.

    Blocking, and slow at first (pyroute2 loads in 0.4 s): call it in a thread without a running loop.

    Raises
    ------
    OSError, NetlinkError
        The kernel refuses a step.
    """
    from pyroute2 import IPRoute

    namespaces.loopback_up()
    _FORWARDING.write_text("1")
    with IPRoute() as netlink:
        loopback = netlink.link_lookup(ifname="lo")[0]
        for address in node_addresses:
            netlink.addr("add", index=loopback, address=str(address), prefixlen=32)
        for address in blackholes:
            netlink.route("add", dst=f"{address}/32", type="blackhole")
        for number, pod in enumerate(pods, 1):
            _plug(netlink, f"v{number}", pod, node_addresses[0])


def _plug(netlink: Any, device: str, pod: PodNetwork, node: IPv4Address) -> None:  # noqa: ANN401 - pyroute2 is untyped
    netlink.link("add", ifname=device, kind="veth", peer={"ifname": "eth0", "net_ns_fd": pod.namespace})
    index = netlink.link_lookup(ifname=device)[0]
    netlink.link("set", index=index, state="up")
    _in_thread_of(pod.namespace, lambda: _configure_pod(pod.addresses, node))
    own, *services = pod.addresses
    netlink.route("add", dst=f"{own}/32", oif=index, scope="link")
    for address in services:
        netlink.route("add", dst=f"{address}/32", gateway=str(own), oif=index)


def _configure_pod(addresses: Iterable[IPv4Address], node: IPv4Address) -> None:
    from pyroute2 import IPRoute

    namespaces.loopback_up()
    with IPRoute() as netlink:
        index = netlink.link_lookup(ifname="eth0")[0]
        for address in addresses:
            netlink.addr("add", index=index, address=str(address), prefixlen=32)
        netlink.link("set", index=index, state="up")
        netlink.route("add", dst=f"{node}/32", oif=index, scope="link")
        netlink.route("add", dst="default", gateway=str(node), oif=index, prefsrc=str(next(iter(addresses))))


def _in_thread_of(namespace: int, work: Callable[[], None]) -> None:
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
