"""The flow table's records: who talked to what, since when, how much, and how it ended."""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from telehelper.core.frames import Address, Proto

CLOSED_KEPT: Final = 2000  # ours: a notebook's day, about 1 MiB; the oldest is forgotten


class FiveTuple(NamedTuple):
    """What a flow is known by."""

    protocol: Proto
    src: Address
    sport: int
    dst: Address
    dport: int


class FlowRecord(NamedTuple):
    """One flow at the moment of a snapshot. Times are the core's monotonic seconds; ``up`` is towards the cluster."""

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


class FlowStats:
    """The counters of one open flow, written by the flow itself."""

    __slots__ = (
        "bytes_down",
        "bytes_up",
        "connected_at",
        "first_byte_at",
        "five_tuple",
        "flow",
        "opened_at",
        "packets_down",
        "packets_up",
    )

    def __init__(self, flow: int, five_tuple: FiveTuple, now: float) -> None:
        self.flow = flow
        self.five_tuple = five_tuple
        self.opened_at = now
        self.connected_at: float | None = None
        self.first_byte_at: float | None = None
        self.bytes_up = self.bytes_down = self.packets_up = self.packets_down = 0

    def count_down(self, size: int, now: float) -> None:
        """Count bytes that came from the cluster."""
        self.bytes_down += size
        if self.first_byte_at is None:
            self.first_byte_at = now

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
        )


class Totals(NamedTuple):
    """Sums over all flows that ever were."""

    flows: int
    bytes_up: int
    bytes_down: int


class FlowTable:
    """Records of closed flows, a bounded ring, and what was dropped without belonging to a flow."""

    def __init__(self, kept: int = CLOSED_KEPT) -> None:
        self.closed: deque[FlowRecord] = deque(maxlen=kept)
        self.drops: Counter[str] = Counter()
        self._closed_totals = Totals(0, 0, 0)

    def close(self, stats: FlowStats, state: str, reason: str, now: float) -> None:
        """Move a flow to the ring."""
        self.closed.append(stats.to_record(state, now, reason))
        flows, up, down = self._closed_totals
        self._closed_totals = Totals(flows + 1, up + stats.bytes_up, down + stats.bytes_down)

    def totals(self, open_stats: list[FlowStats]) -> Totals:
        """Add the open flows to the closed ones."""
        flows, up, down = self._closed_totals
        return Totals(
            flows + len(open_stats),
            up + sum(stats.bytes_up for stats in open_stats),
            down + sum(stats.bytes_down for stats in open_stats),
        )
