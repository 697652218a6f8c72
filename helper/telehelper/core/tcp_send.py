"""The sending half of a TCP flow: what the cluster sent and the near kernel has not acknowledged.

RFC 9293 §3.3.1's send sequence space. No congestion control: the link is the machine's memory. No SACK and no
fast retransmit: a loss is rare on it, and after a time-out everything unacknowledged goes again ("go back N"), and an
acknowledgement of more skips the rest.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from telehelper.core.seq import Seq

COALESCE: Final = 16 * 1024  # bytes; smaller chunks are joined, so 16 MiB are never more than 2,048 chunks


class SendBuffer:
    """Bytes to send, in chunks as they came, with a reading position that can be set back.

    Its bound is the credit that was granted to the far side: `CreditIssuer.received` refuses more.
    """

    __slots__ = ("_chunks", "_head", "_index", "_offset", "size", "unread")

    def __init__(self) -> None:
        self._chunks: list[bytes] = []  # a deque that is empty takes 600 bytes more, in each idle flow
        self._head = 0  # bytes of the first chunk that are released
        self._index = self._offset = 0  # where reading goes on
        self.size = 0  # bytes not released
        self.unread = 0  # bytes not read

    def append(self, data: bytes) -> None:
        """Add bytes at the end."""
        if self._chunks and len(self._chunks[-1]) + len(data) <= COALESCE:
            self._chunks[-1] += data
        else:
            self._chunks.append(data)
        self.size += len(data)
        self.unread += len(data)

    def read(self, n: int) -> tuple[bytes | memoryview, ...]:
        """Return the next `n` bytes, at most `unread`, as views."""
        self.unread -= n
        views: list[bytes | memoryview] = []
        while n:
            chunk = self._chunks[self._index]
            take = min(len(chunk) - self._offset, n)
            if take == len(chunk):
                views.append(chunk)
            elif take:
                views.append(memoryview(chunk)[self._offset : self._offset + take])
            self._offset += take
            n -= take
            if n:
                self._index += 1
                self._offset = 0
        return tuple(views)

    def release(self, n: int) -> None:
        """Forget the first `n` bytes; the reading position moves on if it was among them."""
        self.size -= n
        self._head += n
        gone = 0
        for chunk in self._chunks:
            if self._head < len(chunk):
                break
            self._head -= len(chunk)
            gone += 1
        del self._chunks[:gone]
        if self._index >= gone:
            self._index -= gone
        else:
            self._index = self._offset = 0
        if not self._index:
            self._offset = max(self._offset, self._head)
        self.unread = min(self.unread, self.size)

    def rewind(self) -> None:
        """Set the reading position back to the first byte not released."""
        self._index, self._offset, self.unread = 0, self._head, self.size


class Outgoing(NamedTuple):
    """One segment to send."""

    seq: Seq
    text: tuple[bytes | memoryview, ...]
    size: int
    fin: bool


class Sender:
    """SND.UNA, SND.NXT, SND.WND and the text between.

    Parameters
    ----------
    iss
        Initial send sequence number.
    mss
        Bytes of text in one segment on the link.
    limit
        Bytes of text in one packet.
    """

    __slots__ = (
        "_end",
        "_limit",
        "_mss",
        "_start",
        "_wl1",
        "_wl2",
        "buffer",
        "eof",
        "nxt",
        "sent",
        "una",
        "window_end",
    )

    def __init__(self, iss: Seq, mss: int, limit: int) -> None:
        self._mss = mss
        self._limit = limit
        self._start = self._end = Seq(iss + 1)  # of the text queued; the SYN has taken one number
        self._wl1 = self._wl2 = Seq(0)
        self.buffer = SendBuffer()
        self.eof = False
        self.una = iss  # oldest unacknowledged
        self.nxt = self.sent = Seq(iss + 1)  # next to send; next never sent
        self.window_end = self.nxt

    def queue(self, data: bytes) -> None:
        """Add text."""
        self.buffer.append(data)
        self._end = Seq(self._end + len(data))

    def finish(self) -> None:
        """Send FIN after all that is queued."""
        self.eof = True

    @property
    def is_outstanding(self) -> bool:
        """Whether something sent is not acknowledged."""
        return self.una < self.sent

    @property
    def is_stuck(self) -> bool:
        """Whether there is something to send, and only the window keeps it back: probe it."""
        return self.window_end <= self.una and self.una < self._end + self.eof

    @property
    def is_fin_acknowledged(self) -> bool:
        """Whether the near side has everything, FIN included."""
        return self.eof and self.una > self._end

    def next_segment(self) -> Outgoing | None:
        """Return what can be sent now, or None.

        RFC 9293 §3.8.6.2.1 against silly windows: less than a full segment goes only as the last of what is queued or
        with nothing in flight. No Nagle: the far side's writes are frames already.
        """
        unread = self._end - self.nxt
        room = self.window_end - self.nxt
        if room <= 0 or unread + self.eof <= 0:  # -1 unread: the FIN is sent too
            return None
        size = min(unread, room, self._limit)
        if size < min(unread, self._mss) and self.nxt > self.una:
            return None
        fin = self.eof and size == unread and size < room
        seq = self.nxt
        self.nxt = Seq(seq + size + fin)
        self.sent = max(self.sent, self.nxt)
        return Outgoing(seq, self.buffer.read(size), size, fin)

    def acknowledge(self, ack: Seq) -> int:
        """Take an acknowledgement, una < ack <= sent; return how many bytes of text it frees."""
        freed = min(ack, self._end) - max(self.una, self._start)
        self.buffer.release(freed)
        self.una = ack
        self.nxt = max(self.nxt, ack)
        return freed

    def update_window(self, seq: Seq, ack: Seq, window: int) -> None:
        """Take the window of an acceptable segment, unless an older one came late (RFC 9293 §3.10.7.4, SND.WL1/WL2)."""
        if self._wl1 < seq or (self._wl1 == seq and self._wl2 <= ack):
            self._wl1, self._wl2 = seq, ack
            self.window_end = Seq(ack + window)

    def rewind(self) -> None:
        """Send everything unacknowledged again."""
        self.nxt = self.una
        self.buffer.rewind()
