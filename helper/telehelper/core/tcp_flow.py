"""One TCP flow: the near kernel on one side, the mux's frames on the other.

Composes the table (``tcp_state``), the halves (``tcp_send``, ``tcp_receive``), the timer (``rto``) and both credits. It
decides nothing about sequence numbers or legal transitions itself; it brings events and procedures together and writes
the actions. Each input appends to the caller's list, in order, and leaves :attr:`TcpFlow.deadline` up to date. What
comes before SYN_RECEIVED is in ``tcp_dial``.

A packet that acknowledges goes out for each packet that brings text: one packet is up to 64 KiB, so delaying would save
nothing. Text for the near side carries the acknowledgement instead, if there is any.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from telehelper.core.actions import Action, FlowClosed, SendFrame
from telehelper.core.flows import RESET
from telehelper.core.frames import (
    Frame,
    FrameType,
    decode_coded,
    decode_timing,
    decode_u32,
    encode_coded,
    encode_u32,
)
from telehelper.core.packet import ACK, FIN, PSH, RST, SYN, Segment
from telehelper.core.rto import Rto
from telehelper.core.seq import Seq, unwrap
from telehelper.core.tcp_output import TcpOutput
from telehelper.core.tcp_receive import Receiver
from telehelper.core.tcp_send import Sender
from telehelper.core.tcp_state import Event, State, is_legal, next_state
from telehelper.errors import TunnelError

if TYPE_CHECKING:
    from telehelper.core.credit import CreditIssuer
    from telehelper.core.flows import FlowStats
    from telehelper.core.limits import Terms

COPIED: Final = 4096  # bytes of text; up to this, copying costs less than keeping the packet's buffer

_DATA: Final = FrameType.DATA
_SYN_RECEIVED: Final = State.SYN_RECEIVED
_TIME_WAIT: Final = State.TIME_WAIT
_CLOSED: Final = State.CLOSED


class TcpFlow:
    """A flow from SYN_RECEIVED to CLOSED.

    Parameters
    ----------
    stats
        Written by the flow.
    syn
        The segment that opened it.
    iss
        Initial send sequence number.
    issuer
        Of the credit that OPEN has granted; given back by the flow.
    """

    __slots__ = (
        "_far_eof",
        "_issuer",
        "_output",
        "_receiver",
        "_rto",
        "_sender",
        "_terms",
        "deadline",
        "key",
        "reason",
        "state",
        "stats",
    )

    def __init__(self, stats: FlowStats, syn: Segment, iss: int, issuer: CreditIssuer, terms: Terms) -> None:
        self.stats = stats
        self.key = syn.key
        self.state = _SYN_RECEIVED
        self.reason = ""  # why it closed
        self.deadline: float | None = None
        self._terms = terms
        self._receiver = Receiver(syn.seq)
        self._output = TcpOutput(syn, self._receiver, stats, terms)
        self._sender = Sender(Seq(iss), self._output.mss, self._output.limit)
        self._issuer = issuer
        self._rto = Rto()
        self._far_eof = False

    @property
    def is_closed(self) -> bool:
        """Whether the flow is over and must be forgotten."""
        return self.state is _CLOSED

    @property
    def state_name(self) -> str:
        """The state's name, for the flow table."""
        return self.state.name

    def set_growth_time(self, seconds: float) -> None:
        """Set how fast a window must be acknowledged to double; see :class:`CreditIssuer`."""
        self._issuer.growth_time = seconds

    def start(self, credit: int, now: float, out: list[Action]) -> None:
        """Answer the SYN: the far side has connected, and takes `credit` bytes at first."""
        self._receiver.credit.grant(credit)
        self.stats.connected_at = now
        self._output.send_syn(self._sender.una, out)
        self._rto.arm(now)
        self.deadline = self._rto.deadline

    def is_replaced_by(self, syn: Segment) -> bool:
        """Whether a SYN starts another connection with the same five-tuple.

        RFC 9293 §3.6.1 allows it in TIME_WAIT, for a sequence number larger than any of the old connection.
        """
        return self.state is _TIME_WAIT and self._receiver.place(syn.seq) > self._receiver.nxt

    # --- from the near side ------------------------------------------------------------------------------------

    def receive_segment(self, segment: Segment, now: float, out: list[Action]) -> None:
        """Take one segment of this flow, in RFC 9293 §3.10.7.4's order: sequence, RST, SYN, ACK, text, FIN."""
        self.stats.packets_up += 1
        receiver = self._receiver
        seq = unwrap(segment.seq, receiver.nxt)
        flags = segment.flags
        if flags & (SYN | RST):
            self._receive_control(flags, seq, out)
            return
        size = len(segment.text)
        fin = Seq(seq + size)
        if not receiver.is_acceptable(seq, Seq(fin + (flags & FIN))):
            # "If an incoming segment is not acceptable, an acknowledgment should be sent in reply": that answers
            # keep-alives and probes as well.
            self._output.is_ack_due = True
        elif flags & ACK and self._receive_ack(segment, seq, now, out):
            if size:
                self._receive_text(seq, segment.text, now, out)
            if flags & FIN:
                self._receive_fin(fin, now, out)
        if self.state is not _CLOSED:
            self._transmit(now, out)

    def _receive_control(self, flags: int, seq: Seq, out: list[Action]) -> None:
        nxt = self._receiver.nxt
        if flags & RST:
            # RFC 9293 §3.10.7.4: exactly RCV.NXT resets; elsewhere in the window it is challenged; outside ignored.
            if seq == nxt:
                self._receive_reset(out)
            elif nxt < seq < nxt + self._receiver.credit.available:
                self._output.send(self._sender.sent, ACK, out)
        elif self.state is _SYN_RECEIVED and seq == nxt - 1:
            self._apply(Event.SYN)
            self._output.send_syn(self._sender.una, out)
        else:
            # RFC 5961 §4: a SYN in a synchronised state, whatever its number, gets a challenge ACK.
            self._output.send(self._sender.sent, ACK, out)

    def _receive_reset(self, out: list[Action]) -> None:
        if (
            self.state is not _TIME_WAIT
        ):  # there both directions are over, and a RST could overtake what is queued
            self._tell_far(errno.ECONNRESET, "reset by the application", out)
        self._close(Event.RST, "reset by the application", out)

    def _receive_ack(self, segment: Segment, seq: Seq, now: float, out: list[Action]) -> bool:
        """Take the acknowledgement and the window; False: the rest of the segment is not to be looked at."""
        sender = self._sender
        ack = unwrap(segment.ack, sender.una)
        if self.state is _SYN_RECEIVED and not self._receive_ack_syn(ack, segment, out):
            return False
        if ack > sender.sent:  # "If the ACK acks something not yet sent, then send an ACK, drop the segment"
            self._output.is_ack_due = True
            return False
        was_stuck = sender.is_stuck
        if ack > sender.una:
            freed = sender.acknowledge(ack)
            self._rto.progress(now, outstanding=ack < sender.sent)
            if freed:
                self._return_credit(freed, now, out)
        if ack == sender.una:
            sender.update_window(seq, ack, segment.window << self._output.shift)
        if was_stuck:
            self._leave_persist(now)
        if sender.eof and sender.is_fin_acknowledged and is_legal(self.state, Event.ACK_FIN):
            self._receive_ack_fin(now, out)
        return self.state is not _CLOSED

    def _receive_ack_syn(self, ack: Seq, segment: Segment, out: list[Action]) -> bool:
        if ack != self._sender.nxt:
            self._output.send_bare_reset(segment.ack, out)
            return False
        self._apply(Event.ACK_SYN)
        if self._far_eof:
            self._apply(Event.FAR_EOF)
        return True

    def _leave_persist(self, now: float) -> None:
        if self._sender.is_stuck:
            self._rto.heard()
        else:
            self._rto.progress(now, outstanding=self._sender.is_outstanding)

    def _receive_ack_fin(self, now: float, out: list[Action]) -> None:
        self._issuer.close()  # nothing more will come down, and nothing is held; the rest of the flow may take long
        if next_state(self.state, Event.ACK_FIN) is _CLOSED:
            self._close(Event.ACK_FIN, "closed", out)
            return
        self._apply(Event.ACK_FIN)
        if self.state is _TIME_WAIT:
            self.deadline = now + self._terms.limits.time_wait

    def _receive_text(self, seq: Seq, text: memoryview, now: float, out: list[Action]) -> None:
        self._output.is_ack_due = True
        if self._receiver.is_finished:
            return
        receiver = self._receiver
        new: memoryview | None = receiver.accept(seq, text)
        while new:
            self.stats.last_byte_at = now
            # Long text is not copied on its way up: the frame keeps the packet alive.
            out.append(SendFrame(Frame(_DATA, self.stats.flow, new if len(new) > COPIED else bytes(new))))
            self.stats.bytes_up += len(new)
            new = receiver.accept_early()

    def _receive_fin(self, fin: Seq, now: float, out: list[Action]) -> None:
        self._output.is_ack_due = True
        is_first = not self._receiver.is_finished
        if not self._receiver.accept_fin(fin):
            return
        self._apply(Event.FIN)
        if is_first:
            out.append(SendFrame(Frame(FrameType.FIN, self.stats.flow)))
        if self.state is _TIME_WAIT:
            self.deadline = now + self._terms.limits.time_wait

    # --- from the far side -------------------------------------------------------------------------------------

    def receive_frame(self, frame: Frame, now: float, out: list[Action]) -> None:
        """Take one frame of this flow. What breaks the rules resets the flow towards both sides."""
        handler = _HANDLERS.get(frame.type)
        try:
            if handler is None:
                raise TunnelError(f"{frame.type.name} in {self.state.name}")
            handler(self, frame, now, out)
        except TunnelError as error:
            self._fail(errno.EPROTO, f"protocol error: {error.message}", out)

    def _far_data(self, frame: Frame, now: float, out: list[Action]) -> None:
        size = len(frame.payload)
        if self._far_eof or not size:
            raise TunnelError("DATA after FIN, or empty")
        self._issuer.received(size)
        self.stats.count_down(size, now)
        self._sender.queue(bytes(frame.payload))
        self._transmit(now, out)

    def _far_fin(self, _frame: Frame, now: float, out: list[Action]) -> None:
        if self._far_eof:
            raise TunnelError("a second FIN")
        self._far_eof = True
        self._apply(Event.FAR_EOF)
        self._sender.finish()
        self._transmit(now, out)

    def _far_credit(self, frame: Frame, _now: float, out: list[Action]) -> None:
        receiver = self._receiver
        receiver.credit.grant(decode_u32(frame))
        if receiver.is_finished or self.state is _SYN_RECEIVED:
            return
        if receiver.is_update_due(self._output.mss):
            self._output.send(self._sender.nxt, ACK, out)

    def _far_timing(self, frame: Frame, _now: float, _out: list[Action]) -> None:
        if self.stats.bytes_down:
            raise TunnelError("TIMING after DATA")
        self.stats.wait = decode_timing(frame)

    def _far_reset(self, frame: Frame, _now: float, out: list[Action]) -> None:
        self.abort(decode_coded(frame)[1] or "reset by the cluster", out)

    # --- from the clock and the shell --------------------------------------------------------------------------

    def handle_timer(self, now: float, out: list[Action]) -> None:
        """Act on :attr:`deadline`, which has come."""
        if self.state is _TIME_WAIT:
            self._close(Event.EXPIRED, "closed", out)
        elif not self._rto.expire(now):
            self._fail(errno.ETIMEDOUT, "the application's side does not answer", out)
        else:
            self._retransmit(now, out)

    def _retransmit(self, now: float, out: list[Action]) -> None:
        if self.state is _SYN_RECEIVED:
            self._output.send_syn(self._sender.una, out)
        elif self._sender.is_stuck:
            # As Linux probes a closed window: an old number and no text, which must be answered.
            self._output.send(Seq(self._sender.una - 1), ACK, out)
        else:
            self._sender.rewind()
            self._transmit(now, out)
        self.deadline = self._rto.deadline

    def abort(self, reason: str, out: list[Action]) -> None:
        """Reset the near side; the far side is gone or has reset already."""
        if not self._receiver.is_finished:  # else nobody here waits for anything but the end
            self.stats.failure = RESET
        self._output.send_reset(self._sender.sent, out)
        self._close(Event.FAR_RESET, reason, out)

    def replace(self, out: list[Action]) -> None:
        """End quietly: the near side has forgotten this connection and starts another in its place."""
        self._close(Event.RST, "replaced", out)

    # --- out ---------------------------------------------------------------------------------------------------

    def _transmit(self, now: float, out: list[Action]) -> None:
        """Send what may be sent, else the acknowledgement that is due; keep the timer.

        Nothing may be sent in SYN_RECEIVED, when no window is known, nor in TIME_WAIT, when all is acknowledged.
        """
        sender = self._sender
        while (segment := sender.next_segment()) is not None:
            flags = ACK | PSH | FIN if segment.fin else ACK | PSH
            self._output.send(segment.seq, flags, out, segment.text, segment.size)
        if self._output.is_ack_due:
            self._output.send(sender.nxt, ACK, out)
        if self.state is _TIME_WAIT:
            return
        if sender.una < sender.sent or sender.is_stuck:
            self._rto.arm(now)
        self.deadline = self._rto.deadline

    def _return_credit(self, freed: int, now: float, out: list[Action]) -> None:
        credit = self._issuer.consumed(freed, now)
        if credit and not self._far_eof:
            out.append(SendFrame(encode_u32(FrameType.CREDIT, self.stats.flow, credit)))

    # --- ends --------------------------------------------------------------------------------------------------

    def _apply(self, event: Event) -> None:
        self.state = next_state(self.state, event)

    def _close(self, event: Event, reason: str, out: list[Action]) -> None:
        self._apply(event)
        self._issuer.close()
        self.deadline = None
        self.reason = reason
        out.append(FlowClosed(self.stats.flow, reason))

    def _fail(self, code: int, reason: str, out: list[Action]) -> None:
        self._tell_far(code, reason, out)
        self._output.send_reset(self._sender.sent, out)
        self._close(Event.GAVE_UP, reason, out)

    def _tell_far(self, code: int, reason: str, out: list[Action]) -> None:
        out.append(SendFrame(encode_coded(FrameType.RST, self.stats.flow, code, reason)))


_HANDLERS: Final = {
    FrameType.DATA: TcpFlow._far_data,
    FrameType.CREDIT: TcpFlow._far_credit,
    FrameType.FIN: TcpFlow._far_fin,
    FrameType.RST: TcpFlow._far_reset,
    FrameType.TIMING: TcpFlow._far_timing,
}
