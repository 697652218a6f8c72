"""Which samples count, and both kinds of exchange against a real far end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from telemagic.bench.dial import FarEnd
from telemagic.bench.latency import Latency, connect_and_first_byte, request_response
from tests.bench import far

if TYPE_CHECKING:
    from collections.abc import Iterator

    from telemagic.bench.ports import Ports

HERE = FarEnd.find(far.LOOPBACK)
BOTH = pytest.mark.parametrize("measure", [request_response, connect_and_first_byte])


@pytest.fixture(scope="module")
def ports() -> Iterator[Ports]:
    with far.running("--no-iperf3") as ports:
        yield ports


def test_percentiles_are_in_seconds_and_need_no_order() -> None:
    found = Latency.of([3_000_000, 1_000_000, 2_000_000])
    assert found == Latency(p50=2e-3, p99=3e-3, samples=3)


def test_the_first_tenth_does_not_count() -> None:
    assert Latency.of([10**9] * 2 + [1000] * 18) == Latency(1e-6, 1e-6, 18)


def test_of_many_the_first_hundred_do_not_count() -> None:
    assert Latency.of([10**9] * 100 + [1000] * 9_900) == Latency(1e-6, 1e-6, 9_900)


def test_a_slow_path_has_few_samples_and_still_a_figure() -> None:
    assert Latency.of([5_000_000]) == Latency(5e-3, 5e-3, 1)


@BOTH
def test_the_number_of_samples_is_bounded(ports: Ports, measure: type) -> None:
    found = measure(HERE, ports.echo, seconds=far.WITHIN, most=100)
    assert found.samples == 90
    assert 1e-6 < found.p50 <= found.p99 < far.WITHIN


@BOTH
def test_the_time_is_bounded(ports: Ports, measure: type) -> None:
    assert measure(HERE, ports.echo, seconds=1e-9, most=10**9).samples == 1
