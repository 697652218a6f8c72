"""What flows without a handshake have in common: UDP and ICMP echo, until nothing comes for a while.

The first datagram follows its OPEN at once, and the manager keeps it until it has a socket. Nothing is queued here;
what the mux cannot take it drops and counts.
"""

from __future__ import annotations

import errno
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Final

from telehelper.core.actions import Action, FlowClosed, FlowOpened, SendFrame
from telehelper.core.flows import failure_of
from telehelper.core.frames import (
    Frame,
    FrameType,
    Open,
    decode_coded,
    decode_opened,
    encode_coded,
    encode_open,
)
from telehelper.errors import TunnelError

if TYPE_CHECKING:
    from collections.abc import Callable

    from telehelper.core.flows import FlowStats
    from telehelper.core.limits import Limits

    DropCounter = Callable[[str, list[Action]], None]


_DATAGRAM: Final = FrameType.DATAGRAM  # looking it up in the enum for each datagram takes 0.1 µs


class DatagramFlow(ABC):
    """A flow from its first datagram until it is idle or reset.

    Parameters
    ----------
    stats
        Written by the flow.
    key
        In the direction of the near side's datagrams.
    quoted
        The head of the first packet, for an ICMP error.
    idle
        Seconds without a datagram after which it closes.
    drop
        Counts what is dropped.
    """

    __slots__ = (
        "_drop",
        "_idle",
        "_number",
        "_quoted",
        "_timeout",
        "deadline",
        "is_closed",
        "key",
        "reason",
        "stats",
    )

    def __init__(
        self, stats: FlowStats, key: bytes, quoted: bytes, limits: Limits, idle: float, drop: DropCounter
    ) -> None:
        self.stats = stats
        self.key = key
        self.is_closed = False
        self.reason = ""  # why it closed
        self._number = stats.flow
        self._quoted = quoted
        self._timeout = limits.dial_timeout
        self._idle = idle
        self._drop = drop
        self.deadline: float | None = stats.opened_at + idle

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

    def receive_frame(self, frame: Frame, now: float, out: list[Action]) -> None:
        """Take one frame of this flow."""
        try:
            if frame.type is _DATAGRAM:
                self.deadline = now + self._idle
                self._receive_payload(frame.payload, now, out)
            else:
                self._receive_other(frame, now, out)
        except TunnelError as error:
            self._tell_far(errno.EPROTO, error.message, out)
            self._close(f"protocol error: {error.message}", out)

    def handle_timer(self, _now: float, out: list[Action]) -> None:
        """Close: nothing came for long enough."""
        self._tell_far(0, "idle", out)
        self._close("idle", out)

    def abort(self, reason: str, out: list[Action]) -> None:
        """Close; the far side is gone."""
        self._close(reason, out)

    def reject(self, out: list[Action]) -> None:
        """Close: the near kernel says that nobody takes what comes down, because the application has gone."""
        self._tell_far(errno.ECONNREFUSED, "nobody listens any more", out)
        self._close("closed by the application", out)

    @abstractmethod
    def _receive_payload(
        self, payload: bytes | bytearray | memoryview, now: float, out: list[Action]
    ) -> None:
        """Take a DATAGRAM frame's payload; TunnelError if it is malformed."""

    @abstractmethod
    def _refuse(self, code: int, reason: str, out: list[Action]) -> None:
        """Take the far side's refusal, or its reset: tell the near side, and close."""

    def _receive_other(self, frame: Frame, now: float, out: list[Action]) -> None:
        if frame.type is FrameType.OPENED:
            self.stats.far_answered(decode_opened(frame).dial, now)
            self.stats.connected_at = now
        elif frame.type in (FrameType.REJECTED, FrameType.RST):
            code, text = decode_coded(frame)
            if code in errno.errorcode:
                self.stats.failure = failure_of(code)
            self._refuse(code, text or errno.errorcode.get(code, "reset by the cluster"), out)
        else:
            raise TunnelError(f"{frame.type.name} on a flow of datagrams")

    def _tell_far(self, code: int, reason: str, out: list[Action]) -> None:
        out.append(SendFrame(encode_coded(FrameType.RST, self._number, code, reason)))

    def _close(self, reason: str, out: list[Action]) -> None:
        self.is_closed = True
        self.deadline = None
        self.reason = reason
        out.append(FlowClosed(self._number, reason))
