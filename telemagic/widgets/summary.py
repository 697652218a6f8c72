"""What a dashboard leaves where nothing is live: one card of plain HTML, the same as text; pure."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any, Final

from telehelper.observing import EVENT_COLUMNS, LATENCY_COLUMNS

from telemagic import cards
from telemagic.farewell import kind_of, row_of, service_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

SHOWN_FLOWS: Final = 12  # the newest
SHOWN_EVENTS: Final = 8
SHOWN_SERVICES: Final = 16
TUNNEL: Final = "tunnel"  # the row of the carrier itself; its numbers are the sums of the others
NUMBERS: Final = frozenset({"flows", "failed", "cell", "connect", "first byte", "up", "down", "times"})
WIDE: Final = frozenset({"detail"})  # these may fold


def summary(told: dict[str, Any], *, over: str = "", reason: str = "") -> cards.Card:
    """Make the card of what was told last: an object of a snapshot's shape, possibly empty.

    `over` says that nothing more comes: "closed" or "lost", with the `reason`; empty while it is connected.
    """
    status: dict[str, Any] = told.get("status", {})
    context, namespace = str(status.get("context", "")), str(status.get("namespace", ""))
    word = cards.word_of(over or status.get("state", "waiting")) if status else "No data yet"
    facts = [(name, value) for name, value in _facts(told, status, reason) if value]
    tables = [
        ("Services", ("service", "flows", "failed", "connect", "first byte"), _services(told)),
        ("Newest flows", ("service", "state", "cell", "connect", "first byte", "up", "down"), _flows(told)),
        ("Events", ("at", "kind", "about", "detail", "times"), _events(told)),
    ]
    tables = [one for one in tables if one[2]]
    tone = "idle" if over else "good" if status.get("state") == "connected" else "busy"
    html = cards.head(tone, word, context, namespace, _moment(told.get("at", -1)))
    html += '<table class="tm-facts">' + "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>' for name, value in facts
    )
    html += "</table>" + "".join(_table(*one) for one in tables)
    lines = [f"{word} {context}, namespace {namespace}" if context else word]
    lines += [f"  {name:<12} {value}" for name, value in facts]
    for title, head, rows in tables:
        lines += [f"  {title}", *_aligned((head, *rows))]
    return cards.Card("\n".join(map(cards.printable, lines)), cards.box(html))


def _facts(told: dict[str, Any], status: dict[str, Any], reason: str) -> Iterable[tuple[str, str]]:
    if not status:
        return
    since = status.get("connected_at", -1)
    yield "Lost", reason
    yield "Way in", " · ".join(filter(None, (status.get("via", ""), status.get("manager", ""))))
    yield "Connected", cards.duration(told["at"] - since) if since > 0 else ""
    yield "Round trip", cards.milliseconds(status.get("rtt", -1))
    yield "Flows", f"{status.get('flows_open', 0)} open, {status.get('flows_total', 0)} in all"
    up, down = cards.size(status.get("bytes_up", 0)), cards.size(status.get("bytes_down", 0))
    yield "Bytes", f"{up} up, {down} down"
    yield "CIDRs", ", ".join(row[0] for row in told.get("cidrs", ()))


def _services(told: dict[str, Any]) -> list[tuple[str, ...]]:
    rows = [dict(zip(LATENCY_COLUMNS, row, strict=True)) for row in told.get("latency", ())]
    return [
        (
            row["service"],
            "" if row["service"] == TUNNEL else str(row["flows"]),
            "" if row["service"] == TUNNEL else str(row["failed"] or ""),
            _range(row["connect_p50"], row["connect_p99"]),
            _range(row["first_byte_p50"], row["first_byte_p99"]),
        )
        for row in rows[:SHOWN_SERVICES]
    ]


def _flows(told: dict[str, Any]) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for values in reversed(told.get("flows", ())[-SHOWN_FLOWS:]):
        row = row_of(values)
        kind = kind_of(row)
        found.append(
            (
                service_of(row),
                f"{kind}: {row.reason}" if kind == "failed" else kind,
                f"[{row.cell}]" if row.cell >= 0 else "",
                cards.milliseconds(row.connect),
                cards.milliseconds(row.first_byte),
                cards.size(row.bytes_up),
                cards.size(row.bytes_down),
            )
        )
    return found


def _events(told: dict[str, Any]) -> list[tuple[str, ...]]:
    rows = [dict(zip(EVENT_COLUMNS, row, strict=True)) for row in told.get("events", ())[-SHOWN_EVENTS:]]
    return [
        (
            _moment(row["at"]),
            row["kind"],
            row["subject"],
            row["detail"],
            f"{row['count']} times" if row["count"] > 1 else "",
        )
        for row in reversed(rows)
    ]


def _table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    kinds = [' class="tm-n"' if name in NUMBERS else "" if name in WIDE else ' class="tm-k"' for name in head]
    names = "".join(
        f'<th scope="col"{kind}>{escape(name)}</th>'
        for kind, name in zip(kinds, (title, *head[1:]), strict=True)
    )
    body = "".join(
        f"<tr>{''.join(f'<td{kind}>{escape(value)}</td>' for kind, value in zip(kinds, row, strict=True))}</tr>"
        for row in rows
    )
    return f'<table class="tm-sums"><thead><tr>{names}</tr></thead><tbody>{body}</tbody></table>'


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "    " + "  ".join(f"{value:<{width}}" for value, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _range(median: float, high: float) -> str:
    return "" if median < 0 else f"{cards.milliseconds(median)} (p99 {cards.milliseconds(high)})"


def _moment(at: float) -> str:
    return cards.clock(at) if at > 0 else ""
