"""The shell round one mux: a byte stream and a timer.

Reading never stops to make backpressure: what a flow may send is bounded by its credit, and a carrier that is not
read stalls whatever else passes the same connection. Writing waits for the stream, and what waits does so in the
mux, where a heartbeat still overtakes it; at most ``WRITE_BUDGET`` bytes or so are beyond recall in the stream.

What is sent in one turn of the event loop is written together in the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
from time import monotonic  # uvloop's own clock has a grain of 1 ms, too coarse for a heartbeat's round trip
from typing import TYPE_CHECKING, Final

from telehelper.core.frames import Frame, FrameType, encode_coded
from telehelper.errors import TunnelError

if TYPE_CHECKING:
    from collections.abc import Callable

    from telehelper.byte_stream import ByteStream
    from telehelper.core.mux import Mux

WRITE_BUDGET: Final = 256 * 1024  # bytes taken from the mux at once; 0.4 ms at 5 Gbit/s
FLUSH_TIME: Final = 1.0  # seconds that closing may spend on sending what is queued
EPROTO: Final = 71  # errno of the GOAWAY that answers garbage


class Carrier:
    """Drives one mux over one stream.

    Parameters
    ----------
    stream
        The connection; the carrier closes it.
    mux
        This end's mux.
    on_frames
        Called with the frames received, PING and PONG excepted; payloads of DATA and DATAGRAM are valid until it
        returns. A TunnelError that it raises ends the carrier as garbage on the stream does: with a GOAWAY that says
        why.
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
        self._flushed = asyncio.Event()
        self._ended: asyncio.Future[str] = self._loop.create_future()
        self._done = asyncio.Event()
        self._bug: Exception | None = None
        self._running = False
        self._is_push_due = False
        self._has_last_words = False
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
        if not self._is_push_due:
            self._is_push_due = True
            self._loop.call_soon(self._push)

    def drop_flow(self, flow: int) -> None:
        """Forget what a flow has queued."""
        self.mux.drop_flow(flow)

    def probe(self) -> None:
        """Have the far side prove soon that it is there, see :meth:`Mux.probe`."""
        if self._timer is not None and not self._ended.done():
            self._timer.cancel()
            self.mux.probe(monotonic())
            self._handle_timer()

    async def run(self) -> None:
        """Carry until the end; `on_lost` has been called on return. Cancelling ends the carrier too."""
        self._running = True
        self._stream.start(self)
        self._handle_timer()
        reason = "cancelled"
        try:
            reason = await asyncio.shield(self._ended)
        finally:
            self._end(reason)
            if self._timer is not None:
                self._timer.cancel()
            # Flows must not wait for the stream's closing, which may take its time.
            self._on_lost(self, reason)
            if self._has_last_words:
                await self._flush()
            await self._stream.close()
            self._done.set()
            if self._bug is not None:
                raise self._bug

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

    # --- from the stream ---

    def data_received(self, data: bytes | memoryview) -> None:
        """See :class:`~telehelper.byte_stream.StreamOwner`."""
        if self._ended.done():
            return
        try:
            frames = self.mux.receive_data(data, monotonic())
            if frames:
                self._on_frames(self, frames)
        except TunnelError as error:
            self._refuse(error.message)
        except Exception as error:  # a bug; the stream would swallow it, `run` raises it
            self._bug = error
            self._end("internal error")
        else:
            if self.mux.queued:  # a PONG, or what the frames caused
                self._push()

    def writable(self) -> None:
        """See :class:`~telehelper.byte_stream.StreamOwner`."""
        self._push()

    def stream_ended(self, error: Exception | None) -> None:
        """See :class:`~telehelper.byte_stream.StreamOwner`."""
        self._flushed.set()  # as far as it will ever be
        if error is None:
            whole = self.mux.at_boundary()
            self._end("the far side closed the carrier" if whole else "the carrier was cut within a frame")
        elif isinstance(error, OSError | TunnelError):
            self._end(_lost(error))
        else:
            self._bug = error
            self._end("internal error")

    # --- inside ---

    def _refuse(self, why: str) -> None:
        """Hang up on garbage, having said why."""
        self.send(encode_coded(FrameType.GOAWAY, 0, EPROTO, why))
        self._has_last_words = True
        self._end(why)

    def _push(self) -> None:
        """Write what is queued, as far as the stream takes it."""
        self._is_push_due = False
        take, stream = self.mux.take, self._stream
        try:
            while stream.is_writable and (buffers := take(WRITE_BUDGET)):
                stream.write(buffers)
                if self._on_taken is not None and not self._ended.done():
                    self._on_taken(self)
        except (OSError, TunnelError) as error:
            self.stream_ended(error)
        if not self.mux.queued:
            self._flushed.set()

    async def _flush(self) -> None:
        self._flushed.clear()
        self._push()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_TIME):
                await self._flushed.wait()

    def _end(self, reason: str) -> None:
        if not self._ended.done():
            self._ended.set_result(reason)

    def _handle_timer(self) -> None:
        now = monotonic()
        self.mux.handle_timer(now)
        if self.mux.is_dead(now):
            self._end("the far side has been silent for too long")
            return
        if self.mux.queued:
            self._push()
        self._timer = self._loop.call_later(max(0.0, self.mux.next_timer() - now), self._handle_timer)


def _lost(error: OSError | TunnelError) -> str:
    return f"carrier lost: {(error.strerror if isinstance(error, OSError) else None) or error}"
