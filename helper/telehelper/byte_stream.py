"""What a carrier needs of a connection, whatever it is: bytes both ways, pushed, without a task switch between.

A stream hands what it receives to its owner at once, in the very buffer it was read into, and takes buffers without
waiting; what it cannot take now it says with ``is_writable``. :class:`PulledStream` makes one of a connection whose
library has coroutines instead (a WebSocket).
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence


class StreamOwner(Protocol):
    """Who is told; nothing is called after the stream's ``close`` has begun, and only from the event loop."""

    def data_received(self, data: bytes | memoryview) -> None:
        """Take bytes. They are valid until the return only: the buffer is used again."""

    def writable(self) -> None:
        """Learn that the stream takes buffers again."""

    def stream_ended(self, error: Exception | None) -> None:
        """Learn, once, that nothing more comes: the far side closed, or with an error, the connection broke."""


class ByteStream(Protocol):
    """A connection."""

    @property
    def is_writable(self) -> bool:
        """Whether more may be written now; if not, the owner's ``writable`` is called when it may."""

    def start(self, owner: StreamOwner) -> None:
        """Begin to tell; what has come before comes first."""

    def write(self, buffers: Sequence[bytes | bytearray | memoryview]) -> None:
        """Send buffers in order; they must not change afterwards. Only while ``is_writable``."""

    async def close(self) -> None:
        """Send what can still be sent at once, and close. May be called again, and without ``start``."""


class PulledStream(ABC):
    """A :class:`ByteStream` over two coroutines, one message under way in each direction.

    Failures of the two are OSError or TunnelError.
    """

    def __init__(self) -> None:
        self._owner: StreamOwner | None = None
        self._outbox: Sequence[bytes | bytearray | memoryview] | None = None
        self._filled = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    @abstractmethod
    async def receive(self) -> bytes | memoryview:
        """Return the next bytes, empty at the end of the stream."""

    @abstractmethod
    async def send(self, buffers: Sequence[bytes | bytearray | memoryview]) -> None:
        """Send buffers in order; return when more may be sent."""

    @abstractmethod
    async def hang_up(self) -> None:
        """Close the connection. May be called again."""

    @property
    def is_writable(self) -> bool:
        """See :class:`ByteStream`."""
        return self._outbox is None

    def start(self, owner: StreamOwner) -> None:
        """See :class:`ByteStream`."""
        self._owner = owner
        self._tasks = [asyncio.ensure_future(self._read(owner)), asyncio.ensure_future(self._write(owner))]

    def write(self, buffers: Sequence[bytes | bytearray | memoryview]) -> None:
        """See :class:`ByteStream`."""
        self._outbox = buffers
        self._filled.set()

    async def close(self) -> None:
        """See :class:`ByteStream`."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.hang_up()

    async def _read(self, owner: StreamOwner) -> None:
        try:
            while data := await self.receive():
                owner.data_received(data)
        except Exception as error:  # whatever it is, the owner must hear of it
            owner.stream_ended(error)
        else:
            owner.stream_ended(None)

    async def _write(self, owner: StreamOwner) -> None:
        try:
            while True:
                await self._filled.wait()
                self._filled.clear()
                if self._outbox is not None:
                    await self.send(self._outbox)
                self._outbox = None
                owner.writable()
        except Exception as error:  # as above
            owner.stream_ended(error)


class MemoryStream(PulledStream):
    """One end of an in-memory connection, for tests: unbounded, so sending never waits unless ``may_send`` says so."""

    def __init__(self) -> None:
        super().__init__()
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
        """See :class:`PulledStream`."""
        while not self._inbox:
            self._news.clear()
            await self._news.wait()
        return self._inbox.popleft() if self._inbox[0] else b""

    async def send(self, buffers: Sequence[bytes | bytearray | memoryview]) -> None:
        """See :class:`PulledStream`."""
        if self.broken is not None:
            raise self.broken
        if self.peer is not None:
            self.peer.deliver(b"".join(buffers))
        await self.may_send.wait()

    async def hang_up(self) -> None:
        """See :class:`PulledStream`."""
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
