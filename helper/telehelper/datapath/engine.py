"""The moving part of the data plane: TUN ⇄ stack ⇄ tunnel, and DNS between them, on one event loop.

Everything the stack decides comes back as a list of actions, performed here in one `match` that awaits nothing. One
timer is armed: the stack's earliest. Flow numbers with the top bit set are the data plane's own (questions to the
cluster's DNS server); the stack never sees them.
"""

from __future__ import annotations

import asyncio
import errno
from time import monotonic  # uvloop's own clock has a grain of 1 ms, too coarse for latencies
from typing import TYPE_CHECKING, Final, Protocol, assert_never

from telehelper.core.actions import Action, Drop, FlowClosed, FlowOpened, LocalDatagram, SendFrame, SendPacket
from telehelper.core.flows import FiveTuple
from telehelper.core.frames import Address, Frame, FrameType, Open, Proto, encode_coded, encode_open
from telehelper.errors import LocalProtocolError

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

    from telehelper.core.flows import FlowRecord
    from telehelper.core.stack import Stack
    from telehelper.datapath.tun_io import Buffers

OWN_FLOWS: Final = 1 << 31  # flow numbers from here up are the data plane's
# Seconds the manager may need to open a socket to the DNS server: it is UDP, it needs none
DNS_TIMEOUT: Final = 5.0


class Tun(Protocol):
    """Where packets go."""

    def write(self, buffers: Buffers) -> None:
        """Write one packet."""


class FrameSink(Protocol):
    """Where frames go."""

    def send(self, frame: Frame) -> None:
        """Send a flow's frame."""

    def forget(self, flow: int) -> None:
        """Drop a flow that is over."""


class Names(Protocol):
    """Who answers DNS questions."""

    def query(self, client: FiveTuple, data: bytes) -> None:
        """Take a question that came in from the TUN."""

    def cluster_answer(self, data: bytes) -> None:
        """Take an answer of the cluster's DNS server."""


class Engine:
    """Performs what the stack decides. Attach `tun`, `tunnel` and `names` before the first packet."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.tun: Tun | None = None
        self.tunnel: FrameSink | None = None
        self.names: Names | None = None
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = float("inf")
        self._dns_server: tuple[Address, Address] | None = None
        self._dns_flow = 0
        self._next_own = OWN_FLOWS

    # --- what happens

    def packets_received(self, packets: list[bytes]) -> None:
        """Take packets from the TUN."""
        now, receive = monotonic(), self.stack.receive_packet
        for packet in packets:
            self._perform(receive(packet, now))
        self._arm()

    def frames_received(self, frames: Iterable[Frame]) -> None:
        """Take flows' frames from the tunnel."""
        now, receive = monotonic(), self.stack.receive_frame
        for frame in frames:
            if frame.flow >= OWN_FLOWS:
                self._own_frame(frame)
            else:
                self._perform(receive(frame, now))
        self._arm()

    def flows_lost(self, flows: set[int], reason: str) -> None:
        """Reset flows whose carrier has gone."""
        if self._dns_flow in flows:
            self._dns_flow = 0
        mine = [flow for flow in flows if flow < OWN_FLOWS]
        self._perform(self.stack.reset_flows(mine, reason, monotonic()))
        self._arm()

    def answer_datagram(self, client: Hashable, data: bytes) -> None:
        """Answer a datagram that came to the resolver's address, with what `names.query` was given as its client."""
        if not isinstance(client, FiveTuple):
            raise LocalProtocolError(f"a DNS answer for {client!r}")
        self._perform(self.stack.send_datagram(client, data, monotonic()))

    def snapshot(self) -> list[FlowRecord]:
        """Return a consistent copy of the flow table."""
        return self.stack.snapshot(monotonic())

    # --- the cluster's DNS server, over a flow of our own

    def set_dns_server(self, ours: Address, server: Address) -> None:
        """Say where the cluster's DNS server is; `ours` is put down as the source of the flow."""
        if self._dns_server != (ours, server):
            self._dns_server = (ours, server)
            self._close_dns_flow()

    def ask_cluster(self, data: bytes) -> None:
        """Send a question to the cluster's DNS server. What comes back goes to `names`."""
        if self._dns_server is None or self.tunnel is None:
            return  # no answer: the resolver's own timeout makes SERVFAIL of it
        if not self._dns_flow:
            ours, server = self._dns_server
            self._dns_flow = self._next_own
            self._next_own = OWN_FLOWS | (self._next_own + 1) & (OWN_FLOWS - 1)
            what = Open(Proto.UDP, ours, 53, server, 53, DNS_TIMEOUT, 0)
            self.tunnel.send(encode_open(self._dns_flow, what))
        self.tunnel.send(Frame(FrameType.DATAGRAM, self._dns_flow, data))

    def _close_dns_flow(self) -> None:
        if self._dns_flow and self.tunnel is not None:
            self.tunnel.send(encode_coded(FrameType.RST, self._dns_flow, errno.ECANCELED))
            self.tunnel.forget(self._dns_flow)
        self._dns_flow = 0

    def _own_frame(self, frame: Frame) -> None:
        if frame.flow != self._dns_flow:
            return
        if frame.type is FrameType.DATAGRAM and self.names is not None:
            self.names.cluster_answer(bytes(frame.payload))
        elif frame.type in (FrameType.REJECTED, FrameType.RST):
            if self.tunnel is not None:
                self.tunnel.forget(frame.flow)
            self._dns_flow = 0  # idle for long, or refused: the next question opens a new one

    # --- performing

    def _perform(self, actions: list[Action]) -> None:
        """Do what the stack decided, in order. Nothing here awaits."""
        tun, tunnel, names = self.tun, self.tunnel, self.names
        if tun is None or tunnel is None or names is None:
            raise LocalProtocolError("packets before the engine is wired up")
        for action in actions:
            match action:
                case SendPacket():
                    tun.write(action.buffers)
                case SendFrame():
                    tunnel.send(action.frame)
                case FlowClosed():
                    tunnel.forget(action.flow)
                case LocalDatagram():
                    names.query(action.five_tuple, bytes(action.payload))
                case FlowOpened() | Drop():
                    pass  # both are counted in the stack's own table
                case _:
                    assert_never(action)

    def _arm(self) -> None:
        """Arm the one timer for the stack's earliest, unless one due sooner is armed already."""
        due = self.stack.next_timer()
        if due is None or due >= self._timer_at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = due
        self._timer = self._loop.call_later(max(0.0, due - monotonic()), self._fire)

    def _fire(self) -> None:
        self._timer, self._timer_at = None, float("inf")
        self._perform(self.stack.handle_timer(monotonic()))
        self._arm()

    def close(self) -> None:
        """Disarm the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
