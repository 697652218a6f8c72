"""The shape of what `telemagic bench --json` prints, as the issue says it."""

from __future__ import annotations

import math
from typing import Any

from telemagic.bench.metrics import UNITS

PATHS = {"raw", "tcp", "portforward", "rtt20", "sshuttle", "ssh-L"}
ABOUT = {"cpu": str, "cores": int, "kernel": str, "python": str, "date": str, "sender": str}


def machine(**more: object) -> dict[str, Any]:
    """Return what a report says of its machine."""
    about = {
        "cpu": "Made up",
        "cores": 2,
        "kernel": "6.1",
        "python": "3.13.0",
        "date": "2026-01-02T03:04:05+00:00",
    }
    return {**about, "sender": "own", "notes": [], **more}


def check(body: Any) -> None:
    """Raise AssertionError unless this is an object of that shape."""
    assert set(body) == {"machine", "results"}
    for name, kind in ABOUT.items():
        assert isinstance(body["machine"].get(name), kind), name
    assert body["machine"]["sender"] in {"iperf3", "own"}
    assert all(isinstance(note, str) for note in body["machine"]["notes"])
    seen = set()
    for row in body["results"]:
        assert set(row) == {"path", "metric", "value", "unit", "ratio"}
        assert row["path"] in PATHS
        assert row["unit"] == UNITS[row["metric"]]
        for number in (row["value"], row["ratio"]):
            assert number is None or (
                isinstance(number, int | float) and math.isfinite(number) and number >= 0
            )
        assert (row["path"], row["metric"]) not in seen
        seen.add((row["path"], row["metric"]))
