"""The uplink without a manager: the index that follows the API server, and one carrier that dials by it."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final, Self

from telehelper.background import begin
from telehelper.core.resolv_conf import ResolvConf
from telehelper.datapath.agentless.carrier import AgentlessCarrier
from telehelper.datapath.agentless.catalog import Catalog, open_catalog
from telehelper.datapath.agentless.nameserver import NameServer
from telehelper.datapath.agentless.zone import Zone
from telehelper.datapath.dns_io import ask
from telehelper.datapath.networks import literal
from telehelper.discovery.discovery import Discovered, Explorer
from telehelper.discovery.message import to_message
from telehelper.errors import ApiServerUnavailable

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from telehelper.datapath.agentless.index import Index
    from telehelper.datapath.tunnel import CarrierLike, Tunnel
    from telehelper.kube.client import ApiClient
    from telehelper.rpc.manager_pb2 import ClusterInfo

NO_DNS_SERVER: Final = "192.0.0.8"  # the IPv4 dummy address, of nobody and never routed (RFC 7600 §4.8)
# Of the notices on discovery, those that do not matter here: names are not asked of a DNS server.
_DNS_SERVER: Final = "the cluster's DNS server"


class AgentlessUplink:
    """What is visible of a cluster, and the way to it. Made by :func:`open_agentless`.

    Attributes
    ----------
    manager, manager_version
        Empty.
    carriers
        One.
    """

    manager = ""
    manager_version = ""

    def __init__(self, tunnel: Tunnel, api: ApiClient, namespace: str, nameservers: Sequence[str]) -> None:
        self.carriers: list[AgentlessCarrier] = []
        self._tunnel = tunnel
        self._api = api
        self._namespace = namespace
        self._nameservers = tuple(nameservers)
        self._explorer = Explorer(api, ResolvConf(), namespace, excluded=literal(api.access.host))
        self._info: ClusterInfo | None = None
        self._catalog: Catalog | None = None
        self._following: asyncio.Task[None] | None = None

    async def open(self) -> Self:
        """Look around and be ready to dial; on failure everything is closed again."""
        try:
            self._catalog = await open_catalog(self._api, self._namespace)
            self._info = cluster_info(await self._explorer.look(), self._catalog.index)
            await self.add_carrier()
        except BaseException:
            await self.close("connecting failed")
            raise
        self._following = begin(self._explorer.follow(self._discovered))
        return self

    @property
    def index(self) -> Index | None:
        """What is visible of the cluster; None while the uplink is not open."""
        return self._catalog.index if self._catalog is not None else None

    @property
    def scope(self) -> str:
        """What is visible, for people."""
        if self._catalog is None or self._catalog.index.namespaces is None:
            return "all namespaces"
        return f"namespace {', '.join(sorted(self._catalog.index.namespaces))} only"

    async def wait_info(self) -> ClusterInfo:
        """See :class:`~telehelper.datapath.ways.ClusterUplink`."""
        if self._info is None:
            raise ApiServerUnavailable("nothing is known of the cluster yet")
        return self._info

    async def add_carrier(self) -> AgentlessCarrier:
        """See :class:`~telehelper.datapath.tunnel.Uplink`."""
        if self._catalog is None or self._info is None:
            raise ApiServerUnavailable("the connection is closed")
        index = self._catalog.index
        names = NameServer(Zone(index, self._info.cluster_domain), self._nameservers, ask)
        dns_server = ip_address(self._info.dns_server)
        carrier = AgentlessCarrier(self._tunnel, self._api, index, names, dns_server).start()
        self.carriers.append(carrier)
        return carrier

    def wake(self) -> None:
        """See :class:`~telehelper.datapath.tunnel.Uplink`."""
        if self._catalog is not None:
            self._catalog.wake()

    async def close(self, reason: str, keep: Collection[CarrierLike] = ()) -> None:
        """See :class:`~telehelper.datapath.tunnel.Uplink`."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
        catalog, self._catalog = self._catalog, None
        if catalog is not None:
            await catalog.close()
        carriers, self.carriers = self.carriers, []
        await asyncio.gather(*(carrier.close(reason) for carrier in carriers if carrier not in keep))

    def _discovered(self, found: Discovered) -> None:
        if self._catalog is not None:
            info = cluster_info(found, self._catalog.index)
            if info != self._info:
                self._info = info
                self._tunnel.info_changed(info)


def cluster_info(discovered: Discovered, index: Index) -> ClusterInfo:
    """Say what is known of the cluster's networks and names.

    Parameters
    ----------
    discovered
        What the user's rights show of the cluster as a whole.
    index
        What is visible of its services and pods.
    """
    info = to_message(discovered)
    info.dns_server = info.dns_server or NO_DNS_SERVER
    namespaces = sorted({*info.namespaces, *(index.namespaces or ())})
    del info.namespaces[:]
    info.namespaces.extend(namespaces)
    notices = [notice for notice in info.notices if _DNS_SERVER not in notice]
    del info.notices[:]
    info.notices.extend(notices)
    return info


async def open_agentless(
    tunnel: Tunnel, api: ApiClient, namespace: str, nameservers: Sequence[str]
) -> AgentlessUplink:
    """Open the way to what the user may see.

    Parameters
    ----------
    tunnel
        Hears of what comes.
    api
        With the user's own rights.
    namespace
        Where to look if not everywhere may be.
    nameservers
        The machine's own, for names outside the cluster.

    Raises
    ------
    CredentialsRefused, ApiServerUnavailable
        Not even that namespace may be read, or the API server does not answer; nothing is left open.
    """
    return await AgentlessUplink(tunnel, api, namespace, nameservers).open()
