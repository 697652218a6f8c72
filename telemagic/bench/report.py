"""The result of a run: one row per path and metric, its ratio to the bare link, and what `--json` prints."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from telemagic.bench.metrics import RAW, TIMES_SSHUTTLE, UNITS, target_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    Values = Mapping[tuple[str, str], float | None]


@dataclass(frozen=True, slots=True)
class Row:
    """One figure. `value` is None when it could not be had, `ratio` when the bare link has none to compare with."""

    path: str
    metric: str
    value: float | None
    unit: str
    ratio: float | None


@dataclass(frozen=True, slots=True)
class Report:
    """A run. `machine` names where and when, and has the notes on what could not be measured."""

    machine: dict[str, Any]
    rows: tuple[Row, ...]

    @classmethod
    def of(cls, machine: dict[str, Any], values: Values) -> Report:
        """Make it of what was measured, in the order given."""
        return cls(machine, tuple(_row(path, metric, values) for path, metric in values))

    @classmethod
    def from_dict(cls, body: dict[str, Any]) -> Report:
        """Read it back."""
        return cls(body["machine"], tuple(Row(**row) for row in body["results"]))

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {"machine": self.machine, "results": [asdict(row) for row in self.rows]}

    def to_json(self) -> str:
        """Return it as JSON, for machines."""
        return json.dumps(self.to_dict(), indent=1)

    def to_frame(self) -> pd.DataFrame:
        """Return the rows as a table.

        Returns
        -------
        DataFrame
            One row per path and metric; index 0…n-1. path, metric, unit: str; value: float64 [its unit];
            ratio: float64. Missing is NaN.
        """
        import pandas as pd

        table = pd.DataFrame(
            [asdict(row) for row in self.rows], columns=["path", "metric", "value", "unit", "ratio"]
        )
        return table.astype({"value": "float64", "ratio": "float64"})

    def verdict(self, row: Row) -> bool | None:
        """Tell whether a row is as it ought to be; None if nothing is wanted of it, or nothing was measured."""
        target = target_of(row.path, row.metric)
        found = row.ratio if target is not None and target.is_ratio else row.value
        if target is None or found is None:
            return None
        is_met = found >= target.bound if target.at_least else found <= target.bound
        times = self.times_sshuttle(row)
        return is_met and (times is None or times >= TIMES_SSHUTTLE)

    def times_sshuttle(self, row: Row) -> float | None:
        """Tell how many times as fast as sshuttle a row of one bulk flow through our tunnel is."""
        if row.metric not in {"bulk_up_1", "bulk_down_1"} or row.path not in {"tcp", "portforward"}:
            return None
        other = next(
            (one.value for one in self.rows if (one.path, one.metric) == ("sshuttle", row.metric)), None
        )
        return row.value / other if row.value is not None and other else None


def _row(path: str, metric: str, values: Values) -> Row:
    value, raw = values[path, metric], values.get((RAW, metric))
    ratio = value / raw if value is not None and raw else None
    return Row(path, metric, value, UNITS[metric], ratio)
