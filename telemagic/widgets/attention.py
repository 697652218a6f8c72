"""Whether anybody still looks at a live view; pure, time comes in.

A view says `ready` when it appears, `alive` from time to time and `gone` when it is taken away; a closed browser tab says
nothing. Sending on to nobody would fill the Jupyter server's memory, which keeps messages for a page that may come back.
But a view's words are heard only between cells, so silence counts only while no cell runs. Nor is a view heard then that
appears and asks for all there is, so while a cell runs, a snapshot is due unasked, soon at first and then less often.
"""

from __future__ import annotations

from typing import Final

ALIVE_EVERY: Final = 20.0  # seconds between a view's signs of life; the view's own constant is the same
SILENCE: Final = 75.0  # seconds without any; three may get lost
FIRST_UNASKED: Final = (
    1.0  # seconds until the first snapshot that nobody has asked for; the next ones in twice the time
)
LAST_UNASKED: Final = 30.0  # seconds between two at most: for a page that is loaded again during a long cell


class Attention:
    """The views of one widget, as far as they can be heard."""

    def __init__(self, now: float) -> None:
        self._until = now + SILENCE
        self._busy = False
        self._gap = FIRST_UNASKED
        self._due = now + self._gap

    def hear(self, kind: str, now: float) -> None:
        """Take what a view says; after `gone`, another one has the time of one sign of life to say that it is there."""
        if kind == "gone":
            self._until = min(self._until, now + 1.5 * ALIVE_EVERY)
        else:
            self._until = now + SILENCE
        if kind == "ready":
            self._gap = LAST_UNASKED
            self._due = now + self._gap

    def shown(self, now: float) -> None:
        """Take note that a cell shows it now: a view will appear that may not be heard for long."""
        self._busy = True
        self._gap = FIRST_UNASKED
        self._due = now + self._gap

    def cell_started(self) -> None:
        """Take note that nothing will be heard until the cell is done."""
        self._busy = True

    def cell_ended(self, now: float) -> None:
        """Take note that what was said meanwhile will be heard soon."""
        self._busy = False
        self._until = max(self._until, now + 1.5 * ALIVE_EVERY)

    def is_paid(self, now: float) -> bool:
        """Whether somebody looks, or may do so."""
        return self._busy or now < self._until

    def is_due(self, now: float) -> bool:
        """Whether to send a snapshot unasked; if so, it is taken as sent."""
        if not self._busy or now < self._due:
            return False
        self._due = now + self._gap
        self._gap = min(2 * self._gap, LAST_UNASKED)
        return True
