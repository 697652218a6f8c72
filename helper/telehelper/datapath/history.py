"""The flows that are shown: all open ones, and the closed ones that are kept, each as its row's text.

Theory of operation
-------------------
The stack counts, and hands over the records of flows that have closed; nothing else is done for them on their way. Here
they become rows, at two occasions. :meth:`History.refresh` brings all rows up to date for somebody who looks:
open flows whose counters have grown get a new text, the others keep theirs. :meth:`History.settle` is called once a
second, and makes rows of what closed a while ago, a few hundred at a time, so that who looks finds most of it done.

A closed flow's row may still gain a name, an owner or a place for ``SETTLING`` seconds; then it is final, and all that
is left of the flow is its text (and what it tells of latencies).

*Strangers.* What other users tried, and was kept out, has a few rows of its own, final at once: however much they try, none of
ours is forgotten for it.

*Cost.* A row is some 10 µs to make and 0.7 KiB to keep. What takes longer than a few ms is done in slices, between
which the event loop goes on.

*Changes.* Each row carries the version at which it changed last. A :class:`Cursor` is somebody's place in them: what
has changed since it last asked, and which rows are gone that it has been told of; so a slow reader costs nothing, and
what it is told is bounded by what there is.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from itertools import chain
from typing import TYPE_CHECKING, Final, Protocol

from telehelper.core.flows import CLOSED_KEPT, STRANGERS_KEPT
from telehelper.datapath.report import flow_sample, flow_text, flow_values

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from telehelper.core.flows import FlowRecord, FlowStats
    from telehelper.core.frames import Address
    from telehelper.datapath.latencies import Latencies, Sample
    from telehelper.datapath.report import Owner, Place

SETTLING: Final = 2.0  # seconds after closing until a row is final
SLICE: Final = 200  # rows made without letting the event loop go on: about 3 ms
SETTLED_AT_ONCE: Final = 500  # rows a second that are made though nobody looks; the rest waits for who does
CLOCK_GRAIN: Final = 0.01  # seconds; less than that the two clocks drift apart without a step


class Flows(Protocol):
    """Where flows are."""

    def live(self) -> list[tuple[FlowStats, str]]:
        """Return the open flows with their states' names, oldest first."""

    def take_closed(self) -> list[FlowRecord]:
        """Hand over the records of flows that have closed since the last call."""


class Surroundings(Protocol):
    """What others know of a flow's two ends."""

    def name_of(self, address: Address) -> str:
        """Return the name that was resolved to an address, or an empty text."""

    def owner_of(self, flow: int) -> Owner:
        """Return whose flow it is, as far as is known."""

    def place_of(self, address: Address) -> Place:
        """Return what an address is, as far as is known."""

    def forget(self, flow: int) -> None:
        """Learn that a flow's owner will not be asked for any more."""


class Row:
    """One flow, as it is shown."""

    __slots__ = ("born", "ends", "progress", "sample", "state", "text", "version")

    def __init__(self) -> None:
        self.text = ""
        self.version = self.born = 0
        self.progress = -1  # of its counters, when the text was made
        self.state = ""
        self.ends: tuple[str, Owner, Place] | None = None  # as of then; None once it is final
        self.sample: Sample | None = None


class Cursor:
    """Somebody's place in the changes: see :meth:`History.changes`."""

    def __init__(self) -> None:
        self.seen = 0  # the version up to which all is known there
        self.gone: list[int] = []  # flows known there that are kept no longer


class History:
    """The rows of all flows that are kept.

    Parameters
    ----------
    flows, surroundings
        What rows are made of.
    latencies
        Gets what each flow tells of its service.
    closed
        Called with the records of flows that have just closed.
    kept
        How many closed flows; the oldest goes.
    """

    def __init__(
        self,
        flows: Flows,
        surroundings: Surroundings,
        latencies: Latencies,
        closed: Callable[[Sequence[FlowRecord]], None],
        kept: int = CLOSED_KEPT,
    ) -> None:
        self._flows = flows
        self._surroundings = surroundings
        self._latencies = latencies
        self._on_closed = closed
        self._kept = kept
        self._version = 0
        self._open: dict[int, Row] = {}
        self._closed: dict[int, Row] = {}  # in the order in which they closed
        self._strangers: dict[int, Row] = {}  # likewise; closed too
        self._settling: deque[FlowRecord] = deque()  # closed, and not final yet; no more than are kept
        self._touched: set[int] = set()
        self._places_changed = False
        self._cursors: set[Cursor] = set()
        self._refreshing = asyncio.Lock()
        self._clock_offset = 0.0

    # --- what may have changed

    def touch(self, flow: int) -> None:
        """Make an open flow's row anew with the next refresh: its owner has become known."""
        if flow in self._open:
            self._touched.add(flow)

    def places_changed(self) -> None:
        """Look at every open flow's place with the next refresh."""
        self._places_changed = True

    def take_closed(self) -> None:
        """Take over what has closed; rows are made of it later."""
        self._set_clock()
        records = self._flows.take_closed()
        if records:
            for record in records:
                if record.is_strangers:
                    self._finish(record)
                else:
                    self._settling.append(record)
            self._on_closed(records)
        while len(self._settling) > self._kept:  # else what is kept would be forgotten for what is older
            self._surroundings.forget(self._settling.popleft().flow)

    def settle(self) -> None:
        """Make some of the rows final that are due. Call it once a second."""
        self.take_closed()
        for record in self._due(SETTLED_AT_ONCE):
            self._finish(record)

    async def refresh(self) -> None:
        """Bring all rows up to date."""
        async with self._refreshing:
            self.take_closed()
            live = self._flows.live()
            for _ in self._slices(self._make_closed(), self._make_open(live)):
                await asyncio.sleep(0)
            if len(self._open) > len(
                live
            ):  # closed meanwhile, or lost: more closed at once than the stack keeps
                known = {stats.flow for stats, _ in live} | {record.flow for record in self._settling}
                for flow in self._open.keys() - known:
                    self._drop(flow, self._open.pop(flow))

    # --- what is shown

    def __len__(self) -> int:
        return len(self._open) + len(self._closed) + len(self._strangers)

    def text(self) -> str:
        """Return all rows as JSON text: the closed ones in the order of closing (strangers' first), then the open ones."""
        return f"[{','.join([row.text for row in self._rows()])}]"

    def cursor(self) -> Cursor:
        """Return a cursor that knows all there is now; give it back to :meth:`drop_cursor`."""
        cursor = Cursor()
        cursor.seen = self._version
        self._cursors.add(cursor)
        return cursor

    def drop_cursor(self, cursor: Cursor) -> None:
        """Keep nothing for it any more."""
        self._cursors.discard(cursor)

    def changes(self, cursor: Cursor) -> tuple[str, list[int]]:
        """Return the rows that are new or have changed for a cursor, as JSON text, and the flows that are gone."""
        seen, gone = cursor.seen, cursor.gone
        cursor.seen, cursor.gone = self._version, []
        changed = [row.text for row in self._rows() if row.version > seen] if seen < self._version else []
        return f"[{','.join(changed)}]", gone

    def _rows(self) -> Iterator[Row]:
        return chain(self._strangers.values(), self._closed.values(), self._open.values())

    # --- making rows; generators yield after each row that cost something

    @staticmethod
    def _slices(*makings: Iterator[None]) -> Iterator[None]:
        for count, _ in enumerate(chain(*makings), 1):
            if count % SLICE == 0:
                yield

    def _make_closed(self) -> Iterator[None]:
        for record in list(self._settling):
            if record.flow not in self._closed:
                self._close(record)
                yield
        for record in self._due(len(self._settling)):
            self._finish(record)
            yield

    def _make_open(self, live: Sequence[tuple[FlowStats, str]]) -> Iterator[None]:
        touched, self._touched = self._touched, set()
        look, self._places_changed = self._places_changed, False
        rows = self._open
        for stats, state in live:
            row = rows.get(stats.flow)
            if row is None:
                if stats.flow in self._closed or stats.flow in self._strangers:  # in the meantime
                    continue
                row = rows[stats.flow] = Row()
            elif (
                stats.progress == row.progress
                and state == row.state
                and stats.flow not in touched
                and not (look and row.ends != self._ends(stats.flow, stats.five_tuple.dst))
            ):
                continue
            row.progress, row.state = stats.progress, state
            self._make(row, stats.to_record(state))
            yield

    def _due(self, limit: int) -> Iterator[FlowRecord]:
        """Take the records off that have settled."""
        until = time.monotonic() - SETTLING
        for _ in range(limit):
            if not self._settling or (self._settling[0].closed_at or until) > until:
                return
            yield self._settling.popleft()

    def _close(self, record: FlowRecord) -> Row:
        row = self._open.pop(record.flow) if record.flow in self._open else Row()
        kept, limit = (self._strangers, STRANGERS_KEPT) if record.is_strangers else (self._closed, self._kept)
        kept[record.flow] = row
        self._make(row, record)
        if len(kept) > limit:
            oldest = next(iter(kept))
            self._drop(oldest, kept.pop(oldest))
        return row

    def _finish(self, record: FlowRecord) -> None:
        """Make a closed flow's row final."""
        row = self._closed.get(record.flow)
        if row is None:
            row = self._close(record)
        elif row.ends != self._ends(record.flow, record.five_tuple.dst):
            self._make(row, record)
        row.ends = None
        self._surroundings.forget(record.flow)

    def _ends(self, flow: int, dst: Address) -> tuple[str, Owner, Place]:
        around = self._surroundings
        return around.name_of(dst), around.owner_of(flow), around.place_of(dst)

    def _make(self, row: Row, record: FlowRecord) -> None:
        row.ends = name, owner, place = self._ends(record.flow, record.five_tuple.dst)
        text = flow_text(flow_values(record, self._clock_offset, name, owner, place))
        if text == row.text:
            return
        self._version += 1
        row.text, row.version = text, self._version
        row.born = row.born or self._version
        sample = flow_sample(record, name, place)
        self._latencies.replace(row.sample, sample)
        row.sample = sample

    def _drop(self, flow: int, row: Row) -> None:
        self._latencies.replace(row.sample, None)
        for cursor in self._cursors:
            if row.born <= cursor.seen:
                cursor.gone.append(flow)

    def _set_clock(self) -> None:
        """Follow steps of the system's clock, and no less, so that a flow's times do not change by rounding."""
        offset = time.time() - time.monotonic()
        if abs(offset - self._clock_offset) > CLOCK_GRAIN:
            self._clock_offset = offset
