"""What a TCP flow writes to the near side: segments with the right acknowledgement and window."""

from __future__ import annotations

from typing import TYPE_CHECKING

from telehelper.core.packet import (
    ACK,
    IP4_HEADER,
    IP6_HEADER,
    RST,
    SYN,
    TCP_HEADER,
    Segment,
    TcpTemplate,
    parse_syn_options,
    reverse,
    syn_options,
)
from telehelper.core.seq import Seq, to_wire
from telehelper.core.tcp_receive import SHIFT, Receiver

if TYPE_CHECKING:
    from telehelper.core.actions import Action, SendPacket
    from telehelper.core.flows import FlowStats
    from telehelper.core.limits import Terms


class TcpOutput:
    """The way to the near side of one flow, and what was agreed with it in the SYN.

    Parameters
    ----------
    syn
        The segment that opened the flow.
    receiver
        Asked for the acknowledgement and the window of each segment.
    stats
        Counts the packets.
    """

    __slots__ = ("_receiver", "_stats", "_template", "is_ack_due", "limit", "mss", "shift")

    def __init__(self, syn: Segment, receiver: Receiver, stats: FlowStats, terms: Terms) -> None:
        near_mss, shift = parse_syn_options(syn.options)
        headers = TCP_HEADER + (IP4_HEADER if len(syn.key) == 12 else IP6_HEADER)
        self.mss = min(near_mss, terms.mtu - headers)
        self.shift = shift or 0  # of the windows that the near side advertises
        self.is_ack_due = False
        if shift is not None:
            receiver.shift = SHIFT
        self._template = TcpTemplate(reverse(syn.key), self.mss, offload=terms.gso)
        self.limit = self._template.limit  # bytes of text in one packet
        self._receiver = receiver
        self._stats = stats

    def send(
        self,
        seq: Seq,
        flags: int,
        out: list[Action],
        text: tuple[bytes | memoryview, ...] = (),
        size: int = 0,
    ) -> None:
        """Send a segment; whatever its purpose, it acknowledges all that came."""
        self.is_ack_due = False
        ack, window = to_wire(self._receiver.nxt), self._receiver.advertise()
        self._emit(self._template.segment(to_wire(seq), ack, flags, window, text, size), out)

    def send_syn(self, iss: Seq, out: list[Action]) -> None:
        """Send SYN-ACK; window scaling only if the near side offered it (RFC 7323 §2.2)."""
        options = syn_options(self.mss, self._receiver.shift or None)
        ack, window = to_wire(self._receiver.nxt), self._receiver.advertise_unscaled()
        self._emit(self._template.segment(to_wire(iss), ack, SYN | ACK, window, options=options), out)

    def send_reset(self, seq: Seq, out: list[Action]) -> None:
        """Reset; `seq` must be the next number, or the near side challenges it (RFC 5961 §3)."""
        self._emit(self._template.segment(to_wire(seq), to_wire(self._receiver.nxt), RST | ACK, 0), out)

    def send_bare_reset(self, ack: int, out: list[Action]) -> None:
        """Answer a wrong acknowledgement: RFC 9293 §3.10.7.4, ``<SEQ=SEG.ACK><CTL=RST>``."""
        self._emit(self._template.segment(ack, 0, RST, 0), out)

    def _emit(self, packet: SendPacket, out: list[Action]) -> None:
        self._stats.packets_down += 1
        out.append(packet)
