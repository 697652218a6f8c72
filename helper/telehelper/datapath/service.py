"""One connection of this machine to one cluster: brings it up phase by phase, answers kernels, takes it down.

Up: elevate (netd is there) → TUN → tunnel → CIDRs → routes → DNS → ready; the tunnel is opened while netd makes the
TUN. Whatever fails on the way, or a kernel's interrupt, takes down all that was there before the error is told.
Down happens once, in :meth:`DataPlane.close`, from whatever cause; then the process ends.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import replace
from ipaddress import ip_address
from itertools import chain
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from telehelper.datapath import attribution, looking, observer
from telehelper.datapath.agentless.uplink import AgentlessUplink
from telehelper.datapath.attribution import Attribution
from telehelper.datapath.host_dns import read_host_dns
from telehelper.datapath.networks import Networks
from telehelper.datapath.observer import Observer
from telehelper.datapath.outside import Outside
from telehelper.datapath.phases import PhaseLog
from telehelper.datapath.places import Places
from telehelper.datapath.standing import describe
from telehelper.datapath.tunnel import Tunnel
from telehelper.datapath.vif import Vif
from telehelper.datapath.ways import ClusterUplink, WayIn, choose_way
from telehelper.errors import (
    AlreadyConnected,
    ConnectTimeout,
    HelperLost,
    NotConnected,
    TelemagicError,
    UndoIncomplete,
)
from telehelper.kube.access import ApiAccess
from telehelper.kube.client import ApiClient
from telehelper.messages import (
    SHARED_OPTIONS,
    Connect,
    Disconnect,
    Done,
    Failed,
    GetRoutes,
    GetStatus,
    Message,
    RouteTable,
    Status,
    TunnelChanged,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from telehelper.core.frames import Address, Frame
    from telehelper.datapath.agentless.index import Index
    from telehelper.datapath.control_io import Kernel
    from telehelper.datapath.netd_client import NetdClient
    from telehelper.rpc.manager_pb2 import ClusterInfo

KEPT_NOTICES: Final = 50  # lines; the oldest go


class DataPlane:
    """The data plane's one connection; a :class:`~telehelper.datapath.control_io.Service`.

    Parameters
    ----------
    netd
        The root part.
    relay_path
        Where the control connection's private Unix socket may be.
    broadcast
        Sends an event to all kernels.
    """

    def __init__(self, netd: NetdClient, relay_path: Path, broadcast: Callable[[Message], None]) -> None:
        self.ended = asyncio.Event()  # nothing more to do: the process may go
        self._netd = netd
        self._relay_path = relay_path
        self._broadcast = broadcast
        self._phases = PhaseLog(broadcast)
        self._notices: list[str] = []
        self._state = "idle"
        self._request: Connect | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._access: ApiAccess | None = None
        self._api: ApiClient | None = None
        self._way: WayIn | None = None
        self._networks: Networks | None = None
        self._tunnel = Tunnel(self._open_uplink, self)
        self._uplink: ClusterUplink | None = None
        self._info: ClusterInfo | None = None  # as last told, by this uplink or the one before
        self._vif = Vif(netd, self._tunnel, self.lost)
        self._vif.namer.note = self._note
        self.observer = Observer(self._vif, self._tunnel, self.status)
        self._attribution = Attribution(self.observer.touch, self.observer.kept_out)
        self.observer.owners, self._vif.guard = self._attribution.owners, self._attribution.guard
        self._places = Places(self._vif.router.real, self.observer.name_of, self.observer.places_changed)
        self._places.index = self._index
        self.observer.places = self._places
        woke, name = self._machine_woke, lambda: self._vif.name
        self._outside = Outside(lambda _: woke(0.0), woke, name, own=self._vif.disturbed)
        self._updates: set[asyncio.Task[None]] = set()
        self._nameservers: list[Address] = []  # of the machine, before us
        self._connected_at = 0.0
        self._last_error = ""
        self._close_task: asyncio.Task[None] | None = None

    # --- for the control socket

    @property
    def is_connected(self) -> bool:
        """Whether the connection is up, or is coming back."""
        return self._state in ("connected", "reconnecting")

    async def handle(self, request: Message, kernel: Kernel) -> Message:
        """Carry out one request of a kernel."""
        self._attribution.greet(kernel.pid)
        match request:
            case Connect():
                await self._connect(request)
                return self.status()
            case GetStatus():
                return self.status()
            case GetRoutes():
                return RouteTable(self._vif.router.rows(self._vif.namer.names))
            case Disconnect():
                return await self._disconnect(kernel)
        if isinstance(request, attribution.REQUESTS):
            return self._attribution.answer(request, kernel.pid)
        if isinstance(request, observer.REQUESTS):
            return await self.observer.answer(request, kernel)
        return await looking.answer(request, self._api, self._vif, self._namespace(), self._info)

    def kernel_left(self, kernel: Kernel) -> None:
        """Learn that a kernel has gone."""
        self._attribution.leave(kernel.pid)
        self.observer.kernel_left(kernel)

    # --- up

    async def _connect(self, request: Connect) -> None:
        if self._close_task is not None:
            raise HelperLost("the running data plane is just ending")
        if self._request is None:
            self._request = request
            self._connecting = asyncio.create_task(self._bring_up(request))
            self._connecting.add_done_callback(_retrieve)
        elif _options(self._request) != _options(request):
            raise AlreadyConnected(
                f"the data plane is connected to {self._request.context or 'its context'} with other options"
            )
        if self._connecting is not None:
            await asyncio.shield(self._connecting)

    async def _bring_up(self, request: Connect) -> None:
        self._state = "connecting"
        try:
            async with asyncio.timeout(request.timeout):
                await self._run_phases(request)
        except TimeoutError:
            hung = self._access.hung_login if self._access is not None else ""
            slow = (
                f"the login plugin {hung!r} of the kubeconfig"
                if hung
                else f"phase {self._phases.unfinished!r}"
            )
            await self._give_up()
            raise ConnectTimeout(f"{slow} did not end in time; everything begun was undone") from None
        except BaseException:
            await self._give_up()
            raise
        self._connected_at = time.time()
        self._state = "connected" if self._tunnel.is_up else "reconnecting"
        self._outside.start()
        self.observer.start()

    async def _give_up(self) -> None:
        self._connecting = None  # or closing would cancel us, who are about to tell the error
        await self.close()

    async def _run_phases(self, request: Connect) -> None:
        with self._phases.run("elevate") as phase:
            await self._netd.wait_ready()
            phase.detail = "netd runs"
        # netd has repaired by now what a killed one left in resolv.conf.
        self._nameservers = [ip_address(server) for server in read_host_dns().nameservers]
        tunnel = asyncio.create_task(self._open_tunnel(request))
        try:
            with self._phases.run("TUN") as phase:
                phase.detail = await self._vif.open(wide=request.allow_wide)
                self._attribution.start(self._vif.index, shares=request.share)
            await tunnel
        except BaseException:
            tunnel.cancel()
            await asyncio.gather(tunnel, return_exceptions=True)
            raise
        with self._phases.run("CIDRs") as phase:
            info = await self._find_networks(request)
            phase.detail = ", ".join(cidr.cidr for cidr in info.cidrs) or "none found"
        with self._phases.run("routes") as phase:
            phase.detail = await self._vif.set_routes(info, request, await self._never_routed())
        with self._phases.run("DNS") as phase:
            phase.detail = await self._vif.set_dns(info, request.dns, self._namespace())
        with self._phases.run("ready"):
            self._vif.start()
            await self._vif.namer.check_host()

    async def _open_tunnel(self, request: Connect) -> None:
        loop = asyncio.get_running_loop()
        with self._phases.run("tunnel") as phase:
            self._access = await loop.run_in_executor(
                None, ApiAccess.from_kubeconfig, request.kubeconfig, request.context
            )
            self._api = await ApiClient(self._access).__aenter__()
            self._places.api, self._places.namespace = self._api, self._namespace()
            self._way = await choose_way(request, self._api, self._relay_path)
            await self._tunnel.start()
            self._notices += self._way.notices
            phase.detail = self._way.detail

    async def _open_uplink(self, tunnel: Tunnel) -> ClusterUplink:
        if self._way is None:
            raise NotConnected("the data plane is not connecting")
        self._uplink = await self._way.open(tunnel)
        return self._uplink

    async def _find_networks(self, request: Connect) -> ClusterInfo:
        if self._api is None:
            raise NotConnected("the data plane is not connecting")
        uplink = self._current_uplink()
        told = await uplink.wait_info()
        looks = bool(uplink.manager)  # without a manager the uplink's word is what the user's own rights show
        self._networks = Networks(self._api, request, self._networks_changed, looks=looks)
        self._info = await self._networks.start(told)
        return self._info

    def _current_uplink(self) -> ClusterUplink:
        if self._uplink is None:
            raise NotConnected("the tunnel is not open")
        return self._uplink

    def _index(self) -> Index | None:
        return self._uplink.index if isinstance(self._uplink, AgentlessUplink) else None

    def _namespace(self) -> str:
        given = self._request.namespace if self._request is not None else ""
        return given or (self._access.namespace if self._access is not None else "default")

    async def _never_routed(self) -> list[Address]:
        """Return what the tunnel and the machine's own DNS need: API server, direct carriers, present nameservers."""
        carriers = self._way.addresses if self._way is not None else ()
        return [*await self._api_addresses(), *carriers, *self._nameservers]

    async def _api_addresses(self) -> list[Address]:
        try:
            return await self._access.addresses() if self._access is not None else []
        except OSError as error:
            if not self.is_connected:  # else the network is down just now, and the router remembers
                self._note(f"the name of the API server or its proxy does not resolve: {error.strerror}")
            return []

    # --- what the tunnel reports

    def frames_received(self, frames: list[Frame]) -> None:
        """Take frames from the tunnel."""
        self._vif.frames_received(frames)

    def flows_lost(self, flows: set[int], reason: str) -> None:
        """Reset flows whose carrier has gone."""
        self._vif.flows_lost(flows, reason)

    def tunnel_changed(self, up: bool, reason: str) -> None:
        """Note and tell that the tunnel went up or down. The API server may have moved, and must not be routed."""
        if self.is_connected:  # else we are still connecting
            self._state = "connected" if up else "reconnecting"
        if up and self._info is not None:
            self._networks_changed(self._info)
        if not up and self._api is not None:
            self._api.reconnect()
        self._vif.tunnel_changed(up)
        self.observer.events.note(observer.TUNNEL_UP if up else observer.TUNNEL_DOWN, "tunnel", reason)
        self._broadcast(TunnelChanged(up, reason))

    def info_changed(self, info: ClusterInfo) -> None:
        """Take what the uplink says of the cluster's networks and names."""
        if self._networks is not None:
            self._networks.update(info)

    def _networks_changed(self, info: ClusterInfo) -> None:
        """Follow changes of the cluster's networks and names."""
        self._info = info
        if self.is_connected:
            task = asyncio.create_task(self._update(info))
            self._updates.add(task)
            task.add_done_callback(self._updates.discard)

    async def _update(self, info: ClusterInfo) -> None:
        if self._request is None:
            return
        try:
            await self._vif.set_routes(info, self._request, await self._never_routed())
            self._vif.namer.update(info, self._namespace())
        except TelemagicError as error:
            self._note(f"the cluster's networks changed, but: {error}")

    # --- what happens to the machine

    def _machine_woke(self, seconds: float) -> None:
        """Try again now what waits, see soon whether what is open still lives, and whether the routes still fit."""
        if self._api is not None:
            self._api.reconnect()
        self._tunnel.machine_woke(seconds)
        if self._info is not None:
            self._networks_changed(self._info)

    def _note(self, line: str) -> None:
        self._notices = [*self._notices, line][-KEPT_NOTICES:]
        self.observer.events.note(observer.NOTE, "", line)

    # --- reports

    def status(self) -> Status:
        """Describe the connection."""
        info = self._info if self.is_connected else None
        told = (self._attribution.notices, self._notices, info.notices if info else (), self._vif.notices)
        return replace(
            describe(self._vif, self._tunnel, self._access, self._way, self._uplink, info),
            state=self._state,
            namespace=self._namespace() if self._request else "",
            connected_at=self._connected_at,
            phases=self._phases.rows,
            notices=tuple(chain.from_iterable(told)),
            last_error=self._last_error or self._tunnel.last_error,
        )

    # --- down

    async def _disconnect(self, kernel: Kernel) -> Message:
        if kernel.is_last:
            await self.close()
        return Done()

    def lost(self, reason: str) -> None:
        """End because the TUN device or netd has gone: nothing can be carried, or nobody would undo it any more."""
        if not self.ended.is_set() and self._close_task is None:  # an end on purpose takes them away as well
            self._last_error = reason
            self._broadcast(TunnelChanged(False, reason))
            self._broadcast(Failed.of(HelperLost(reason)))  # the last word, for the next command
            self.ended.set()

    async def close(self) -> None:
        """Take everything down, once; `ended` is set afterwards. UndoIncomplete if something of ours is left."""
        if self._close_task is None:
            self._close_task = asyncio.create_task(self._close())
        await asyncio.shield(self._close_task)

    async def _close(self) -> None:
        self._state = "closed"
        self._outside.close()
        self.observer.close()
        for task in self._updates | ({self._connecting} if self._connecting else set()):
            if task is not asyncio.current_task():
                task.cancel()
        async with AsyncExitStack() as stack:
            stack.callback(self.ended.set)
            # The last goes first, and each whatever becomes of the others.
            parts = (self._api, self._tunnel, self._networks, self._places, self._attribution, self._vif)
            for part in parts:
                if part is not None:
                    stack.push_async_callback(part.close)
            stack.callback(self._netd.close)
            self._vif.hang_up("disconnected")  # before the device goes
            try:
                await self._netd.undo()
            except UndoIncomplete:
                raise
            except TelemagicError as error:
                # It undoes by itself at the end of our socket, or has; the device goes with our descriptor.
                self._last_error = str(error)


_options: Final = attrgetter(*SHARED_OPTIONS)


def _retrieve(task: asyncio.Task[None]) -> None:
    # Every kernel that waited was told; when the last one has gone there is nobody left to tell.
    if not task.cancelled():
        task.exception()
