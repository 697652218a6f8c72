"""The engine with a real stack, and lists instead of TUN, tunnel and names."""

from __future__ import annotations

import asyncio
import errno
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

import pytest
import uvloop
from telehelper.core.datagram import make_datagram
from telehelper.core.flows import FiveTuple
from telehelper.core.frames import (
    Frame,
    FrameType,
    Proto,
    decode_coded,
    decode_open,
    encode_coded,
    encode_u32,
)
from telehelper.core.packet import TcpTemplate, syn_options, to_key
from telehelper.core.stack import Stack
from telehelper.datapath.cluster_dns import OWN_FLOWS
from telehelper.datapath.engine import Engine
from telehelper.datapath.report import reason_of
from telehelper.errors import LocalProtocolError

from tests.core.builders import FAR, IRS, ISS, MSS, NEAR, TCP, describe_frame, describe_packet, whole
from tests.datapath.waiting import WAIT, until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from ipaddress import IPv6Address

    from telehelper.core.mux import Buffer

OURS, RESOLVER = IPv4Address("198.19.240.0"), IPv4Address("198.19.240.1")
DNS_SERVER, OTHER_SERVER = IPv4Address("198.18.0.10"), IPv4Address("198.18.0.11")
CLIENT = FiveTuple(Proto.UDP, NEAR, 40000, RESOLVER, 53)


class Sinks:
    """TUN, tunnel and names in one, in the order of events."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.frames: list[Frame] = []
        self.forgotten: list[int] = []
        self.clients: list[FiveTuple] = []
        self.answers: list[bytes] = []
        self.failed: list[int] = []

    def write(self, buffers: tuple[Buffer, ...]) -> None:
        self.log.append(describe_packet(b"".join(buffers)))

    def send(self, frame: Frame) -> None:
        self.frames.append(frame)
        self.log.append(describe_frame(frame))

    def forget(self, flow: int) -> None:
        self.forgotten.append(flow)
        self.log.append(f"forget {flow}")

    def query(self, client: FiveTuple, data: bytes) -> None:
        self.clients.append(client)
        self.log.append(f"query {data!r}")

    def cluster_answer(self, data: bytes) -> None:
        self.answers.append(data)

    def cluster_failed(self, ident: int) -> None:
        self.failed.append(ident)

    def take(self) -> list[str]:
        taken, self.log = self.log, []
        return taken


class Bench:
    def __init__(self) -> None:
        self.sinks = Sinks()
        self.engine = Engine(Stack(isn=lambda: ISS, resolver=(RESOLVER, 53)))
        self.engine.tun = self.engine.tunnel = self.engine.names = self.sinks
        self.template = TcpTemplate(to_key(TCP), MSS, offload=True)

    def packet(self, flags: int, seq: int = 1, ack: int = 1, text: bytes = b"") -> bytes:
        options = syn_options(MSS, 7) if flags & 2 else b""
        wire_ack = (ISS + ack) & 0xFFFFFFFF if flags & 16 else 0
        return whole(
            self.template.segment((IRS + seq) & 0xFFFFFFFF, wire_ack, flags, 512, (text,), len(text), options)
        )

    def near(self, *packets: bytes) -> list[str]:
        self.engine.packets_received(list(packets))
        return self.sinks.take()

    def far(self, *frames: Frame) -> list[str]:
        self.engine.frames_received(frames)
        return self.sinks.take()


def bench(work: Callable[[Bench], Awaitable[None]]) -> None:
    async def run() -> None:
        async with asyncio.timeout(WAIT):
            it = Bench()
            try:
                await work(it)
            finally:
                it.engine.close()

    asyncio.run(run())
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


SYN, ACK, FIN, RST = 2, 16, 17, 4
OPENED = encode_u32(FrameType.OPENED, 1, 65536)


def opened(it: Bench) -> None:
    assert it.near(it.packet(SYN, 0)) == ["-> OPEN"]
    assert it.far(OPENED) == ["<< SA 0 1"]
    assert it.near(it.packet(ACK)) == []


def test_a_connection_from_syn_to_data_both_ways() -> None:
    async def work(it: Bench) -> None:
        opened(it)
        assert decode_open(it.sinks.frames[0])[:5] == (Proto.TCP, NEAR, 40000, FAR, 5432)
        assert "-> DATA b'select 1'" in it.near(it.packet(ACK, text=b"select 1"))
        assert it.far(Frame(FrameType.DATA, 1, b"1 row")) == ["<< PA 1 9 b'1 row'"]
        (record,) = it.engine.stack.snapshot(0.0)
        assert (record.bytes_up, record.bytes_down, record.five_tuple) == (8, 5, TCP)
        assert 0 <= record.opened_at <= (record.connected_at or 0) <= (record.first_byte_at or 0)

    bench(work)


def test_what_is_told_and_measured_of_a_new_flow() -> None:
    async def work(it: Bench) -> None:
        seen: list[tuple[int, FiveTuple, int]] = []
        it.engine.flow_opened = lambda stats: seen.append(
            (stats.flow, stats.five_tuple, len(it.sinks.frames))
        )
        it.near(it.packet(SYN, 0))
        assert seen == [(1, TCP, 0)]  # before OPEN went out
        it.engine.open_sent(1, 0.25)
        it.engine.open_sent(OWN_FLOWS, 0.25)  # none of the stack's
        (record,) = it.engine.stack.snapshot(0.0)
        assert record.tunnel == 0.25
        assert 0 <= record.queue < WAIT
        it.engine.open_sent(1, None)
        assert it.engine.stack.snapshot(0.0)[0].tunnel == -1

    bench(work)


def test_a_burst_is_performed_in_order() -> None:
    async def work(it: Bench) -> None:
        opened(it)
        lines = it.near(it.packet(ACK, 1, text=b"one"), it.packet(ACK, 4, text=b"two"))
        assert [line for line in lines if "DATA" in line] == ["-> DATA b'one'", "-> DATA b'two'"]
        lines = it.far(Frame(FrameType.DATA, 1, b"three"), Frame(FrameType.DATA, 1, b"four"))
        assert [line[-9:] for line in lines] == ["7 b'three'"[-9:], "7 b'four'"[-9:]]

    bench(work)


def test_a_refused_flow_is_reset_and_forgotten() -> None:
    async def work(it: Bench) -> None:
        it.near(it.packet(SYN, 0))
        lines = it.far(encode_coded(FrameType.REJECTED, 1, errno.ECONNREFUSED, "refused"))
        assert lines[0].startswith("<< R")
        assert it.sinks.forgotten == [1]

    bench(work)


def test_only_this_side_can_say_that_a_flow_is_a_strangers() -> None:
    async def work(it: Bench) -> None:
        said = "not yours: uid 0's"
        it.near(it.packet(SYN, 0))
        it.far(encode_coded(FrameType.REJECTED, 1, errno.ECONNREFUSED, said))
        it.near(it.packet(SYN, 99))
        it.engine.keep_out(encode_coded(FrameType.REJECTED, 2, errno.ECONNREFUSED, said))
        lines = it.sinks.take()
        assert lines[0].startswith("<< R"), "its program hears it at once"
        it.engine.keep_out(encode_coded(FrameType.REJECTED, 2, errno.ECONNREFUSED, said))  # it has gone
        theirs, far = it.engine.stack.take_closed()
        assert [(record.flow, record.is_strangers) for record in (far, theirs)] == [(1, False), (2, True)]
        assert reason_of(far) == "the other side says: not yours: uid 0's"
        assert reason_of(theirs) == said

    bench(work)


def test_a_reset_by_the_application_goes_out_before_the_flow_is_forgotten() -> None:
    async def work(it: Bench) -> None:
        opened(it)
        lines = it.near(it.packet(RST))
        assert lines[-1] == "forget 1"
        assert lines[0].startswith("-> RST")

    bench(work)


def test_lost_flows_are_reset_with_the_reason() -> None:
    async def work(it: Bench) -> None:
        opened(it)
        it.engine.flows_lost({1, 99}, "the carrier was cut")
        lines = it.sinks.take()
        assert lines[0].startswith("<< R")
        (record,) = it.engine.stack.snapshot(0.0)
        assert (record.state, record.reason) == ("CLOSED", "the carrier was cut")

    bench(work)


def test_garbage_and_strays_are_counted() -> None:
    async def work(it: Bench) -> None:
        assert it.near(b"", b"\0" * 40) == []
        assert it.far(Frame(FrameType.DATA, 55, b"x")) == []
        assert sum(it.engine.stack.drops.values()) == 3

    bench(work)


def test_the_timer_sends_again_what_was_not_acknowledged() -> None:
    async def work(it: Bench) -> None:
        it.near(it.packet(SYN, 0))
        assert it.far(OPENED) == ["<< SA 0 1"]
        await until(lambda: it.sinks.log)  # nobody acknowledges the SYN
        assert it.sinks.take() == ["<< SA 0 1"]
        await until(lambda: it.sinks.log)  # armed again, later
        assert it.sinks.take() == ["<< SA 0 1"]

    bench(work)


def test_hanging_up_resets_what_is_open_and_needs_no_device() -> None:
    async def work(it: Bench) -> None:
        it.near(it.packet(SYN, 0))
        it.far(OPENED)
        it.near(it.packet(ACK, 1))
        it.sinks.take()
        it.engine.hang_up("disconnected")
        assert [line for line in it.sinks.take() if "R" in line.split()[1]]
        assert it.engine.stack.open_flows == 0
        it.engine.tun = None
        it.engine.hang_up("disconnected")

    bench(work)


def test_closing_disarms_the_timer() -> None:
    async def work(it: Bench) -> None:
        it.near(it.packet(SYN, 0))
        it.far(OPENED)
        it.engine.close()
        it.engine.close()
        due = it.engine.stack.next_timer()
        assert due is not None
        await asyncio.sleep(0.3)  # longer than the first retransmission takes
        assert it.sinks.take() == []

    bench(work)


def test_packets_before_everything_is_attached_are_our_bug() -> None:
    async def work(it: Bench) -> None:
        for name in ("tun", "tunnel", "names"):
            setattr(it.engine, name, None)
            with pytest.raises(LocalProtocolError, match="wired up"):
                it.near(it.packet(SYN, 0))
            setattr(it.engine, name, it.sinks)

    bench(work)


# --- names -------------------------------------------------------------------------------------------------------


def test_a_question_to_the_resolver_comes_out_and_its_answer_goes_in() -> None:
    async def work(it: Bench) -> None:
        assert it.near(whole(make_datagram(to_key(CLIENT), b"who?"))) == ["query b'who?'"]
        assert it.sinks.clients == [CLIENT]
        it.engine.answer_datagram(it.sinks.clients[0], b"me")
        assert it.sinks.take() == ["<< udp b'me'"]
        assert it.engine.stack.snapshot(0.0) == []  # no flow of the tunnel

    bench(work)


def test_an_answer_to_nobody_is_our_bug() -> None:
    async def work(it: Bench) -> None:
        with pytest.raises(LocalProtocolError):
            it.engine.answer_datagram("somebody", b"me")

    bench(work)


def ask(it: Bench, data: bytes = b"q") -> list[Frame]:
    """Ask the cluster's DNS server; returns the frames that caused."""
    before = len(it.sinks.frames)
    it.engine.ask_cluster(data)
    return it.sinks.frames[before:]


def kinds(frames: list[Frame]) -> list[FrameType]:
    return [frame.type for frame in frames]


def test_questions_to_the_cluster_share_one_flow_of_our_own() -> None:
    async def work(it: Bench) -> None:
        it.engine.set_dns_server(OURS, DNS_SERVER)
        first = ask(it, b"one")
        assert kinds(first) == [FrameType.OPEN, FrameType.DATAGRAM]
        assert decode_open(first[0])[:5] == (Proto.UDP, OURS, 53, DNS_SERVER, 53)
        assert first[1] == Frame(FrameType.DATAGRAM, OWN_FLOWS, b"one")
        assert ask(it, b"two") == [Frame(FrameType.DATAGRAM, OWN_FLOWS, b"two")]
        it.sinks.take()
        assert it.far(encode_u32(FrameType.OPENED, OWN_FLOWS, 0)) == []
        it.far(Frame(FrameType.DATAGRAM, OWN_FLOWS, b"answer"))
        assert it.sinks.answers == [b"answer"]
        assert it.engine.stack.snapshot(0.0) == []  # it is not the user's

    bench(work)


def test_without_a_server_nothing_is_asked() -> None:
    async def work(it: Bench) -> None:
        assert ask(it) == []
        it.engine.set_dns_server(OURS, DNS_SERVER)
        it.engine.tunnel = None
        assert ask(it) == []

    bench(work)


@pytest.mark.parametrize("kind", [FrameType.REJECTED, FrameType.RST])
def test_when_the_flow_is_over_the_next_question_opens_another(kind: FrameType) -> None:
    async def work(it: Bench) -> None:
        it.engine.set_dns_server(OURS, DNS_SERVER)
        ask(it)
        it.far(encode_coded(kind, OWN_FLOWS, errno.ETIMEDOUT, "idle"))
        assert it.sinks.forgotten == [OWN_FLOWS]
        again = ask(it)
        assert kinds(again) == [FrameType.OPEN, FrameType.DATAGRAM]
        assert again[0].flow == OWN_FLOWS + 1
        it.far(Frame(FrameType.DATAGRAM, OWN_FLOWS, b"late"))
        assert it.sinks.answers == []

    bench(work)


def test_when_its_carrier_is_lost_the_next_question_opens_another() -> None:
    async def work(it: Bench) -> None:
        it.engine.set_dns_server(OURS, DNS_SERVER)
        ask(it)
        it.engine.flows_lost({OWN_FLOWS}, "cut")
        assert ask(it)[0].type is FrameType.OPEN

    bench(work)


def test_another_server_closes_the_flow_to_the_old_one() -> None:
    async def work(it: Bench) -> None:
        def move_to(server: IPv4Address | IPv6Address) -> list[Frame]:
            before = len(it.sinks.frames)
            it.engine.set_dns_server(OURS, server)
            return it.sinks.frames[before:]

        assert move_to(DNS_SERVER) == []
        ask(it)
        assert move_to(DNS_SERVER) == []  # the same: nothing happens
        (reset,) = move_to(OTHER_SERVER)
        assert (reset.type, reset.flow, decode_coded(reset)[0]) == (FrameType.RST, OWN_FLOWS, errno.ECANCELED)
        assert it.sinks.forgotten == [OWN_FLOWS]
        assert decode_open(ask(it)[0]).dst == OTHER_SERVER

    bench(work)


def test_our_own_numbers_wrap_within_their_half() -> None:
    async def work(it: Bench) -> None:
        it.engine.set_dns_server(OURS, DNS_SERVER)
        it.engine._cluster_dns._next = 2**32 - 1
        assert ask(it)[0].flow == 2**32 - 1
        it.engine.flows_lost({2**32 - 1}, "cut")
        assert ask(it)[0].flow == OWN_FLOWS

    bench(work)
