"""The last quarter of an hour, second by second: the tunnel's round trip and what went through."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

from telehelper.core.frames import UNKNOWN

if TYPE_CHECKING:
    from telehelper.core.flows import Totals

KEPT: Final = 900  # samples, one a second


class Point(NamedTuple):
    """One second, until ``at`` (Unix seconds); the round trip is seconds or -1."""

    at: float
    rtt: float
    up: int  # bytes
    down: int


class Series:
    """The samples that are kept.

    Attributes
    ----------
    count
        How many there ever were.
    """

    def __init__(self) -> None:
        self.count = 0
        self._points: deque[Point] = deque(maxlen=KEPT)
        self._up = self._down = 0  # in all, so far

    def sample(self, at: float, rtt: float | None, totals: Totals) -> None:
        """Take a sample. Call it once a second."""
        up, down = totals.bytes_up - self._up, totals.bytes_down - self._down
        self._up, self._down = totals.bytes_up, totals.bytes_down
        self._points.append(Point(round(at, 3), UNKNOWN if rtt is None else round(rtt, 6), up, down))
        self.count += 1

    def rows(self, since: int = 0) -> list[Point]:
        """Return the samples after the first `since` ones, as far as they are kept."""
        new = min(self.count - since, len(self._points))
        return list(self._points)[len(self._points) - new :]

    @property
    def rtts(self) -> list[float]:
        """The round trips of the samples that are kept."""
        return [point.rtt for point in self._points]
