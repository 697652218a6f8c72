"""Which rows of a table are wanted: since when, of which service, in which state, of which cell, the top of what."""

from __future__ import annotations

import datetime
import re
import time
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

from telehelper.errors import UsageError

from telemagic.frames import FLOW_SCHEMA
from telemagic.parser import did_you_mean

if TYPE_CHECKING:
    import pandas as pd

Since = str | float | datetime.timedelta | datetime.datetime

OPEN: Final = "open"
CLOSED: Final = "closed"
STATES: Final = (
    "DIALING",
    "SYN_RECEIVED",
    "ESTABLISHED",
    "CLOSE_WAIT",
    "FIN_WAIT_1",
    "FIN_WAIT_2",
    "CLOSING",
    "LAST_ACK",
    "TIME_WAIT",
    "OPEN",
    "CLOSED",
)
LAST: Final = "last"
_UNITS: Final = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SPAN: Final = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|[smhd]))+")
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhd])")


def flows(
    frame: pd.DataFrame,
    *,
    since: Since | None = None,
    service: str | None = None,
    state: str | None = None,
    cell: int | str | None = None,
    kernel: int = 0,
    notebook: str = "",
    top: int | None = None,
    sort: str | None = None,
) -> pd.DataFrame:
    """Choose flows; parameters as in :meth:`telemagic.connection.Connection.flows`.

    `cell` means cells of our notebook: `notebook`, or as the data plane calls that of the process `kernel`, if it has
    opened a flow. Without either, any notebook's.

    Raises
    ------
    UsageError
        A value that cannot be; the message names those that can.
    """
    if since is not None:
        from_then = _timestamp(moment(since))
        frame = frame[frame["closed"].isna() | (frame["closed"] >= from_then)]
    if service is not None:
        frame = _of_service(frame, service)
    if state is not None:
        frame = _in_state(frame, state)
    if cell is not None:
        frame = _of_cell(frame, cell, kernel, notebook)
    return _top(frame, top, sort).reset_index(drop=True)


def events(frame: pd.DataFrame, since: Since | None = None) -> pd.DataFrame:
    """Choose events; `since` as in :func:`moment`."""
    if since is None:
        return frame
    return frame[frame["at"] >= _timestamp(moment(since))].reset_index(drop=True)


def routes(frame: pd.DataFrame, *, conflicts: bool = False) -> pd.DataFrame:
    """Choose routes: with `conflicts` the networks of the cluster that something on this machine has too."""
    if not conflicts:
        return frame
    theirs = (frame["state"] == "skipped") & (frame["device"] != "")
    return frame[theirs | frame["state"].isin(["conflict", "mapped"])].reset_index(drop=True)


def moment(since: Since, now: float | None = None) -> float:
    """Return Unix seconds of "since".

    Parameters
    ----------
    since
        "5m", "90s", "1h30m", "2d": so long ago; a number of seconds or a `timedelta`: likewise; a `datetime`, or its
        text as in ISO 8601: then, by this machine's clock unless it has a time zone.
    """
    now = time.time() if now is None else now
    if isinstance(since, datetime.datetime):
        return since.timestamp()
    if isinstance(since, datetime.timedelta):
        return now - since.total_seconds()
    if isinstance(since, str):
        return _read_moment(since.strip(), now)
    if isinstance(since, bool) or not float("-inf") < since < float("inf"):
        raise _no_moment(since)
    return now - since


def _read_moment(text: str, now: float) -> float:
    if _SPAN.fullmatch(text):
        return now - sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
    try:
        return now - float(text) if text.replace(".", "", 1).isdigit() else _read_iso(text)
    except (ValueError, OverflowError):
        raise _no_moment(text) from None


def _read_iso(text: str) -> float:
    return datetime.datetime.fromisoformat(text).timestamp()


def _no_moment(since: object) -> UsageError:
    return UsageError(
        f"since {since!r} cannot be understood", hint="such as 90s, 5m, 1h30m, or 2026-01-31T09:00"
    )


def _timestamp(seconds: float) -> pd.Timestamp:
    import pandas as pd

    try:
        return pd.Timestamp(seconds, unit="s", tz="UTC")
    except (ValueError, OverflowError):  # before 1677 or after 2262
        raise _no_moment(seconds) from None


def _of_service(frame: pd.DataFrame, wanted: str) -> pd.DataFrame:
    host, _, port = wanted.rpartition(":") if _has_port(wanted) else (wanted, "", "")
    names = [name for column in ("service", "name", "dst", "pod") for name in frame[column].unique() if name]
    matching = {name for name in names if _is_meant(name, host)}
    chosen = frame["service"].isin(matching) | frame["name"].isin(matching)
    chosen |= frame["dst"].isin(matching) | frame["pod"].isin(matching)
    if port:
        chosen &= frame["dport"] == int(port)
    found = frame[chosen]
    if not len(found):
        guess = did_you_mean(host, dict.fromkeys(names)) if not matching else ""
        found = _noted(found, f"there are no flows to {wanted}{guess}")
    return found


def _has_port(text: str) -> bool:
    head, colon, tail = text.rpartition(":")
    return bool(colon) and tail.isdigit() and ":" not in head  # an IPv6 address has more colons


def _is_meant(name: str, wanted: str) -> bool:
    """Whether a name is the one that is wanted: all of it, its first labels, or a pattern such as ``*.shop``."""
    return name == wanted or name.startswith(f"{wanted}.") or fnmatchcase(name, wanted)


def _in_state(frame: pd.DataFrame, wanted: str) -> pd.DataFrame:
    if wanted == OPEN:
        return frame[frame["closed"].isna()]
    if wanted == CLOSED:
        return frame[frame["closed"].notna()]
    known = dict.fromkeys([*STATES, *frame["state"].cat.categories])
    name = wanted.upper().replace("-", "_")
    if name not in known:
        choices = (OPEN, CLOSED, *known)
        close = did_you_mean(name, known) or did_you_mean(wanted, (OPEN, CLOSED))
        raise UsageError(f"there is no state {wanted!r}{close}", hint=f"one of: {', '.join(choices)}")
    return frame[frame["state"] == name]


def _of_cell(frame: pd.DataFrame, wanted: int | str, kernel: int, notebook: str) -> pd.DataFrame:
    ours = frame[(frame["pid"] == kernel).fillna(value=False) & (frame["notebook"] != "")]
    if len(ours):
        notebook = ours["notebook"].iloc[-1]
    if notebook:
        frame = frame[frame["notebook"] == notebook]
    if wanted == LAST:
        run = frame[frame["cell"].notna()]
        if not len(run):
            return _noted(run, "no cell has opened a flow that is known")
        newest = run.iloc[-1]  # of several notebooks the one that ran last
        chosen: pd.DataFrame = run[(run["cell"] == newest["cell"]) & (run["notebook"] == newest["notebook"])]
        return chosen
    number = int(wanted) if isinstance(wanted, int) or wanted.isdigit() else 0
    if number < 1:
        raise UsageError(f"there is no cell {wanted!r}", hint=f"the number in In[n], or {LAST}")
    found = frame[(frame["cell"] == number).fillna(value=False)]
    if not len(found):
        found = _noted(found, f"In[{number}] has opened no flow that is known")
    return found


def _top(frame: pd.DataFrame, top: int | None, sort: str | None) -> pd.DataFrame:
    if top is not None and (isinstance(top, bool) or top < 1):
        raise UsageError(f"the top {top} rows are none", hint="a number from 1")
    if sort is not None:
        if sort not in frame.columns:
            close = did_you_mean(sort, frame.columns)
            hint = "%tele help flows" if close else f"one of: {', '.join(frame.columns)}"
            raise UsageError(f"there is no column {sort!r}{close}", hint=hint)
        frame = frame.sort_values(sort, ascending=sort in _WORDS, kind="stable", na_position="last")
    elif top is not None:
        size = frame["bytes_up"] + frame["bytes_down"]
        frame = frame.reindex(size.sort_values(ascending=False, kind="stable").index)
    return frame if top is None else frame.head(top)


_WORDS: Final = frozenset(column.name for column in FLOW_SCHEMA if column.dtype in {"str", "category"})


def _noted(frame: pd.DataFrame, notice: str) -> pd.DataFrame:
    facts = frame.attrs["telemagic"]
    frame = frame.copy()
    frame.attrs["telemagic"] = facts | {"notices": [*facts["notices"], notice]}
    return frame
