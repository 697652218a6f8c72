from __future__ import annotations

import json
import math
from dataclasses import astuple

import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st
from telehelper.messages import RouteRow, RouteTable
from telehelper.observing import FlowRow, FlowTable

from telemagic import frames

ROW = FlowRow(
    flow=7,
    protocol="tcp",
    src="198.19.240.1",
    sport=40000,
    dst="198.18.0.9",
    dport=5432,
    name="postgres.shop",
    state="ESTABLISHED",
    opened_at=1_750_000_000.25,
    closed_at=-1,
    connect=0.0015,
    first_byte=-1,
    bytes_up=10,
    bytes_down=2**40,
    packets_up=1,
    packets_down=2,
    reason="",
)
DTYPES = {
    "flow": "Int64",
    "protocol": "category",
    "src": "str",
    "sport": "Int64",
    "dst": "str",
    "dport": "Int64",
    "service": "str",
    "state": "category",
    "opened": "datetime64[ns, UTC]",
    "closed": "datetime64[ns, UTC]",
    "connect_ms": "float64",
    "first_byte_ms": "float64",
    "bytes_up": "Int64",
    "bytes_down": "Int64",
    "packets_up": "Int64",
    "packets_down": "Int64",
    "reason": "str",
}


def table(*rows: FlowRow, taken_at: float = 0.0, drops: dict[str, int] | None = None) -> FlowTable:
    return FlowTable(taken_at, json.dumps([astuple(row) for row in rows]), drops or {})


def dtypes(frame: pd.DataFrame) -> dict[str, str]:
    strings = pd.Series(["a"], dtype="str").dtype  # `object` before pandas 3
    return {str(name): "str" if dtype == strings else str(dtype) for name, dtype in frame.dtypes.items()}


def test_one_flow() -> None:
    frame = frames.flows(table(ROW, taken_at=1_750_000_001.5, drops={"bad checksum": 2}), "demo")
    assert dtypes(frame) == DTYPES
    flow = frame.iloc[0]
    assert flow["opened"] == pd.Timestamp("2025-06-15 15:06:40.25", tz="UTC")
    assert flow["closed"] is pd.NaT
    assert flow["connect_ms"] == 1.5
    assert math.isnan(flow["first_byte_ms"])
    assert (flow["service"], flow["bytes_down"]) == ("postgres.shop", 2**40)
    about = frame.attrs["telemagic"]
    assert about["taken_at"] == pd.Timestamp("2025-06-15 15:06:41.5", tz="UTC")
    assert (about["context"], about["drops"]) == ("demo", {"bad checksum": 2})
    assert about["units"]["connect_ms"] == "ms"


def test_empty_tables_keep_their_dtypes() -> None:
    assert dtypes(frames.flows(table())) == DTYPES
    routes = frames.routes(RouteTable(()))
    assert dtypes(routes) == {
        "cidr": "str",
        "device": "category",
        "kind": "category",
        "source": "str",
        "state": "category",
        "detail": "str",
    }


def test_routes() -> None:
    row = RouteRow("198.18.0.0/20", "tele0", "services", "ServiceCIDR kubernetes", "applied", "")
    frame = frames.routes(RouteTable((row, row)), "demo")
    assert frame.to_dict("list")["cidr"] == ["198.18.0.0/20"] * 2
    assert frame.attrs["telemagic"] == {"context": "demo"}


_text = st.text(max_size=20)
_count = st.integers(0, 2**63 - 1)
_time = st.one_of(st.just(-1.0), st.floats(0, 4e9))
_span = st.one_of(st.just(-1.0), st.floats(0, 1e6))
_rows = st.builds(
    FlowRow,
    flow=st.integers(0, 2**32 - 1),
    protocol=st.sampled_from(["tcp", "udp", "icmp"]),
    src=_text,
    sport=st.integers(0, 65535),
    dst=_text,
    dport=st.integers(0, 65535),
    name=_text,
    state=_text,
    opened_at=_time,
    closed_at=_time,
    connect=_span,
    first_byte=_span,
    bytes_up=_count,
    bytes_down=_count,
    packets_up=_count,
    packets_down=_count,
    reason=_text,
)


@settings(max_examples=50, deadline=None)
@given(st.lists(_rows, max_size=6))
def test_nothing_is_lost(rows: list[FlowRow]) -> None:
    frame = frames.flows(table(*rows))
    assert dtypes(frame) == DTYPES
    expected = sorted(rows, key=lambda row: (row.opened_at, row.flow))  # newest last
    for (_, got), row in zip(frame.iterrows(), expected, strict=True):
        for column in frames.FLOW_SCHEMA:
            value, given_value = got[column.name], getattr(row, column.source)
            if column.dtype in {frames.TIME, "float64"} and given_value < 0:
                assert pd.isna(value)
            elif column.dtype == frames.TIME:
                assert abs(value.timestamp() - given_value) < 2e-6
            elif column.dtype == "float64":
                assert value == given_value * 1e3
            else:
                assert value == given_value
