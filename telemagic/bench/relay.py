"""A long way for TCP, where the kernel has no netem: `python -m telemagic.bench.relay`, a relay that delays.

Each chunk read is stamped and written after the delay, in order, so the rate is limited only by what may be on its
way, which is bounded: a sender that is faster meets a closed window, as on a real path. Connections are dialled after
one delay as well. Prints ``ready PORT``; a line ``cut`` on standard input resets all connections; ends at its end.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import socket
import struct
import sys
import time
from collections import deque
from typing import TYPE_CHECKING, Final, cast

import uvloop

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# Bytes on their way per direction: a delay of 10 ms fills this at 50 Gbit/s, and 50 ms at 10 Gbit/s.
CAPACITY: Final = 64 * 1024 * 1024
# Seconds; the loop's clock stands still during a turn and counts in these, so it is not asked for less, or it would
# turn empty until the time has come. A chunk is at most this and what the machine takes late, and never early.
_TICK: Final = 0.001
_LINGER_0: Final = struct.pack("ii", 1, 0)
_SOCKET_BUFFER: Final = 4 * 1024 * 1024  # bytes; what waits behind the delay must not make it longer


class DelayLine:
    """Chunks on their way, each due one delay after it came; sans-IO.

    Parameters
    ----------
    delay
        Seconds.
    capacity
        Bytes on their way above which `is_full`; what comes all the same is taken.
    """

    def __init__(self, delay: float, capacity: int = CAPACITY) -> None:
        self.size = 0
        self._delay = delay
        self._capacity = capacity
        self._chunks: deque[tuple[float, bytes]] = deque()

    @property
    def is_full(self) -> bool:
        """Whether nothing more should be put in for now."""
        return self.size >= self._capacity

    def put(self, chunk: bytes, now: float) -> None:
        """Send a chunk on its way; an empty one is the end."""
        self._chunks.append((now + self._delay, chunk))
        self.size += len(chunk)

    def take(self, now: float) -> list[bytes]:
        """Take out what has arrived."""
        arrived = []
        while self._chunks and self._chunks[0][0] <= now:
            arrived.append(self._chunks.popleft()[1])
        self.size -= sum(map(len, arrived))
        return arrived

    def next_due(self) -> float | None:
        """Return when the next chunk arrives."""
        return self._chunks[0][0] if self._chunks else None


class _End(asyncio.Protocol):
    """One end of a connection; what it reads goes down its line to the other end."""

    def __init__(self, delay: float, on_connected: Callable[[_End], None]) -> None:
        self.peer: _End | None = None
        self.transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._line = DelayLine(delay)
        self._on_connected = on_connected
        self._timer: asyncio.TimerHandle | None = None
        self._is_blocked = False  # the peer's socket takes no more for now
        self._is_through = False  # our end of file has arrived at the other end
        self._is_over = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is none of asyncio's
        self.transport.set_write_buffer_limits(_SOCKET_BUFFER)
        self._on_connected(self)

    def data_received(self, data: bytes) -> None:
        self._line.put(data, time.monotonic())
        self._arm()
        if self._line.is_full and self.transport is not None:
            self.transport.pause_reading()

    def eof_received(self) -> bool:
        self._line.put(b"", time.monotonic())
        self._arm()
        return True  # a half-close: the other direction goes on

    def connection_lost(self, exc: Exception | None) -> None:
        """Reset the other end; after two proper ends of file there is nothing left to reset."""
        self.cut()
        if self.peer is not None:
            self.peer.cut()

    def pause_writing(self) -> None:
        if self.peer is not None:
            self.peer._is_blocked = True

    def resume_writing(self) -> None:
        if self.peer is not None:
            self.peer._is_blocked = False
            self.peer.deliver()

    def join(self, peer: _End) -> None:
        """Take the other end of the way, and deliver what has come before it was there."""
        self.peer = peer
        self._arm()

    def cut(self) -> None:
        """Reset the connection; idempotent."""
        if self._timer is not None:
            self._timer.cancel()
        if self.transport is not None and not self._is_over:
            self._is_over = True
            _reset_on_close(self.transport)
            self.transport.abort()

    def deliver(self) -> None:
        """Hand the other end what has arrived."""
        self._timer = None
        if self.peer is None or self.peer.transport is None or self._is_blocked or self.peer._is_over:
            return
        was_full = self._line.is_full
        arrived = self._line.take(time.monotonic())
        if arrived:
            self.peer.transport.writelines([chunk for chunk in arrived if chunk])
            if not arrived[-1]:
                self._end(self.peer)
        if was_full and not self._line.is_full and self.transport is not None and not self._is_over:
            self.transport.resume_reading()
        self._arm()

    def _end(self, peer: _End) -> None:
        assert self.transport is not None  # noqa: S101 - both are connected; for mypy
        assert peer.transport is not None  # noqa: S101
        peer.transport.write_eof()
        self._is_through = True
        if peer._is_through:
            self._is_over = peer._is_over = True
            self.transport.close()
            peer.transport.close()

    def _arm(self) -> None:
        due = self._line.next_due()
        if due is not None and self._timer is None and self.peer is not None and not self._is_blocked:
            wait = max(due - time.monotonic(), _TICK)
            self._timer = self._loop.call_later(wait, self.deliver)


def _reset_on_close(transport: asyncio.Transport) -> None:
    """Let the close that follows say RST, not FIN: a cut is no proper end."""
    # uvloop's own socket object has no setsockopt; another object for the same connection does.
    with socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno())) as same:
        same.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_0)


class Relay:
    """Listens, and joins each connection with one to the target.

    Parameters
    ----------
    host, port
        The target.
    delay
        Seconds each way.
    """

    def __init__(self, host: str, port: int, delay: float) -> None:
        self._target = (host, port)
        self._delay = delay
        self._ends: set[_End] = set()
        self._dials: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def listen(self, host: str, port: int = 0) -> int:
        """Start; returns the port."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _End(self._delay, self._accepted), host, port)
        bound: int = self._server.sockets[0].getsockname()[1]
        return bound

    def cut(self) -> None:
        """Reset all connections; new ones are taken as before."""
        for end in self._ends:
            end.cut()
        self._ends.clear()

    async def close(self) -> None:
        """Stop listening and reset everything."""
        if self._server is not None:
            self._server.close()
        for task in self._dials:
            task.cancel()
        await asyncio.gather(*self._dials, return_exceptions=True)
        self.cut()

    def _accepted(self, near: _End) -> None:
        self._ends = {end for end in self._ends if not end._is_over} | {near}
        task = asyncio.get_running_loop().create_task(self._dial(near))
        self._dials.add(task)
        task.add_done_callback(self._dials.discard)

    async def _dial(self, near: _End) -> None:
        await asyncio.sleep(self._delay)
        loop = asyncio.get_running_loop()
        try:
            _, far = await loop.create_connection(lambda: _End(self._delay, self._ends.add), *self._target)
        except OSError:
            near.cut()  # the kernel has answered the handshake before we could know: a reset is all that is left
            return
        if near._is_over:
            far.cut()
            return
        near.join(far)
        far.join(near)


async def serve(relay: Relay, host: str, port: int) -> None:
    """Run a relay until the end of standard input."""
    print(f"ready {await relay.listen(host, port)}", flush=True)  # noqa: T201 - whoever starts it waits for this
    loop = asyncio.get_running_loop()
    over = asyncio.Event()

    def command() -> None:
        line = os.read(sys.stdin.fileno(), 1024)
        if not line:
            over.set()
        elif b"cut" in line:
            relay.cut()

    loop.add_reader(sys.stdin.fileno(), command)
    await over.wait()
    await relay.close()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m telemagic.bench.relay", description=__doc__)
    parser.add_argument("--host", required=True, help="where to")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--listen", default="127.0.0.1", help="address to listen on; the port is printed")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds each way")
    options = parser.parse_args(arguments)
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(serve(Relay(options.host, options.port, options.delay), options.listen, 0))


if __name__ == "__main__":
    main()
