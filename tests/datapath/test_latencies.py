"""Medians and 99th percentiles by service, against a slow and obvious way of finding them."""

from __future__ import annotations

import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from telehelper.datapath.latencies import SHOWN, TUNNEL, Latencies, Sample, percentile
from telehelper.observing import LatencyRow

SECONDS = st.just(-1.0) | st.integers(0, 50).map(lambda ms: ms / 1000)
SAMPLES = st.builds(
    Sample, st.sampled_from(["a:1", "b:2"]), st.booleans(), SECONDS, SECONDS, SECONDS, SECONDS
)


def of(service: str, connect: float = -1.0, *, failed: bool = False) -> Sample:
    return Sample(service, failed, connect, -1.0, -1.0, -1.0)


def obvious(values: list[float], share: float) -> float:
    known = sorted(value for value in values if value >= 0)
    return known[max(1, math.ceil(share * len(known))) - 1] if known else -1.0


@given(st.lists(SAMPLES), st.data())
def test_as_if_all_were_sorted_each_time(samples: list[Sample], data: st.DataObject) -> None:
    latencies = Latencies()
    for sample in samples:
        latencies.replace(None, sample)
    for index in data.draw(
        st.lists(st.sampled_from(range(len(samples))), unique=True) if samples else st.just([])
    ):
        new = data.draw(st.none() | SAMPLES)
        latencies.replace(samples[index], new)
        samples[index] = new  # type: ignore[call-overload]
    left = [sample for sample in samples if sample is not None]
    tunnel, *rows = latencies.rows([])
    assert (tunnel.flows, tunnel.failed) == (len(left), sum(sample.failed for sample in left))
    assert {row.service for row in rows} == {sample.service for sample in left}
    for row in rows:
        mine = [sample for sample in left if sample.service == row.service]
        assert (row.flows, row.failed) == (len(mine), sum(sample.failed for sample in mine))
        for name in ("connect", "dial", "first_byte", "wait"):
            values = [getattr(sample, name) for sample in mine]
            assert getattr(row, f"{name}_p50") == obvious(values, 0.5)
            assert getattr(row, f"{name}_p99") == obvious(values, 0.99)


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        ([], 0.5, -1.0),
        ([7.0], 0.99, 7.0),
        ([1.0, 2.0], 0.5, 1.0),
        ([1.0, 2.0, 3.0], 0.5, 2.0),
        ([1.0], 0.0, 1.0),
    ],
)
def test_nearest_rank(values: list[float], share: float, expected: float) -> None:
    assert percentile(values, share) == expected


def test_the_tunnel_comes_first_then_who_has_most_flows() -> None:
    latencies = Latencies()
    for service in ("a:1", "b:2", "b:2"):
        latencies.replace(None, of(service, 0.1, failed=service == "a:1"))
    rows = latencies.rows([0.002, -1.0, 0.004, 0.001])
    assert [row.service for row in rows] == [TUNNEL, "b:2", "a:1"]
    assert rows[0] == LatencyRow(TUNNEL, 3, 1, 0.002, 0.004, -1, -1, -1, -1, -1, -1)


def test_a_flow_may_change_its_service() -> None:
    latencies = Latencies()
    latencies.replace(None, of("198.18.0.9:1", 0.1))
    latencies.replace(of("198.18.0.9:1", 0.1), of("a.shop:1", 0.1))
    assert [row.service for row in latencies.rows([])] == [TUNNEL, "a.shop:1"]


def test_a_scan_of_many_addresses_is_cut_short() -> None:
    latencies = Latencies()
    for number in range(SHOWN + 10):
        latencies.replace(None, of(f"{number}:1"))
    assert len(latencies.rows([])) == 1 + SHOWN


def test_ten_thousand_flows_cost_a_table_next_to_nothing() -> None:
    latencies = Latencies()
    for number in range(10_000):
        latencies.replace(None, of(f"service-{number % 40}:1", number % 997 / 1000))
    spent = time.thread_time()
    latencies.rows([0.001] * 900)
    assert time.thread_time() - spent < 0.02
