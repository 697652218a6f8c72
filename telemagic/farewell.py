"""What a connection did, asked for and worked out when it ends: what remains in the notebook for its reader.

The words for flows and their services are here, too, also for the summary that a dashboard leaves.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from dataclasses import dataclass, fields
from html import escape
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from telehelper.errors import TelemagicError
from telehelper.messages import GetStatus, Message, Status
from telehelper.observing import (
    EventTable,
    FlowRow,
    FlowTable,
    GetEvents,
    GetFlows,
    GetLatency,
    LatencyTable,
)

from telemagic import cards
from telemagic.row_text import read_table
from telemagic.schema import without_collector

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from telemagic.control import ControlClient

M = TypeVar("M", bound=Message)

PATIENCE: Final = 1.0  # seconds for all that is asked; leaving must not wait for a data plane that hangs
SERVICES_SHOWN: Final = 8
CELLS_SHOWN: Final = 5
FAILURES_SHOWN: Final = 5
FAILURES: Final = frozenset(
    {"refused", "unreachable", "timed out", "reset", "DNS failed"}
)  # of EventRow.kind

# The words for a flow's end, by what its reason says; the live view has the same (widgets/view/store.js).
_ENDS: Final = (
    (re.compile(r"refused", re.IGNORECASE), "refused"),
    (re.compile(r"unreach|no route", re.IGNORECASE), "unreachable"),
    (re.compile(r"timed? ?out|no answer|not answer", re.IGNORECASE), "timed out"),
    (re.compile(r"reset", re.IGNORECASE), "reset"),
)
_FINE: Final = frozenset({"", "closed", "idle", "replaced"})  # reasons


@dataclass(frozen=True, slots=True)
class Talk:
    """What was said to one service. Times are seconds, -1 where unknown; ``failed`` counts flows."""

    service: str  # postgres.shop:5432
    flows: int = 0
    failed: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    connect: float = -1.0  # medians
    first_byte: float = -1.0

    @property
    def bytes(self) -> int:
        """Both ways."""
        return self.bytes_up + self.bytes_down


@dataclass(frozen=True, slots=True)
class Cell:
    """What one cell caused; ``notebook`` is empty when there was only one."""

    number: int
    notebook: str
    flows: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Summary:
    """A connection that is over. Lists are longest first; ``until`` is Unix seconds.

    What the data plane did not tell in time is None: then only the totals are known.
    """

    status: Status
    until: float
    talks: tuple[Talk, ...] | None = None
    cells: tuple[Cell, ...] = ()
    failures: tuple[tuple[str, int], ...] | None = None
    reconnects: int = 0


class Told(NamedTuple):
    """What the data plane told; None where it did not, or not in time."""

    status: Status
    until: float
    flows: FlowTable | None
    latencies: LatencyTable | None
    events: EventTable | None


async def ask(client: ControlClient) -> Told | None:
    """Ask the data plane what happened, within `PATIENCE`; None when it does not even tell its status.

    On the background loop, which must not be held up: :func:`sum_up` is for the thread that waits.
    """

    async def told(request: Message, expect: type[M]) -> M | None:
        try:
            async with asyncio.timeout(PATIENCE):
                return await client.request(request, expect)
        except (TelemagicError, TimeoutError):  # it hangs, has gone, or is too old to know the request
            return None

    status, flows, latencies, events = await asyncio.gather(
        told(GetStatus(), Status),
        told(GetFlows(), FlowTable),
        told(GetLatency(), LatencyTable),
        told(GetEvents(), EventTable),
    )
    return None if status is None else Told(status, time.time(), flows, latencies, events)


def sum_up(
    status: Status,
    until: float,
    flows: FlowTable | None,
    latencies: LatencyTable | None,
    events: EventTable | None,
) -> Summary:
    """Work out the summary of what was :class:`Told`. Thousands of flows take tens of ms."""
    with without_collector():
        rows = rows_of(flows) if flows is not None else []
    told = events.rows if events is not None else ()
    failures: Counter[str] = Counter()
    for event in told:
        if event.kind in FAILURES:
            failures[f"{event.subject} {event.kind}" if event.subject else event.kind] += event.count
    return Summary(
        status,
        until,
        None if flows is None else _talks(rows, latencies),
        _cells(rows),
        None if events is None else tuple(failures.most_common()),
        sum(event.count for event in told if event.kind == "tunnel up"),
    )


def row_of(values: Sequence[Any]) -> FlowRow:
    """Read a flow's row; a newer data plane may say more, an older one less."""
    return FlowRow(*values[: len(fields(FlowRow))])


def rows_of(table: FlowTable) -> list[FlowRow]:
    """Read the rows of a table, without pandas, whose import takes 0.4 s."""
    return [row_of(values) for values in read_table(table.rows)]


def kind_of(row: FlowRow) -> str:
    """Return the word for a flow's state: TCP has eleven, people need four, and to know why one failed."""
    if row.state in {"DIALING", "SYN_RECEIVED"}:
        return "dialing"
    if row.state in {"ESTABLISHED", "OPEN"}:
        return "open"
    if row.state != "CLOSED":
        return "closing"
    if row.reason in _FINE:
        return "closed"
    found = (word for pattern, word in _ENDS if pattern.search(row.reason))
    return next(found, "closed" if row.connect >= 0 else "failed")


def service_of(row: FlowRow) -> str:
    """Return what people call the other end: its service, else its name or address, with the port if there is one."""
    host = row.service or row.name or row.dst  # as in LatencyRow
    port = f"[{host}]:{row.dport}" if ":" in host else f"{host}:{row.dport}"
    return port if row.dport > 0 else host


def _talks(rows: Iterable[FlowRow], latencies: LatencyTable | None) -> tuple[Talk, ...]:
    found: dict[str, Talk] = {}
    for row in rows:
        was = found.get(service_of(row), Talk(service_of(row)))
        found[was.service] = Talk(
            was.service,
            was.flows + 1,
            was.failed,
            was.bytes_up + row.bytes_up,
            was.bytes_down + row.bytes_down,
        )
    for each in latencies.rows if latencies is not None else ():
        if each.service in found:
            was = found[each.service]
            found[was.service] = Talk(
                was.service,
                was.flows,
                each.failed,
                was.bytes_up,
                was.bytes_down,
                each.connect_p50,
                each.first_byte_p50,
            )
    return tuple(sorted(found.values(), key=lambda talk: (-talk.bytes, -talk.flows, talk.service)))


def _cells(rows: Iterable[FlowRow]) -> tuple[Cell, ...]:
    flows: Counter[tuple[str, int]] = Counter()
    size: Counter[tuple[str, int]] = Counter()
    for row in rows:
        if row.cell >= 0:
            flows[row.notebook, row.cell] += 1
            size[row.notebook, row.cell] += row.bytes_up + row.bytes_down
    several = len({notebook for notebook, _ in flows}) > 1
    ranked = sorted(flows, key=lambda key: (-size[key], key))
    return tuple(
        Cell(number, notebook if several else "", flows[notebook, number], size[notebook, number])
        for notebook, number in ranked
    )


# --- how it looks ------------------------------------------------------------------------------------------------


def line(summary: Summary) -> str:
    """Return the short form: one line."""
    now = summary.status
    took = cards.duration(summary.until - now.connected_at)
    flows = f"{now.flows_total} flow{'' if now.flows_total == 1 else 's'}"
    return f"{flows}, {cards.size(now.bytes_up)} up, {cards.size(now.bytes_down)} down in {took}"


def card(summary: Summary) -> cards.Card:
    """Return what stays in the notebook."""
    now = summary.status
    span = f"{cards.clock(now.connected_at)} to {cards.clock(summary.until)}"
    figures = [
        ("connected", cards.duration(summary.until - now.connected_at)),
        ("flows", str(now.flows_total)),
        ("up", cards.size(now.bytes_up)),
        ("down", cards.size(now.bytes_down)),
    ]
    failures = summary.failures or ()
    if summary.failures is not None:
        figures.append(("failed", str(sum(count for _, count in failures))))
        figures.append(("reconnects", str(summary.reconnects)))
    html = cards.banner(now.context)
    html += cards.head("idle", "Disconnected from", now.context, now.namespace, span) + cards.tiles(figures)
    html += _services_table(summary.talks or ()) + _cells_table(summary.cells) + _failures_table(failures)
    lines = [*cards.banner_lines(now.context), f"Disconnected from {now.context}: {line(summary)}"]
    lines += _service_lines(summary.talks or ()) + _cell_lines(summary.cells)
    lines += [f"  failed  {what}{_times(count)}" for what, count in failures[:FAILURES_SHOWN]]
    lines += [f"  reconnected {_often(summary.reconnects)}"] if summary.reconnects else []
    if summary.talks is None:
        missing = "the helper did not say in time what was talked to"
        html += f'<div class="tm-note">{missing}</div>'
        lines.append(f"  note: {missing}")
    return cards.Card("\n".join(map(cards.printable, lines)), cards.box(html))


def _services_table(talks: Sequence[Talk]) -> str:
    if not talks:
        return ""
    head = _header("service", "flows", "connect", "first byte", "bytes")
    most = max(talk.bytes for talk in talks)
    body = "".join(
        f'<tr><th scope="row">{escape(talk.service)}</th><td class="tm-n">{_flows(talk)}</td>'
        f'<td class="tm-n">{_time(talk.connect)}</td><td class="tm-n">{_time(talk.first_byte)}</td>'
        f'<td class="tm-n">{cards.size(talk.bytes)}</td>{_bar(talk.bytes, most)}</tr>'
        for talk in talks[:SERVICES_SHOWN]
    )
    return _table(head, body, _more(len(talks) - SERVICES_SHOWN, "services"))


def _cells_table(cells: Sequence[Cell]) -> str:
    if not cells:
        return ""
    head = _header("cell", "flows", "bytes")
    most = max(cell.bytes for cell in cells)
    body = "".join(
        f'<tr><th scope="row">{escape(_cell_name(cell))}</th><td class="tm-n">{cell.flows}</td>'
        f'<td class="tm-n">{cards.size(cell.bytes)}</td>{_bar(cell.bytes, most)}</tr>'
        for cell in cells[:CELLS_SHOWN]
    )
    return _table(head, body, _more(len(cells) - CELLS_SHOWN, "cells"))


def _failures_table(failures: Sequence[tuple[str, int]]) -> str:
    if not failures:
        return ""
    body = "".join(
        f'<tr class="tm-failed"><td><i class="tm-mark" aria-label="failed"></i></td>'
        f'<td class="tm-wide">{escape(what)}{_times(count)}</td></tr>'
        for what, count in failures[:FAILURES_SHOWN]
    )
    more = _more(len(failures) - FAILURES_SHOWN, "failures")
    return f'<table class="tm-steps tm-sums">{body}</table>' + (
        f'<div class="tm-note">{more}</div>' if more else ""
    )


def _table(head: str, body: str, more: str) -> str:
    note = f'<div class="tm-note">{more}</div>' if more else ""
    return f'<table class="tm-sums"><thead>{head}</thead><tbody>{body}</tbody></table>{note}'


def _header(*names: str) -> str:
    """Return a header; all columns but the first are numbers, and the last is the bar's."""
    first, *numbers = (f"{name}</th>" for name in names)
    each = "".join(f'<th scope="col" class="tm-n">{number}' for number in numbers)
    return f'<tr><th scope="col">{first}{each}<th></th></tr>'


def _bar(value: int, most: int) -> str:
    bar = f'<i style="width:{100 * value / most:.1f}%"></i>' if value else ""
    return f'<td class="tm-share">{bar}</td>'


def _flows(talk: Talk) -> str:
    failed = f' <span class="tm-some">({talk.failed} failed)</span>' if talk.failed else ""
    return f"{talk.flows}{failed}"


def _service_lines(talks: Sequence[Talk]) -> list[str]:
    width = max((len(talk.service) for talk in talks[:SERVICES_SHOWN]), default=0)
    lines = []
    for talk in talks[:SERVICES_SHOWN]:
        flows = f"{talk.flows} flow{'' if talk.flows == 1 else 's'}"
        flows += f" ({talk.failed} failed)" if talk.failed else ""
        facts = [flows, cards.size(talk.bytes)]
        facts += [f"connect {cards.milliseconds(talk.connect)}"] if talk.connect >= 0 else []
        facts += [f"first byte {cards.milliseconds(talk.first_byte)}"] if talk.first_byte >= 0 else []
        lines.append(f"  {talk.service:<{width}}  {' · '.join(facts)}")
    more = _more(len(talks) - SERVICES_SHOWN, "services")
    return [*lines, f"  {more}"] if more else lines


def _cell_lines(cells: Sequence[Cell]) -> list[str]:
    lines = [
        f"  {_cell_name(cell)}  {cell.flows} flow{'' if cell.flows == 1 else 's'} · {cards.size(cell.bytes)}"
        for cell in cells[:CELLS_SHOWN]
    ]
    more = _more(len(cells) - CELLS_SHOWN, "cells")
    return [*lines, f"  {more}"] if more else lines


def _cell_name(cell: Cell) -> str:
    return f"In [{cell.number}]" + (f" of {cell.notebook}" if cell.notebook else "")


def _time(seconds: float) -> str:
    return cards.milliseconds(seconds) or "-"


def _times(count: int) -> str:
    return f", {_often(count)}" if count > 1 else ""


def _often(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _more(count: int, what: str) -> str:
    return f"and {count} more {what}" if count > 0 else ""
