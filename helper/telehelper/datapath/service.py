"""One connection of this machine to one cluster: brings it up phase by phase, answers kernels, takes it down.

Up: elevate (netd is there) → TUN → tunnel → CIDRs → routes → DNS → ready; the tunnel is opened while netd makes the
TUN. Whatever fails on the way, or a kernel's interrupt, takes down all that was there before the error is told.
Down happens once, in :meth:`DataPlane.close`, from whatever cause; then the process ends.
"""

from __future__ import annotations

import asyncio
import time
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from telehelper.datapath.host_dns import read_host_dns
from telehelper.datapath.openers import CarrierOpener, choose_opener
from telehelper.datapath.phases import PhaseLog
from telehelper.datapath.report import cidr_rows, flow_row, route_rows
from telehelper.datapath.tunnel import Tunnel
from telehelper.datapath.uplink import ManagerUplink, open_uplink
from telehelper.datapath.vif import Vif
from telehelper.errors import (
    AlreadyConnected,
    ConnectTimeout,
    ControlError,
    HelperLost,
    NotConnected,
    TelemagicError,
    UndoIncomplete,
)
from telehelper.kube.access import ApiAccess
from telehelper.kube.client import ApiClient
from telehelper.messages import (
    Connect,
    Disconnect,
    Done,
    FlowTable,
    GetFlows,
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
        self._opener: CarrierOpener | None = None
        self._tunnel = Tunnel(self._open_uplink, self)
        self._uplink: ManagerUplink | None = None
        self._info: ClusterInfo | None = None  # as last told, by this uplink or the one before
        self._vif = Vif(netd, self._tunnel, self._device_lost)
        self._updates: set[asyncio.Task[None]] = set()
        self._nameservers: list[Address] = []  # of the machine, before us
        self._connected_at = 0.0
        self._last_error = ""
        self._close_task: asyncio.Task[None] | None = None

    # --- for the control socket

    @property
    def is_connected(self) -> bool:
        """Whether the connection is up, or was and is coming back."""
        return self._state in ("connected", "reconnecting")

    async def handle(self, request: Message, kernel: Kernel) -> Message:
        """Carry out one request of a kernel."""
        match request:
            case Connect():
                await self._connect(request)
                return self.status()
            case GetStatus():
                return self.status()
            case GetFlows():
                return self._flows()
            case GetRoutes():
                return RouteTable(route_rows(self._vif.plan, self._vif.name) if self._vif.plan else ())
            case Disconnect():
                return await self._disconnect(kernel)
        raise ControlError(f"a kernel may not send {type(request).__name__}")

    def kernel_gone(self, kernel: Kernel) -> None:
        """Learn that a kernel has left; the control server tells when it was the last."""

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
            slow = self._phases.unfinished
            await self._give_up()
            raise ConnectTimeout(f"phase {slow!r} did not end in time; everything begun was undone") from None
        except BaseException:
            await self._give_up()
            raise
        self._connected_at = time.time()
        self._state = "connected" if self._tunnel.is_up else "reconnecting"

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
                phase.detail = await self._vif.open()
            await tunnel
        except BaseException:
            tunnel.cancel()
            await asyncio.gather(tunnel, return_exceptions=True)
            raise
        with self._phases.run("CIDRs") as phase:
            info = await self._current_uplink().wait_info()
            phase.detail = ", ".join(cidr.cidr for cidr in info.cidrs) or "none found"
            self._notices += info.notices
        with self._phases.run("routes") as phase:
            phase.detail = await self._vif.set_routes(info, request, await self._never_routed())
        with self._phases.run("DNS") as phase:
            phase.detail = await self._vif.set_dns(info, request.dns, self._namespace())
        with self._phases.run("ready"):
            self._vif.start()

    async def _open_tunnel(self, request: Connect) -> None:
        loop = asyncio.get_running_loop()
        with self._phases.run("tunnel") as phase:
            self._access = await loop.run_in_executor(
                None, ApiAccess.from_kubeconfig, request.kubeconfig, request.context
            )
            self._api = await ApiClient(self._access).__aenter__()
            self._opener = await choose_opener(request.carrier, self._api)
            await self._tunnel.start()
            pod = self._current_uplink().pod
            phase.detail = f"manager {pod.namespace}/{pod.name}, carriers by {self._opener}"

    async def _open_uplink(self, tunnel: Tunnel) -> ManagerUplink:
        if self._api is None or self._opener is None or self._request is None:
            raise NotConnected("the data plane is not connecting")
        namespace = self._request.manager_namespace
        self._uplink = await open_uplink(tunnel, self._api, namespace, self._relay_path, self._opener)
        return self._uplink

    def _current_uplink(self) -> ManagerUplink:
        if self._uplink is None:
            raise NotConnected("the tunnel is not open")
        return self._uplink

    def _namespace(self) -> str:
        given = self._request.namespace if self._request is not None else ""
        return given or (self._access.namespace if self._access is not None else "default")

    async def _never_routed(self) -> list[Address]:
        """Return what the tunnel and the machine's own DNS need: API server, direct carriers, present nameservers."""
        carriers = self._opener.addresses if self._opener is not None else ()
        return [*await self._api_addresses(), *carriers, *self._nameservers]

    async def _api_addresses(self) -> list[Address]:
        host = self._access.host if self._access is not None else ""
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, None)
        except OSError as error:
            self._note(f"the API server's name {host} does not resolve: {error.strerror}")
            return []
        return [ip_address(str(sockaddr[0]).partition("%")[0]) for *_, sockaddr in found]

    # --- what the tunnel reports

    def frames_received(self, frames: list[Frame]) -> None:
        """Take frames from the tunnel."""
        self._vif.frames_received(frames)

    def flows_lost(self, flows: set[int], reason: str) -> None:
        """Reset flows whose carrier has gone."""
        self._vif.flows_lost(flows, reason)

    def tunnel_changed(self, up: bool, reason: str) -> None:
        """Note and tell that the tunnel went up or down."""
        if self.is_connected:  # else we are still connecting
            self._state = "connected" if up else "reconnecting"
        self._vif.tunnel_changed(up)
        self._broadcast(TunnelChanged(up, reason))

    def info_changed(self, info: ClusterInfo) -> None:
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
            self._vif.update_names(info, self._namespace())
        except TelemagicError as error:
            self._note(f"the cluster's networks changed, but: {error}")

    def _note(self, line: str) -> None:
        self._notices = [*self._notices, line][-KEPT_NOTICES:]

    # --- reports

    def status(self) -> Status:
        """Describe the connection."""
        info = self._info if self.is_connected else None
        pod = self._uplink.pod if self._uplink is not None else None
        totals = self._vif.totals
        rtt = self._tunnel.rtt
        return Status(
            state=self._state,
            context=self._access.context if self._access else "",
            namespace=self._namespace() if self._request else "",
            server=self._access.server if self._access else "",
            via="manager",
            manager=f"{pod.namespace}/{pod.name}" if pod else "",
            manager_version=self._uplink.control.session.manager_version if self._uplink else "",
            device=self._vif.name,
            address=str(self._vif.address or ""),
            address_v6=str(self._vif.address_v6 or ""),
            dns=self._vif.dns_mechanism,
            dns_server=str(self._vif.resolver or ""),
            cluster_domain=info.cluster_domain if info else "",
            connected_at=self._connected_at,
            rtt=-1.0 if rtt is None else rtt,
            carriers=self._tunnel.carriers,
            flows_open=self._vif.open_flows,
            flows_total=totals.flows,
            bytes_up=totals.bytes_up,
            bytes_down=totals.bytes_down,
            cidrs=cidr_rows(info) if info else (),
            phases=self._phases.rows,
            notices=(*self._notices, *self._vif.notices),
            offload=self._vif.offload,
            last_error=self._last_error or self._tunnel.last_error,
            carrier=str(self._opener or ""),
        )

    def _flows(self) -> FlowTable:
        offset = time.time() - time.monotonic()
        rows = tuple(flow_row(record, offset, self._vif.names) for record in self._vif.snapshot())
        return FlowTable(time.time(), rows, self._vif.drops)

    # --- down

    async def _disconnect(self, kernel: Kernel) -> Message:
        if kernel.is_last:
            await self.close()
        return Done()

    def _device_lost(self, reason: str) -> None:
        """End because the TUN device has gone: nothing can be carried any more."""
        self._last_error = reason
        self._broadcast(TunnelChanged(False, reason))
        self.ended.set()

    def netd_lost(self, reason: str) -> None:
        """End because netd has gone: our descriptor would keep the device and its routes alive."""
        self._device_lost(reason)

    async def close(self) -> None:
        """Take everything down, once; `ended` is set afterwards. UndoIncomplete if something of ours is left."""
        if self._close_task is None:
            self._close_task = asyncio.create_task(self._close())
        await asyncio.shield(self._close_task)

    async def _close(self) -> None:
        self._state = "closed"
        for task in self._updates | ({self._connecting} if self._connecting else set()):
            if task is not asyncio.current_task():
                task.cancel()
        left: UndoIncomplete | None = None
        try:
            await self._netd.undo()
        except UndoIncomplete as error:
            left = error
        except TelemagicError as error:
            # It undoes by itself at the end of our socket, or has; the device goes with our descriptor.
            self._last_error = str(error)
        self._netd.close()
        await self._vif.close()
        await self._tunnel.close()
        if self._api is not None:
            await self._api.close()
        self.ended.set()
        if left is not None:
            raise left


def _options(request: Connect) -> tuple[object, ...]:
    return request.also_proxy, request.never_proxy, request.carrier


def _retrieve(task: asyncio.Task[None]) -> None:
    # Every kernel that waited was told; when the last one has gone there is nobody left to tell.
    if not task.cancelled():
        task.exception()
