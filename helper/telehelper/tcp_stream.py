"""A TCP connection as a byte stream, made for throughput: no reader object, no second copy."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import deque
from typing import TYPE_CHECKING, Final, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

HIGH_WATER: Final = 128 * 1024  # bytes in the transport beyond which sending waits
UNSENT: Final = (
    128 * 1024
)  # bytes the kernel may hold unsent (TCP_NOTSENT_LOWAT, tcp(7)), so that frames can overtake
TCP_NOTSENT_LOWAT: Final = 25  # linux/tcp.h; the socket module has no name for it
CLOSE_TIME: Final = 1.0  # seconds to get rid of what is buffered


class TcpStream(asyncio.Protocol):
    """A :class:`telehelper.carrier.ByteStream` over an asyncio transport.

    Reading is never paused, because a carrier is always read: what is received waits here for `receive`.

    Parameters
    ----------
    on_made
        Called with the stream when the connection is there; for servers.
    """

    def __init__(self, on_made: Callable[[TcpStream], None] | None = None) -> None:
        self._on_made = on_made
        self._transport: asyncio.Transport | None = None
        self._inbox: deque[bytes] = deque()
        self._ended = False
        self._error: Exception | None = None
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None
        self._paused = False
        self._closed = asyncio.Event()

    # --- called by the transport ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See :class:`asyncio.Protocol`."""
        # uvloop's transports are not subclasses of asyncio's.
        self._transport = transport = cast("asyncio.Transport", transport)
        transport.set_write_buffer_limits(high=HIGH_WATER)
        sock = transport.get_extra_info("socket")
        with contextlib.suppress(OSError):  # tuning only; not a TCP socket in some tests
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.IPPROTO_TCP, TCP_NOTSENT_LOWAT, UNSENT)
        if self._on_made is not None:
            self._on_made(self)

    def data_received(self, data: bytes) -> None:
        """See :class:`asyncio.Protocol`."""
        self._inbox.append(data)
        _release(self._reader)

    def eof_received(self) -> bool:
        """See :class:`asyncio.Protocol`; the transport stays open for a last GOAWAY."""
        self._ended = True
        _release(self._reader)
        return True

    def pause_writing(self) -> None:
        """See :class:`asyncio.Protocol`."""
        self._paused = True

    def resume_writing(self) -> None:
        """See :class:`asyncio.Protocol`."""
        self._paused = False
        _release(self._writer)

    def connection_lost(self, exc: Exception | None) -> None:
        """See :class:`asyncio.Protocol`."""
        self._ended = True
        self._error = exc
        self._closed.set()
        _release(self._reader)
        _release(self._writer)

    # --- ByteStream ---

    async def receive(self) -> bytes:
        """Return the next bytes, empty at the end; OSError if the connection broke."""
        while not self._inbox:
            if self._ended:
                if isinstance(self._error, OSError):
                    raise self._error
                return b""
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        return self._inbox.popleft()

    async def send(self, buffers: Sequence[bytes | bytearray | memoryview]) -> None:
        """Hand buffers to the kernel, uncopied if it takes them at once; wait while it holds too much."""
        if self._closed.is_set() or self._transport is None:
            raise ConnectionResetError(104, "Connection reset by peer") from self._error
        self._transport.writelines(buffers)
        while self._paused and not self._closed.is_set():
            self._writer = asyncio.get_running_loop().create_future()
            try:
                await self._writer
            finally:
                self._writer = None

    async def close(self) -> None:
        """Send what is buffered within ``CLOSE_TIME``, then drop the connection."""
        if self._transport is None:
            return
        self._transport.close()
        try:
            async with asyncio.timeout(CLOSE_TIME):
                await self._closed.wait()
        except TimeoutError:
            self._transport.abort()


def _release(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)


async def connect_tcp(host: str, port: int) -> TcpStream:
    """Open a TCP connection; OSError if that fails."""
    _, stream = await asyncio.get_running_loop().create_connection(TcpStream, host, port)
    return stream


async def serve_tcp(host: str, port: int, on_made: Callable[[TcpStream], None]) -> asyncio.Server:
    """Listen for TCP connections (port 0: any) and call `on_made` with each."""
    return await asyncio.get_running_loop().create_server(lambda: TcpStream(on_made), host, port)
