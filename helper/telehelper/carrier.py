"""The shell round one mux: a byte stream, a reader, a writer and a timer.

Reading never stops to make backpressure: what a flow may send is bounded by its credit, and a carrier that is not
read stalls whatever else passes the same connection. Writing waits for the stream, and what waits does so in the
mux, where a heartbeat still overtakes it; at most ``WRITE_BUDGET`` bytes or so are beyond recall in the stream.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from time import monotonic  # uvloop's own clock has a grain of 1 ms, too coarse for a heartbeat's round trip
from typing import TYPE_CHECKING, Final, Protocol

from telehelper.core.frames import Frame, FrameType, encode_coded
from telehelper.errors import TunnelError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from telehelper.core.mux import Mux

WRITE_BUDGET: Final = 256 * 1024  # bytes taken from the mux at once; 0.4 ms at 5 Gbit/s
FLUSH_TIME: Final = 1.0  # seconds that closing may spend on sending what is queued
EPROTO: Final = 71  # errno of the GOAWAY that answers garbage


class ByteStream(Protocol):
    """What a carrier needs of a connection; failures are OSError or TunnelError."""

    async def receive(self) -> bytes | memoryview:
        """Return the next bytes, empty at the end of the stream."""

    async def send(self, buffers: Sequence[bytes | bytearray | memoryview]) -> None:
        """Send buffers in order; return when more may be sent. They must not change afterwards."""

    async def close(self) -> None:
        """Send what can still be sent at once, and close. May be called again."""


class MemoryStream:
    """One end of an in-memory connection, for tests: unbounded, so sending never waits unless ``hold`` says so."""

    def __init__(self) -> None:
        self.peer: MemoryStream | None = None
        self.closed = False
        self.broken: OSError | None = None  # set it to make sending fail
        self.may_send = asyncio.Event()
        self.may_send.set()
        self._inbox: deque[bytes] = deque()
        self._news = asyncio.Event()

    def deliver(self, data: bytes) -> None:
        """Put bytes where `receive` finds them; empty bytes are the end."""
        self._inbox.append(data)
        self._news.set()

    async def receive(self) -> bytes:
        """See :class:`ByteStream`."""
        while not self._inbox:
            self._news.clear()
            await self._news.wait()
        return self._inbox.popleft() if self._inbox[0] else b""

    async def send(self, buffers: Sequence[bytes | bytearray | memoryview]) -> None:
        """See :class:`ByteStream`."""
        if self.broken is not None:
            raise self.broken
        if self.peer is not None:
            self.peer.deliver(b"".join(buffers))
        await self.may_send.wait()

    async def close(self) -> None:
        """See :class:`ByteStream`."""
        if not self.closed:
            self.closed = True
            self.deliver(b"")
            if self.peer is not None:
                self.peer.deliver(b"")


def memory_pair() -> tuple[MemoryStream, MemoryStream]:
    """Return the two ends of an in-memory connection."""
    one, two = MemoryStream(), MemoryStream()
    one.peer, two.peer = two, one
    return one, two


def _lost(error: OSError | TunnelError) -> str:
    return f"carrier lost: {(error.strerror if isinstance(error, OSError) else None) or error}"


class Carrier:
    """Drives one mux over one stream.

    Parameters
    ----------
    stream
        The connection; the carrier closes it.
    mux
        This end's mux.
    on_frames
        Called with the frames received, PING and PONG excepted. A TunnelError that it raises ends the carrier as
        garbage on the stream does: with a GOAWAY that says why.
    on_lost
        Called exactly once by `run`, when the carrier has ended for whatever reason, with the reason in one line. Nothing
        is called after it.
    on_taken
        Called whenever the stream has taken bytes off the mux: who waits for room may look again.
    """

    def __init__(
        self,
        stream: ByteStream,
        mux: Mux,
        *,
        on_frames: Callable[[Carrier, list[Frame]], None],
        on_lost: Callable[[Carrier, str], None],
        on_taken: Callable[[Carrier], None] | None = None,
    ) -> None:
        self.mux = mux
        self._stream = stream
        self._on_frames = on_frames
        self._on_lost = on_lost
        self._on_taken = on_taken
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._flushed = asyncio.Event()
        self._ended: asyncio.Future[str] = self._loop.create_future()
        self._done = asyncio.Event()
        self._running = False
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_open(self) -> bool:
        """Whether frames may still be sent to some effect."""
        return not self._ended.done()

    def send(self, frame: Frame) -> None:
        """Queue a frame; never blocks. After the end, frames go nowhere."""
        if self._ended.done():
            return
        self.mux.send(frame)
        self._wake.set()

    def drop_flow(self, flow: int) -> None:
        """Forget what a flow has queued."""
        self.mux.drop_flow(flow)

    async def run(self) -> None:
        """Carry until the end; `on_lost` has been called on return. Cancelling ends the carrier too."""
        self._running = True
        tasks = [asyncio.ensure_future(self._read()), asyncio.ensure_future(self._write())]
        reason = "cancelled"
        self._handle_timer()
        try:
            reason = await asyncio.shield(self._ended)
        finally:
            self._end(reason)
            if self._timer is not None:
                self._timer.cancel()
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            # Flows must not wait for the stream's closing, which may take its time.
            self._on_lost(self, reason)
            await self._stream.close()
            self._done.set()
            for result in results:
                if isinstance(result, Exception):
                    raise result

    async def close(self, reason: str) -> None:
        """End the carrier: send what is queued, for at most ``FLUSH_TIME``, and wait for `run` to finish."""
        if not self._running:
            self._end(reason)
            await self._stream.close()
            return
        if self.is_open:
            await self._flush()
        self._end(reason)
        await self._done.wait()

    async def _flush(self) -> None:
        self._flushed.clear()
        self._wake.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_TIME):
                await self._flushed.wait()

    def _end(self, reason: str) -> None:
        if not self._ended.done():
            self._ended.set_result(reason)
        self._flushed.set()

    async def _read(self) -> None:
        try:
            while data := await self._stream.receive():
                if not await self._receive(data):
                    return
            whole = self.mux.at_boundary()
            self._end("the far side closed the carrier" if whole else "the carrier was cut within a frame")
        except (OSError, TunnelError) as error:
            self._end(_lost(error))
        finally:
            self._end("internal error")  # only if nothing above ended it

    async def _receive(self, data: bytes | memoryview) -> bool:
        """Pass on what was received; return False after hanging up on garbage, having said why."""
        try:
            frames = self.mux.receive_data(data, monotonic())
            if frames:
                self._on_frames(self, frames)
        except TunnelError as error:
            self.send(encode_coded(FrameType.GOAWAY, 0, EPROTO, error.message))
            await self._flush()
            self._end(error.message)
            return False
        if self.mux.queued:  # a PONG, or what the frames caused
            self._wake.set()
        return True

    async def _write(self) -> None:
        take, send = self.mux.take, self._stream.send
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while buffers := take(WRITE_BUDGET):
                    await send(buffers)
                    if self._on_taken is not None:
                        self._on_taken(self)
                self._flushed.set()
        except (OSError, TunnelError) as error:
            self._end(_lost(error))
        finally:
            self._end("internal error")  # only if nothing above ended it

    def _handle_timer(self) -> None:
        now = monotonic()
        self.mux.handle_timer(now)
        if self.mux.is_dead(now):
            self._end("the far side has been silent for too long")
            return
        if self.mux.queued:
            self._wake.set()
        self._timer = self._loop.call_later(max(0.0, self.mux.next_timer() - now), self._handle_timer)
