"""Bytes over time and percentiles, on made-up clocks."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemagic.bench.meter import STEP, Meter, bits_per_second, percentile


def steady(rate: float, begin: float, end: float) -> list[tuple[float, int]]:
    """Return the timeline of `rate` bytes per second, in blocks of 10 ms."""
    meter = Meter()
    for tick in range(round((end - begin) * 100) + 1):
        meter.add(round(rate / 100), begin + tick / 100)
    return meter.timeline()


def test_the_timeline_begins_with_the_first_bytes_and_ends_with_the_last() -> None:
    meter = Meter()
    for now, count in ((5.0, 10), (5.0 + STEP / 2, 20), (5.0 + STEP, 30), (5.0 + STEP * 1.5, 40)):
        meter.add(count, now)
    assert meter.timeline() == [(5.0, 10), (5.0 + STEP, 60), (5.0 + STEP * 1.5, 100)]
    assert meter.total == 100


def test_nothing_is_an_empty_timeline() -> None:
    assert Meter().timeline() == []


def test_a_timeline_is_short_however_small_the_pieces() -> None:
    meter = Meter()
    for tick in range(100_000):
        meter.add(1, tick / 100_000)
    assert len(meter.timeline()) <= 1 / STEP + 2


def test_a_timeline_is_no_worse_for_being_asked_twice() -> None:
    meter = Meter()
    meter.add(1, 0.0)
    meter.add(1, STEP / 2)
    assert meter.timeline() == meter.timeline()


def test_the_rate_of_one_flow() -> None:
    assert bits_per_second([steady(1e6, 0, 2)], 0.5) == pytest.approx(8e6)


def test_the_warm_up_is_not_measured() -> None:
    slow, fast = steady(1e4, 0, 1), steady(1e6, 1.01, 3)
    whole = [*slow, *((when, slow[-1][1] + count) for when, count in fast)]
    assert bits_per_second([whole], 1.01) == pytest.approx(8e6)
    assert bits_per_second([whole], 0) < 6e6


def test_flows_add_up_only_while_all_of_them_run() -> None:
    lines = [steady(1e6, 0, 2), steady(2e6, 0.5, 4), steady(3e6, 0.2, 3)]
    assert bits_per_second(lines, 0.5) == pytest.approx(8 * 6e6)


@pytest.mark.parametrize(
    ("lines", "warm_up"),
    [
        ([steady(1e6, 0, 1)], 1.0),  # no longer than the warm-up
        ([steady(1e6, 0, 1), steady(1e6, 2, 3)], 0.1),  # not at one time
        ([[(1.0, 100)]], 0.0),  # a single block
    ],
)
def test_too_little_is_no_rate(lines: list[list[tuple[float, int]]], warm_up: float) -> None:
    with pytest.raises(ValueError, match="together for less than"):
        bits_per_second(lines, warm_up)


def test_a_flow_without_bytes_is_no_rate() -> None:
    with pytest.raises(ValueError, match="carried nothing"):
        bits_per_second([steady(1e6, 0, 1), []], 0.1)


def test_percentiles_are_samples() -> None:
    ordered = list(range(1, 101))
    assert percentile(ordered, 0.5) == 50
    assert percentile(ordered, 0.99) == 99
    assert percentile([7], 0.99) == 7
    with pytest.raises(ValueError, match="no samples"):
        percentile([], 0.5)


@given(st.lists(st.integers(), min_size=1), st.floats(0.001, 1))
def test_a_percentile_is_the_smallest_that_so_many_do_not_exceed(samples: list[int], fraction: float) -> None:
    ordered = sorted(samples)
    found = percentile(ordered, fraction)
    needed = math.ceil(fraction * len(ordered))
    assert sum(sample <= found for sample in ordered) >= needed
    assert sum(sample < found for sample in ordered) < needed
