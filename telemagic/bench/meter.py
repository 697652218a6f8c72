"""What is measured and how it becomes one number: bytes over time, and percentiles. No I/O and no clock here.

*Bulk* is measured where it arrives: a :class:`Meter` notes when how many bytes were there. Several flows count only
while all of them run: from `warm_up` seconds after the last one began to where the first one ended.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    # (seconds on the receiver's clock, bytes that had arrived by then), rising
    Timeline = Sequence[tuple[float, int]]

STEP: Final = 0.02  # seconds between two points: fine beside a second, and 3,000 points a minute


class Meter:
    """The timeline of one receiver."""

    def __init__(self) -> None:
        self.total = 0
        self._points: list[tuple[float, int]] = []
        self._last = 0.0
        self._next = -math.inf

    def add(self, count: int, now: float) -> None:
        """Take note that `count` bytes arrived."""
        self.total += count
        self._last = now
        if now >= self._next:
            self._points.append((now, self.total))
            self._next = now + STEP

    def timeline(self) -> list[tuple[float, int]]:
        """Return when how many bytes were there, from the first that arrived to the last."""
        if self._points and self._points[-1][1] != self.total:
            return [*self._points, (self._last, self.total)]
        return list(self._points)


def bits_per_second(timelines: Sequence[Timeline], warm_up: float) -> float:
    """Add up the rates of flows while all of them run, without their first `warm_up` seconds.

    Raises
    ------
    ValueError
        They do not all run at one time for longer than the warm-up.
    """
    if not all(timelines):
        raise ValueError("a flow carried nothing")
    start = max(line[0][0] for line in timelines) + warm_up
    end = min(line[-1][0] for line in timelines)
    if end <= start:
        raise ValueError(f"the flows ran together for less than {warm_up:g} s")
    return sum(_at(line, end) - _at(line, start) for line in timelines) * 8 / (end - start)


def _at(line: Timeline, when: float) -> float:
    """Return how many bytes had arrived at a time within the line, as if they came evenly between two points."""
    after = bisect_left(line, (when, 0))
    if after == 0:
        return line[0][1]
    (t0, n0), (t1, n1) = line[after - 1], line[after]
    return n0 + (n1 - n0) * (when - t0) / (t1 - t0)


def percentile(ordered: Sequence[float], fraction: float) -> float:
    """Return the smallest sample that at least this fraction of all sorted samples does not exceed (nearest rank)."""
    if not ordered:
        raise ValueError("no samples")
    return ordered[max(0, math.ceil(fraction * len(ordered)) - 1)]
