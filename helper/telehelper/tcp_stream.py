"""A TCP connection as a byte stream, made for throughput: no reader object, no copy."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from typing import TYPE_CHECKING, Final, cast

if TYPE_CHECKING:
    from collections.abc import Sequence

    from telehelper.byte_stream import StreamOwner

READ_BUFFER: Final = 256 * 1024  # bytes read at once; four of the largest frames
HIGH_WATER: Final = 128 * 1024  # bytes in the transport beyond which sending waits
# Bytes the kernel may hold unsent (TCP_NOTSENT_LOWAT, tcp(7)), so that frames can overtake
UNSENT: Final = 128 * 1024
TCP_NOTSENT_LOWAT: Final = 25  # linux/tcp.h; the socket module has no name for it
CLOSE_TIME: Final = 1.0  # seconds to get rid of what is buffered


class TcpStream(asyncio.BufferedProtocol):
    """A :class:`telehelper.byte_stream.ByteStream` over an asyncio transport, TLS or not.

    Reading is never paused, because a carrier is always read. The transport reads into one buffer, which is used
    again and again: what is in it is the owner's until `data_received` returns.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._owner: StreamOwner | None = None
        self._buffer = memoryview(bytearray(READ_BUFFER))
        self._early = bytearray()  # what came before `start`
        self._ended = False
        self._error: Exception | None = None
        self._paused = False
        self._closed = asyncio.Event()

    # --- called by the transport ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See :class:`asyncio.BufferedProtocol`."""
        # uvloop's transports are not subclasses of asyncio's.
        self._transport = transport = cast("asyncio.Transport", transport)
        transport.set_write_buffer_limits(high=HIGH_WATER)
        sock = transport.get_extra_info("socket")
        with contextlib.suppress(OSError):  # tuning only; not a TCP socket in some tests
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.IPPROTO_TCP, TCP_NOTSENT_LOWAT, UNSENT)

    def get_buffer(self, sizehint: int) -> memoryview:
        """See :class:`asyncio.BufferedProtocol`."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """See :class:`asyncio.BufferedProtocol`."""
        if self._owner is None:
            self._early += self._buffer[:nbytes]
        else:
            self._owner.data_received(self._buffer[:nbytes])
        if nbytes == READ_BUFFER and self._transport is not None and not self._transport.is_closing():
            # There may be more, and libuv would go on reading, up to 32 times, before anybody else gets a turn.
            self._transport.pause_reading()
            self._loop.call_soon(self._read_on)

    def _read_on(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def eof_received(self) -> bool:
        """See :class:`asyncio.BufferedProtocol`; the transport stays open for a last GOAWAY."""
        self._end(None)
        return True

    def pause_writing(self) -> None:
        """See :class:`asyncio.BufferedProtocol`."""
        self._paused = True

    def resume_writing(self) -> None:
        """See :class:`asyncio.BufferedProtocol`."""
        self._paused = False
        if self._owner is not None:
            self._owner.writable()

    def connection_lost(self, exc: Exception | None) -> None:
        """See :class:`asyncio.BufferedProtocol`."""
        self._closed.set()
        self._end(exc)

    # --- ByteStream ---

    @property
    def is_writable(self) -> bool:
        """See :class:`telehelper.byte_stream.ByteStream`."""
        return not self._paused and not self._closed.is_set()

    def start(self, owner: StreamOwner) -> None:
        """See :class:`telehelper.byte_stream.ByteStream`."""
        self._owner = owner
        if self._early:
            owner.data_received(bytes(self._early))
            self._early.clear()
        if self._ended:
            owner.stream_ended(self._error)

    def write(self, buffers: Sequence[bytes | bytearray | memoryview]) -> None:
        """Hand buffers to the kernel, uncopied if it takes them at once."""
        if self._transport is None or self._closed.is_set():
            raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET)) from self._error
        self._transport.writelines(buffers)

    async def close(self) -> None:
        """Send what is buffered within ``CLOSE_TIME``, then drop the connection."""
        self._ended = True
        if self._transport is None:
            return
        self._transport.close()
        try:
            async with asyncio.timeout(CLOSE_TIME):
                await self._closed.wait()
        except TimeoutError:
            self._transport.abort()
            self._closed.set()

    def abort(self) -> None:
        """Drop the connection at once, with all that is buffered."""
        if self._transport is not None:
            self._transport.abort()

    def _end(self, error: Exception | None) -> None:
        if not self._ended:
            self._ended = True
            self._error = error
            if self._owner is not None:
                self._owner.stream_ended(error)


async def connect_tcp(host: str, port: int) -> TcpStream:
    """Open a TCP connection; OSError if that fails."""
    _, stream = await asyncio.get_running_loop().create_connection(TcpStream, host, port)
    return stream
