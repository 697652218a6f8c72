"""Credit: how many bytes of one flow may still be sent in one direction, as the two ends of it count them.

The receiver grants credit, the sender spends it. Credit is granted again when bytes have been *consumed* (written
to a socket, acknowledged by the near kernel), so what the receiver must hold of one flow never exceeds its window.
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
MIN_GROWTH_TIME: Final = 0.001  # seconds; below, turns of the event loop count for more than the way
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


class CreditIssuer:
    """The receiver's end: what was granted, what came, and when to grant more.

    The window starts at `initial` and doubles up to `maximum` each time a whole window was consumed within
    ``GROWTH_TIME``. Always: granted - received + held + not yet granted again = window, so the sender is
    never left without credit while everything it sent has been consumed.

    Parameters
    ----------
    initial
        Bytes the sender has from the start; what OPEN or OPENED must say.
    maximum
        Largest window in bytes: the bound of what one flow may make this side hold.

    Attributes
    ----------
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
        "_unconsumed",
        "growth_time",
        "initial",
        "window",
    )

    def __init__(self, initial: int = INITIAL_WINDOW, maximum: int = MAX_WINDOW) -> None:
        self.initial = initial
        self.window = initial
        self._maximum = maximum
        self.growth_time = GROWTH_TIME
        self._outstanding = initial  # granted, not yet received
        self._unconsumed = 0  # received, not yet consumed
        self._pending = 0  # consumed, not yet granted again
        self._epoch_start: float | None = None
        self._epoch_bytes = 0

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
        self.window += extra
        return extra
