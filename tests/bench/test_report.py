"""A run's figures: ratios, what is wanted of them, and the shape that `--json` promises."""

from __future__ import annotations

import json
import math

import pytest

from telemagic.bench.metrics import (
    METRICS,
    OURS,
    PATHS,
    PEERS,
    RAW,
    RUNNERS,
    TARGETS,
    UDP,
    UNITS,
    is_possible,
    target_of,
)
from telemagic.bench.report import Report
from tests.bench.schema import check, machine


def report(values: dict[tuple[str, str], float | None]) -> Report:
    return Report.of(machine(), values)


def only(path: str, metric: str, value: float | None, raw: float | None = None) -> tuple[Report, bool | None]:
    """Make a report of one row, with its raw one where a value is given; return it and the verdict."""
    rows: dict[tuple[str, str], float | None] = {} if raw is None else {(RAW, metric): raw}
    made = report(rows | {(path, metric): value})
    return made, made.verdict(made.rows[-1])


def test_a_ratio_is_to_the_raw_row_of_the_same_metric() -> None:
    made = report(
        {(RAW, "bulk_up_1"): 10e9, (RAW, "rr_p50"): 1e-4, ("tcp", "bulk_up_1"): 4e9, ("tcp", "rr_p50"): 2e-4}
    )
    assert [row.ratio for row in made.rows] == pytest.approx([1, 1, 0.4, 2])


@pytest.mark.parametrize("raw", [None, 0.0])
def test_there_is_no_ratio_to_nothing(raw: float | None) -> None:
    made = report({(RAW, "udp_loss"): raw, ("tcp", "udp_loss"): 0.01, ("rtt20", "udp_loss"): None})
    assert [row.ratio for row in made.rows] == [None, None, None]


def test_there_is_no_ratio_without_the_raw_path() -> None:
    assert report({("tcp", "bulk_up_1"): 4e9}).rows[0].ratio is None


@pytest.mark.parametrize(
    ("path", "metric", "value", "raw", "verdict"),
    [
        ("tcp", "bulk_up_1", 3.0e9, 10e9, True),
        ("tcp", "bulk_up_1", 2.9e9, 10e9, False),
        ("tcp", "bulk_down_1", 3.2e9, 10e9, False),
        ("portforward", "bulk_down_1", 1.2e9, 10e9, True),
        ("rtt20", "bulk_up_1", 1.0e9, 10e9, True),
        ("rtt20", "bulk_down_1", 0.9e9, 10e9, False),
        ("tcp", "rr_p50", 1.6e-4, 1e-4, False),
        ("tcp", "rr_p99", 2.9e-4, 1e-4, True),
        ("portforward", "connect_p50", 3.5e-4, 1e-4, True),
        ("tcp", "rr_p99_under_bulk", 2.4e-3, None, True),
        ("tcp", "rr_p50_under_bulk", 1.1e-3, None, False),
        ("portforward", "connects_per_s", 2999.0, None, False),
        ("tcp", "bytes_per_idle_flow", 16384.0, None, True),
        ("rtt20", "idle_cpu", 0.03, None, False),
        ("tcp", "recovery_s", 0.2, None, True),
        ("tcp", "bulk_up_1", None, 10e9, None),  # not measured
        ("tcp", "bulk_up_1", 3.0e9, None, None),  # nothing to compare with
        ("ssh-L", "bulk_up_1", 9e9, 10e9, None),  # not ours to promise
        ("tcp", "bulk_up_4", 9e9, 10e9, None),  # nothing wanted
    ],
)
def test_the_verdict(
    path: str, metric: str, value: float | None, raw: float | None, verdict: bool | None
) -> None:
    assert only(path, metric, value, raw)[1] is verdict


@pytest.mark.parametrize(
    ("sshuttle", "times", "verdict"), [(4e8, 10.0, True), (5e8, 8.0, False), (None, None, True)]
)
def test_one_flow_must_also_be_ten_times_as_fast_as_sshuttle(
    sshuttle: float | None, times: float | None, verdict: bool
) -> None:
    made = report({(RAW, "bulk_up_1"): 10e9, ("tcp", "bulk_up_1"): 4e9, ("sshuttle", "bulk_up_1"): sshuttle})
    assert made.times_sshuttle(made.rows[1]) == times
    assert made.verdict(made.rows[1]) is verdict
    assert made.times_sshuttle(made.rows[0]) is None


def test_json_has_the_promised_shape_and_comes_back() -> None:
    made = report({(path, metric): 1.5 if path == RAW else None for path in PATHS for metric in METRICS})
    body = json.loads(made.to_json())
    check(body)
    assert len(body["results"]) == len(PATHS) * len(METRICS)
    assert Report.from_dict(body) == made


def test_the_shape_is_really_looked_at() -> None:
    good = report({("tcp", "rr_p50"): 1e-4}).to_dict()
    for spoil in (
        {"notes": []},
        {"results": [{**good["results"][0], "unit": "bit/s"}]},
        {"results": [{**good["results"][0], "value": math.nan}]},
        {"results": [{**good["results"][0], "path": "tls"}]},
        {"results": [*good["results"], *good["results"]]},
        {"machine": {}},
    ):
        with pytest.raises(AssertionError):
            check(good | spoil)


def test_the_frame() -> None:
    frame = report({(RAW, "udp_loss"): 0.0, ("tcp", "udp_loss"): None}).to_frame()
    assert list(frame) == ["path", "metric", "value", "unit", "ratio"]
    assert [str(frame[name].dtype) for name in ("value", "ratio")] == ["float64", "float64"]
    assert list(frame["path"]) == ["raw", "tcp"]
    assert frame["value"][0] == 0.0
    assert math.isnan(frame["value"][1])


def test_an_empty_frame_has_its_columns() -> None:
    assert [str(kind) for kind in report({}).to_frame()[["value", "ratio"]].dtypes] == ["float64", "float64"]


def test_targets_name_what_there_is_and_each_row_has_one_at_most() -> None:
    assert set(TARGETS) <= set(METRICS)
    for metric, targets in TARGETS.items():
        named = [path for target in targets for path in target.paths]
        assert set(named) <= set(OURS)
        assert len(named) == len(set(named)), metric


def test_what_the_issue_asks_for_is_there() -> None:
    assert set(PATHS) == {"raw", "tcp", "portforward", "rtt20", "sshuttle", "ssh-L"}
    assert UNITS["bulk_up_1"] == "bit/s"
    assert UNITS["rr_p99_under_bulk"] == UNITS["recovery_s"] == "s"
    assert target_of("raw", "bulk_up_1") is None


@pytest.mark.parametrize("path", PATHS)
def test_what_a_path_can_have(path: str) -> None:
    possible = {metric for metric in METRICS if is_possible(path, metric)}
    assert (set(UDP) <= possible) is (path not in PEERS)
    assert (set(RUNNERS) <= possible) is (path in OURS)
    assert possible >= {"bulk_up_1", "rr_p50", "connects_per_s"}
