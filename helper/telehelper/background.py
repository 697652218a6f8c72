"""Tasks that nobody waits for: those that follow and watch for as long as a connection lasts."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Coroutine


def begin(work: Coroutine[object, None, None]) -> asyncio.Task[None]:
    """Run `work` beside; keep the task, and cancel it in the end.

    An exception that it raises is a bug of ours. asyncio would tell of it when the task is collected, which is never
    while somebody keeps it; here the loop's handler hears of it, and so does the log, when it happens.
    """
    task = asyncio.get_running_loop().create_task(work)
    task.add_done_callback(_tell_bug)
    return task


def _tell_bug(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        raise error
