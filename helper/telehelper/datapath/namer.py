"""The near side's names: the resolver behind the interface, and the host's resolver pointed at it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from telehelper.core import cidr
from telehelper.core.dns_policy import DnsPolicy, link_domains, search_list
from telehelper.core.dns_stream import StreamClient
from telehelper.datapath.dns_io import DnsShell
from telehelper.datapath.host_dns import MAX_SEARCH, read_host_dns
from telehelper.datapath.host_names import HostNames, Wish
from telehelper.datapath.local_flows import LocalFlows
from telehelper.errors import NotConnected, TelemagicError
from telehelper.messages import NOT_OURS

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    from telehelper.core.dns_actions import Ended
    from telehelper.core.dns_message import Name
    from telehelper.core.dns_names import Origin
    from telehelper.core.frames import Address
    from telehelper.datapath.engine import Engine
    from telehelper.datapath.netd_client import NetdClient
    from telehelper.datapath.router import Router
    from telehelper.rpc.manager_pb2 import ClusterInfo

MAX_DOMAINS: Final = 256  # what netd permits; beyond it namespaces are reached by their full names only


class Namer:
    """Points the host at our resolver, and keeps that told about the cluster.

    Attributes
    ----------
    note
        Takes what the user should be told while connected, one line each.
    ended
        Takes what is told of lookups that are over, see :class:`~telehelper.datapath.dns_io.DnsShell`.
    """

    def __init__(self, netd: NetdClient, router: Router) -> None:
        self.note: Callable[[str], None] = lambda _line: None
        self.ended: Callable[[Ended], None] = lambda _ended: None
        self.domains: tuple[str, ...] = ()
        self._router = router
        self._engine: Engine | None = None
        self._shell: DnsShell | None = None
        self._local: LocalFlows | None = None
        self._changes: set[asyncio.Task[None]] = set()
        self._asked = ""
        self._host = HostNames(
            netd,
            arrives=self._arrives,
            note=lambda line: self.note(line),
            upstreams_changed=self._set_upstreams,
        )

    @property
    def mechanism(self) -> str:
        """How names come to us: resolved, resolvconf, kernel or none."""
        return self._host.mechanism

    async def point_host(self, info: ClusterInfo, mechanism: str, namespace: str) -> str:
        """Point the host's resolver at us; says how, for people."""
        self._asked = mechanism
        wish = self._wish(info, namespace)
        await self._host.point(wish)
        return f"{self.mechanism}, names of {wish.search[0]}"

    def attach(self, engine: Engine, info: ClusterInfo, namespace: str) -> None:
        """Answer the questions that come to the engine from now on."""
        if engine.tunnel is None or self._router.resolver is None:
            raise NotConnected("the engine has no tunnel yet")
        self._engine = engine
        self._shell = DnsShell(
            self._policy(info, namespace),
            ask_cluster=engine.ask_cluster,
            answer=self._answer,
            upstreams=self._host.upstreams,
            admit=self._router.admit,
        )
        self._shell.ended = self.ended
        engine.names = self._shell
        self._local = LocalFlows(
            engine.tunnel, self._router.resolver, engine.frames_received, self._shell.query
        )
        engine.tunnel = self._local
        self._point_at_dns_server(info)

    async def check_host(self) -> None:
        """See that names come to us, once packets flow; else try another way, or raise ResolverError."""
        await self._host.check()

    def update(self, info: ClusterInfo, namespace: str) -> None:
        """Follow changes of the cluster's namespaces, CIDRs or DNS server."""
        if self._shell is not None:
            self._shell.set_policy(self._policy(info, namespace))
            self._point_at_dns_server(info)
            task = asyncio.create_task(self._change(self._wish(info, namespace)))
            self._changes.add(task)
            task.add_done_callback(self._changes.discard)

    async def _change(self, wish: Wish) -> None:
        try:
            await self._host.change(wish)
        except TelemagicError as error:
            self.note(f"DNS: the cluster's namespaces changed, but: {error}")

    def tunnel_changed(self, up: bool) -> None:
        """Let questions to the cluster wait a little while the tunnel is down, then fail."""
        if self._shell is not None:
            (self._shell.tunnel_up if up else self._shell.tunnel_down)()

    async def close(self) -> None:
        """Stop answering."""
        await self._host.close()
        for task in self._changes:
            task.cancel()
        await asyncio.gather(*self._changes, return_exceptions=True)
        if self._local is not None:
            self._local.close()
        if self._shell is not None:
            await self._shell.close()

    @property
    def names(self) -> Mapping[Address, str]:
        """Names that were resolved, by address."""
        return self._shell.names if self._shell is not None else {}

    @property
    def origins(self) -> Mapping[tuple[Name, int], Origin]:
        """Who answered each question last."""
        return self._shell.origins if self._shell is not None else {}

    @property
    def drops(self) -> Mapping[str, int]:
        """What the resolver ignored, and how often, by reason."""
        return self._shell.drops if self._shell is not None else {}

    def _policy(self, info: ClusterInfo, namespace: str) -> DnsPolicy:
        plan = self._router.plan
        networks = plan.routes if plan is not None else ()
        return DnsPolicy(info.cluster_domain, namespace, frozenset(info.namespaces) - NOT_OURS, networks)

    def _wish(self, info: ClusterInfo, namespace: str) -> Wish:
        policy = self._policy(info, namespace)
        host = read_host_dns(str(self._router.resolver))
        search = search_list(namespace, info.cluster_domain)
        domains = link_domains(namespace, info.cluster_domain, info.namespaces, policy.cluster_cidrs)
        self.domains = tuple(name for name in domains if name.removeprefix("~") not in NOT_OURS)[:MAX_DOMAINS]
        return Wish(
            self._asked,
            str(self._router.resolver),
            tuple(dict.fromkeys([*search, *host.search]))[:MAX_SEARCH],
            self.domains,
        )

    def _answer(self, client: Hashable, data: bytes) -> None:
        if self._local is not None and isinstance(client, StreamClient):
            self._local.answer(client, data)
        elif self._engine is not None:
            self._engine.answer_datagram(client, data)

    async def _arrives(self, label: bytes, within: float) -> bool:
        return self._shell is not None and await self._shell.arrives(label, within)

    def _set_upstreams(self, upstreams: tuple[str, ...]) -> None:
        if self._shell is not None:
            self._shell.set_upstreams(upstreams)

    def _point_at_dns_server(self, info: ClusterInfo) -> None:
        if self._router.address is None:
            raise NotConnected("the interface has no address yet")
        if self._engine is not None and info.dns_server:
            self._engine.set_dns_server(self._router.address, cidr.parse(info.dns_server).network_address)
