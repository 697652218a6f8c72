"""Credit: how many bytes of one flow may still be sent in one direction, as the two ends of it count them.

The receiver grants credit, the sender spends it. Credit is granted again when bytes have been *consumed* (written
to a socket, acknowledged by the near kernel), so what the receiver must hold of one flow never exceeds its window,
and what it must hold of all flows never exceeds the sum of the windows, which a pool bounds.
"""

from __future__ import annotations

from typing import Final

from telehelper.errors import LocalProtocolError, TunnelError

INITIAL_WINDOW: Final = (
    256 * 1024
)  # bytes; 1 Gbit/s at 2 ms round trip, granted before anything is known of a flow
MAX_WINDOW: Final = (
    16 * 1024 * 1024
)  # bytes; 6 Gbit/s at 20 ms round trip; the most one flow may make us hold
MAX_CREDIT: Final = 2**31  # bytes; as HTTP/2's largest window (RFC 9113 §6.9.1): a sum beyond it is nonsense
GROWTH_TIME: Final = 0.1  # seconds; a window gone faster than this held the sender back: two long round trips
# Seconds; below, turns of the event loop count for more than the way. What a window holds is what a small request waits
# for behind a bulk flow: 0.3 ms at full speed.
MIN_GROWTH_TIME: Final = 0.0003
# Bytes. Half of it is enough for 8 flows at their largest, the other half for 256 new ones at INITIAL_WINDOW
POOL_SIZE: Final = 256 * 1024 * 1024
# Bytes; the least a flow gets, pool or no pool. A few segments, so that it moves: 8 KiB in 0.2 ms are 0.3 Gbit/s. And
# little enough for 10,000 flows beyond a full pool: 80 MiB
FLOOR: Final = 8 * 1024
NEWCOMERS: Final = 256  # a first window is at most this part of what is free for first windows
GROWERS: Final = 4  # a window grows by at most this part of what is free for growth
BATCH: Final = 4  # credit goes out when this part of the window has been consumed: few frames, no stop


def growth_time(rtt: float | None) -> float:
    """Return the growth time that suits a carrier's least round-trip time in seconds; None means unknown."""
    return GROWTH_TIME if rtt is None else min(max(2 * rtt, MIN_GROWTH_TIME), GROWTH_TIME)


class CreditBalance:
    """The sender's end: what may still be sent.

    Parameters
    ----------
    initial
        Bytes granted by OPEN or OPENED.

    Raises
    ------
    TunnelError
        The initial grant is over ``MAX_CREDIT``.
    """

    __slots__ = ("available",)

    def __init__(self, initial: int = 0) -> None:
        self.available = 0
        self.grant(initial)

    def spend(self, n: int) -> None:
        """Take off `n` bytes that are being sent; LocalProtocolError if they were never granted."""
        if n > self.available:
            raise LocalProtocolError(f"sending {n} bytes with a credit of {self.available}")
        self.available -= n

    def grant(self, n: int) -> None:
        """Add `n` bytes that the far side granted; TunnelError if the sum is over ``MAX_CREDIT``."""
        if self.available + n > MAX_CREDIT:
            raise TunnelError(f"credit of {self.available + n} bytes is over the limit of {MAX_CREDIT}")
        self.available += n


class CreditPool:
    """What all flows of a process together may be granted.

    Half of it is for first windows and half for growth, so bulk flows that stall, having grown to their largest, take
    nothing from new flows, and thousands of idle flows take nothing from a busy one. Within its half each asks for a
    *part of what is free*: the fuller it is the less everybody gets, and there is always something left. Only the
    floor is promised: a new flow gets it even from a full pool, because a flow without a window is a dead one. Hence
    the hard bound: ``size + flows * FLOOR``.

    Parameters
    ----------
    size
        Bytes.
    """

    __slots__ = ("_first", "_grown", "size")

    def __init__(self, size: int = POOL_SIZE) -> None:
        self.size = size
        self._first = self._grown = 0  # bytes given out from either half

    @property
    def taken(self) -> int:
        """The sum of all windows, in bytes."""
        return self._first + self._grown

    def take_first(self, wanted: int) -> int:
        """Take a new flow's window and return it: `wanted` bytes, under pressure less, ``FLOOR`` at least."""
        window = min(wanted, max((self.size // 2 - self._first) // NEWCOMERS, FLOOR))
        self._first += window
        return window

    def take_growth(self, wanted: int) -> int:
        """Take `wanted` bytes for a window that grows, or as many as there are; return how many."""
        extra = min(wanted, (self.size // 2 - self._grown) // GROWERS)
        self._grown += extra
        return extra

    def give_back(self, first: int, growth: int) -> None:
        """Return a flow's first window and what it has grown by."""
        self._first -= first
        self._grown -= growth


class CreditIssuer:
    """The receiver's end: what was granted, what came, and when to grant more.

    The window starts at `initial` and doubles up to `maximum` each time a whole window was consumed within
    ``GROWTH_TIME``, both as far as the pool allows. Always: granted - received + held + not yet granted again =
    window, so the sender is never left without credit while everything it sent has been consumed.

    Parameters
    ----------
    initial
        Bytes the sender should have from the start.
    maximum
        Largest window in bytes: the bound of what one flow may make this side hold.
    pool
        Bounds the windows of all flows. Whoever gives one must call :meth:`close` when the flow is over.

    Attributes
    ----------
    initial
        Bytes the sender has from the start; what OPEN or OPENED must say.
    growth_time
        Seconds within which a window must be consumed to double; ``GROWTH_TIME`` unless set. Who knows the
        carrier's round-trip time sets it to :func:`growth_time`: a larger window than needed only fills the
        buffers on the way, behind which every other flow then waits.
    """

    __slots__ = (
        "_epoch_bytes",
        "_epoch_start",
        "_maximum",
        "_outstanding",
        "_pending",
        "_pool",
        "_unconsumed",
        "growth_time",
        "initial",
        "window",
    )

    def __init__(
        self, initial: int = INITIAL_WINDOW, maximum: int = MAX_WINDOW, pool: CreditPool | None = None
    ) -> None:
        self._pool = pool
        self.initial = initial if pool is None else pool.take_first(initial)
        self.window = self.initial
        self._maximum = maximum
        self.growth_time = GROWTH_TIME
        self._outstanding = self.initial  # granted, not yet received
        self._unconsumed = 0  # received, not yet consumed
        self._pending = 0  # consumed, not yet granted again
        self._epoch_start: float | None = None
        self._epoch_bytes = 0

    def close(self) -> None:
        """Give the window back to the pool: nothing more is held of this flow. A second call does nothing."""
        if self._pool is not None:
            self._pool.give_back(self.initial, self.window - self.initial)
            self._pool = None

    @property
    def held(self) -> int:
        """Bytes received and not yet consumed."""
        return self._unconsumed

    def received(self, n: int) -> None:
        """Note that `n` bytes came; TunnelError if that is more than was granted."""
        if n > self._outstanding:
            raise TunnelError(f"{n} bytes came with a credit of {self._outstanding}")
        self._outstanding -= n
        self._unconsumed += n

    def consumed(self, n: int, now: float) -> int:
        """Note that `n` received bytes were passed on, and say how much credit to send now.

        Parameters
        ----------
        n
            Bytes; together never more than were received.
        now
            Monotonic seconds.

        Returns
        -------
        int
            Bytes for one CREDIT frame; 0 while the batch is not full.

        Raises
        ------
        LocalProtocolError
            More was consumed than had come.
        """
        if n > self._unconsumed:
            raise LocalProtocolError(f"{n} bytes consumed of {self._unconsumed}")
        self._unconsumed -= n
        self._pending += n + self._growth(n, now)
        if self._pending * BATCH < self.window:
            return 0
        grant, self._pending = self._pending, 0
        self._outstanding += grant
        return grant

    def _growth(self, n: int, now: float) -> int:
        """Return the bytes by which the window grows now."""
        if self._epoch_start is None:
            self._epoch_start = now
        self._epoch_bytes += n
        if self._epoch_bytes < self.window:
            return 0
        fast = now - self._epoch_start < self.growth_time
        self._epoch_start, self._epoch_bytes = now, 0
        if not fast:
            return 0
        extra = min(self.window, self._maximum - self.window)
        if self._pool is not None:
            extra = self._pool.take_growth(extra)
        self.window += extra
        return extra
