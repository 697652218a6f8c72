"""The retransmission timer of one flow; in persist mode it paces zero-window probes.

RFC 6298 §5 without an estimate of the round trip: the other end is a kernel on the same machine, its round trip is
microseconds, so the smallest time-out is always the right one (Linux takes 200 ms too: ``TCP_RTO_MIN``).
"""

from __future__ import annotations

from typing import Final

INITIAL_RTO: Final = 0.2  # seconds; Linux's TCP_RTO_MIN, above its 40 ms delayed acknowledgement
MAX_RTO: Final = 10.0  # seconds; ours: a kernel that is there answers the probe, whatever the interval
MAX_UNANSWERED: Final = 7  # expiries in a row without a sign of life: 0.2+0.4+…+12.8 s, cut: about 25 s


class Rto:
    """One timer, doubled at each expiry, reset by progress."""

    __slots__ = ("_backoff", "_unanswered", "deadline")

    def __init__(self) -> None:
        self.deadline: float | None = None
        self._backoff = INITIAL_RTO
        self._unanswered = 0

    def arm(self, now: float) -> None:
        """Start it unless it runs: RFC 6298 §5.1, "if the timer is not running, start it running"."""
        if self.deadline is None:
            self.deadline = now + self._backoff

    def progress(self, now: float, *, outstanding: bool) -> None:
        """Note that new data was acknowledged: restart if some is outstanding (§5.3), else stop (§5.2)."""
        self._backoff = INITIAL_RTO
        self._unanswered = 0
        self.deadline = now + INITIAL_RTO if outstanding else None

    def heard(self) -> None:
        """Note an answer to a probe: RFC 9293 §3.8.6.1 wants the connection open as long as they come."""
        self._unanswered = 0

    def expire(self, now: float) -> bool:
        """Back off (§5.5) and restart (§5.6). False: too many in a row, give the flow up."""
        self._unanswered += 1
        if self._unanswered > MAX_UNANSWERED:
            return False
        self._backoff = min(self._backoff * 2, MAX_RTO)
        self.deadline = now + self._backoff
        return True
