"""The near side: the TUN interface, its addresses and routes, the stack behind it and the names it answers."""

from __future__ import annotations

import asyncio
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Final

from telehelper.background import begin
from telehelper.core.flows import Totals
from telehelper.core.stack import Stack
from telehelper.datapath.engine import Engine
from telehelper.datapath.namer import Namer
from telehelper.datapath.outside import DEVICE_DOWN
from telehelper.datapath.router import Router
from telehelper.datapath.tun_io import TunIo
from telehelper.errors import NotConnected, TelemagicError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from telehelper.core.flows import FlowRecord, FlowStats
    from telehelper.core.frames import Address, Frame
    from telehelper.datapath.engine import FrameSink
    from telehelper.datapath.netd_client import NetdClient
    from telehelper.datapath.tunnel import Tunnel
    from telehelper.messages import Connect, VifOpened
    from telehelper.rpc.manager_pb2 import ClusterInfo

    Guard = Callable[[FrameSink, Callable[[Address], bool], Callable[[Frame], None]], FrameSink]

MTU: Final = 1500  # bytes; segments are up to 64 KiB all the same, by offload
DNS_PORT: Final = 53
WIDE: Final = "--allow-wide: networks wider than /8 (IPv4) or /16 (IPv6) may be routed to this cluster"
SETTLE: Final = (
    1.0  # seconds from a route's end to looking whether it should be there; also between two repairs
)
# TUNSETOFFLOAD's bits (linux/if_tun.h)
_OFFLOADS: Final = {1: "checksum", 2: "TSO4", 4: "TSO6", 0x20: "USO4", 0x40: "USO6"}
_TSO4: Final = 2
_ORIGIN: Final = str(Path(__file__).parents[2])


class Vif:
    """The TUN interface with everything behind it. Set up in the order of the methods.

    Attributes
    ----------
    router, namer
        Its routes, and its names.
    flow_opened
        Called for each new flow with its counters, before anything is sent for it.
    guard
        Puts what decides on flows before the tunnel; it may give the engine the refusals of what it keeps out.
    """

    def __init__(self, netd: NetdClient, tunnel: Tunnel, on_lost: Callable[[str], None]) -> None:
        self.router = Router(netd)
        self.namer = Namer(netd, self.router)
        self.flow_opened: Callable[[FlowStats], None] = lambda _stats: None
        self.guard: Guard = lambda tunnel, _is_own, _keep_out: tunnel
        self._netd = netd
        self._tunnel = tunnel
        self._on_lost = on_lost
        self._opened: VifOpened | None = None
        self._fd = -1
        self._wide = False
        self._engine: Engine | None = None
        self._tun: TunIo | None = None
        self._repairing: asyncio.Task[None] | None = None

    # --- setting up

    async def open(self, *, wide: bool = False) -> str:
        """Have netd make the interface, for ``wide`` networks too; returns its name and what it offloads."""
        self._opened, self._fd = await self._netd.open_vif(MTU, wide=wide)
        self._wide = wide
        self.router.device = self.name
        elsewhere = self._opened.origin not in ("", _ORIGIN)
        return f"{self.name} ({self.offload})" + (f", netd of {self._opened.origin}" if elsewhere else "")

    async def set_routes(self, info: ClusterInfo, request: Connect, never: Sequence[Address]) -> str:
        """Plan and apply routes; see :meth:`Router.set_routes`."""
        return await self.router.set_routes(info, request, never)

    async def set_dns(self, info: ClusterInfo, mechanism: str, namespace: str) -> str:
        """Point the host's resolver at us and make everything ready to run."""
        if self.router.resolver is None:
            raise NotConnected("the interface has no address yet")
        said = await self.namer.point_host(info, mechanism, namespace)
        offload = self._opened.offload if self._opened is not None else 0
        stack = Stack(
            isn=lambda: secrets.randbits(32),
            mtu=MTU,
            gso=bool(offload & _TSO4),
            resolver=(self.router.resolver, DNS_PORT),
        )
        self._engine = Engine(stack)
        self._engine.flow_opened = self.flow_opened
        self._tunnel.open_sent = self._engine.open_sent
        behind = self.router.sink(self._tunnel, self._engine.frames_received)
        self._engine.tunnel = self.guard(behind, self.router.is_own, self._engine.keep_out)
        self.router.in_use = self._destinations
        self.namer.attach(self._engine, info, namespace)
        return said

    def _destinations(self) -> set[Address]:
        return {stats.five_tuple.dst for stats, _ in self.live()}

    def start(self) -> None:
        """Let packets flow."""
        if self._engine is None:
            raise NotConnected("the interface is not set up yet")
        fd, self._fd = self._fd, -1
        self._tun = TunIo(fd, on_packets=self._engine.packets_received, on_lost=self._on_lost)
        self._engine.tun = self._tun

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

    def disturbed(self, what: str) -> None:
        """Take note of what was done to the interface, by us or by others (:mod:`~telehelper.datapath.outside`).

        An interface that is down has no routes, and packets for the cluster would leave by the machine's own: that
        is the end. A route is put back, if it should be there.
        """
        if what == DEVICE_DOWN:
            self._on_lost(f"the TUN device {self.name} was set down or deleted")
        elif self._repairing is None or self._repairing.done():
            self._repairing = begin(self._repair())

    async def _repair(self) -> None:
        await asyncio.sleep(SETTLE)
        try:
            missing = await self.router.repair()
        except TelemagicError as error:
            self.namer.note(f"routes of {self.name} were removed and cannot be put back: {error}")
        else:
            if missing:
                self.namer.note(f"somebody removed routes of {self.name}; put back: {', '.join(missing)}")

    def hang_up(self, reason: str) -> None:
        """Reset all flows."""
        if self._engine is not None:
            self._engine.hang_up(reason)

    def tunnel_changed(self, up: bool) -> None:
        """Answer SERVFAIL while the tunnel is down."""
        self.namer.tunnel_changed(up)

    async def close(self) -> None:
        """Stop, and close the descriptor: the device goes with the last one."""
        if self._repairing is not None:
            self._repairing.cancel()
            await asyncio.gather(self._repairing, return_exceptions=True)
        if self._engine is not None:
            self._engine.close()
        await self.namer.close()
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
    def index(self) -> int:
        """Index of the interface; 0 before it is there."""
        return self._opened.index if self._opened is not None else 0

    @property
    def offload(self) -> str:
        """What the kernel offloads, for people."""
        bits = self._opened.offload if self._opened is not None else 0
        return " ".join(text for bit, text in _OFFLOADS.items() if bits & bit) or "no offload"

    @property
    def notices(self) -> tuple[str, ...]:
        """What was left out of the routes, or let in, and the user should know of, one line each."""
        return (*([WIDE] if self._wide else []), *self.router.notices)

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
        return {**self._engine.stack.drops, **self.namer.drops, **written}

    def live(self) -> list[tuple[FlowStats, str]]:
        """Return the open flows with their states' names; see :meth:`Stack.live`."""
        return self._engine.stack.live() if self._engine is not None else []

    def take_closed(self) -> list[FlowRecord]:
        """Hand over the records of flows that have closed since the last call."""
        return self._engine.stack.take_closed() if self._engine is not None else []
