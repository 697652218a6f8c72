"""Changes as they happen, for those who script: an async iterator over the feed, on whatever event loop runs it.

The control connection lives on the background loop; changes cross over to the user's loop as texts, and are read there.
A loop that is slower than the changes loses nothing: what came meanwhile is one change.
"""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from telehelper.errors import HelperLost
from telehelper.observing import FLOW_COLUMNS

from telemagic import frames
from telemagic.clean import clean
from telemagic.row_text import read_tables
from telemagic.schema import parse

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping

    import pandas as pd

    from telemagic.feed import Feed, Subscription

MAX_WAITING: Final = 16  # texts that wait for a slow reader; more are put together, so that memory is bounded
QUICK: Final = 256 * 1024  # characters that are read in a few ms; more are read in a thread, row by row
MAX_EVENTS: Final = 1000  # of one change; the oldest go first, and events() has what is kept
_FLOW: Final = FLOW_COLUMNS.index("flow")


@dataclass(frozen=True, slots=True)
class Event:
    """Something worth telling: a lost tunnel, a refused connect, a name that does not exist."""

    number: int  # grows by one
    at: float  # Unix seconds
    kind: str
    subject: str
    detail: str
    count: int  # how often until now: an event that happens again comes again, with the same number

    def __str__(self) -> str:
        times = f" ({self.count} times)" if self.count > 1 else ""
        return f"{self.kind}: {self.subject}: {self.detail}{times}"


@dataclass(frozen=True, repr=False)
class Change:
    """What has changed since the one before; the first has everything that is there.

    Attributes
    ----------
    at
        When it was taken, Unix seconds.
    is_first
        Whether this is the first.
    status
        Fields of the status as plain data: `state`, `rtt`, `flows_open`, `bytes_up`, …; see `Connection.status`.
    events
        New ones, and those that happened again, oldest first.
    gone
        Numbers of flows that are kept no longer.
    rows
        Flows that are new or have changed, as lists of values; :attr:`flows` makes a table of them.
    """

    at: float
    is_first: bool
    status: Mapping[str, Any]
    events: tuple[Event, ...]
    gone: tuple[int, ...]
    rows: tuple[list[Any], ...]

    @cached_property
    def flows(self) -> pd.DataFrame:
        """Flows that are new or have changed, oldest first; columns as in :meth:`Connection.flows`."""
        return frames.flows_of(self.rows)

    def __repr__(self) -> str:
        when = time.strftime("%H:%M:%S", time.localtime(self.at))
        return f"<Change at {when}: {len(self.rows)} flows, {len(self.events)} events>"


async def changes(feed: Feed, interval: float) -> AsyncGenerator[Change, None]:
    """Yield what changes until the connection ends; on any event loop.

    Raises
    ------
    HelperLost
        Nothing could be watched at all.
    """
    inbox = _Inbox()
    inbox.subscription = feed.subscribe(interval, inbox.put, inbox.end)
    is_first = True
    try:
        while (batch := await inbox.take()) is not None:
            yield batch.change(is_first=is_first)
            is_first = False
    finally:
        inbox.subscription.close()
    if is_first:
        raise HelperLost(inbox.reason)


class _Batch:
    """Several texts put together: of each flow the last row, of each event the last count."""

    def __init__(self) -> None:
        self._at = 0.0
        self._status: Mapping[str, Any] = {}
        self._flows: dict[int, list[Any]] = {}
        self._gone: dict[int, None] = {}
        self._events: dict[int, Event] = {}

    def add(self, text: str, read: Callable[[str], Any] = parse) -> None:
        """Take one more text, as :mod:`telehelper.observing` describes it."""
        said = read(text)
        self._at, self._status = said["at"], clean(said["status"])
        self._flows.update((row[_FLOW], row) for row in said.get("flows", ()))
        self._gone.update(dict.fromkeys(said.get("gone", ())))
        for row in said.get("events", ()):
            event = Event(*clean(row))
            self._events.pop(event.number, None)  # what happens again is the newest again
            self._events[event.number] = event
        while len(self._events) > MAX_EVENTS:
            del self._events[next(iter(self._events))]

    def add_all(self, texts: list[str], read: Callable[[str], Any] = parse) -> None:
        """Take more texts, in order."""
        for text in texts:
            self.add(text, read)

    def change(self, *, is_first: bool) -> Change:
        """Return it all as one change."""
        return Change(
            self._at,
            is_first,
            self._status,
            tuple(self._events.values()),
            tuple(self._gone),
            tuple(self._flows.values()),
        )


class _Inbox:
    """Where texts wait: put in by the background loop's thread, taken out by the loop that made it."""

    subscription: Subscription

    def __init__(self) -> None:
        self.reason = ""  # why nothing more will come
        self._loop = asyncio.get_running_loop()
        self._ready = asyncio.Event()
        self._lock = threading.Lock()
        self._texts: list[str] = []
        self._batch: _Batch | None = None  # older than the texts
        self._is_over = False

    def put(self, text: str, _is_snapshot: bool) -> None:
        """Keep a text; on the background loop."""
        with self._lock:
            self._texts.append(text)
            if len(self._texts) > MAX_WAITING:  # one at a time: the background loop must not stand still
                self._batch = self._batch or _Batch()
                self._batch.add(self._texts.pop(0))
        self._wake()

    def end(self, reason: str) -> None:
        """Take note that nothing more will come; on the background loop."""
        self.reason, self._is_over = reason, True
        self._wake()

    def _wake(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._ready.set)
        except RuntimeError:  # that loop is closed: nobody reads any more
            self.subscription.close()

    async def take(self) -> _Batch | None:
        """Return what has come, as soon as there is something; None when nothing more will come."""
        while True:
            await self._ready.wait()
            self._ready.clear()
            is_over = self._is_over  # before the look into the box: what comes last comes before the end
            with self._lock:
                texts, self._texts = self._texts, []
                batch, self._batch = self._batch, None
            if texts or batch is not None:
                if is_over:
                    self._ready.set()
                return await _together(batch or _Batch(), texts)
            if is_over:
                return None


async def _together(batch: _Batch, texts: list[str]) -> _Batch:
    if sum(map(len, texts)) > QUICK:
        await asyncio.to_thread(batch.add_all, texts, read_tables)
    else:
        batch.add_all(texts)
    return batch
