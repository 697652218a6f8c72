"""Flows for tests, as a data plane tells them."""

from __future__ import annotations

import json
from dataclasses import astuple
from typing import TYPE_CHECKING, Any

from telehelper.observing import FlowRow, FlowTable

if TYPE_CHECKING:
    from collections.abc import Iterable

NOON = 1_750_000_000.0  # Unix seconds


def flow(number: int = 7, **fields: Any) -> FlowRow:
    """Make one: open, to postgres.shop, by cell 3 of analysis.ipynb, unless `fields` say otherwise."""
    given = {
        "protocol": "TCP",
        "src": "198.19.240.1",
        "sport": 40000 + number,
        "dst": "198.18.0.9",
        "dport": 5432,
        "name": "postgres.shop",
        "state": "ESTABLISHED",
        "opened_at": NOON + number,
        "service": "postgres.shop",
        "namespace": "shop",
        "pid": 4242,
        "process": "python3",
        "notebook": "analysis.ipynb",
        "cell": 3,
    }
    return FlowRow(number, **(given | fields))


def rows_text(rows: Iterable[FlowRow]) -> str:
    return json.dumps([astuple(row) for row in rows], separators=(",", ":"))


def flow_table(*rows: FlowRow, taken_at: float = NOON, drops: dict[str, int] | None = None) -> FlowTable:
    return FlowTable(taken_at, rows_text(rows), drops or {})
