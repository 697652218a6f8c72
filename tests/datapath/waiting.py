"""Bounded waiting for a condition."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

WAIT = 20.0  # seconds for anything


async def until(condition: Callable[[], object], what: str = "the condition") -> None:
    """Let others run until `condition()` is true."""
    deadline = asyncio.get_running_loop().time() + WAIT
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, f"{what} did not come true"
        await asyncio.sleep(0.001)


async def turns(count: int = 5) -> None:
    """Let everything that is ready run, `count` times: for showing that something does not happen."""
    for _ in range(count):
        await asyncio.sleep(0)
