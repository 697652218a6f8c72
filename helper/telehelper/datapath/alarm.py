"""One timer for whatever is due first; a sans-IO part's `next_timer` says when."""

from __future__ import annotations

import asyncio
from time import monotonic  # uvloop's own clock has a grain of 1 ms
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Alarm:
    """Calls `on_due` with the time, in monotonic seconds, when what it was set to is due; then it must be set anew."""

    def __init__(self, on_due: Callable[[float], None]) -> None:
        self._on_due = on_due
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._at = float("inf")

    def set(self, due: float | None) -> None:
        """Go off at `due`, unless it is set to something sooner already; None changes nothing."""
        if due is None or due >= self._at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._at = due
        self._timer = self._loop.call_later(max(0.0, due - monotonic()), self._fire)

    def cancel(self) -> None:
        """Go off no more until it is set again."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._at = None, float("inf")

    def _fire(self) -> None:
        self._timer, self._at = None, float("inf")
        self._on_due(monotonic())
