"""What connecting, a connection and its end look like: HTML for notebooks, plain text for everything else; pure.

No emoji and nothing from the network: marks are drawn by CSS, colours follow JupyterLab's or VS Code's theme, and
whatever comes from outside (names of contexts, pods, errors) is escaped.
"""

from __future__ import annotations

import time
from dataclasses import replace
from html import escape
from typing import TYPE_CHECKING, Final

from telehelper.errors import printable as printable  # for all that shows itself

from telemagic import production
from telemagic.style import STYLE

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from telehelper.messages import CidrRow, Status

    from telemagic.progress import Progress, Step

TITLES: Final = {
    "demo": "Demo cluster",
    "elevate": "Ask for root",
    "TUN": "Network device",
    "tunnel": "Tunnel",
    "CIDRs": "CIDRs",
    "routes": "Routes",
    "DNS": "Names",
    "ready": "Ready",
}
SOURCE_WIDTH: Final = 60  # characters of a CIDR's source in plain text
SHOWN_CIDRS: Final = 16  # rows; the surest, and guesses round many addresses are many


class Card:
    """Something that shows itself: `text` in a terminal, `html` in a notebook."""

    def __init__(self, text: str, html: str) -> None:
        self.text = text
        self.html = html

    def __repr__(self) -> str:
        return self.text

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        return {"text/plain": self.text, "text/html": self.html}


# --- connecting --------------------------------------------------------------------------------------------------


def progress(now: Progress, *, failed: bool = False) -> Card:
    """Return the card of a connect under way, or of one that failed; why, the error says that follows."""
    word, tone = ("Not connected to", "bad") if failed else ("Connecting to", "busy")
    rows = "".join(_step_row(step) for step in now.steps.values())
    note = f'<div class="tm-note">{escape(now.note)}</div>' if now.note else ""
    html = box(
        banner(now.context)
        + head(tone, word, now.context, now.namespace, "")
        + f'<table class="tm-steps">{rows}</table>{note}'
    )
    lines = [
        *banner_lines(now.context),
        f"{word} {now.context}",
        *(step_line(step) for step in now.steps.values() if step.state != "pending"),
    ]
    lines += [now.note] if now.note else []
    return Card("\n".join(map(printable, lines)), html)


def step_line(step: Step) -> str:
    """Return a phase as one line of plain text."""
    took = f"{step.seconds:.2f} s" if step.state in {"done", "failed"} else ""
    line = f"  {TITLES.get(step.phase, step.phase):<15} {step.state:<8} {took:>8}  {step.detail}"
    return printable(line.rstrip())


def _step_row(step: Step) -> str:
    took = f"{step.seconds:.2f} s" if step.state in {"done", "failed"} else ""
    return (
        f'<tr class="tm-{escape(step.state)}"><td><i class="tm-mark" aria-label="{escape(step.state)}"></i></td>'
        f'<th scope="row">{escape(TITLES.get(step.phase, step.phase))}</th><td>{escape(step.detail)}</td>'
        f'<td class="tm-num">{took}</td></tr>'
    )


# --- connected ---------------------------------------------------------------------------------------------------


def connected(status: Status, seconds: float | None = None, notices: Sequence[str] = ()) -> Card:
    """Return the compact card of a connection; `seconds` is how long connecting took.

    It stays in the notebook for good, even when nobody is left to change it (a kernel that was restarted), so it says
    what happened then, not how things are.
    """
    took = "" if seconds is None else f"in {seconds:.2f} s"
    word = f"Connected at {clock(status.connected_at)} to"
    return _status(status, _compact(status), took, notices, word=word)


def over(status: Status, until: float, reason: str = "") -> Card:
    """Return what the compact card becomes when the connection has ended at `until` (Unix seconds), or was lost."""
    ended = replace(status, state="lost" if reason else "closed", notices=())
    span = f"{clock(status.connected_at)} to {clock(until)}"
    return _status(ended, _compact(status), span, (reason,) if reason else ())


def status(status: Status, notices: Sequence[str] = (), at: float = -1.0) -> Card:
    """Return the full card of a connection as it was `at` a time (Unix seconds)."""
    facts = [
        ("Server", status.server),
        ("Way in", _join(status.via, status.manager, status.manager_version)),
        ("Carriers", _carriers(status)),
        ("Device", _join(status.device, status.address, status.address_v6, status.offload)),
        ("Names", _dns(status)),
        ("Last error", status.last_error),
    ]
    figures = [
        ("round trip", milliseconds(status.rtt)),
        ("flows open", f"{status.flows_open}"),
        ("flows in all", f"{status.flows_total}"),
        ("up", size(status.bytes_up)),
        ("down", size(status.bytes_down)),
    ]
    if at >= 0:
        figures.append(("connected", duration(at - status.connected_at)))
    return _status(status, facts, "" if at < 0 else f"at {clock(at)}", notices, figures)


_TONES: Final = {
    "connected": "good",
    "connecting": "busy",
    "reconnecting": "busy",
    "closed": "idle",
}
_WORDS: Final = {
    "connected": "Connected to",
    "closed": "Disconnected from",
    "lost": "Connection lost to",
}


def word_of(state: str) -> str:
    """Return what stands before the context's name."""
    word = _WORDS.get(state, f"{state} to")
    return word[:1].upper() + word[1:]


def _compact(status: Status) -> list[tuple[str, str]]:
    device = _join(status.device, status.address, status.address_v6)
    return [("Device", device), ("Names", _dns(status))]


def _status(
    status: Status,
    facts: Iterable[tuple[str, str]],
    right: str,
    notices: Sequence[str],
    figures: Sequence[tuple[str, str]] = (),
    word: str = "",
) -> Card:
    word = word or word_of(status.state)
    shown = [(name, value) for name, value in facts if value]
    said = [*dict.fromkeys((*status.notices, *notices))]
    html = banner(status.context) + head(
        _TONES.get(status.state, "bad"), word, status.context, status.namespace, right
    )
    html += tiles(figures) + '<table class="tm-facts">'
    html += "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>' for name, value in shown
    )
    html += "</table>" + _cidr_table(status.cidrs)
    html += "".join(f'<div class="tm-note">{escape(line)}</div>' for line in said)
    lines = banner_lines(status.context)
    lines += [f"{word} {status.context}, namespace {status.namespace}{f' ({right})' if right else ''}"]
    lines += [tile_line(figures)] if figures else []
    lines += [f"  {name:<12} {value}" for name, value in shown]
    lines += _cidr_lines(status.cidrs)
    lines += [f"  note: {line}" for line in said]
    return Card("\n".join(map(printable, lines)), box(html))


def _shown(cidrs: Sequence[CidrRow]) -> tuple[Sequence[CidrRow], str]:
    """Return the rows to show, and a line about the others."""
    if len(cidrs) <= SHOWN_CIDRS:
        return cidrs, ""
    rank = {"certain": 0, "likely": 1}
    surest = sorted(cidrs, key=lambda row: rank.get(row.confidence, 2))[: SHOWN_CIDRS - 1]
    return surest, f"{len(cidrs) - len(surest)} more: %tele routes"


def _cidr_table(cidrs: Sequence[CidrRow]) -> str:
    if not cidrs:
        return ""
    shown, others = _shown(cidrs)
    body = "".join(
        f"<tr><td><code>{escape(row.cidr)}</code></td><td>{escape(row.kind)}</td><td>{escape(row.source)}</td>"
        f'<td><span class="tm-chip tm-{escape(row.confidence)}">{escape(row.confidence)}</span></td></tr>'
        for row in shown
    )
    body += f'<tr><td colspan="4">{escape(others)}</td></tr>' if others else ""
    head = "".join(f'<th scope="col">{name}</th>' for name in ("CIDR", "of", "found by", ""))
    return f'<table class="tm-cidrs"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def _cidr_lines(cidrs: Sequence[CidrRow]) -> list[str]:
    shown, others = _shown(cidrs)
    lines = [
        f"  {'CIDR' if i == 0 else '':<12} {row.cidr:<18} {row.kind:<9} {_cut(row.source)} ({row.confidence})"
        for i, row in enumerate(shown)
    ]
    return [*lines, f"  {'':<12} {others}"] if others else lines


def _cut(source: str) -> str:
    return source if len(source) <= SOURCE_WIDTH else f"{source[: SOURCE_WIDTH - 1]}…"


def _carriers(status: Status) -> str:
    way = "by port-forward" if status.carrier == "portforward" else status.carrier
    clear = "not encrypted" if status.carrier.startswith("tcp://") else ""
    return _join(str(status.carriers), way, clear)


def _dns(status: Status) -> str:
    where = _join(status.dns, status.dns_server)
    return _join(where, f"*.{status.namespace}.svc.{status.cluster_domain}" if status.cluster_domain else "")


# --- the end -----------------------------------------------------------------------------------------------------


def farewell(context: str, namespace: str, line: str) -> Card:
    """Return the card of a connection that is over."""
    return Card(
        printable(f"Disconnected from {context}: {line}"),
        box(
            head("idle", "Disconnected from", context, namespace, "")
            + f'<div class="tm-note">{escape(line)}</div>'
        ),
    )


def notes(lines: Sequence[str]) -> Card:
    """Return what should be said beside something else."""
    html = "".join(f'<div class="tm-note">{escape(line)}</div>' for line in lines)
    return Card("\n".join(f"note: {printable(line)}" for line in lines), box(html))


# --- parts -------------------------------------------------------------------------------------------------------


def box(inner: str) -> str:
    """Return the frame that all cards share."""
    return f'<div class="telemagic">{STYLE}{inner}</div>'


def head(tone: str, word: str, context: str, namespace: str, right: str) -> str:
    """Return a card's first line. ``tone``: good, busy, bad or idle; each has a mark of its own shape."""
    chip = f'<span class="tm-chip" title="namespace">{escape(namespace)}</span>' if namespace else ""
    return (
        f'<div class="tm-head tm-{tone}"><i class="tm-dot"></i><span>{escape(word)}</span>'
        f'<b>{escape(context)}</b>{chip}<span class="tm-right">{escape(right)}</span></div>'
    )


def banner(context: str) -> str:
    """Return the stripe above a card of a production context; nothing for others."""
    pattern = production.pattern_of(context)
    why = f"{context} matches {pattern}"
    return f'<div class="tm-banner"><b>Production</b><span>{escape(why)}</span></div>' if pattern else ""


def banner_lines(context: str) -> list[str]:
    """Return the same as plain text."""
    pattern = production.pattern_of(context)
    return [f"!! PRODUCTION !! {context} matches {pattern}"] if pattern else []


def tiles(figures: Iterable[tuple[str, str]]) -> str:
    """Return figures, each (label, value), side by side."""
    each = "".join(
        f"<div><b>{escape(value)}</b><span>{escape(label)}</span></div>" for label, value in figures if value
    )
    return f'<div class="tm-tiles">{each}</div>' if each else ""


def tile_line(figures: Iterable[tuple[str, str]]) -> str:
    """Return the same as one line of plain text."""
    return "  " + _join(*(f"{label} {value}" for label, value in figures if value))


def _join(*parts: str) -> str:
    return " · ".join(part for part in parts if part)


def clock(at: float) -> str:
    """Return the time of day here, of Unix seconds: 17:43:05."""
    return time.strftime("%H:%M:%S", time.localtime(at))


def milliseconds(seconds: float) -> str:
    """Return a latency for people, three digits of it; empty while unknown."""
    value = seconds * 1e3
    if value < 0:
        return ""
    return f"{value:.2f} ms" if value < 10 else f"{value:.1f} ms" if value < 100 else f"{value:.0f} ms"


def size(count: int) -> str:
    """Return a number of bytes for people: 1.4 MB."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def duration(seconds: float) -> str:
    """Return a time span for people: 12 s, 5 min, 3 h 20 min."""
    whole = max(0, round(seconds))
    if whole < 120:
        return f"{whole} s"
    minutes = whole // 60
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
