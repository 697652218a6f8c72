"""Deadlines of many flows behind one ``next_timer()``.

A busy flow moves its deadline with each acknowledgement, nearly always later. So the heap keeps the *earliest* time a
flow asked for and looks again when that time comes; moving a deadline later costs one dictionary write.
"""

from __future__ import annotations

import heapq
from typing import Final

SLACK: Final = 1000  # entries of the heap that count no more and are not worth a clean-up


class Timers:
    """One deadline per flow number."""

    def __init__(self) -> None:
        self._wanted: dict[int, float] = {}
        self._queued: dict[int, float] = {}  # the one heap entry of each flow that counts
        self._heap: list[tuple[float, int]] = []

    def arm(self, flow: int, deadline: float | None) -> None:
        """Set, move or (None) cancel a flow's deadline."""
        if deadline is None:
            self._wanted.pop(flow, None)
            return
        self._wanted[flow] = deadline
        queued = self._queued.get(flow)
        if queued is None or deadline < queued:
            self._queued[flow] = deadline
            heapq.heappush(self._heap, (deadline, flow))
            if len(self._heap) > 2 * len(self._wanted) + SLACK:
                self._clean_up()

    def next_timer(self) -> float | None:
        """Return when to look again, or None. May be earlier than the first real deadline, never later."""
        return self._heap[0][0] if self._heap else None

    def pop_due(self, now: float) -> list[int]:
        """Return the flows whose deadline has come, earliest first; their deadlines are gone."""
        due: list[int] = []
        while self._heap and self._heap[0][0] <= now:
            queued, flow = heapq.heappop(self._heap)
            if self._queued.get(flow) != queued:
                continue  # an earlier entry took its place
            del self._queued[flow]
            wanted = self._wanted.get(flow)
            if wanted is None:
                continue
            if wanted <= now:
                del self._wanted[flow]
                due.append(flow)
            else:
                self.arm(flow, wanted)
        return due

    def _clean_up(self) -> None:
        """Leave out what counts no more: flows are short, and the deadline of a dial is half a minute away."""
        self._queued = dict(self._wanted)
        self._heap = [(deadline, flow) for flow, deadline in self._wanted.items()]
        heapq.heapify(self._heap)
