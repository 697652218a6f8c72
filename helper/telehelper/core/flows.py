"""The flow table's records: who talked to what, since when, how much, and how it ended."""

from __future__ import annotations

import errno
from collections import Counter, deque
from typing import TYPE_CHECKING, Final, NamedTuple

from telehelper.core.frames import UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Iterable

    from telehelper.core.frames import Address, Proto

CLOSED_KEPT: Final = 10_000  # ours: as many as are kept to be shown, some 8 MiB; the oldest is forgotten
STRANGERS_KEPT: Final = (
    100  # flows; enough to see who tries, and apart, so that trying pushes none of ours out
)

# How a flow failed, as people say it
REFUSED: Final = "refused"
UNREACHABLE: Final = "unreachable"
TIMED_OUT: Final = "timed out"
RESET: Final = "reset"
_FAILURES: Final = {errno.ECONNREFUSED: REFUSED, errno.ETIMEDOUT: TIMED_OUT}


def failure_of(code: int) -> str:
    """Return how a flow failed that was rejected with this errno."""
    return _FAILURES.get(code, UNREACHABLE)


class FiveTuple(NamedTuple):
    """What a flow is known by."""

    protocol: Proto
    src: Address
    sport: int
    dst: Address
    dport: int


class FlowRecord(NamedTuple):
    """One flow at the moment of a snapshot; ``up`` is towards the cluster.

    Times are the core's monotonic seconds; durations are seconds, -1 if unknown.
    """

    flow: int
    five_tuple: FiveTuple
    state: str
    opened_at: float
    connected_at: float | None  # OPENED came
    first_byte_at: float | None  # from the cluster
    closed_at: float | None
    bytes_up: int
    bytes_down: int
    packets_up: int
    packets_down: int
    reason: str  # empty while open
    last_byte_at: float | None = None  # either way
    dns: float = UNKNOWN  # the lookup that led here
    queue: float = UNKNOWN  # until OPEN was given to a carrier
    tunnel: float = UNKNOWN  # the way to the far side and back: measured with the dial, else that carrier's round trip then
    dial: float = UNKNOWN  # the far side's connect
    wait: float = UNKNOWN  # for the service's first byte, at the far side
    failure: str = ""  # refused, unreachable, timed out or reset
    is_strangers: bool = False  # kept out on this side, being another user's


class FlowStats:
    """The counters of one open flow, written by the flow itself.

    Attributes
    ----------
    dns, queue, tunnel
        As in :class:`FlowRecord`; the shell measures them.
    is_strangers
        As in :class:`FlowRecord`; the shell decides it. Nothing that the far side sends can say so.
    """

    __slots__ = (
        "bytes_down",
        "bytes_up",
        "connected_at",
        "dial",
        "dns",
        "failure",
        "first_byte_at",
        "five_tuple",
        "flow",
        "is_strangers",
        "last_byte_at",
        "opened_at",
        "packets_down",
        "packets_up",
        "queue",
        "tunnel",
        "wait",
    )

    def __init__(self, flow: int, five_tuple: FiveTuple, now: float) -> None:
        self.flow = flow
        self.five_tuple = five_tuple
        self.opened_at = now
        self.connected_at: float | None = None
        self.first_byte_at: float | None = None
        self.last_byte_at: float | None = None
        self.dns = self.queue = self.tunnel = self.dial = self.wait = UNKNOWN
        self.failure = ""
        self.is_strangers = False
        self.bytes_up = self.bytes_down = self.packets_up = self.packets_down = 0

    def far_answered(self, dial: float, now: float) -> None:
        """Take the far side's dial in seconds (UNKNOWN if it does not tell), with which its OPENED came.

        What of the time until then was neither waiting for the tunnel nor the dial was the way there and back: of this very
        flow, and not the carrier's last round trip, which may have been a slower one.
        """
        self.dial = dial
        if dial >= 0 and self.queue >= 0:
            self.tunnel = max(0.0, now - self.opened_at - self.queue - dial)

    def count_down(self, size: int, now: float) -> None:
        """Count bytes that came from the cluster."""
        self.bytes_down += size
        self.last_byte_at = now
        if self.first_byte_at is None:
            self.first_byte_at = now

    @property
    def progress(self) -> int:
        """A number that has grown if anything was counted."""
        return self.bytes_up + self.bytes_down + self.packets_up + self.packets_down

    def to_record(self, state: str, closed_at: float | None = None, reason: str = "") -> FlowRecord:
        """Make a copy that no longer changes."""
        return FlowRecord(
            self.flow,
            self.five_tuple,
            state,
            self.opened_at,
            self.connected_at,
            self.first_byte_at,
            closed_at,
            self.bytes_up,
            self.bytes_down,
            self.packets_up,
            self.packets_down,
            reason,
            self.last_byte_at,
            self.dns,
            self.queue,
            self.tunnel,
            self.dial,
            self.wait,
            self.failure,
            self.is_strangers,
        )


class Totals(NamedTuple):
    """Sums over all flows that ever were."""

    flows: int
    bytes_up: int
    bytes_down: int


class FlowTable:
    """Records of closed flows that nobody has taken yet, in bounded rings, and what was dropped without belonging to a flow."""

    def __init__(self, kept: int = CLOSED_KEPT) -> None:
        self.closed: deque[FlowRecord] = deque(maxlen=kept)
        self.strangers: deque[FlowRecord] = deque(maxlen=STRANGERS_KEPT)
        self.drops: Counter[str] = Counter()
        self._closed_totals = Totals(0, 0, 0)

    def close(self, stats: FlowStats, state: str, reason: str, now: float, *, is_kept: bool = True) -> None:
        """Move a flow to its ring, or only count it."""
        if is_kept:
            ring = self.strangers if stats.is_strangers else self.closed
            ring.append(stats.to_record(state, now, reason))
        flows, up, down = self._closed_totals
        self._closed_totals = Totals(flows + 1, up + stats.bytes_up, down + stats.bytes_down)

    def take_closed(self) -> list[FlowRecord]:
        """Hand over the records of closed flows, oldest first, those of strangers before ours."""
        taken = [*self.strangers, *self.closed]
        self.strangers.clear()
        self.closed.clear()
        return taken

    def totals(self, open_stats: Iterable[FlowStats]) -> Totals:
        """Add the open flows to the closed ones."""
        flows, up, down = self._closed_totals
        for stats in open_stats:
            flows += 1
            up += stats.bytes_up
            down += stats.bytes_down
        return Totals(flows, up, down)
