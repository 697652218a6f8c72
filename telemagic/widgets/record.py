"""The texts that a dashboard has handed on, kept unread until somebody wants them summed up."""

from __future__ import annotations

import json
from typing import Any, Final

from telemagic.row_text import read_tables

KEPT: Final = 4 << 20  # characters of changes, and at least as many as four snapshots: then a new one is due
WHOLE: Final = ("at", "status", "cidrs", "routes", "latency")  # of a change: replaces what was there
SERIES_KEPT: Final = 900  # seconds


class Record:
    """A snapshot and the changes since, in order; see :mod:`telehelper.observing`."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._size = 0

    def take(self, text: str, is_snapshot: bool) -> None:
        """Keep one more."""
        if is_snapshot:
            self._texts, self._size = [text], 0
        else:
            self._texts.append(text)
            self._size += len(text)

    @property
    def is_full(self) -> bool:
        """Whether a new snapshot should take the place of all this."""
        return bool(self._texts) and self._size > max(KEPT, 4 * len(self._texts[0]))

    def read(self) -> dict[str, Any]:
        """Put it all together: an object of a snapshot's shape, empty if there is none."""
        texts = self._texts[:]
        if not texts:
            return {}
        now = read_tables(texts[0])
        flows = {row[0]: row for row in now.get("flows", ())}
        events = {row[0]: row for row in now.get("events", ())}
        series = list(now.get("series", ()))
        for change in map(json.loads, texts[1:]):
            now |= {name: change[name] for name in WHOLE if name in change}
            flows |= {row[0]: row for row in change.get("flows", ())}
            events |= {row[0]: row for row in change.get("events", ())}
            series += change.get("series", ())
            for number in change.get("gone", ()):
                flows.pop(number, None)
        return {
            **now,
            "flows": [*flows.values()],
            "events": [*events.values()],
            "series": series[-SERIES_KEPT:],
        }
