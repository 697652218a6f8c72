"""Latencies by service over the flows that are kept: medians and 99th percentiles, always up to date.

Each flow's durations are in sorted lists of its service; a flow that changes or is forgotten is taken out again. So a
flow costs some microseconds, and a table is made without looking at flows.
"""

from __future__ import annotations

import heapq
import math
from bisect import bisect_left, insort
from typing import TYPE_CHECKING, Final, NamedTuple

from telehelper.core.frames import UNKNOWN
from telehelper.observing import LatencyRow

if TYPE_CHECKING:
    from collections.abc import Iterable

SHOWN: Final = 200  # services, those with most flows first: a port scan is of no use to anybody
TUNNEL: Final = "tunnel"


class Sample(NamedTuple):
    """What one flow tells of its service; seconds, or -1 if unknown."""

    service: str
    failed: bool
    connect: float
    dial: float
    first_byte: float
    wait: float


class _Service:
    """The flows of one service."""

    __slots__ = ("durations", "failed", "flows", "row")

    def __init__(self) -> None:
        self.flows = self.failed = 0
        self.durations: tuple[list[float], ...] = ([], [], [], [])  # each sorted; in the order of Sample
        self.row: LatencyRow | None = None  # as long as nothing changes


class Latencies:
    """Keeps what is known of each service."""

    def __init__(self) -> None:
        self._services: dict[str, _Service] = {}

    def replace(self, old: Sample | None, new: Sample | None) -> None:
        """Put what a flow tells now in the place of what it told before; None for a flow that is new or forgotten."""
        if old == new:
            return
        if old is not None:
            self._remove(old)
        if new is not None:
            self._add(new)

    def _add(self, sample: Sample) -> None:
        service = self._services.get(sample.service)
        if service is None:
            service = self._services[sample.service] = _Service()
        service.row = None
        service.flows += 1
        service.failed += sample.failed
        for durations, seconds in zip(service.durations, sample[2:], strict=True):
            if seconds >= 0:
                insort(durations, seconds)

    def _remove(self, sample: Sample) -> None:
        service = self._services[sample.service]
        service.row = None
        service.flows -= 1
        service.failed -= sample.failed
        for durations, seconds in zip(service.durations, sample[2:], strict=True):
            if seconds >= 0:
                del durations[bisect_left(durations, seconds)]
        if not service.flows:
            del self._services[sample.service]

    def rows(self, rtts: Iterable[float]) -> tuple[LatencyRow, ...]:
        """Return the table: the tunnel's round trips as its connect, then the services with most flows.

        Parameters
        ----------
        rtts
            Samples of the tunnel's round trip in seconds, -1 where it was unknown.
        """
        known = sorted(rtt for rtt in rtts if rtt >= 0)
        flows = sum(service.flows for service in self._services.values())
        failed = sum(service.failed for service in self._services.values())
        tunnel = LatencyRow(TUNNEL, flows, failed, *_both(known), *(UNKNOWN,) * 6)
        busiest = heapq.nlargest(SHOWN, self._services.items(), key=lambda item: item[1].flows)
        return (tunnel, *(_row(name, service) for name, service in busiest))


def percentile(values: list[float], share: float) -> float:
    """Return the least of the sorted values that a share of them does not exceed (nearest rank); -1 of none."""
    if not values:
        return UNKNOWN
    return values[max(0, math.ceil(share * len(values)) - 1)]


def _both(values: list[float]) -> tuple[float, float]:
    return percentile(values, 0.5), percentile(values, 0.99)


def _row(name: str, service: _Service) -> LatencyRow:
    if service.row is None:
        both = [seconds for durations in service.durations for seconds in _both(durations)]
        service.row = LatencyRow(name, service.flows, service.failed, *both)
    return service.row
