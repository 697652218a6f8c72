"""What a run looks like to people: plain text for terminals, a card for notebooks; pure."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Final

from telemagic import cards
from telemagic.bench.metrics import TIMES_SSHUTTLE, target_of

if TYPE_CHECKING:
    from telemagic.bench.report import Report, Row

_HEAD: Final = ("path", "metric", "value", "ratio", "target", "met")
_NUMBERS: Final = (2, 3)  # columns aligned to the right
_MISSING: Final = "-"


class Result(cards.Card):
    """A run that shows itself; `report` is the data, ``to_frame()`` and ``to_json()`` as its own."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self.to_frame = report.to_frame
        self.to_json = report.to_json
        super().__init__(as_text(report), as_html(report))


def as_text(report: Report) -> str:
    """Return the table as lines, under the machine and above the notes."""
    body = cells(report)
    widths = [max(map(len, column)) for column in zip(_HEAD, *body, strict=True)]
    lines = [_machine(report)]
    lines += ["  ".join(_padded(row, widths)).rstrip() for row in (_HEAD, *body)]
    lines += [f"note: {cards.printable(note)}" for note in report.machine.get("notes", ())]
    return "\n".join(lines)


def as_html(report: Report) -> str:
    """Return the card."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in _HEAD)
    rows = "".join("<tr>" + "".join(map(_cell, range(len(_HEAD)), row)) + "</tr>" for row in cells(report))
    notes = "".join(f'<div class="tm-note">{escape(note)}</div>' for note in report.machine.get("notes", ()))
    return cards.box(
        f'<div class="tm-head tm-good"><i class="tm-dot"></i><b>Measured</b>'
        f'<span class="tm-right">{escape(_machine(report))}</span></div>'
        f'<table class="tm-bench"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>{notes}'
    )


def cells(report: Report) -> list[tuple[str, ...]]:
    """Return the table's body; a path is named in its first row only."""
    body: list[tuple[str, ...]] = []
    last = ""
    for row in report.rows:
        verdict = report.verdict(row)
        body.append(
            (
                row.path if row.path != last else "",
                row.metric,
                quantity(row.value, row.unit),
                _MISSING if row.ratio is None else f"{row.ratio:.3g}",
                _wanted(report, row),
                "" if verdict is None else "yes" if verdict else "no",
            )
        )
        last = row.path
    return body


def quantity(value: float | None, unit: str) -> str:
    """Return a value with its unit as people write it: 4.71 Gbit/s, 112 µs, 0.8 %."""
    if value is None:
        return _MISSING
    match unit:
        case "bit/s":
            return _scaled(value, ((1e9, "Gbit/s"), (1e6, "Mbit/s"), (1e3, "kbit/s"), (1.0, "bit/s")))
        case "s":
            return _scaled(value, ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")))
        case "B":
            return _scaled(value, ((1024.0**2, "MiB"), (1024.0, "KiB"), (1.0, "B")))
        case "1/s":
            return f"{value:,.0f} /s"
    return f"{value:.2%}".replace("%", " %")  # fractions, of whatever


def _scaled(value: float, scales: tuple[tuple[float, str], ...]) -> str:
    size, unit = next((one for one in scales if abs(value) >= one[0]), scales[-1])
    number = value / size
    digits = 0 if number >= 100 else 1 if number >= 10 else 2
    return f"{number:.{digits}f} {unit}"


def _wanted(report: Report, row: Row) -> str:
    target = target_of(row.path, row.metric)
    if target is None:
        return ""
    bound = f"{target.bound:g} x raw" if target.is_ratio else quantity(target.bound, row.unit)
    times = report.times_sshuttle(row)
    peer = "" if times is None else f", {TIMES_SSHUTTLE:g} x sshuttle (is {times:.1f})"
    return f"{'≥' if target.at_least else '≤'} {bound}{peer}"


def _padded(row: tuple[str, ...], widths: list[int]) -> list[str]:
    return [
        text.rjust(width) if i in _NUMBERS else text.ljust(width)
        for i, (text, width) in enumerate(zip(row, widths, strict=True))
    ]


def _cell(column: int, text: str) -> str:
    return f'<td class="tm-num">{escape(text)}</td>' if column in _NUMBERS else f"<td>{escape(text)}</td>"


def _machine(report: Report) -> str:
    about = report.machine
    parts = [
        f"{about['cpu']}, {about['cores']} cores",
        f"Linux {about['kernel']}",
        f"Python {about['python']}",
        f"sender {about['sender']}",
        about["date"],
        *(["quick: a rough guess"] if about.get("quick") else []),
    ]
    return cards.printable(" · ".join(parts))
