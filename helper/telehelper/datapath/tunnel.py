"""The tunnel: one control connection and a few carriers to one traffic manager, kept alive.

States: down → up → down → …, until closed. Going up is :func:`open_uplink`: find the manager's pod, register a session,
open the carriers, each proven by HELLO. A flow rides on one carrier for its whole life, the one with the fewest
flows when it was opened.

* A carrier dies: its flows are reset at once, with the reason. A replacement is opened in the background.
* A carrier is told GOAWAY: it opens nothing more, its flows may end in peace until the manager closes it. A
  replacement is opened in the background.
* No carrier is left that may open flows: the tunnel is down, and opened anew in the background. OPENs made meanwhile
  wait, bounded, and are refused when their own dial timeout passes.
* The control connection dies: nothing happens to the flows, the session lives while a carrier lives. The uplink opens
  it anew. Only when the manager does not know the session any more, the whole tunnel is opened anew.

* The machine's network changes (:meth:`Tunnel.network_changed`): what waits for its next try has it now, and the
  carriers must show soon that they are alive.
* The machine was asleep (:meth:`Tunnel.machine_woke`) for so long that the manager has given us up: so do we, at once.

Whatever is done in the background is tried with back-off and jitter until it succeeds or the tunnel is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
from time import monotonic
from typing import TYPE_CHECKING, Final, Protocol

from telehelper.core.frames import Frame, FrameType, decode_open, encode_coded
from telehelper.core.mux import DEAD_AFTER
from telehelper.datapath.backoff import BackOff
from telehelper.errors import TelemagicError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterator, Sequence

    from telehelper.rpc.manager_pb2 import ClusterInfo

LASTING: Final = 10.0  # seconds that what was opened must live, for its loss to be made up for at once
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

    def probe(self) -> None:
        """Have the far side show soon that it is there, or be lost."""

    async def close(self, reason: str) -> None:
        """Close it; returns when it is closed."""


class Uplink(Protocol):
    """One registration with one manager: what :func:`~telehelper.datapath.uplink.open_uplink` returns."""

    @property
    def carriers(self) -> Sequence[CarrierLike]:
        """The carriers, open."""

    async def add_carrier(self) -> CarrierLike:
        """Open one more carrier."""

    def wake(self) -> None:
        """Try again now what waits for its next try."""

    async def close(self, reason: str, keep: Collection[CarrierLike] = ()) -> None:
        """Close the control connection, and all carriers but those to `keep`."""


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
        Opens an uplink whose carriers report to this tunnel (:meth:`carrier_frames`, :meth:`carrier_leaving`,
        :meth:`carrier_lost`, :meth:`control_lost`, :meth:`session_lost`).
    user
        Gets frames and news.

    Attributes
    ----------
    last_error
        What was lost last and why; while it is being replaced, what that fails on. Empty if nothing ever was.
    open_sent
        Called when a flow's OPEN was given to a carrier, with the flow and that carrier's round trip in seconds.
    """

    def __init__(self, connect: Callable[[Tunnel], Awaitable[Uplink]], user: TunnelUser) -> None:
        self._connect = connect
        self._user = user
        self._uplink: Uplink | None = None
        self._flows: dict[int, CarrierLike] = {}
        self._load: dict[CarrierLike, set[int]] = {}  # of the carriers that may open flows
        self._leaving: set[CarrierLike] = set()  # those that may not any more, but are not closed yet
        self._waiting: dict[int, tuple[Frame, asyncio.TimerHandle]] = {}  # OPENs, by flow, in order
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing: set[asyncio.Future[None]] = set()  # lost uplinks; never cancelled, for it is bounded
        self._back_offs: set[BackOff] = set()  # of what is being tried again
        self._opened_at = -LASTING  # monotonic: when something was last opened in the background
        self._short_lived = 0  # how many in a row did not last
        self._closed = False
        self.last_error = ""
        self.open_sent: Callable[[int, float | None], None] = lambda _flow, _rtt: None

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
        await asyncio.gather(*self._closing)
        uplink, self._uplink = self._uplink, None
        leaving, self._leaving = self._leaving, set()
        self._flows.clear()
        self._load.clear()
        await asyncio.gather(*(carrier.close("disconnected") for carrier in leaving))
        if uplink is not None:
            await uplink.close("disconnected")

    # --- what the uplink reports

    def carrier_frames(self, frames: list[Frame]) -> None:
        """Take frames of flows that came in on a carrier."""
        self._user.frames_received(frames)

    def carrier_leaving(
        self, carrier: CarrierLike, reason: str = "the traffic manager is going away"
    ) -> None:
        """Learn that the manager will close a carrier, and opens nothing more there."""
        if self._load.pop(carrier, None) is not None:
            self._leaving.add(carrier)
            self._make_up_for_it(reason)

    def carrier_lost(self, carrier: CarrierLike, reason: str) -> None:
        """Learn that a carrier died: its flows are over."""
        was_in_use = self._load.pop(carrier, None) is not None
        self._leaving.discard(carrier)
        self._lose({flow for flow, used in self._flows.items() if used is carrier}, reason)
        if was_in_use:  # else it was going away, or its whole uplink is being closed
            self._make_up_for_it(reason)

    def control_lost(self, uplink: Uplink, reason: str) -> None:
        """Learn that the control connection died; the uplink is opening it anew."""
        if uplink is self._uplink:
            self.last_error = f"{reason}; flows go on"

    def session_lost(self, uplink: Uplink, reason: str) -> None:
        """Learn that the manager does not know our session: carriers cannot be added any more."""
        if uplink is self._uplink:
            self._lose_uplink(reason)

    def info_changed(self, info: ClusterInfo) -> None:
        """Learn of the cluster's networks and names."""
        self._user.info_changed(info)

    # --- what happens to the machine

    def network_changed(self) -> None:
        """Learn that the machine's network changed: perhaps it is back, perhaps our connections lead nowhere now."""
        for back_off in self._back_offs:
            back_off.wake()
        if self._uplink is not None:
            self._uplink.wake()
        for carrier in (*self._load, *self._leaving):
            carrier.probe()

    def machine_woke(self, seconds: float) -> None:
        """Learn that the machine was suspended for so many seconds."""
        if seconds >= DEAD_AFTER:
            self._lose_uplink(f"this machine was asleep for {seconds:.0f} s")
        self.network_changed()

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
            self.open_sent(frame.flow, carrier.rtt)
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

    def _lose_uplink(self, reason: str) -> None:
        flows = {flow for carried in self._load.values() for flow in carried}
        self._load.clear()
        self._lose(flows, reason)
        self._down(reason)

    def _lose(self, flows: set[int], reason: str) -> None:
        for flow in flows:
            del self._flows[flow]
        if flows:
            self._user.flows_lost(flows, reason)

    def _make_up_for_it(self, reason: str) -> None:
        """Have a carrier that may not open flows any more replaced; if it was the last one, with all the uplink."""
        if self._load and self._uplink is not None:
            self.last_error = reason
            self._spawn(self._replace(self._uplink, reason))
        else:
            self._down(reason)

    def _down(self, reason: str) -> None:
        uplink, self._uplink = self._uplink, None
        if uplink is None or self._closed:
            return
        self.last_error = reason
        self._user.tunnel_changed(False, reason)
        # The manager closes those that are leaving, when their flows have ended or its grace is over.
        closing = asyncio.ensure_future(uplink.close(reason, keep=tuple(self._leaving)))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
        self._spawn(self._reconnect(closing, reason))

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _replace(self, uplink: Uplink, reason: str) -> None:
        with self._backing_off() as back_off:
            while True:
                await back_off.wait()
                if self._uplink is not uplink:
                    return  # the whole uplink is being replaced
                try:
                    carrier = await uplink.add_carrier()
                    break
                except (TelemagicError, OSError) as error:
                    self.last_error = str(error)
        self._opened_at = monotonic()
        if self._uplink is uplink:
            self._load[carrier] = set()
            self.last_error = reason
        else:
            await uplink.close("replaced")  # once more: it had one carrier less then

    async def _reconnect(self, closing: asyncio.Future[None], reason: str) -> None:
        await asyncio.shield(closing)
        with self._backing_off() as back_off:
            while True:
                await back_off.wait()
                try:
                    uplink = await self._connect(self)
                    break
                except (TelemagicError, OSError) as error:
                    self.last_error = str(error)
        self._opened_at = monotonic()
        self._adopt(uplink)
        self.last_error = reason
        self._user.tunnel_changed(True, "reconnected")

    @contextlib.contextmanager
    def _backing_off(self) -> Iterator[BackOff]:
        """Have the wait between tries, woken by news; longer if what was opened lately does not last."""
        self._short_lived = self._short_lived + 1 if monotonic() - self._opened_at < LASTING else 0
        back_off = BackOff(self._short_lived)
        self._back_offs.add(back_off)
        try:
            yield back_off
        finally:
            self._back_offs.discard(back_off)
