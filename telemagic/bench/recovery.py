"""How long a cut carrier is felt: a new connection every 10 ms, until one gets its answer."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

EVERY: Final = 0.01  # seconds between two new connections
LONGEST: Final = 15.0  # seconds; dead means dead after ten
_REQUEST: Final = b"?"


async def request(host: str, port: int) -> None:
    """Open a connection to an echo service, and wait for one byte's way there and back.

    Raises
    ------
    OSError
        It did not come back.
    """
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(_REQUEST)
        if await reader.read(1) != _REQUEST:
            raise ConnectionResetError("the connection ended without an answer")
    finally:
        writer.transport.abort()  # no TIME_WAIT for hundreds of them


async def measure(host: str, port: int, cut: Callable[[], None], longest: float = LONGEST) -> float | None:
    """Cut, and return the seconds until a request is answered that began afterwards; None if none is in time.

    Raises
    ------
    OSError
        There was no answer before the cut either.
    """
    async with asyncio.timeout(longest):
        await request(host, port)
    answered = asyncio.Event()

    async def attempt() -> None:
        with contextlib.suppress(OSError):
            await request(host, port)
            answered.set()

    cut()
    began = time.perf_counter()
    attempts: list[asyncio.Task[None]] = []
    try:
        while not answered.is_set() and time.perf_counter() - began < longest:
            attempts.append(asyncio.create_task(attempt()))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(EVERY):
                    await answered.wait()
        return time.perf_counter() - began if answered.is_set() else None
    finally:
        for task in attempts:
            task.cancel()
        await asyncio.gather(*attempts, return_exceptions=True)
