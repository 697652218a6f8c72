"""The receiving half of a TCP flow: what the near kernel sends, passed on at once.

RFC 9293 §3.3.1's receive sequence space. There is no buffer: text in order becomes DATA frames, and the window we
advertise is the credit the far side has left (``window = credit``), so the near kernel keeps what cannot go on yet.
Text out of order means that something was lost, in an overflow of the TUN's queue: the link itself keeps order. It is
kept, within the window, so that one retransmission fills the gap; without that Linux, which gets no samples of the round
trip from us while it retransmits, doubles its time-out with each lost packet, to seconds.
"""

from __future__ import annotations

from typing import Final

from telehelper.core.credit import CreditBalance
from telehelper.core.seq import Seq, unwrap

SHIFT: Final = 9  # our window scale: 65,535 << 9 = 32 MiB, twice the largest credit
MAX_EARLY: Final = 256  # segments kept out of order: 16 MiB of the longest ones, the largest window
_MAX_WIRE: Final = 0xFFFF


class Receiver:
    """RCV.NXT, RCV.WND, and the credit behind it.

    Parameters
    ----------
    irs
        Initial receive sequence number.
    """

    __slots__ = ("_early", "_promised", "credit", "is_finished", "nxt", "shift")

    def __init__(self, irs: int) -> None:
        self.nxt = Seq(irs + 1)  # the SYN has taken one number
        self.credit = CreditBalance()
        self.is_finished = False  # FIN came
        self.shift = 0  # SHIFT once both sides use window scaling (RFC 7323 §2.2)
        self._promised = self.nxt  # right edge of the window last advertised
        self._early: dict[Seq, memoryview] | None = (
            None  # text out of order, by its number; made when it is needed
        )

    def place(self, wire: int) -> Seq:
        """Read a segment's sequence number."""
        return unwrap(wire, self.nxt)

    def is_acceptable(self, seq: Seq, end: Seq) -> bool:
        """RFC 9293 §3.4, loosened as Linux's ``tcp_sequence``: the window's edges and text just beyond count.

        So the acknowledgement in a segment that probes a closed window is still taken.
        """
        return seq <= self.nxt + self.credit.available and end >= self.nxt

    def accept(self, seq: Seq, text: memoryview) -> memoryview:
        """Return the part of a segment's text that is new, in order and within credit; it is spent and counted.

        What comes too early is kept for :meth:`accept_early`, which must be called when something was returned.
        """
        skip = self.nxt - seq
        if skip < 0:
            self._keep(seq, text)
            return text[:0]
        new = text[skip : skip + self.credit.available]
        self.credit.spend(len(new))
        self.nxt = Seq(self.nxt + len(new))
        return new

    def accept_early(self) -> memoryview | None:
        """Return text that was kept and whose turn has come, one piece at a time; None: there is no more."""
        while self._early and (first := min(self._early)) <= self.nxt:
            new = self.accept(first, self._early.pop(first))
            if new:
                return new
        return None

    def _keep(self, seq: Seq, text: memoryview) -> None:
        if self._early is None:
            self._early = {}
        fits = seq + len(text) <= self.nxt + self.credit.available
        if fits and len(self._early) < MAX_EARLY and len(text) > len(self._early.get(seq, b"")):
            self._early[seq] = text

    def accept_fin(self, fin: Seq) -> bool:
        """Take a FIN with number `fin`. False: it is not in order, something before it is missing."""
        if fin == self.nxt and not self.is_finished:
            self.nxt = Seq(self.nxt + 1)
            self.is_finished = True
        return self.is_finished and fin == self.nxt - 1

    def advertise(self) -> int:
        """Return the window for the header of a segment that goes out now."""
        wire = min(self.credit.available >> self.shift, _MAX_WIRE)
        self._promised = Seq(self.nxt + (wire << self.shift))
        return wire

    def advertise_unscaled(self) -> int:
        """Return the window for a SYN-ACK, which RFC 7323 §2.2 wants unscaled."""
        wire = min(self.credit.available, _MAX_WIRE)
        self._promised = Seq(self.nxt + wire)
        return wire

    def is_update_due(self, mss: int) -> bool:
        """Whether the window grew enough to tell: by two segments, or it was closed (RFC 9293 §3.8.6.2.2)."""
        window = min(self.credit.available, _MAX_WIRE << self.shift)
        return self.nxt + window - self._promised >= 2 * mss or self._promised - self.nxt < mss
