"""In-memory twins of what a tunnel needs: uplinks and carriers that do as they are told, and a user that takes notes."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

    from telehelper.core.frames import Frame
    from telehelper.datapath.tunnel import CarrierLike, Tunnel
    from telehelper.rpc.manager_pb2 import ClusterInfo


class FakeCarrier:
    """Keeps what was sent."""

    def __init__(self, rtt: float | None = None) -> None:
        self.rtt = self.min_rtt = rtt
        self.sent: list[Frame] = []
        self.probes = 0
        self.close_reasons: list[str] = []

    def send(self, frame: Frame) -> None:
        """See :class:`~telehelper.datapath.tunnel.CarrierLike`."""
        self.sent.append(frame)

    def probe(self) -> None:
        """See :class:`~telehelper.datapath.tunnel.CarrierLike`."""
        self.probes += 1

    async def close(self, reason: str) -> None:
        """See :class:`~telehelper.datapath.tunnel.CarrierLike`."""
        self.close_reasons.append(reason)


class FakeUplink:
    """Opens carriers, unless `errors` says what happens first. Adding and closing wait for their events."""

    def __init__(self, carriers: int) -> None:
        self.carriers: list[CarrierLike] = [FakeCarrier() for _ in range(carriers)]
        self.errors: deque[Exception] = deque()
        self.asked = 0  # how often a carrier was to be added
        self.may_add = asyncio.Event()
        self.may_add.set()
        self.may_close = asyncio.Event()
        self.may_close.set()
        self.close_reasons: list[str] = []  # one for each close that is complete
        self.kept: list[CarrierLike] = []
        self.wakes = 0

    async def add_carrier(self) -> CarrierLike:
        """See :class:`~telehelper.datapath.tunnel.Uplink`."""
        self.asked += 1
        await self.may_add.wait()
        if self.errors:
            raise self.errors.popleft()
        carrier = FakeCarrier()
        self.carriers.append(carrier)
        return carrier

    def wake(self) -> None:
        """See :class:`~telehelper.datapath.tunnel.Uplink`."""
        self.wakes += 1

    async def close(self, reason: str, keep: Collection[CarrierLike] = ()) -> None:
        """See :class:`~telehelper.datapath.tunnel.Uplink`."""
        self.kept += keep
        await self.may_close.wait()
        self.close_reasons.append(reason)


class FakeManagers:
    """Give its `connect` to a tunnel. Connecting waits for `may_connect` and fails with `errors` first."""

    def __init__(self, carriers: int = 2) -> None:
        self.uplinks: list[FakeUplink] = []
        self.errors: deque[Exception] = deque()
        self.asked = 0
        self.may_connect = asyncio.Event()
        self.may_connect.set()
        self._carriers = carriers

    async def connect(self, _: Tunnel) -> FakeUplink:
        """Open an uplink."""
        self.asked += 1
        await self.may_connect.wait()
        if self.errors:
            raise self.errors.popleft()
        self.uplinks.append(FakeUplink(self._carriers))
        return self.uplinks[-1]


class RecordingUser:
    """Keeps what the tunnel told, in order, beside what came of flows."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.lost: list[tuple[set[int], str]] = []
        self.changes: list[tuple[bool, str]] = []
        self.infos: list[ClusterInfo] = []

    def frames_received(self, frames: list[Frame]) -> None:
        """See :class:`~telehelper.datapath.tunnel.TunnelUser`."""
        # Payloads are the carrier's own buffer, which is used again.
        self.frames += [frame._replace(payload=bytes(frame.payload)) for frame in frames]

    def flows_lost(self, flows: set[int], reason: str) -> None:
        """See :class:`~telehelper.datapath.tunnel.TunnelUser`."""
        self.lost.append((flows, reason))

    def tunnel_changed(self, up: bool, reason: str) -> None:
        """See :class:`~telehelper.datapath.tunnel.TunnelUser`."""
        self.changes.append((up, reason))

    def info_changed(self, info: ClusterInfo) -> None:
        """See :class:`~telehelper.datapath.tunnel.TunnelUser`."""
        self.infos.append(info)
