"""A stream's owner for tests: keeps what came, and waits for it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from telehelper.tcp_stream import TcpStream

if TYPE_CHECKING:
    from collections.abc import Callable

    from telehelper.byte_stream import ByteStream

WAIT = 10.0


class Listener:
    """Listens to one stream from now on."""

    def __init__(self, stream: ByteStream) -> None:
        self.received = bytearray()
        self.ends: list[Exception | None] = []
        self.writables = 0
        self._news = asyncio.Event()
        stream.start(self)

    def data_received(self, data: bytes | memoryview) -> None:
        self.received += data
        self._news.set()

    def writable(self) -> None:
        self.writables += 1
        self._news.set()

    def stream_ended(self, error: Exception | None) -> None:
        self.ends.append(error)
        self._news.set()

    async def until_size(self, size: int) -> bytes:
        """Wait for so many bytes, or the end."""
        async with asyncio.timeout(WAIT):
            while len(self.received) < size and not self.ends:
                await self._next()
        return bytes(self.received)

    async def until_end(self) -> Exception | None:
        """Wait for the end, and return why the stream ended."""
        async with asyncio.timeout(WAIT):
            while not self.ends:
                await self._next()
        assert len(self.ends) == 1
        return self.ends[0]

    async def until_writable(self, stream: ByteStream) -> None:
        async with asyncio.timeout(WAIT):
            while not stream.is_writable:
                await self._next()

    async def _next(self) -> None:
        self._news.clear()
        await self._news.wait()


class Accepted(TcpStream):
    """A stream of a server, which is told when the connection is there."""

    def __init__(self, on_made: Callable[[TcpStream], None]) -> None:
        super().__init__()
        self._on_made = on_made

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._on_made(self)


async def serve_tcp(host: str, port: int, on_made: Callable[[TcpStream], None]) -> asyncio.Server:
    """Listen for TCP connections (port 0: any) and call `on_made` with each."""
    return await asyncio.get_running_loop().create_server(lambda: Accepted(on_made), host, port)
