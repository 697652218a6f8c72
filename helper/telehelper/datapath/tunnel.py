"""The tunnel: one control connection and a few carriers to one traffic manager, kept alive.

States: down → up → down → …, until closed. Going up is :func:`open_uplink`: find the manager's pod, register a session,
open the carriers, each proven by HELLO. A flow rides on one carrier for its whole life, the one with the fewest
flows when it was opened.

* One carrier of several dies: its flows are reset, a replacement is opened in the background.
* The last carrier dies, or the control connection: all flows are reset at once, with the reason, and the tunnel is
  opened anew with back-off and jitter until it is there or closed. OPENs made meanwhile wait, bounded, and are
  refused when their own dial timeout passes.
"""

from __future__ import annotations

import asyncio
import errno
import random
from typing import TYPE_CHECKING, Final, Protocol

from telehelper.core.frames import Frame, FrameType, decode_open, encode_coded
from telehelper.errors import TelemagicError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence

    from telehelper.rpc.manager_pb2 import ClusterInfo

FIRST_DELAY: Final = 0.2  # seconds before the first try to reconnect
MAX_DELAY: Final = 5.0  # seconds between tries: the tunnel is back within ten seconds of the network's return
WAITING_OPENS: Final = 1024  # flows that may wait for the tunnel; further ones are refused


class CarrierLike(Protocol):
    """What the tunnel needs of a carrier that said HELLO."""

    @property
    def rtt(self) -> float | None:
        """Round-trip time of the heartbeat, in seconds."""

    @property
    def min_rtt(self) -> float | None:
        """The least one measured."""

    def send(self, frame: Frame) -> None:
        """Queue a frame."""


class Uplink(Protocol):
    """One registration with one manager: what :func:`~telehelper.datapath.uplink.open_uplink` returns."""

    @property
    def carriers(self) -> Sequence[CarrierLike]:
        """The carriers, open."""

    async def add_carrier(self) -> CarrierLike:
        """Open one more carrier."""

    async def close(self, reason: str) -> None:
        """Close carriers and control connection."""


class TunnelUser(Protocol):
    """Who hears from the tunnel; all calls are made on the event loop."""

    def frames_received(self, frames: list[Frame]) -> None:
        """Take frames of flows, in order for each flow."""

    def flows_lost(self, flows: set[int], reason: str) -> None:
        """Learn that these flows' carrier has gone."""

    def tunnel_changed(self, up: bool, reason: str) -> None:
        """Learn that the tunnel went up or down."""

    def info_changed(self, info: ClusterInfo) -> None:
        """Learn of the cluster's networks and names, at each connect and change."""


class Tunnel:
    """Keeps an uplink open and spreads flows over its carriers.

    Parameters
    ----------
    connect
        Opens an uplink whose carriers report to this tunnel (:meth:`carrier_frames`, :meth:`carrier_lost`,
        :meth:`control_lost`).
    user
        Gets frames and news.
    """

    def __init__(self, connect: Callable[[Tunnel], Awaitable[Uplink]], user: TunnelUser) -> None:
        self._connect = connect
        self._user = user
        self._uplink: Uplink | None = None
        self._flows: dict[int, CarrierLike] = {}
        self._load: dict[CarrierLike, set[int]] = {}
        self._waiting: dict[int, tuple[Frame, asyncio.TimerHandle]] = {}  # OPENs, by flow, in order
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False
        self.last_error = ""

    @property
    def is_up(self) -> bool:
        """Whether there is an uplink with a carrier."""
        return bool(self._load)

    @property
    def rtt(self) -> float | None:
        """The shortest heartbeat round trip of all carriers, in seconds."""
        return min((carrier.rtt for carrier in self._load if carrier.rtt is not None), default=None)

    @property
    def min_rtt(self) -> float | None:
        """The least round trip that any of the carriers has measured, in seconds: the way's own."""
        return min((carrier.min_rtt for carrier in self._load if carrier.min_rtt is not None), default=None)

    @property
    def carriers(self) -> int:
        """How many carriers are alive."""
        return len(self._load)

    async def start(self) -> Uplink:
        """Open the first uplink; its errors are the caller's, nothing is tried again."""
        uplink = await self._connect(self)
        self._adopt(uplink)
        return uplink

    def send(self, frame: Frame) -> None:
        """Send a flow's frame. OPEN picks the carrier; frames of flows without one are dropped: they were reset."""
        carrier = self._flows.get(frame.flow)
        if carrier is None:
            if frame.type is FrameType.OPEN:
                self._open(frame)
            return
        carrier.send(frame)

    def forget(self, flow: int) -> None:
        """Drop a flow that is over on our side."""
        carrier = self._flows.pop(flow, None)
        if carrier in self._load:
            self._load[carrier].discard(flow)
        elif flow in self._waiting:
            self._waiting.pop(flow)[1].cancel()

    async def close(self) -> None:
        """Close everything; flows are not reported."""
        self._closed = True
        self._stop_waiting()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        uplink, self._uplink = self._uplink, None
        self._flows.clear()
        self._load.clear()
        if uplink is not None:
            await uplink.close("disconnected")

    # --- what the uplink reports

    def carrier_frames(self, carrier: CarrierLike, frames: list[Frame]) -> None:
        """Take the frames that came in on a carrier."""
        for frame in frames:
            if frame.type is FrameType.GOAWAY and self._load.pop(carrier, None) is not None:
                self.last_error = "the traffic manager is going away"
                self._replace_or_reconnect(self.last_error)  # flows it has may end in peace, if others live
        self._user.frames_received([frame for frame in frames if frame.flow])

    def carrier_lost(self, carrier: CarrierLike, reason: str) -> None:
        """Learn that a carrier died: its flows are over."""
        was_in_use = self._load.pop(carrier, None) is not None
        self._lose({flow for flow, used in self._flows.items() if used is carrier}, reason)
        if was_in_use:  # else it was going away, or its whole uplink is being closed
            self._replace_or_reconnect(reason)

    def control_lost(self, uplink: Uplink, reason: str) -> None:
        """Learn that the control connection died or our session is unknown: carriers cannot be added any more."""
        if uplink is self._uplink:
            self._down(reason)

    def info_changed(self, info: ClusterInfo) -> None:
        """Learn of the cluster's networks and names."""
        self._user.info_changed(info)

    # --- inside

    def _adopt(self, uplink: Uplink) -> None:
        self._uplink = uplink
        self._load = {carrier: set() for carrier in uplink.carriers}
        for frame in self._stop_waiting():
            self._open(frame)

    def _open(self, frame: Frame) -> None:
        if self._load:
            carrier = min(self._load, key=lambda each: len(self._load[each]))
            self._flows[frame.flow] = carrier
            self._load[carrier].add(frame.flow)
            carrier.send(frame)
        elif len(self._waiting) >= WAITING_OPENS:
            self._refuse(frame)
        else:
            self._wait(frame)

    def _wait(self, frame: Frame) -> None:
        timeout = decode_open(frame).timeout
        timer = asyncio.get_running_loop().call_later(timeout, self._expire, frame.flow)
        self._waiting[frame.flow] = frame, timer

    def _expire(self, flow: int) -> None:
        frame, _ = self._waiting.pop(flow)
        self._refuse(frame)

    def _stop_waiting(self) -> list[Frame]:
        waiting, self._waiting = self._waiting, {}
        for _, timer in waiting.values():
            timer.cancel()
        return [frame for frame, _ in waiting.values()]

    def _refuse(self, frame: Frame) -> None:
        reason = f"the tunnel is down: {self.last_error}"
        rejected = encode_coded(FrameType.REJECTED, frame.flow, errno.EHOSTUNREACH, reason)
        # Not from inside send(): the user is in the middle of something.
        asyncio.get_running_loop().call_soon(self._user.frames_received, [rejected])

    def _lose(self, flows: set[int], reason: str) -> None:
        for flow in flows:
            del self._flows[flow]
        if flows:
            self._user.flows_lost(flows, reason)

    def _replace_or_reconnect(self, reason: str) -> None:
        if self._load and self._uplink is not None:
            self._spawn(self._replace(self._uplink))
        else:
            self._down(reason)

    def _down(self, reason: str) -> None:
        uplink, self._uplink = self._uplink, None
        if uplink is None or self._closed:
            return
        self.last_error = reason
        self._load.clear()
        self._lose(set(self._flows), reason)
        self._user.tunnel_changed(False, reason)
        self._spawn(self._reconnect(uplink, reason))

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _replace(self, uplink: Uplink) -> None:
        for delay in _delays():
            await asyncio.sleep(delay)
            if self._uplink is not uplink:
                return  # the whole uplink is being replaced
            try:
                carrier = await uplink.add_carrier()
            except (TelemagicError, OSError) as error:
                self.last_error = str(error)
                continue
            if self._uplink is uplink:
                self._load[carrier] = set()
            else:
                await uplink.close("replaced")  # once more: it had one carrier less then
            return

    async def _reconnect(self, lost: Uplink, reason: str) -> None:
        closing = asyncio.ensure_future(lost.close(reason))
        try:
            await asyncio.shield(closing)
        finally:
            await closing  # even when we are cancelled meanwhile; it is bounded
        for delay in _delays():
            await asyncio.sleep(delay)
            try:
                uplink = await self._connect(self)
            except (TelemagicError, OSError) as error:
                self.last_error = str(error)
                continue
            self._adopt(uplink)
            self._user.tunnel_changed(True, "reconnected")
            return


def _delays() -> Iterator[float]:
    """Yield seconds to wait before each try: doubling, bounded, with jitter so that notebooks do not come in step."""
    delay = FIRST_DELAY
    while True:
        yield delay * random.uniform(0.5, 1.0)  # noqa: S311  # spreads load, guards nothing
        delay = min(delay * 2, MAX_DELAY)
