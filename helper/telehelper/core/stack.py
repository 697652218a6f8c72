"""The stack: packets of the near side in, frames for the far side out, and back. The core's entry point.

Theory of operation
-------------------
*Goals.* The kernel of this machine sends packets for the cluster's addresses into a TUN; each TCP connection and each
UDP conversation in them becomes a flow of the mux. TCP ends here, so the tunnel carries bytes and a lost packet is a
matter between us and our own kernel, across a link that is memory.

*Left out.* SACK, timestamps, fast retransmit, congestion control, urgent data, simultaneous open; IPv6 extension headers;
ICMP other than echo and "destination unreachable".

*Data flow.* ``receive_packet`` → :func:`packet.parse`, fragments by way of the `Reassembler` → the flow by its packed
five-tuple (`Dial` and `TcpFlow`, `UdpFlow`, `EchoFlow`) → actions. ``receive_frame`` → the flow by its number → actions. A
SYN or a first datagram without a flow makes one; any other segment without one is answered with RST. A datagram for the
resolver leaves as ``LocalDatagram``; the shell answers with ``send_datagram``. A SYN that nobody answered leaves a
tombstone: repeated, it stays unanswered, as in a network where its packets get lost, and is not dialed again.

*Timers.* Each flow has one deadline, all of them share ``next_timer()``.

*Invariants.* A flow is in ``_by_number`` exactly while it is in ``_by_key``; numbers grow and are not used again. Nothing
from outside raises: what cannot be used is a ``Drop``, counted in ``drops``. What a flow holds is bounded by its credit,
and what all of them hold by the pool.
"""

from __future__ import annotations

import errno
from collections import Counter
from typing import TYPE_CHECKING, Final

from telehelper.core.actions import Action, Drop, LocalDatagram
from telehelper.core.credit import CreditPool, growth_time
from telehelper.core.datagram import make_datagram, max_datagram, split
from telehelper.core.echo import EchoFlow
from telehelper.core.flows import FiveTuple, FlowRecord, FlowStats, FlowTable, Totals
from telehelper.core.fragments import Reassembler
from telehelper.core.frames import Frame, Proto
from telehelper.core.icmp import Echo, make_unreachable, parse_echo, parse_unreachable
from telehelper.core.limits import Limits, Terms
from telehelper.core.packet import (
    ACK,
    FIN,
    RST,
    SYN,
    Datagram,
    FragmentError,
    IcmpMessage,
    PacketError,
    Segment,
    make_reset,
    parse,
    quote,
    reverse,
    to_five_tuple,
    to_key,
)
from telehelper.core.tcp_dial import Dial
from telehelper.core.tcp_flow import TcpFlow
from telehelper.core.timers import Timers
from telehelper.core.udp import UdpFlow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from ipaddress import IPv4Address

NUMBERS: Final = (
    1 << 31
)  # flow numbers; those from here up are the shell's own, which nobody's owner is looked up for
MIN_MTU: Final = 576  # bytes; RFC 791: every host takes that much

Flow = Dial | TcpFlow | UdpFlow | EchoFlow


class Stack:
    """All flows between one TUN and one tunnel.

    Parameters
    ----------
    isn
        Gives an unpredictable 32-bit number for each flow.
    mtu
        Of the TUN, in bytes.
    gso
        The TUN takes offloaded packets. Without it each packet is at most `mtu` long and summed here: slow.
    resolver
        Address and port of the resolver: its datagrams come out as ``LocalDatagram``, TCP opens flows like any other.
        All its other ports are closed.
    """

    def __init__(
        self,
        *,
        isn: Callable[[], int],
        mtu: int = 1500,
        gso: bool = True,
        resolver: tuple[IPv4Address, int] | None = None,
        limits: Limits | None = None,
    ) -> None:
        self._isn = isn
        self._limits = limits or Limits()
        self._terms = Terms(self._limits, CreditPool(self._limits.pool), max(mtu, MIN_MTU), gso)
        self._resolver = b"" if resolver is None else resolver[0].packed
        self._resolver_port = b"" if resolver is None else resolver[1].to_bytes(2, "big")
        self._tcp: dict[bytes, Dial | TcpFlow] = {}
        self._udp: dict[bytes, UdpFlow] = {}
        self._echo: dict[bytes, EchoFlow] = {}
        self._by_number: dict[int, Flow] = {}
        # key → the SYN's number, when to forget; oldest first
        self._tombstones: dict[bytes, tuple[int, float]] = {}
        self._timers = Timers()
        self._fragments = Reassembler()
        self._table = FlowTable(self._limits.closed_kept)
        self._last_number = 0
        self._growth_time = growth_time(None)

    def set_path_rtt(self, rtt: float | None) -> None:
        """Say the least round-trip time to the far side, in seconds: windows grow as far as that path needs."""
        found = growth_time(rtt)
        if found != self._growth_time:
            self._growth_time = found
            for flow in self._tcp.values():
                flow.set_growth_time(found)

    # --- inputs ------------------------------------------------------------------------------------------------

    def receive_packet(self, data: bytes | memoryview, now: float) -> list[Action]:
        """Take one packet from the TUN, virtio_net_hdr first.

        `data` must not change afterwards: frames may hold views of it.
        """
        out: list[Action] = []
        try:
            packet = parse(data)
        except FragmentError:
            return self._receive_fragment(data, now)
        except PacketError as error:
            self._drop(str(error), out)
            return out
        if isinstance(packet, Segment):
            flow = self._tcp.get(packet.key)
            if flow is None or (packet.flags & SYN and flow.is_replaced_by(packet)):
                self._receive_stray(packet, flow, data, now, out)
            else:
                flow.receive_segment(packet, now, out)
                self._settle(flow, now)
        elif isinstance(packet, Datagram):
            self._receive_datagram(packet, data, now, out)
        else:
            self._receive_icmp(packet, data, now, out)
        return out

    def receive_frame(self, frame: Frame, now: float) -> list[Action]:
        """Take one frame of a flow from a carrier. One for a flow that is over is counted and ignored."""
        out: list[Action] = []
        flow = self._by_number.get(frame.flow)
        if flow is None:
            self._drop("frame of no flow", out)
        else:
            flow.receive_frame(frame, now, out)
            self._settle(flow, now)
        return out

    def handle_timer(self, now: float) -> list[Action]:
        """Do what is due. Call it when ``next_timer()`` has come; too early does no harm."""
        out: list[Action] = []
        for number in self._timers.pop_due(now):
            flow = self._by_number[number]
            flow.handle_timer(now, out)
            self._settle(flow, now)
        return out

    def next_timer(self) -> float | None:
        """Return when to call ``handle_timer``, or None."""
        return self._timers.next_timer()

    def reset_flows(self, flows: Iterable[int] | None, reason: str, now: float) -> list[Action]:
        """Reset flows towards the near side, all with None: their carrier or the tunnel died. No frames are made."""
        out: list[Action] = []
        for number in list(self._by_number if flows is None else flows):
            flow = self._by_number.get(number)
            if flow is not None:
                flow.abort(reason, out)
                self._settle(flow, now)
        return out

    def send_datagram(self, five_tuple: FiveTuple, payload: bytes) -> list[Action]:
        """Answer a ``LocalDatagram``: from its destination to its source."""
        key = reverse(to_key(five_tuple))
        if len(payload) > max_datagram(key):
            out: list[Action] = []
            self._drop("datagram too long", out)
            return out
        return [make_datagram(key, payload)]

    # --- views -------------------------------------------------------------------------------------------------

    def snapshot(self, _now: float) -> list[FlowRecord]:
        """Return a copy of the flow table: closed flows, oldest first, then the open ones."""
        opened = [flow.stats.to_record(flow.state_name) for flow in self._by_number.values()]
        return [*self._table.strangers, *self._table.closed, *opened]

    def live(self) -> list[tuple[FlowStats, str]]:
        """Return the open flows with their states' names, oldest first; the counters go on changing."""
        return [(flow.stats, flow.state_name) for flow in self._by_number.values()]

    def stats_of(self, flow: int) -> FlowStats | None:
        """Return the counters of a flow, for the shell to add what it measures; None if it is over."""
        found = self._by_number.get(flow)
        return found.stats if found is not None else None

    def take_closed(self) -> list[FlowRecord]:
        """Hand over the records of closed flows, oldest first; a snapshot does not have them any more."""
        return self._table.take_closed()

    @property
    def drops(self) -> Counter[str]:
        """How often something was ignored, by reason."""
        return self._table.drops + Counter({"fragments of an incomplete packet": self._fragments.given_up})

    @property
    def open_flows(self) -> int:
        """How many flows are open."""
        return len(self._by_number)

    @property
    def totals(self) -> Totals:
        """Sums over all flows that ever were."""
        return self._table.totals(flow.stats for flow in self._by_number.values())

    # --- segments and datagrams, with a flow or without --------------------------------------------------------

    def _receive_stray(
        self,
        segment: Segment,
        old: Dial | TcpFlow | None,
        data: bytes | memoryview,
        now: float,
        out: list[Action],
    ) -> None:
        """Open a flow for a SYN, perhaps in the place of `old`; answer anything else with RST."""
        if old is not None:
            old.replace(out)
            self._settle(old, now)
        if segment.flags & (SYN | ACK | RST | FIN) != SYN or self._is_closed(segment.key):
            if segment.flags & RST:
                self._drop("RST of no flow", out)
            else:
                out.append(make_reset(segment))
        elif self._is_tombstone(segment, now):
            self._drop("SYN to a black hole", out)
        elif (stats := self._new_stats(Proto.TCP, segment.key, now, out)) is not None:
            isn = self._isn() & 0xFFFF_FFFF
            flow = Dial(stats, segment, quote(data), isn, self._terms, self._growth_time)
            self._tcp[segment.key] = self._by_number[stats.flow] = flow
            flow.open(out)
            self._settle(flow, now)

    def _receive_datagram(
        self, datagram: Datagram, data: bytes | memoryview, now: float, out: list[Action]
    ) -> None:
        key = datagram.key
        if self._is_resolver(key):
            if key[-2:] == self._resolver_port:
                five_tuple = to_five_tuple(Proto.UDP, key)
                out.extend(LocalDatagram(five_tuple, payload) for payload in split(datagram))
            else:
                out.append(make_unreachable(quote(data), errno.ECONNREFUSED))
            return
        flow = self._udp.get(key)
        if flow is None:
            stats = self._new_stats(Proto.UDP, key, now, out)
            if stats is None:
                return
            flow = UdpFlow(stats, key, quote(data), self._limits, self._drop)
            self._udp[key] = self._by_number[stats.flow] = flow
            flow.open(out)
        flow.receive_datagram(datagram, now, out)
        self._settle(flow, now)

    def _receive_fragment(self, data: bytes | memoryview, now: float) -> list[Action]:
        """Take a part of a packet, and the packet with its last part."""
        try:
            whole = self._fragments.receive(data, now)
        except PacketError as error:
            out: list[Action] = []
            self._drop(str(error), out)
            return out
        return [] if whole is None else self.receive_packet(whole, now)

    def _receive_icmp(
        self, message: IcmpMessage, data: bytes | memoryview, now: float, out: list[Action]
    ) -> None:
        echo = parse_echo(message)
        if echo is not None:
            self._receive_echo(echo, data, now, out)
            return
        protocol, key = parse_unreachable(message) or (0, b"")
        flow = self._udp.get(key) if protocol == Proto.UDP else None
        if flow is None:  # about TCP too: its resets come as segments
            self._drop("ICMP", out)
        else:
            flow.reject(out)
            self._settle(flow, now)

    def _receive_echo(self, echo: Echo, data: bytes | memoryview, now: float, out: list[Action]) -> None:
        key = echo.key
        if self._is_resolver(key):  # that is us, and we don't answer for the cluster
            self._drop("echo", out)
            return
        flow = self._echo.get(key)
        if flow is None:
            stats = self._new_stats(Proto.ICMP, key, now, out)
            if stats is None:
                return
            flow = EchoFlow(stats, key, quote(data), self._limits, self._drop)
            self._echo[key] = self._by_number[stats.flow] = flow
            flow.open(out)
        flow.receive_request(echo, now, out)
        self._settle(flow, now)

    def _is_resolver(self, key: bytes) -> bool:
        return len(key) == 12 and key[4:8] == self._resolver

    def _is_closed(self, key: bytes) -> bool:
        """Whether this is a port of the resolver's that nobody listens on."""
        return self._is_resolver(key) and key[-2:] != self._resolver_port

    def _is_tombstone(self, syn: Segment, now: float) -> bool:
        """Whether this very SYN was found to lead nowhere; a new attempt has another number."""
        seq, until = self._tombstones.get(syn.key, (-1, now))
        return seq == syn.seq and now < until

    def _new_stats(self, protocol: Proto, key: bytes, now: float, out: list[Action]) -> FlowStats | None:
        if len(self._by_number) >= self._limits.flows:
            self._drop("flow table full", out)
            return None
        if self._last_number + 1 >= NUMBERS:  # after days of somebody trying just that
            self._drop("flow numbers used up", out)
            return None
        self._last_number += 1
        return FlowStats(self._last_number, to_five_tuple(protocol, key), now)

    # --- bookkeeping -------------------------------------------------------------------------------------------

    def _drop(self, reason: str, out: list[Action]) -> None:
        self._table.drops[reason] += 1
        out.append(Drop(reason))

    def _settle(self, flow: Flow, now: float) -> None:
        """After each input: keep the flow's timer, or forget the flow."""
        self._timers.arm(flow.stats.flow, flow.deadline)
        if flow.is_closed:
            self._finish(flow, now)

    def _finish(self, flow: Flow, now: float) -> None:
        """Take a flow out of the tables; one that was dialed goes on in another shape."""
        number = flow.stats.flow
        if isinstance(flow, Dial) and flow.opened is not None:
            self._tcp[flow.key] = self._by_number[number] = flow.opened
            self._timers.arm(number, flow.opened.deadline)
            return
        del self._by_number[number]
        if isinstance(flow, UdpFlow):
            del self._udp[flow.key]
        elif isinstance(flow, EchoFlow):
            del self._echo[flow.key]
        else:
            del self._tcp[flow.key]
            if isinstance(flow, Dial) and flow.is_silent:
                self._bury(flow, now)
        # As with questions by UDP: names are everybody's on this machine, and who asks much pushes no flow out.
        is_kept = not self._is_resolver(flow.key)
        self._table.close(flow.stats, flow.state_name, flow.reason, now, is_kept=is_kept)

    def _bury(self, dial: Dial, now: float) -> None:
        self._tombstones.pop(dial.key, None)
        if len(self._tombstones) >= self._limits.tombstones:
            del self._tombstones[next(iter(self._tombstones))]
        self._tombstones[dial.key] = (dial.initial_seq, now + self._limits.tombstone)
