"""Questions to the cluster's DNS server, over flows of the data plane's own.

All go over one flow of UDP. One whose answer was cut short is asked again over a flow of TCP made for it.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from telehelper.core.frames import Frame, FrameType, Open, Proto, encode_coded, encode_open
from telehelper.core.stack import NUMBERS

if TYPE_CHECKING:
    from collections.abc import Callable

    from telehelper.core.frames import Address

OWN_FLOWS: Final = NUMBERS  # flow numbers from here up are the data plane's
DNS_PORT: Final = 53
DIAL_TIMEOUT: Final = 5.0  # seconds the manager may need to reach the DNS server
MAX_STREAMS: Final = 64  # overflow: the oldest is given up
_LENGTH: Final = 2  # bytes before each message over TCP, RFC 1035 §4.2.2
_CREDIT: Final = _LENGTH + 0xFFFF  # bytes; one whole answer, so there is never more to grant


@dataclass(slots=True)
class _Stream:
    """One question over TCP."""

    query: bytes
    answer: bytearray = field(default_factory=bytearray)

    @property
    def ident(self) -> int:
        return int.from_bytes(self.query[:2], "big")

    def whole(self) -> bytes | None:
        """Return the answer once it is complete."""
        end = _LENGTH + int.from_bytes(self.answer[:_LENGTH], "big")
        complete = len(self.answer) >= _LENGTH and len(self.answer) >= end
        return bytes(self.answer[_LENGTH:end]) if complete else None


class ClusterDns:
    """Asks the cluster's DNS server.

    Parameters
    ----------
    send, forget
        Of the tunnel.
    answered
        Takes an answer.
    failed
        Takes the id of a question that cannot be asked over TCP.
    """

    def __init__(
        self,
        send: Callable[[Frame], None],
        forget: Callable[[int], None],
        answered: Callable[[bytes], None],
        failed: Callable[[int], None],
    ) -> None:
        self._send = send
        self._forget = forget
        self._answered = answered
        self._failed = failed
        self._server: tuple[Address, Address] | None = None
        self._datagrams = 0  # the flow of UDP, 0 without one
        self._streams: dict[int, _Stream] = {}
        self._next = OWN_FLOWS

    def set_server(self, ours: Address, server: Address) -> None:
        """Say where the cluster's DNS server is; `ours` is put down as the source of the flows."""
        if self._server == (ours, server):
            return
        self._server = (ours, server)
        for flow in (*([self._datagrams] if self._datagrams else []), *self._streams):
            self._reset(flow)

    def ask(self, query: bytes, stream: bool) -> None:
        """Send a question; without a server it is lost, and the resolver's own timeout makes SERVFAIL of it."""
        if self._server is None:
            return
        if stream:
            self._ask_over_tcp(query)
            return
        if not self._datagrams:
            self._datagrams = self._open(Proto.UDP, 0)
        self._send(Frame(FrameType.DATAGRAM, self._datagrams, query))

    def receive_frame(self, frame: Frame) -> None:
        """Take a frame of one of our flows."""
        if frame.flow == self._datagrams:
            self._datagram_frame(frame)
        elif frame.flow in self._streams:
            self._stream_frame(frame, self._streams[frame.flow])

    def flows_lost(self, flows: set[int]) -> None:
        """Forget flows whose carrier has gone."""
        if self._datagrams in flows:
            self._datagrams = 0
        for flow in flows.intersection(self._streams):
            self._failed(self._streams.pop(flow).ident)

    def _ask_over_tcp(self, query: bytes) -> None:
        again = [flow for flow, stream in self._streams.items() if stream.query == query]
        full = [next(iter(self._streams))] if not again and len(self._streams) >= MAX_STREAMS else []
        for flow in (*again, *full):
            self._reset(flow)
        self._streams[self._open(Proto.TCP, _CREDIT)] = _Stream(query)

    def _open(self, protocol: Proto, credit: int) -> int:
        if self._server is None:
            return 0
        ours, server = self._server
        flow = self._next
        self._next = OWN_FLOWS | (self._next + 1) & (OWN_FLOWS - 1)
        what = Open(protocol, ours, DNS_PORT, server, DNS_PORT, DIAL_TIMEOUT, credit)
        self._send(encode_open(flow, what))
        return flow

    def _reset(self, flow: int) -> None:
        self._send(encode_coded(FrameType.RST, flow, errno.ECANCELED))
        self._over(flow)

    def _over(self, flow: int) -> None:
        self._forget(flow)
        self._streams.pop(flow, None)
        if flow == self._datagrams:
            self._datagrams = 0

    def _datagram_frame(self, frame: Frame) -> None:
        if frame.type is FrameType.DATAGRAM:
            self._answered(bytes(frame.payload))
        elif frame.type in (FrameType.REJECTED, FrameType.RST):
            self._over(frame.flow)  # idle for long, or refused: the next question opens a new one

    def _stream_frame(self, frame: Frame, stream: _Stream) -> None:
        if frame.type is FrameType.OPENED:
            length = len(stream.query).to_bytes(_LENGTH, "big")
            self._send(Frame(FrameType.DATA, frame.flow, length + stream.query))
        elif frame.type is FrameType.DATA:
            stream.answer += frame.payload
            answer = stream.whole()
            if answer is not None:
                self._reset(frame.flow)
                self._answered(answer)
        elif frame.type in (FrameType.REJECTED, FrameType.RST, FrameType.FIN):
            if frame.type is FrameType.FIN:
                self._reset(frame.flow)
            else:
                self._over(frame.flow)
            self._failed(stream.ident)
