"""The near side: the TUN interface, its addresses and routes, the stack behind it and the names it answers."""

from __future__ import annotations

import asyncio
import os
import secrets
from typing import TYPE_CHECKING, Final

from telehelper.core import cidr, routes
from telehelper.core.dns_policy import DnsPolicy, search_list
from telehelper.core.flows import Totals
from telehelper.core.stack import Stack
from telehelper.datapath.dns_io import DnsShell
from telehelper.datapath.engine import Engine
from telehelper.datapath.host_dns import MAX_SEARCH, read_host_dns
from telehelper.datapath.host_routes import has_ipv6, read_routes
from telehelper.datapath.tun_io import TunIo
from telehelper.errors import NotConnected
from telehelper.messages import RouteSpec, SetDns, VifOpened

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from ipaddress import IPv4Address, IPv6Address

    from telehelper.core.cidr import Network
    from telehelper.core.flows import FlowRecord
    from telehelper.core.frames import Address, Frame
    from telehelper.core.routes import RoutePlan
    from telehelper.datapath.netd_client import NetdClient
    from telehelper.datapath.tunnel import Tunnel
    from telehelper.messages import Connect
    from telehelper.rpc.manager_pb2 import ClusterInfo

MTU: Final = 1500  # bytes; segments are up to 64 KiB all the same, by offload
DNS_PORT: Final = 53
# TUNSETOFFLOAD's bits (linux/if_tun.h)
_OFFLOADS: Final = {1: "checksum", 2: "TSO4", 4: "TSO6", 0x20: "USO4", 0x40: "USO6"}
_TSO4: Final = 2


class Vif:
    """The TUN interface with everything behind it. Set up in the order of the methods."""

    def __init__(self, netd: NetdClient, tunnel: Tunnel, on_lost: Callable[[str], None]) -> None:
        self.plan: RoutePlan | None = None
        self.address: IPv4Address | None = None
        self.address_v6: IPv6Address | None = None  # only if the cluster has IPv6, and this machine too
        self.resolver: IPv4Address | None = None
        self.dns_mechanism = ""
        self._netd = netd
        self._tunnel = tunnel
        self._on_lost = on_lost
        self._opened: VifOpened | None = None
        self._fd = -1
        self._engine: Engine | None = None
        self._dns: DnsShell | None = None
        self._tun: TunIo | None = None

    # --- setting up

    async def open(self) -> str:
        """Have netd make the interface; returns its name and what it offloads."""
        self._opened, self._fd = await self._netd.open_vif(MTU)
        return f"{self.name} ({self.offload})"

    async def set_routes(self, info: ClusterInfo, request: Connect, never: Sequence[Address]) -> str:
        """Plan the routes, refuse conflicts, apply; also again, when the cluster's networks change.

        Raises
        ------
        CidrConflict, UsageError
            Nothing was changed.
        """
        # In a thread with a loop of asyncio's own: uvloop cannot drive a netlink socket.
        existing = await asyncio.to_thread(asyncio.run, read_routes())
        plan = routes.plan(
            [routes.WantedCidr(c.cidr, c.kind, c.source) for c in info.cidrs],
            existing,
            also_proxy=request.also_proxy,
            never_proxy=request.never_proxy,
            never_addresses=never,
            own_device=self.name,
            ipv6=has_ipv6(self.name),
        )
        plan.check()
        addresses = self._choose_addresses(
            plan, [route.network for route in routes.foreign(existing, self.name)]
        )
        wanted = [RouteSpec(f"{self.resolver}/32"), *(RouteSpec(str(network)) for network in plan.routes)]
        await self._netd.configure(addresses, wanted)
        self.plan = plan
        return ", ".join(str(network) for network in plan.routes) or "none"

    def _choose_addresses(self, plan: RoutePlan, taken: list[Network]) -> list[str]:
        """Choose, once and for all, the interface's and the resolver's addresses; returns the interface's.

        The kernel takes the interface's own address as the source of what it sends there (RFC 6724 §5, rule 5), so
        there is one of IPv6 exactly while there are routes of it. The resolver needs no second one.
        """
        avoid = [*taken, *plan.routes]
        index = int.from_bytes(self.name.encode(), "big")  # two clusters of one machine begin at two places
        if self.address is None or self.resolver is None:
            self.address, self.resolver = cidr.free_pair(avoid, index)
        if not any(network.version == 6 for network in plan.routes):
            return [f"{self.address}/32"]
        if self.address_v6 is None:
            self.address_v6 = cidr.free_address_v6(avoid, index)
        return [f"{self.address}/32", f"{self.address_v6}/128"]

    async def set_dns(self, info: ClusterInfo, mechanism: str, namespace: str) -> str:
        """Point the host's resolver at us and make everything ready to run."""
        if self.address is None or self.resolver is None:
            raise NotConnected("the interface has no address yet")
        host = read_host_dns(str(self.resolver))
        search = search_list(namespace, info.cluster_domain)
        names = tuple(dict.fromkeys([*search, *host.search]))[:MAX_SEARCH]
        answer = await self._netd.set_dns(SetDns(mechanism, str(self.resolver), names))
        self.dns_mechanism = answer.mechanism
        offload = self._opened.offload if self._opened is not None else 0
        stack = Stack(
            isn=lambda: secrets.randbits(32),
            mtu=MTU,
            gso=bool(offload & _TSO4),
            resolver=(self.resolver, DNS_PORT),
        )
        self._engine = Engine(stack)
        self._dns = DnsShell(
            self._policy(info, namespace),
            ask_cluster=self._engine.ask_cluster,
            answer=self._engine.answer_datagram,
            upstreams=host.nameservers,
        )
        self._engine.tunnel = self._tunnel
        self._engine.names = self._dns
        self._point_at_dns_server(info)
        return f"{answer.mechanism}, names of {search[0]}"

    def start(self) -> None:
        """Let packets flow."""
        if self._engine is None:
            raise NotConnected("the interface is not set up yet")
        fd, self._fd = self._fd, -1
        self._tun = TunIo(fd, on_packets=self._engine.packets_received, on_lost=self._on_lost)
        self._engine.tun = self._tun

    def update_names(self, info: ClusterInfo, namespace: str) -> None:
        """Follow changes of the cluster's namespaces, CIDRs or DNS server."""
        if self._dns is not None:
            self._dns.set_policy(self._policy(info, namespace))
            self._point_at_dns_server(info)

    def _policy(self, info: ClusterInfo, namespace: str) -> DnsPolicy:
        networks = self.plan.routes if self.plan is not None else ()
        return DnsPolicy(info.cluster_domain, namespace, frozenset(info.namespaces), networks)

    def _point_at_dns_server(self, info: ClusterInfo) -> None:
        if self._engine is not None and self.address is not None and info.dns_server:
            self._engine.set_dns_server(self.address, cidr.parse(info.dns_server).network_address)

    # --- running

    def frames_received(self, frames: list[Frame]) -> None:
        """Take flows' frames from the tunnel."""
        if self._engine is not None:
            self._engine.stack.set_path_rtt(self._tunnel.min_rtt)
            self._engine.frames_received(frames)

    def flows_lost(self, flows: set[int], reason: str) -> None:
        """Reset flows whose carrier has gone."""
        if self._engine is not None:
            self._engine.flows_lost(flows, reason)

    def tunnel_changed(self, up: bool) -> None:
        """Answer SERVFAIL while the tunnel is down."""
        if self._dns is not None:
            (self._dns.tunnel_up if up else self._dns.tunnel_down)()

    async def close(self) -> None:
        """Stop, and close the descriptor: the device goes with the last one."""
        if self._engine is not None:
            self._engine.close()
        if self._dns is not None:
            await self._dns.close()
        if self._tun is not None:
            self._tun.close()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    # --- reports

    @property
    def name(self) -> str:
        """Name of the interface."""
        return self._opened.name if self._opened is not None else ""

    @property
    def offload(self) -> str:
        """What the kernel offloads, for people."""
        bits = self._opened.offload if self._opened is not None else 0
        return " ".join(text for bit, text in _OFFLOADS.items() if bits & bit) or "no offload"

    @property
    def notices(self) -> tuple[str, ...]:
        """What was left out of the routes and the user does not know of, one line each."""
        return self.plan.notices if self.plan is not None else ()

    @property
    def names(self) -> Mapping[Address, str]:
        """Names that were resolved, by address."""
        return self._dns.names if self._dns is not None else {}

    @property
    def totals(self) -> Totals:
        """Sums over all flows that ever were."""
        return self._engine.stack.totals if self._engine is not None else Totals(0, 0, 0)

    @property
    def open_flows(self) -> int:
        """How many flows are open."""
        return self._engine.stack.open_flows if self._engine is not None else 0

    @property
    def drops(self) -> dict[str, int]:
        """What was ignored, and how often, by reason."""
        if self._engine is None:
            return {}
        written = {"TUN queue full": self._tun.dropped} if self._tun is not None and self._tun.dropped else {}
        return {**self._engine.stack.drops, **written}

    def snapshot(self) -> list[FlowRecord]:
        """Return a consistent copy of the flow table."""
        return self._engine.snapshot() if self._engine is not None else []
