"""Measures, inside a kernel, what each turn of its event loops costs, and for how long the main one cannot turn.

A loop is held up by whatever a callback does before it returns. That is told by the processor time of its thread, not by
the clock: on a busy machine the clock tells as much of others. What other threads do counts, too, for only one at a time
runs Python: so a task on the main loop looks when it gets its turn, less what the machine withheld from this process.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

NOTED: Final = 0.002  # seconds; shorter turns are only counted
TICK: Final = 0.003  # seconds between two looks


class Turns:
    """Watches all loops of this process from :meth:`start` on, those of later threads included."""

    def __init__(self, shell: Any) -> None:
        self.count = 0
        self.long: list[tuple[float, str, str]] = []  # seconds of processor time, thread, callback
        self._is_cell = False  # of the turn that runs now on the main thread
        for event in ("pre_run_cell", "post_run_cell"):
            shell.events.register(event, self._cell)

    def _cell(self, _about: object) -> None:
        self._is_cell = True

    def start(self) -> None:
        """Begin."""
        run: Callable[[asyncio.Handle], None] = asyncio.Handle._run

        def measured(handle: asyncio.Handle) -> None:
            name = _name(handle)
            main = threading.current_thread() is threading.main_thread()
            if main:
                self._is_cell = False
            began = time.thread_time()
            run(handle)
            took = time.thread_time() - began
            self.count += 1
            if took > NOTED and not (main and self._is_cell):  # what a cell's own code takes is its author's
                self.long.append((took, threading.current_thread().name, name))

        asyncio.Handle._run = measured  # type: ignore[method-assign]

    def take(self) -> list[tuple[float, str, str]]:
        """Return the long turns since the last call, the longest first."""
        found, self.long = sorted(self.long, reverse=True), []
        return found


def _name(handle: asyncio.Handle) -> str:
    callback: Any = handle._callback  # type: ignore[attr-defined]
    task = getattr(callback, "__self__", None)
    if isinstance(task, asyncio.Task):
        return getattr(task.get_coro(), "__qualname__", "?")
    return getattr(callback, "__qualname__", repr(callback))


def withheld() -> dict[str, int]:
    """Return for how long each thread of this process has waited for a processor so far, in nanoseconds."""
    found = {}
    for task in os.listdir("/proc/self/task"):
        with contextlib.suppress(OSError):  # it has ended
            found[task] = int(Path(f"/proc/self/task/{task}/schedstat").read_text().split()[1])
    return found


class Lateness:
    """A task that wants its turn on a loop all the time.

    That may come late because the thread itself has no processor, or the one that runs Python just now: what any thread
    had to wait meanwhile does not count. So on a busy machine it sees less, and never too much.
    """

    def __init__(self) -> None:
        self.worst = 0.0
        self._task = asyncio.get_running_loop().create_task(self._look())

    async def _look(self) -> None:
        while True:
            waited, before = withheld(), time.perf_counter()
            await asyncio.sleep(TICK)
            late = time.perf_counter() - before - TICK
            if late > NOTED:
                late -= max(more - waited.get(task, 0) for task, more in withheld().items()) / 1e9
            self.worst = max(self.worst, late)

    def take(self) -> float:
        """Return the worst since the last call, in seconds."""
        found, self.worst = self.worst, 0.0
        return found


async def start_lateness() -> Lateness:
    """Start it on another loop."""
    return Lateness()
