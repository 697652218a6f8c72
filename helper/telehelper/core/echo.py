"""One flow of ICMP echo: the requests of one ping, from the near side to one address, and their replies.

The manager makes real echo requests with a socket of its own, and what it hears goes back: a reply, or why there can be
none. What it does not hear stays unanswered: an answer that the cluster did not give would be a lie. So a manager that
may not ping means silence, for as long as the ping goes on, and the reason is in the flow table.

In the five-tuple the identifier stands for the source port, and the destination port is 0; the protocol is ICMP for
IPv6 too. A DATAGRAM frame's payload is an errno value (16 bits, 0 for an echo), the sequence number (16 bits) and the
echo's data.
"""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING, Final

from telehelper.core.actions import Action, SendFrame
from telehelper.core.datagram import max_datagram
from telehelper.core.datagram_flow import DatagramFlow
from telehelper.core.frames import Frame, FrameType
from telehelper.core.icmp import Echo, make_echo_reply, make_unreachable
from telehelper.core.packet import reverse
from telehelper.errors import TunnelError

if TYPE_CHECKING:
    from telehelper.core.datagram_flow import DropCounter
    from telehelper.core.flows import FlowStats
    from telehelper.core.limits import Limits

_HEADER: Final = struct.Struct("!HH")


def encode_echo(sequence: int, data: bytes | bytearray | memoryview = b"", code: int = 0) -> bytes:
    """Make the payload of a DATAGRAM frame."""
    return _HEADER.pack(code, sequence) + data


def decode_echo(payload: bytes | bytearray | memoryview) -> tuple[int, int, memoryview]:
    """Read errno, sequence number and data of a DATAGRAM frame; TunnelError if it is malformed."""
    if len(payload) < _HEADER.size:
        raise TunnelError(f"an echo of {len(payload)} bytes")
    code, sequence = _HEADER.unpack_from(payload)
    return code, sequence, memoryview(payload)[_HEADER.size :]


class EchoFlow(DatagramFlow):
    """See :class:`DatagramFlow`."""

    __slots__ = ("_muted",)

    def __init__(
        self, stats: FlowStats, key: bytes, quoted: bytes, limits: Limits, drop: DropCounter
    ) -> None:
        super().__init__(stats, key, quoted, limits, limits.udp_idle, drop)
        self._muted = ""  # why nothing is sent up any more

    def receive_request(self, echo: Echo, now: float, out: list[Action]) -> None:
        """Take an echo request from the near side."""
        self.deadline = now + self._idle
        if self._muted:
            self._drop("echo", out)
            return
        self.stats.packets_up += 1
        self.stats.bytes_up += len(echo.data)
        self.stats.last_byte_at = now
        out.append(SendFrame(Frame(FrameType.DATAGRAM, self._number, encode_echo(echo.sequence, echo.data))))

    def handle_timer(self, now: float, out: list[Action]) -> None:
        """Close: nothing came for long enough."""
        if self._muted:  # the far side has no flow
            self._close(self._muted, out)
        else:
            super().handle_timer(now, out)

    def _receive_payload(
        self, payload: bytes | bytearray | memoryview, now: float, out: list[Action]
    ) -> None:
        code, sequence, data = decode_echo(payload)
        if len(data) > max_datagram(self.key):
            self._drop("echo too long", out)
        elif code:
            # What is cited of an echo ends with its sequence number; ping(8) shows it.
            out.append(make_unreachable(self._quoted[:-2] + sequence.to_bytes(2, "big"), code))
        else:
            self.stats.packets_down += 1
            self.stats.count_down(len(data), now)
            out.append(make_echo_reply(reverse(self.key), sequence, data))

    def _refuse(self, code: int, reason: str, out: list[Action]) -> None:
        if (
            code == errno.EPROTONOSUPPORT
        ):  # the manager's pod may not ping; the next request would fare no better
            self._muted = reason
            return
        if code in errno.errorcode and code != errno.ETIMEDOUT:
            out.append(make_unreachable(self._quoted, code))
        self._close(reason, out)
