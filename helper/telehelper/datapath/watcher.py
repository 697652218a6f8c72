"""One kernel that watches: tells it what changes, no more often than it wants, and no faster than it takes it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Protocol

from telehelper.background import begin
from telehelper.datapath.json_text import dump, join, values_of
from telehelper.observing import MIN_INTERVAL, Snapshot, SnapshotChanged

if TYPE_CHECKING:
    from collections.abc import Mapping

    from telehelper.datapath.event_log import EventLog
    from telehelper.datapath.history import History
    from telehelper.datapath.series import Series
    from telehelper.messages import Message

MAX_INTERVAL: Final = 3600.0  # seconds; more makes no sense, and infinity no timer
MAX_UNSENT: Final = 64 * 1024  # bytes not read yet by the kernel, beyond which it gets no change: it is busy


class Listener(Protocol):
    """Who watches: a kernel."""

    @property
    def unsent(self) -> int:
        """Bytes that wait for it to read."""

    def send(self, body: Message, request: int = 0) -> None:
        """Send it an event."""


class View(Protocol):
    """What there is to see."""

    history: History
    events: EventLog
    series: Series

    async def refresh(self) -> None:
        """Bring it up to date."""

    def head(self) -> dict[str, object]:
        """Return what goes into every text: ``at`` and ``status``."""

    def tables(self) -> Mapping[str, str]:
        """Return the tables that are told whole, as JSON text."""


class Watcher:
    """Tells one kernel; from :meth:`watch` until :meth:`close`.

    Memory is bounded: what has changed is read from the tables when it is told, so a slow kernel gets more at once.
    """

    def __init__(self, listener: Listener, view: View) -> None:
        self._listener = listener
        self._view = view
        self._number = 0
        self._interval = 0.0
        self._cursor = view.history.cursor()
        self._events_seen = self._series_seen = 0
        self._told: dict[str, str] = {}  # tables, as last told
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    async def watch(self, interval: float) -> Snapshot:
        """Begin, or go on with another interval; returns all there is. What has changed until then is told before."""
        await self._view.refresh()
        if self._task is not None:
            self._task.cancel()
            self._tell()
        self._interval = min(max(interval, MIN_INTERVAL), MAX_INTERVAL)
        if not self._closed:  # by a request that was made later, and needed not wait
            self._task = begin(self._go_on())
        return self._snapshot()

    def close(self) -> None:
        """Tell no more."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
        self._view.history.drop_cursor(self._cursor)

    async def _go_on(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            if self._listener.unsent <= MAX_UNSENT:
                await self._view.refresh()
                self._tell()

    def _snapshot(self) -> Snapshot:
        view = self._view
        self._told = dict(view.tables())
        self._events_seen, self._series_seen = view.events.version, view.series.count
        view.history.changes(self._cursor)
        parts = {
            **self._told,
            "flows": view.history.text(),
            "series": dump(view.series.rows()),
            "events": dump([values_of(row) for row in view.events.rows()]),
        }
        return Snapshot(self._number, join(view.head(), parts))

    def _tell(self) -> None:
        """Tell what has changed, if anything has."""
        view = self._view
        tables = view.tables()
        parts = {name: text for name, text in tables.items() if self._told.get(name) != text}
        self._told = dict(tables)
        rows, gone = view.history.changes(self._cursor)
        series, events = view.series.rows(self._series_seen), view.events.rows(self._events_seen)
        self._events_seen, self._series_seen = view.events.version, view.series.count
        if not (parts or gone or series or events or rows != "[]"):
            return
        self._number += 1
        told = dump([values_of(row) for row in events])
        parts |= {"flows": rows, "gone": dump(gone), "series": dump(series), "events": told}
        self._listener.send(SnapshotChanged(self._number, join(view.head(), parts)))
