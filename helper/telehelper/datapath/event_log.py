"""What happened that is worth telling; bounded, and the same about the same within ten seconds is told once."""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from telehelper.observing import EventRow

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

KEPT: Final = 1000  # events; the oldest goes
TOGETHER: Final = 10.0  # seconds from the first of the same that the others are counted with it


class EventLog:
    """The events of one connection.

    Parameters
    ----------
    clock
        Unix seconds.
    few
        How many events of a kind are kept at most, for kinds that others can cause as they like.

    Attributes
    ----------
    version
        Grows with each change.
    """

    def __init__(self, clock: Callable[[], float] = time.time, few: Mapping[str, int] | None = None) -> None:
        self.version = 0
        self._clock = clock
        self._rows: OrderedDict[int, tuple[int, EventRow]] = OrderedDict()  # by number, with their versions
        self._latest: dict[tuple[str, str], int] = {}
        self._last_number = 0
        self._few = {kind: deque[int](maxlen=limit) for kind, limit in (few or {}).items()}

    def note(self, kind: str, subject: str, detail: str = "", count: int = 1) -> None:
        """Take note of an event; its fields are those of :class:`~telehelper.observing.EventRow`.

        `count`: how many of the same happened at once.
        """
        now = self._clock()
        self.version += 1
        key = kind, subject or detail
        number = self._latest.get(key)
        if number is not None:
            _, row = self._rows[number]
            if 0 <= now - row.at <= TOGETHER:
                self._rows[number] = self.version, replace(row, detail=detail, count=row.count + count)
                return
        self._last_number += 1
        self._latest[key] = self._last_number
        row = EventRow(self._last_number, now, kind, subject, detail, count)
        self._rows[self._last_number] = self.version, row
        of_kind = self._few.get(kind)
        if of_kind is not None:
            if len(of_kind) == of_kind.maxlen:
                self._forget(of_kind[0])
            of_kind.append(self._last_number)
        if len(self._rows) > KEPT:
            self._forget(next(iter(self._rows)))

    def _forget(self, number: int) -> None:
        if number not in self._rows:  # one of a few may have become the oldest of all
            return
        _, gone = self._rows.pop(number)
        key = gone.kind, gone.subject or gone.detail
        if self._latest.get(key) == number:
            del self._latest[key]

    def rows(self, since: int = 0) -> tuple[EventRow, ...]:
        """Return what is new or has changed since a version, oldest first."""
        if since >= self.version:
            return ()
        return tuple(row for version, row in self._rows.values() if version > since)
