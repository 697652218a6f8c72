"""A TCP flow before it is one: the SYN has come, the far side is dialing, and the near side waits.

*Dial first.* The SYN is answered when the far side has answered, so a refused port is refused and a black hole is
one. OPENED ends this and makes a :class:`TcpFlow`; everything else ends in CLOSED:

- *refused*: a reset, at once;
- *timed out*: silence, as in a network where packets get lost; the near kernel's own timer goes on;
- *unreachable*: an ICMP error, and here the near kernel needs care. (1) While connect(2) still holds the socket, Linux
  (``tcp_v4_err``) only notes the error for the end of all its tries; so the error is not sent before ``HOLD`` has
  passed since the SYN, and is sent twice. (2) Since 5.18 Linux puts IPv4's ICMP packet on the socket's error queue,
  which wakes poll(2), just *before* it sets the error. A poller that is quick enough sees a socket that is ready and
  without error, and gets EHOSTUNREACH from its first send or recv instead. Measured: 5 % of connects when the error
  came 20 us after the SYN, 0.2 % after ``HOLD``, none that block in connect(2), none with IPv6. A reset instead would
  never be misread so, and would always lie about the cause. (3) A host firewall may drop ICMP. So there is a reset
  in the end: whoever has not heard by then is refused, and nobody waits.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from telehelper.core.actions import Action, FlowClosed, FlowOpened, SendFrame
from telehelper.core.credit import CreditIssuer
from telehelper.core.flows import RESET, TIMED_OUT, failure_of
from telehelper.core.frames import (
    Frame,
    FrameType,
    Open,
    decode_coded,
    decode_opened,
    encode_coded,
    encode_open,
)
from telehelper.core.icmp import make_unreachable
from telehelper.core.packet import RST, SYN, Segment, make_reset
from telehelper.core.tcp_flow import TcpFlow
from telehelper.core.tcp_state import Event, State, next_state
from telehelper.errors import TunnelError

if TYPE_CHECKING:
    from telehelper.core.flows import FlowStats
    from telehelper.core.frames import Opened
    from telehelper.core.limits import Terms

HOLD: Final = (
    0.005  # seconds from the SYN to an ICMP error; connect(2) takes some 0.05 ms to let go of the socket
)
PAUSES: Final = (0.05, 0.2)  # seconds from the first ICMP error to the second, and from that to the reset

_MASK: Final = 0xFFFF_FFFF


class Dial:
    """A flow in DIALING.

    Parameters
    ----------
    stats
        Written by the flow.
    syn
        The segment that opened it.
    quoted
        The head of that packet, for an ICMP error.
    iss
        Initial send sequence number, unpredictable (RFC 6528).
    growth_time
        See :class:`CreditIssuer`.

    Attributes
    ----------
    opened
        What the flow has become, once the far side has connected.
    is_silent
        It closed as a black hole: its SYN stays unanswered.
    """

    __slots__ = (
        "_code",
        "_iss",
        "_issuer",
        "_pauses",
        "_quoted",
        "_syn",
        "_terms",
        "deadline",
        "is_silent",
        "key",
        "opened",
        "reason",
        "state",
        "stats",
    )

    def __init__(
        self, stats: FlowStats, syn: Segment, quoted: bytes, iss: int, terms: Terms, growth_time: float
    ) -> None:
        limits = terms.limits
        self.stats = stats
        self.key = syn.key
        self.state = State.DIALING
        self.reason = ""  # why it closed, or is about to
        self.deadline: float | None = stats.opened_at + limits.dial_timeout + limits.dial_grace
        self.is_silent = False
        self.opened: TcpFlow | None = None
        self._syn = syn._replace(text=memoryview(b""))  # the packet's buffer belongs to the shell
        self._quoted = quoted
        self._iss = iss
        self._terms = terms
        self._issuer = CreditIssuer(limits.initial_credit, limits.maximum_credit, terms.pool)
        self._issuer.growth_time = growth_time
        self._code = 0  # of the ICMP error, once there is to be one
        self._pauses = iter(PAUSES)

    @property
    def is_closed(self) -> bool:
        """Whether this object has done its part: the flow is over, or goes on as :attr:`opened`."""
        return self.state is not State.DIALING

    @property
    def state_name(self) -> str:
        """The state's name, for the flow table."""
        return self.state.name

    @property
    def initial_seq(self) -> int:
        """The SYN's sequence number, as on the wire."""
        return self._syn.seq

    def set_growth_time(self, seconds: float) -> None:
        """Set how fast a window must be acknowledged to double; see :class:`CreditIssuer`."""
        self._issuer.growth_time = seconds

    def open(self, out: list[Action]) -> None:
        """Ask the far side to dial."""
        protocol, src, sport, dst, dport = self.stats.five_tuple
        timeout = self._terms.limits.dial_timeout
        what = Open(protocol, src, sport, dst, dport, timeout, self._issuer.initial)
        out.append(FlowOpened(self.stats.flow, self.stats.five_tuple))
        out.append(SendFrame(encode_open(self.stats.flow, what)))
        self.stats.packets_up += 1

    def is_replaced_by(self, syn: Segment) -> bool:
        """Whether a SYN starts another connection: the application gave up and took the same port again."""
        return syn.seq != self._syn.seq

    # --- from the near side ------------------------------------------------------------------------------------

    def receive_segment(self, segment: Segment, _now: float, out: list[Action]) -> None:
        """Take a segment of this flow: the SYN again, to no effect, or the reset of one who waits no longer."""
        self.stats.packets_up += 1
        if segment.flags & RST:
            if segment.seq == (self._syn.seq + 1) & _MASK:  # RFC 9293 §3.10.7.4: exactly RCV.NXT
                self._give_up(Event.RST, "reset by the application", out)
        elif segment.flags & SYN:
            self.state = next_state(self.state, Event.SYN)

    def replace(self, out: list[Action]) -> None:
        """End quietly: the near side has forgotten this connection and starts another in its place."""
        self._give_up(Event.RST, "replaced", out)

    def _give_up(self, event: Event, reason: str, out: list[Action]) -> None:
        if not self._code:
            self._tell_far(errno.ECONNRESET, reason, out)
        self._close(event, self.reason or reason, out)

    # --- from the far side -------------------------------------------------------------------------------------

    def receive_frame(self, frame: Frame, now: float, out: list[Action]) -> None:
        """Take the far side's answer; anything else breaks the rules."""
        if self._code:
            return  # it crossed our RST, or comes after REJECTED: the flow is over for the far side
        try:
            if frame.type is FrameType.OPENED:
                self._opened(decode_opened(frame), now, out)
            elif frame.type is FrameType.REJECTED:
                self._rejected(*decode_coded(frame), now, out)
            elif frame.type is FrameType.RST:
                self.abort(decode_coded(frame)[1] or "reset by the cluster", out)
            else:
                raise TunnelError(f"{frame.type.name} in {self.state.name}")
        except TunnelError as error:
            reason = f"protocol error: {error.message}"
            self._tell_far(errno.EPROTO, reason, out)
            self._reset(Event.GAVE_UP, reason, out)

    def _opened(self, what: Opened, now: float, out: list[Action]) -> None:
        self.stats.far_answered(what.dial, now)
        flow = TcpFlow(self.stats, self._syn, self._iss, self._issuer, self._terms)
        flow.start(what.credit, now, out)
        self.opened = flow
        self.state = next_state(self.state, Event.OPENED)

    def _rejected(self, code: int, text: str, now: float, out: list[Action]) -> None:
        reason = text or errno.errorcode.get(code, "rejected")
        self.stats.failure = failure_of(code)
        if code == errno.ECONNREFUSED:
            self._reset(Event.REJECTED, reason, out)
        elif code == errno.ETIMEDOUT:
            self.is_silent = True
            self._close(Event.REJECTED, reason, out)
        else:
            self._say_unreachable(code, reason, now)

    def abort(self, reason: str, out: list[Action]) -> None:
        """Reset the near side; the far side is gone or has reset already."""
        self.stats.failure = self.stats.failure or RESET
        self._reset(Event.FAR_RESET, self.reason or reason, out)

    # --- from the clock ----------------------------------------------------------------------------------------

    def handle_timer(self, now: float, out: list[Action]) -> None:
        """Act on :attr:`deadline`, which has come."""
        if not self._code:
            self._tell_far(errno.ETIMEDOUT, "no answer to OPEN", out)
            self.stats.failure = TIMED_OUT
            self._say_unreachable(errno.EHOSTUNREACH, "the tunnel did not answer", now)
            return
        pause = next(self._pauses, None)
        if pause is None:
            self._reset(Event.REJECTED, self.reason, out)
            return
        out.append(make_unreachable(self._quoted, self._code))
        self.stats.packets_down += 1
        self.deadline = now + pause

    def _say_unreachable(self, code: int, reason: str, now: float) -> None:
        self._issuer.close()  # the far side owes nothing any more
        self._code, self.reason = code or errno.EHOSTUNREACH, reason
        self.deadline = max(now, self.stats.opened_at + HOLD)

    # --- ends --------------------------------------------------------------------------------------------------

    def _tell_far(self, code: int, reason: str, out: list[Action]) -> None:
        out.append(SendFrame(encode_coded(FrameType.RST, self.stats.flow, code, reason)))

    def _reset(self, event: Event, reason: str, out: list[Action]) -> None:
        out.append(make_reset(self._syn))
        self.stats.packets_down += 1
        self._close(event, reason, out)

    def _close(self, event: Event, reason: str, out: list[Action]) -> None:
        self.state = next_state(self.state, event)
        self._issuer.close()
        self.deadline = None
        self.reason = reason
        out.append(FlowClosed(self.stats.flow, reason))
