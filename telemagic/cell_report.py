"""What a connected cell did: its flows by service, how many bytes, and where the time went; pure."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any, Final

from telemagic import cards, late

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import pandas as pd
    from telehelper.observing import FlowRow

SHOWN: Final = 12  # services; those with the most bytes
SLACK: Final = (
    0.05  # seconds by which a flow may seem to be older than the cell that opened it: two clocks' readings
)

FAILED: Final = "failed"
TIMES: Final[tuple[tuple[str, str, Callable[[FlowRow], float]], ...]] = (
    ("DNS", "dns_ms", lambda row: row.dns),
    ("connect", "connect_ms", lambda row: row.connect),
    ("first byte", "first_byte_ms", lambda row: row.first_byte),
)


def of_cell(rows: Iterable[FlowRow], number: int, notebook: str, began: float) -> tuple[list[FlowRow], int]:
    """Return the flows of one run of a cell, and how many of them are counted for their time alone.

    Parameters
    ----------
    number, notebook
        The cell's execution count and its notebook; 0 for a cell that is not numbered.
    began
        When it began, Unix seconds. Execution counts begin again when a kernel does, so older flows are others'.
    """
    since = [row for row in rows if row.opened_at >= began - SLACK]
    known = [row for row in since if number and row.cell == number and row.notebook in (notebook, "")]
    # Whose they are is not known at all: as likely this cell's as anybody's.
    unknown = [row for row in since if row.cell < 0 and row.pid < 0 and not row.notebook]
    return sorted(known + unknown, key=lambda row: (row.opened_at, row.flow)), len(unknown)


def remark(by_time: int, *, kept: bool) -> str:
    """Return what is to be said below the table."""
    said = [] if kept else ["disconnected again"]
    if by_time:
        flows = "1 flow is" if by_time == 1 else f"{by_time} flows are"
        said.append(f"{flows} counted by time alone: which process opened them is not known")
    return "; ".join(said)


@dataclass(frozen=True, slots=True)
class Line:
    """The flows to one service. Times are medians in seconds, None where no flow has one."""

    service: str
    flows: int
    failed: int
    up: int
    down: int
    times: tuple[float | None, ...]  # as in TIMES


class CellReport:
    """The flows of one cell; shows itself as a small table.

    Attributes
    ----------
    cell
        Its execution count, 0 if it has none.
    seconds
        How long it ran, connecting included.
    rows
        Its flows, oldest first: :class:`telehelper.observing.FlowRow`.
    note
        What is to be said beside the table, or empty.
    """

    def __init__(
        self, cell: int, seconds: float, rows: tuple[FlowRow, ...], context: str = "", note: str = ""
    ) -> None:
        self.cell = cell
        self.seconds = seconds
        self.rows = rows
        self.context = context
        self.note = note

    @property
    def lines(self) -> list[Line]:
        """The flows by service, the most bytes first."""
        names: dict[str, list[FlowRow]] = {}
        for row in self.rows:
            names.setdefault(_service(row), []).append(row)
        found = [_line(name, rows) for name, rows in names.items()]
        return sorted(found, key=lambda line: (-line.up - line.down, line.service))

    @property
    def frame(self) -> pd.DataFrame:
        """The same as a table.

        Returns
        -------
        DataFrame
            One row per service, the most bytes first; index 0…n-1. service: str; flows, failed: Int64; bytes_up,
            bytes_down: Int64 [bytes]; dns_ms, connect_ms, first_byte_ms: float64 [ms], medians, NaN where unknown.
        """
        late.load("pandas")  # only those who ask need it
        import pandas as pd

        lines = self.lines
        counts = {
            name: pd.Series([getattr(line, name) for line in lines], dtype="Int64")
            for name in ("flows", "failed")
        }
        sizes = {
            f"bytes_{way}": pd.Series([getattr(line, way) for line in lines], dtype="Int64")
            for way in ("up", "down")
        }
        times = {
            name: pd.Series([_ms(line.times[index]) for line in lines], dtype="float64")
            for index, (_, name, _) in enumerate(TIMES)
        }
        service = pd.Series([line.service for line in lines], dtype="str")
        return pd.DataFrame({"service": service, **counts, **sizes, **times})

    def __repr__(self) -> str:
        return self._card().text

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        return self._card()._repr_mimebundle_()

    @property
    def title(self) -> str:
        """How many flows, how long, how many bytes."""
        flows = "1 flow" if len(self.rows) == 1 else f"{len(self.rows) or 'no'} flows"
        total = [f"{flows} in {duration(self.seconds)}"]
        if self.rows:
            up, down = (sum(getattr(row, name) for row in self.rows) for name in ("bytes_up", "bytes_down"))
            total.append(f"{cards.size(up)} up, {cards.size(down)} down")
        return ", ".join(total)

    def _card(self) -> cards.Card:
        lines = self.lines
        shown = lines[:SHOWN]
        more = f"{len(lines) - len(shown)} more services" if len(lines) > len(shown) else ""
        notes = [line for line in (more, self.note) if line]
        name = f"Cell [{self.cell}]" if self.cell else "This cell"
        heads = ["service", "flows", FAILED, "up", "down", *(title for title, _, _ in TIMES)]
        cells = [_cells(line) for line in shown]
        if not any(line.failed for line in shown):  # the usual case needs no column
            at = heads.index(FAILED)
            heads, cells = (
                heads[:at] + heads[at + 1 :],
                [row[:at] + row[at + 1 :] for row in cells],
            )
        text = [f"{name}: {self.title}"]
        if shown:
            text += [f"  {row}" for row in _aligned([heads, *cells])]
        text += [f"  note: {line}" for line in notes]
        return cards.Card(
            "\n".join(map(cards.printable, text)), cards.box(_html(name, self, heads, cells, notes))
        )


def _html(
    name: str, report: CellReport, heads: Sequence[str], cells: Sequence[Sequence[str]], notes: Sequence[str]
) -> str:
    tone = "bad" if any(line.failed for line in report.lines) else "good" if report.rows else "idle"
    html = (
        f'<div class="tm-head tm-{tone}"><i class="tm-dot"></i><b>{escape(name)}</b>'
        f'<span>{escape(report.title)}</span><span class="tm-right">{escape(report.context)}</span></div>'
    )
    if cells:
        titles = "".join(f'<th scope="col"{_numeric(i)}>{escape(head)}</th>' for i, head in enumerate(heads))
        body = "".join(_row(line, heads) for line in cells)
        html += f'<table class="tm-cidrs"><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table>'
    return html + "".join(f'<div class="tm-note">{escape(line)}</div>' for line in notes)


def _row(cells: Sequence[str], heads: Sequence[str]) -> str:
    shown = [f'<th scope="row">{escape(cells[0])}</th>']
    for head, cell in zip(heads[1:], cells[1:], strict=True):
        text = escape(cell)
        if head == FAILED and cell:
            text = f'<span class="tm-chip tm-failed">{text}</span>'
        shown.append(f'<td class="tm-num">{text}</td>')
    return f"<tr>{''.join(shown)}</tr>"


def _numeric(index: int) -> str:
    return ' class="tm-num"' if index else ""


def _service(row: FlowRow) -> str:
    name = row.service or row.name or row.dst
    return f"[{name}]:{row.dport}" if ":" in name else f"{name}:{row.dport}"


def _median(values: Sequence[float]) -> float:
    from statistics import median  # late: with fractions and decimal, which nothing else at loading needs

    return median(values)


def _line(service: str, rows: Sequence[FlowRow]) -> Line:
    times = []
    for _, _, of in TIMES:
        known = [of(row) for row in rows if of(row) >= 0]
        times.append(_median(known) if known else None)
    return Line(
        service,
        len(rows),
        sum(_failed(row) for row in rows),
        sum(row.bytes_up for row in rows),
        sum(row.bytes_down for row in rows),
        tuple(times),
    )


def _failed(row: FlowRow) -> bool:
    """Whether a connection never came about."""
    return row.protocol == "TCP" and row.closed_at >= 0 and row.connect < 0


def _cells(line: Line) -> list[str]:
    times = ("" if each is None else f"{each * 1e3:.2f} ms" for each in line.times)
    failed = str(line.failed) if line.failed else ""
    return [line.service, str(line.flows), failed, cards.size(line.up), cards.size(line.down), *times]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if index else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _ms(seconds: float | None) -> float:
    return float("nan") if seconds is None else seconds * 1e3


def duration(seconds: float) -> str:
    """Return how long a cell took, for people: 0.42 s, else as cards say it."""
    return f"{seconds:.2f} s" if seconds < 10 else cards.duration(seconds)
