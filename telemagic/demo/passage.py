"""What happens to the bytes of port-forwards on their way: nothing, or what the faults `carriers-…` do to them."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

CUT: Final = "carriers-cut"
FROZEN: Final = "carriers-frozen"
SLOW: Final = "carriers-slow"
CORRUPT: Final = "carriers-corrupt"
DRIBBLE: Final = "carriers-dribble"
RATE: Final = 1000  # bytes in a second, each way of each port-forward, when slow
_PIECE: Final = 100  # bytes at once when slow: ten pieces a second
_OTHERS: Final = bytes(255 - byte for byte in range(256))  # instead of each byte, when corrupt


class Passage:
    """The way of all port-forwards of one API server.

    Attributes
    ----------
    faults
        Those that are on. Mostly none: then nobody calls :meth:`carry`, and a look at this is all that a message costs.
    """

    def __init__(self) -> None:
        self.faults: set[str] = set()
        self._changed = asyncio.Event()
        self._transports: set[asyncio.Transport] = set()

    def switch(self, fault: str, *, is_on: bool) -> None:
        """Let a fault begin or end, for what is under way, too."""
        (self.faults.add if is_on else self.faults.discard)(fault)
        self._wake()

    def clear(self) -> None:
        """End all faults."""
        self.faults.clear()
        self._wake()

    @contextlib.contextmanager
    def using(self, transport: asyncio.Transport | None) -> Iterator[None]:
        """Have a connection cut by :meth:`cut` while the block runs; None is one that has gone already."""
        if transport is None:
            yield
            return
        self._transports.add(transport)
        try:
            yield
        finally:
            self._transports.discard(transport)

    def cut(self) -> int:
        """Break all connections, as a load balancer does that forgets them; returns how many there were."""
        for transport in tuple(self._transports):
            transport.abort()
        return len(self._transports)

    async def thaw(self) -> None:
        """Wait until it is not frozen."""
        while FROZEN in self.faults:
            await self._changed.wait()

    async def carry(self, data: memoryview, send: Callable[[memoryview | bytes], Awaitable[None]]) -> None:
        """Hand bytes on as the faults let them pass; a fault that begins or ends meanwhile does so for the rest."""
        while data:
            await self.thaw()
            size = 1 if DRIBBLE in self.faults else _PIECE if SLOW in self.faults else len(data)
            piece, data = data[:size], data[size:]
            if SLOW in self.faults:
                await self._pause(len(piece) / RATE)
            await send(bytes(piece).translate(_OTHERS) if CORRUPT in self.faults else piece)
            await asyncio.sleep(0)  # the others' turn: sending one byte mostly does not wait

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
