"""A model of the near kernel's TCP, only for tests: it opens, sends, receives, retransmits and closes.

Unlike our own halves it keeps text that comes out of order, as Linux does, and acknowledges everything. Numbers are
counted from the initial ones and never wrap here; they do on the wire.
"""

from __future__ import annotations

from typing import Final

from telehelper.core.packet import ACK, FIN, SYN, Segment, TcpTemplate, parse, syn_options

RTO: Final = 0.3  # seconds
WINDOW: Final = 100_000  # bytes it holds unread
SHIFT: Final = 7


class Peer:
    """One end of a connection; `packets` collects what it sends."""

    def __init__(self, key: bytes, irs: int, text: bytes, *, step: int = 5000) -> None:
        self.template = TcpTemplate(key, 1460, offload=True)
        self.irs, self.iss = irs, 0
        self.text, self.step = text, step
        self.una, self.nxt = 0, 0  # ours: 0 the SYN, 1 … the text, then FIN
        self.window_end = 0
        self.received = bytearray()
        self.early: dict[int, bytes] = {}
        self.far_fin: int | None = None
        self.rcv_nxt = 0
        self.unread = 0
        self.connected = self.was_reset = False
        self.deadline = 0.0
        self.packets: list[bytes] = []

    @property
    def is_done(self) -> bool:
        """Everything sent is acknowledged, everything of the other side has come."""
        return self.was_reset or (self.una == len(self.text) + 2 and self.far_fin == self.rcv_nxt - 1 > 0)

    def emit(self, seq: int, flags: int, text: bytes = b"", options: bytes = b"") -> None:
        window = max(WINDOW - self.unread, 0) >> SHIFT
        wire_ack = (self.iss + self.rcv_nxt) & 0xFFFFFFFF if flags & ACK else 0
        packet = self.template.segment(
            (self.irs + seq) & 0xFFFFFFFF, wire_ack, flags, window, (text,), len(text), options
        )
        self.packets.append(b"".join(packet.buffers))

    def pump(self) -> None:
        """Send what the window lets us."""
        end = len(self.text) + 1
        while self.connected and self.nxt <= end:
            size = min(self.step, end - self.nxt, self.window_end - self.nxt)
            if size <= 0 and self.nxt < end:
                return
            fin = FIN if self.nxt + size == end else 0
            self.emit(self.nxt, ACK | fin, self.text[self.nxt - 1 : self.nxt - 1 + size])
            self.nxt += size + fin

    def tick(self, now: float) -> None:
        """Send again what was not acknowledged in time; probe a closed window."""
        if now < self.deadline or self.is_done:
            return
        self.deadline = now + RTO
        if not self.connected:
            self.emit(0, SYN, options=syn_options(1460, SHIFT))
            return
        self.nxt = self.una
        if self.una <= len(self.text) and self.window_end <= self.una:
            self.emit(self.una - 1, ACK)
        self.pump()

    def receive(self, data: bytes, now: float) -> None:
        """Take one packet."""
        segment = parse(data)
        if not isinstance(segment, Segment):
            return
        if segment.flags & 4:
            self.was_reset = True
            return
        if segment.flags & SYN:
            self.iss = segment.seq
            self.connected, self.rcv_nxt = True, max(self.rcv_nxt, 1)
            self.una = self.nxt = max(self.una, 1)
        if not self.connected:
            return
        self.take_ack(segment, now)
        self.take_text(segment)
        self.pump()

    def take_ack(self, segment: Segment, now: float) -> None:
        ack = ((segment.ack - self.irs - self.una + 2**31) & 0xFFFFFFFF) - 2**31 + self.una
        if ack > self.una:
            self.una, self.deadline = ack, now + RTO
            self.nxt = max(self.nxt, ack)
        shift = 0 if segment.flags & SYN else 9
        self.window_end = max(self.window_end, ack + (segment.window << shift))

    def take_text(self, segment: Segment) -> None:
        seq = ((segment.seq - self.iss - self.rcv_nxt + 2**31) & 0xFFFFFFFF) - 2**31 + self.rcv_nxt
        text, is_old = bytes(segment.text), seq < self.rcv_nxt
        if segment.flags & FIN:
            self.far_fin = seq + len(text)
        if seq < self.rcv_nxt:
            text, seq = text[self.rcv_nxt - seq :], self.rcv_nxt
        if text:
            self.early[seq] = max(self.early.get(seq, b""), text, key=len)
        for at in sorted(self.early):
            if at > self.rcv_nxt:
                break
            new = self.early.pop(at)[self.rcv_nxt - at :]
            self.received += new
            self.unread += len(new)
            self.rcv_nxt += len(new)
        if self.far_fin == self.rcv_nxt:
            self.rcv_nxt += 1
        if segment.text or segment.flags & (SYN | FIN) or is_old:
            self.emit(self.nxt, ACK)

    def read(self) -> None:
        """Let the application read everything."""
        if self.unread:
            self.unread = 0
            if self.connected:
                self.emit(self.nxt, ACK)
