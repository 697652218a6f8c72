"""Second by second, for a quarter of an hour."""

from __future__ import annotations

from telehelper.core.flows import Totals
from telehelper.datapath.series import KEPT, Series


def test_a_sample_has_what_went_through_since_the_one_before() -> None:
    series = Series()
    series.sample(1000.0, None, Totals(1, 10, 100))
    series.sample(1001.00049, 0.0123456789, Totals(1, 15, 300))
    assert series.rows() == [(1000.0, -1.0, 10, 100), (1001.0, 0.012346, 5, 200)]
    assert series.rtts == [-1.0, 0.012346]


def test_who_has_seen_some_gets_the_rest() -> None:
    series = Series()
    for second in range(5):
        series.sample(1000.0 + second, None, Totals(0, 0, 0))
    assert [row.at for row in series.rows(3)] == [1003.0, 1004.0]
    assert series.rows(series.count) == []


def test_it_is_bounded() -> None:
    series = Series()
    for second in range(KEPT + 10):
        series.sample(float(second), None, Totals(0, 0, 0))
    assert series.count == KEPT + 10
    assert [row.at for row in series.rows()] == [float(second) for second in range(10, KEPT + 10)]
    assert len(series.rows(3)) == KEPT
