"""The bound of what the manager holds of the services' bytes: queued in muxes, not yet taken by their carriers.

All carriers share ``BACKLOG``, each as much as is *still free* and ``CARRIER_BACKLOG`` at most. So one stalled carrier
gets its 8 MiB, nine get less than that each, and a thousand get 64 KiB each; something is always left for the next,
and no carrier need know of the others. Two exceptions, for liveness, both bounded: who has nothing queued at all may
always read one piece, else nothing would ever wake them; and within a carrier that has its share, flows that have
nothing queued, the small questions beside the bulk, may go on up to twice the share in small pieces.

Hence at most ``BACKLOG`` and one piece for each carrier.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from telehelper.core.mux import Mux

BACKLOG: Final = 64 * 1024 * 1024  # bytes of all carriers; a fraction of what a pod is usually given
CARRIER_BACKLOG: Final = 8 * 1024 * 1024  # bytes of one; 13 ms at 5 Gbit/s
FLOW_BACKLOG: Final = (
    256 * 1024
)  # bytes of one flow: enough to keep a carrier busy for some turns of the loop
# Bytes read at once, and so of a DATA frame: 44 segments of 1460, one offloaded packet at the near side; and four such
# frames fit a carrier's read of 256 KiB, of which four times 64 KiB and their headers would always cut one in two.
PIECE: Final = 44 * 1460
SMALL_PIECE: Final = 4096  # bytes read at once when the carrier has its share


class Backlog:
    """The sum over all carriers. One for a process."""

    def __init__(self, size: int = BACKLOG) -> None:
        self.size = size
        self.queued = 0


class CarrierBacklog:
    """One carrier's part of it. :meth:`close` it with the carrier."""

    def __init__(self, backlog: Backlog, mux: Mux) -> None:
        self._backlog = backlog
        self._mux = mux
        self._counted = 0  # of the mux's bytes, in the sum

    def settle(self) -> None:
        """Bring the sum up to date."""
        queued = self._mux.queued
        self._backlog.queued += queued - self._counted
        self._counted = queued

    @property
    def share(self) -> int:
        """How many bytes this carrier may have queued now."""
        return min(self._backlog.size - self._backlog.queued, CARRIER_BACKLOG)

    def room(self, flow: int) -> int:
        """Return how many bytes may be read for `flow` now; with 0 it must wait until the carrier has taken some."""
        queued = self._mux.queued
        if not queued:
            return PIECE
        self.settle()
        own = self._mux.queued_of(flow)
        if own >= FLOW_BACKLOG:
            return 0
        if queued < self.share:
            return PIECE
        return SMALL_PIECE if not own and queued < 2 * self.share else 0

    def has_room(self) -> bool:
        """Whether it makes sense to let anybody look again."""
        self.settle()
        return self._mux.queued < 2 * self.share or not self._mux.queued

    def close(self) -> None:
        """Take this carrier out of the sum; what it had queued is lost with it."""
        self._backlog.queued -= self._counted
        self._counted = 0
