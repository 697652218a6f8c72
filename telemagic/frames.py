"""Snapshots as DataFrames: one schema per table, with the dtype and the unit of each column."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from telehelper.observing import FlowRow

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from telehelper.messages import RouteTable
    from telehelper.observing import FlowTable


@dataclass(frozen=True, slots=True)
class Column:
    """One column: where its values come from, what they become. ``scale`` turns the row's unit into the column's."""

    name: str
    source: str  # field of the row
    dtype: str
    unit: str = ""
    scale: float = 1.0


TIME: Final = "datetime64[ns, UTC]"

# What people look for comes first: a notebook shows about ten columns without scrolling.
FLOW_SCHEMA: Final = (
    Column("flow", "flow", "Int64"),
    Column("protocol", "protocol", "category"),
    Column("service", "name", "str"),
    Column("dport", "dport", "Int64"),
    Column("state", "state", "category"),
    Column("bytes_up", "bytes_up", "Int64", "bytes"),
    Column("bytes_down", "bytes_down", "Int64", "bytes"),
    Column("connect_ms", "connect", "float64", "ms", 1e3),
    Column("first_byte_ms", "first_byte", "float64", "ms", 1e3),
    Column("opened", "opened_at", TIME),
    Column("closed", "closed_at", TIME),
    Column("src", "src", "str"),
    Column("sport", "sport", "Int64"),
    Column("dst", "dst", "str"),
    Column("packets_up", "packets_up", "Int64", "packets"),
    Column("packets_down", "packets_down", "Int64", "packets"),
    Column("reason", "reason", "str"),
)

ROUTE_SCHEMA: Final = (
    Column("cidr", "cidr", "str"),
    Column("device", "device", "category"),
    Column("kind", "kind", "category"),
    Column("source", "source", "str"),
    Column("state", "state", "category"),
    Column("detail", "detail", "str"),
)


def flows(table: FlowTable, context: str = "") -> pd.DataFrame:
    """Make the flow table.

    Returns
    -------
    DataFrame
        One row per flow, oldest first; columns as in `FLOW_SCHEMA`; unknown times are NaT, unknown durations NaN.
        `attrs["telemagic"]` holds `taken_at`, `context`, `drops` and the columns' `units`.
    """
    import pandas as pd  # late: 0.4 s, and only tables need it

    listed = (FlowRow(*values) for values in json.loads(table.rows))
    rows = sorted(listed, key=lambda row: (row.opened_at, row.flow))
    frame = build(rows, FLOW_SCHEMA)
    frame.attrs["telemagic"] = {
        "taken_at": pd.Timestamp(round(table.taken_at * 1e6), unit="us", tz="UTC"),
        "context": context,
        "drops": dict(table.drops),
        "units": {column.name: column.unit for column in FLOW_SCHEMA if column.unit},
    }
    return frame


def routes(table: RouteTable, context: str = "") -> pd.DataFrame:
    """Make the table of routes.

    Returns
    -------
    DataFrame
        The plan by address, then what names led to, each network or address once; columns as in `ROUTE_SCHEMA`. `state`
        is applied, skipped, conflict, resolved (routed because a name led there) or mapped (names get another address);
        `device` is whose the network is, empty if that is not known; `detail` says why.
    """
    frame = build(table.rows, ROUTE_SCHEMA)
    frame.attrs["telemagic"] = {"context": context}
    return frame


def build(rows: Sequence[object], schema: tuple[Column, ...]) -> pd.DataFrame:
    """Make a table of rows; a negative number or time is one that is not known."""
    import pandas as pd

    return pd.DataFrame({column.name: _series(rows, column) for column in schema})


def _series(rows: Sequence[object], column: Column) -> pd.Series[Any]:
    import pandas as pd

    values = [getattr(row, column.source) for row in rows]
    if column.dtype == TIME:
        stamps = pd.Series([_nanoseconds(seconds) for seconds in values], dtype="Int64")
        return pd.Series(pd.to_datetime(stamps, unit="ns", utc=True)).astype(TIME)
    if column.dtype == "float64":
        values = [float("nan") if seconds < 0 else seconds * column.scale for seconds in values]
    if column.dtype == "Int64":
        values = [None if number < 0 else number for number in values]
    series: pd.Series[Any] = pd.Series(values, dtype="str" if column.dtype == "category" else column.dtype)
    return series.astype("category") if column.dtype == "category" else series


def _nanoseconds(seconds: float) -> int | None:
    # Microseconds are what a double of Unix seconds can hold; rounding there keeps 1.1 from becoming 1.099999999.
    return None if seconds < 0 else round(seconds * 1e6) * 1000
