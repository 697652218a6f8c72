"""One UDP flow: datagrams of one five-tuple, carried as DATAGRAM frames until nothing comes for a while.

There is no handshake: the first datagram follows its OPEN at once, and the manager keeps it until it has dialed.
Nothing is queued here; what the mux cannot take it drops and counts.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from telehelper.core.actions import Action, Drop, FlowClosed, FlowOpened, SendFrame
from telehelper.core.frames import Frame, FrameType, Open, decode_coded, encode_coded, encode_open
from telehelper.core.icmp import make_unreachable
from telehelper.core.packet import Datagram, make_datagram, max_datagram, reverse
from telehelper.errors import TunnelError

if TYPE_CHECKING:
    from telehelper.core.flows import FlowStats
    from telehelper.core.limits import Limits

DNS_PORT: Final = 53  # RFC 1035 §4.2


class UdpFlow:
    """A flow from its first datagram until it is idle or reset.

    Parameters
    ----------
    stats
        Written by the flow.
    key
        In the direction of the near side's datagrams.
    quoted
        The head of the first packet, for an ICMP error.
    """

    __slots__ = ("_idle", "_number", "_quoted", "_timeout", "deadline", "is_closed", "key", "reason", "stats")

    def __init__(self, stats: FlowStats, key: bytes, quoted: bytes, limits: Limits) -> None:
        self.stats = stats
        self.key = key
        self.is_closed = False
        self.reason = ""  # why it closed
        self._number = stats.flow
        self._quoted = quoted
        self._timeout = limits.dial_timeout
        self._idle = limits.dns_idle if stats.five_tuple.dport == DNS_PORT else limits.udp_idle
        self.deadline: float | None = stats.opened_at + self._idle

    @property
    def state_name(self) -> str:
        """The state's name, for the flow table."""
        if self.is_closed:
            return "CLOSED"
        return "DIALING" if self.stats.connected_at is None else "OPEN"

    def open(self, out: list[Action]) -> None:
        """Ask the far side to dial."""
        protocol, src, sport, dst, dport = self.stats.five_tuple
        out.append(FlowOpened(self._number, self.stats.five_tuple))
        out.append(
            SendFrame(encode_open(self._number, Open(protocol, src, sport, dst, dport, self._timeout, 0)))
        )

    def receive_datagram(self, datagram: Datagram, now: float, out: list[Action]) -> None:
        """Take a datagram, or an offloaded run of them, from the near side."""
        self.deadline = now + self._idle
        for payload in split(datagram):
            self.stats.packets_up += 1
            self.stats.bytes_up += len(payload)
            out.append(SendFrame(Frame(FrameType.DATAGRAM, self._number, payload)))

    def receive_frame(self, frame: Frame, now: float, out: list[Action]) -> None:
        """Take one frame of this flow."""
        try:
            self._receive_frame(frame, now, out)
        except TunnelError as error:
            self._tell_far(errno.EPROTO, error.message, out)
            self._close(f"protocol error: {error.message}", out)

    def _receive_frame(self, frame: Frame, now: float, out: list[Action]) -> None:
        if frame.type is FrameType.DATAGRAM:
            self._receive_payload(bytes(frame.payload), now, out)
        elif frame.type is FrameType.OPENED:
            self.stats.connected_at = now
        elif frame.type in (FrameType.REJECTED, FrameType.RST):
            code, text = decode_coded(frame)
            if code in errno.errorcode and code != errno.ETIMEDOUT:
                out.append(make_unreachable(self._quoted, code))
            self._close(text or errno.errorcode.get(code, "reset by the cluster"), out)
        else:
            raise TunnelError(f"{frame.type.name} on a UDP flow")

    def _receive_payload(self, payload: bytes, now: float, out: list[Action]) -> None:
        self.deadline = now + self._idle
        if len(payload) > max_datagram(self.key):
            out.append(Drop("datagram too long"))
            return
        self.stats.packets_down += 1
        self.stats.count_down(len(payload), now)
        out.append(make_datagram(reverse(self.key), payload))

    def handle_timer(self, _now: float, out: list[Action]) -> None:
        """Close: nothing came for long enough."""
        self._tell_far(0, "idle", out)
        self._close("idle", out)

    def abort(self, reason: str, out: list[Action]) -> None:
        """Close; the far side is gone."""
        self._close(reason, out)

    def _tell_far(self, code: int, reason: str, out: list[Action]) -> None:
        out.append(SendFrame(encode_coded(FrameType.RST, self._number, code, reason)))

    def _close(self, reason: str, out: list[Action]) -> None:
        self.is_closed = True
        self.deadline = None
        self.reason = reason
        out.append(FlowClosed(self._number, reason))


def split(datagram: Datagram) -> list[bytes]:
    """Return the payloads in a packet: one, or with UDP offload one for each `gso_size` bytes."""
    text, step = datagram.text, datagram.gso_size
    if not step or len(text) <= step:
        return [bytes(text)]
    return [bytes(text[at : at + step]) for at in range(0, len(text), step)]
