"""The moving part of the data plane: TUN ⇄ stack ⇄ tunnel, and DNS between them, on one event loop.

Everything the stack decides comes back as a list of actions, performed here in one `match` that awaits nothing. One
timer is armed: the stack's earliest. Flow numbers with the top bit set are the data plane's own (questions to the
cluster's DNS server, see :mod:`telehelper.datapath.cluster_dns`); the stack never sees them.
"""

from __future__ import annotations

from time import monotonic  # uvloop's own clock has a grain of 1 ms, too coarse for latencies
from typing import TYPE_CHECKING, Protocol, assert_never

from telehelper.core.actions import Action, Drop, FlowClosed, FlowOpened, LocalDatagram, SendFrame, SendPacket
from telehelper.core.flows import FiveTuple
from telehelper.core.frames import UNKNOWN
from telehelper.datapath.alarm import Alarm
from telehelper.datapath.cluster_dns import OWN_FLOWS, ClusterDns
from telehelper.errors import LocalProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable

    from telehelper.core.flows import FlowStats
    from telehelper.core.frames import Address, Frame
    from telehelper.core.stack import Stack
    from telehelper.datapath.tun_io import Buffers


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

    def cluster_failed(self, ident: int) -> None:
        """Take note that a question cannot be put to it over TCP."""


class Engine:
    """Performs what the stack decides. Attach `tun`, `tunnel` and `names` before the first packet.

    Attributes
    ----------
    flow_opened
        Called for each new flow with its counters, before its OPEN goes out.
    """

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.tun: Tun | None = None
        self.tunnel: FrameSink | None = None
        self.names: Names | None = None
        self.flow_opened: Callable[[FlowStats], None] = lambda _stats: None
        self._alarm = Alarm(self._fire)
        self._cluster_dns = ClusterDns(self._send, self._forget, self._cluster_answered, self._cluster_failed)

    # --- what happens

    def packets_received(self, packets: list[bytes]) -> None:
        """Take packets from the TUN."""
        now, receive = monotonic(), self.stack.receive_packet
        for packet in packets:
            self._perform(receive(packet, now))
        self._alarm.set(self.stack.next_timer())

    def frames_received(self, frames: Iterable[Frame]) -> None:
        """Take flows' frames from the tunnel."""
        now, receive = monotonic(), self.stack.receive_frame
        for frame in frames:
            if frame.flow >= OWN_FLOWS:
                self._cluster_dns.receive_frame(frame)
            else:
                self._perform(receive(frame, now))
        self._alarm.set(self.stack.next_timer())

    def keep_out(self, frame: Frame) -> None:
        """Take the refusal of a flow that is another user's, from this side and not from the tunnel."""
        stats = self.stack.stats_of(frame.flow)
        if stats is not None:
            stats.is_strangers = True
        self.frames_received([frame])

    def flows_lost(self, flows: set[int], reason: str) -> None:
        """Reset flows whose carrier has gone."""
        self._cluster_dns.flows_lost(flows)
        mine = [flow for flow in flows if flow < OWN_FLOWS]
        self._perform(self.stack.reset_flows(mine, reason, monotonic()))
        self._alarm.set(self.stack.next_timer())

    def hang_up(self, reason: str) -> None:
        """Reset all flows, while there is still a device to do it through: else programs would wait for ever."""
        if self.tun is not None:
            self._perform(self.stack.reset_flows(None, reason, monotonic()))
            self._alarm.set(self.stack.next_timer())

    def answer_datagram(self, client: Hashable, data: bytes) -> None:
        """Answer a datagram that came to the resolver's address, with what `names.query` was given as its client."""
        if not isinstance(client, FiveTuple):
            raise LocalProtocolError(f"a DNS answer for {client!r}")
        self._perform(self.stack.send_datagram(client, data))

    def open_sent(self, flow: int, rtt: float | None) -> None:
        """Note how long a flow waited for the tunnel, and the tunnel's round trip."""
        stats = self.stack.stats_of(flow)
        if stats is not None:  # else it is one of the data plane's own
            stats.queue = monotonic() - stats.opened_at
            stats.tunnel = UNKNOWN if rtt is None else rtt

    # --- the cluster's DNS server, over flows of our own

    def set_dns_server(self, ours: Address, server: Address) -> None:
        """Say where the cluster's DNS server is; `ours` is put down as the source of the flows."""
        self._cluster_dns.set_server(ours, server)

    def ask_cluster(self, data: bytes, stream: bool = False) -> None:
        """Send a question to the cluster's DNS server, over TCP if `stream`. What comes back goes to `names`."""
        if self.tunnel is not None:
            self._cluster_dns.ask(data, stream)

    def _send(self, frame: Frame) -> None:
        if self.tunnel is not None:
            self.tunnel.send(frame)

    def _forget(self, flow: int) -> None:
        if self.tunnel is not None:
            self.tunnel.forget(flow)

    def _cluster_answered(self, data: bytes) -> None:
        if self.names is not None:
            self.names.cluster_answer(data)

    def _cluster_failed(self, ident: int) -> None:
        if self.names is not None:
            self.names.cluster_failed(ident)

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
                case FlowOpened():
                    self._opened(action.flow)
                case Drop():
                    pass  # counted in the stack's own table
                case _:
                    assert_never(action)

    def _opened(self, flow: int) -> None:
        stats = self.stack.stats_of(flow)
        if stats is not None:  # else what opened it has closed it too
            self.flow_opened(stats)

    def _fire(self, now: float) -> None:
        self._perform(self.stack.handle_timer(now))
        self._alarm.set(self.stack.next_timer())

    def close(self) -> None:
        """Disarm the timer."""
        self._alarm.cancel()
