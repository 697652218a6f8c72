from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st
from telehelper.core import stack
from telehelper.core.actions import Drop
from telehelper.core.datagram import make_datagram
from telehelper.core.flows import Totals
from telehelper.core.fragments import PATIENCE
from telehelper.core.frames import Frame, FrameType
from telehelper.core.icmp import make_unreachable
from telehelper.core.limits import Limits
from telehelper.core.packet import quote, reverse, to_key
from telehelper.core.stack import Stack

from tests.core.builders import (
    BUILDERS,
    FAR,
    NEAR,
    TCP,
    UDP,
    Talk,
    credit_taken,
    describe,
    dialing,
    established,
    whole,
)
from tests.core.test_echo import PING, request_bytes
from tests.core.test_fragments import Part, cut, datagram, parts
from tests.core.test_packet import segment_bytes

if TYPE_CHECKING:
    import pytest


def test_strays_are_reset_except_resets() -> None:
    talk = Talk()
    assert talk.near("A", ack=6) == ["<< R 6 0"]
    assert talk.near("SA", ack=6) == ["<< R 6 0"]
    assert talk.near("F", seq=3) == ["<< RA 0 4"]
    assert talk.near("R") == ["drop: RST of no flow"]
    assert talk.stack.drops == {"RST of no flow": 1}


def test_frame_of_no_flow() -> None:
    talk = Talk()
    assert talk.data(b"x") == ["drop: frame of no flow"]


def test_icmp_is_for_its_flow_or_counted() -> None:
    talk = Talk(UDP)
    talk.datagram(b"x")
    answer = quote(whole(make_datagram(reverse(to_key(UDP)), b"y")))
    stray = make_unreachable(quote(whole(make_datagram(to_key(UDP), b"y"))), errno.ECONNREFUSED)
    assert talk.take(talk.stack.receive_packet(whole(stray), talk.now)) == ["drop: ICMP"]
    refused = make_unreachable(answer, errno.ECONNREFUSED)
    assert talk.take(talk.stack.receive_packet(whole(refused), talk.now))[0] == "-> RST ECONNREFUSED"


def test_icmp_about_tcp_is_ignored() -> None:
    talk = established()
    answer = quote(bytes(segment_bytes(key=reverse(to_key(TCP)))))
    refused = make_unreachable(answer, errno.EHOSTUNREACH)
    assert talk.take(talk.stack.receive_packet(whole(refused), talk.now)) == ["drop: ICMP"]
    assert talk.state == "ESTABLISHED"


def test_pings() -> None:
    request = request_bytes(PING, 1, b"hello")
    talk = Talk(PING)
    assert talk.take(talk.stack.receive_packet(request, 0.0))[:2] == ["opened 1", "-> OPEN"]
    assert len(talk.take(talk.stack.receive_packet(request, 0.0))) == 1
    talk.take(talk.stack.reset_flows(None, "tunnel lost", 0.0))
    assert talk.take(talk.stack.receive_packet(request, 0.0))[0] == "opened 2"
    assert Talk(resolver=(FAR, 53)).stack.receive_packet(request, 0.0) == [Drop("echo")]
    assert Talk(limits=Limits(flows=0)).stack.receive_packet(request, 0.0) == [Drop("flow table full")]


def test_fragments() -> None:
    packet = datagram(UDP, b"x" * 32)
    talk = Talk(UDP)
    first, second = (cut(packet, part) for part in parts(40, 24))
    assert talk.take(talk.stack.receive_packet(second, 0.0)) == []
    assert talk.take(talk.stack.receive_packet(first, 0.0))[2] == "-> DATAGRAM 32 bytes"
    talk.take(talk.stack.receive_packet(first, 0.0))
    assert talk.take(talk.stack.receive_packet(cut(packet, Part(8, 40, False)), 0.0)) == [
        "drop: overlapping fragments"
    ]
    assert talk.stack.drops == {"overlapping fragments": 1}


def test_fragments_of_a_packet_that_stays_incomplete_are_counted() -> None:
    talk = Talk(UDP)
    first, second = (cut(datagram(UDP, b"x" * 32), part) for part in parts(40, 24))
    talk.take(talk.stack.receive_packet(first, 0.0))
    assert talk.stack.drops == {}
    talk.take(talk.stack.receive_packet(second, PATIENCE))
    assert talk.stack.drops == {"fragments of an incomplete packet": 1}


def test_malformed_packets_are_counted() -> None:
    talk = Talk()
    talk.take(talk.stack.receive_packet(b"", 0.0))
    assert talk.take(talk.stack.receive_packet(b"x" * 50, 0.0)) == ["drop: no IP packet"]
    assert talk.stack.drops["no IP packet"] == 2


def test_flow_numbers_end_before_those_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack, "NUMBERS", 2)
    talk = Talk(UDP)
    talk.datagram(b"x")  # number 1
    other = whole(make_datagram(to_key(UDP._replace(sport=1)), b"x"))
    assert talk.take(talk.stack.receive_packet(other, talk.now)) == ["drop: flow numbers used up"]


def test_flow_table_full() -> None:
    talk = dialing(limits=Limits(flows=1))
    other = whole(make_datagram(to_key(UDP), b"x"))
    assert talk.take(talk.stack.receive_packet(other, talk.now)) == ["drop: flow table full"]
    syn = bytes(segment_bytes(b"", key=to_key(TCP._replace(sport=1)), flags=2))
    assert talk.take(talk.stack.receive_packet(syn, talk.now)) == ["drop: flow table full"]


def test_reset_of_some_and_of_all_flows() -> None:
    talk = established()
    talk.take(talk.stack.receive_packet(whole(make_datagram(to_key(UDP), b"x")), talk.now))
    assert talk.take(talk.stack.reset_flows([2, 7], "carrier lost", talk.now)) == ["closed 2: carrier lost"]
    assert talk.take(talk.stack.reset_flows(None, "tunnel lost", talk.now)) == [
        "<< RA 1 1",
        "closed 1: tunnel lost",
    ]
    assert talk.stack.open_flows == 0
    assert [record.reason for record in talk.stack.snapshot(talk.now)] == ["carrier lost", "tunnel lost"]


def test_what_the_shell_needs_for_the_flow_table() -> None:
    talk = established()
    talk.take(talk.stack.receive_packet(whole(make_datagram(to_key(UDP), b"x")), talk.now))
    (tcp, state), (udp, opening) = talk.stack.live()
    assert (tcp.flow, state, udp.flow, opening) == (1, "ESTABLISHED", 2, "DIALING")
    assert talk.stack.stats_of(1) is tcp
    talk.take(talk.stack.reset_flows(None, "tunnel lost", talk.now))
    assert talk.stack.stats_of(1) is None
    assert talk.stack.live() == []
    assert [(record.flow, record.failure) for record in talk.stack.take_closed()] == [(1, "reset"), (2, "")]
    assert talk.stack.snapshot(talk.now) == []
    assert talk.stack.totals.flows == 2


def test_every_state_can_be_reset_by_the_shell() -> None:
    for build in BUILDERS.values():
        talk = build()
        lines = talk.take(talk.stack.reset_flows(None, "tunnel lost", talk.now))
        assert lines[0].startswith("<< RA")
        assert lines[1:] == ["closed 1: tunnel lost"]


def _second_credit(talk: Talk) -> list[str]:
    """Take a whole window of 1000 bytes in two parts, ten milliseconds apart."""
    talk.data(b"x" * 500)
    assert talk.near("A", ack=501) == ["-> CREDIT 500"]
    talk.now += 0.01
    talk.data(b"x" * 500)
    return talk.near("A", ack=1001)


def test_windows_grow_as_far_as_the_path_needs() -> None:
    limits = Limits(initial_credit=1000, maximum_credit=4000)
    assert _second_credit(established(limits=limits)) == ["-> CREDIT 1500"]

    talk = established(limits=limits)
    talk.stack.set_path_rtt(0.001)  # found out while the flow is open
    talk.stack.set_path_rtt(0.001)
    assert _second_credit(talk) == ["-> CREDIT 500"]

    talk = Talk(limits=limits)
    talk.stack.set_path_rtt(0.001)  # known before
    talk.syn()
    talk.opened()
    talk.near("A")
    assert _second_credit(talk) == ["-> CREDIT 500"]


def test_credit_of_all_flows() -> None:
    talk = dialing(limits=Limits(initial_credit=1000))
    assert credit_taken(talk.stack) == 1000
    talk.near("R")
    assert credit_taken(talk.stack) == 0


def test_snapshot_and_totals() -> None:
    talk = established()
    talk.near("PA", text=b"hello")
    talk.now += 1
    talk.data(b"reply!")
    record = talk.stack.snapshot(talk.now)[0]
    assert record.five_tuple == TCP
    assert record.state == "ESTABLISHED"
    assert (record.opened_at, record.connected_at, record.first_byte_at, record.closed_at) == (
        100.0,
        100.0,
        101.0,
        None,
    )
    assert (record.bytes_up, record.bytes_down, record.packets_up, record.packets_down) == (5, 6, 3, 3)
    assert talk.stack.totals == Totals(1, 5, 6)
    talk.near("R", seq=6)
    assert talk.stack.totals == Totals(1, 5, 6)


def test_a_new_connection_takes_the_place_of_an_old_one() -> None:
    talk = dialing()
    assert talk.syn(seq=5000) == ["-> RST ECONNRESET", "closed 1: replaced", "opened 2", "-> OPEN"]
    assert talk.stack.open_flows == 1


def test_tombstones_are_bounded_and_renewed() -> None:
    talk = Talk(limits=Limits(tombstones=1))
    for number in (1, 2):
        talk.syn(seq=number * 1000)
        talk.flow = number
        talk.coded(FrameType.REJECTED, errno.ETIMEDOUT)
    assert talk.syn(seq=2000) == ["drop: SYN to a black hole"]
    other = bytes(segment_bytes(b"", key=to_key(TCP._replace(sport=1)), flags=2))
    talk.take(talk.stack.receive_packet(other, talk.now))
    talk.flow = 3
    talk.coded(FrameType.REJECTED, errno.ETIMEDOUT)
    assert talk.syn(seq=2000) == ["opened 4", "-> OPEN"]


def test_resolver_takes_tcp_to_its_port_only() -> None:
    talk = Talk(TCP, resolver=(FAR, 53))
    assert talk.syn() == ["<< RA 0 1"]
    assert talk.stack.open_flows == 0
    talk = Talk(TCP._replace(dport=53), resolver=(FAR, 53))
    assert talk.syn() == ["opened 1", "-> OPEN"]


def test_questions_by_tcp_push_no_flow_out_of_those_that_are_kept() -> None:
    talk = Talk(TCP._replace(dport=53), resolver=(FAR, 53))
    talk.syn()
    talk.coded(FrameType.REJECTED, errno.ECONNREFUSED)
    assert (talk.stack.open_flows, talk.stack.take_closed(), talk.stack.totals.flows) == (0, [], 1)
    talk = Talk(TCP, resolver=(FAR + 1, 53))
    talk.syn()
    talk.coded(FrameType.REJECTED, errno.ECONNREFUSED)
    assert [record.flow for record in talk.stack.take_closed()] == [1]


def test_resolver_takes_datagrams_to_its_port_only() -> None:
    five_tuple = UDP._replace(dport=53)
    talk = Talk(five_tuple, resolver=(FAR, 53))
    assert talk.datagram(b"query") == ["local 53 b'query'"]
    assert talk.take(talk.stack.send_datagram(five_tuple, b"answer")) == ["<< udp b'answer'"]
    assert talk.datagram(b"?", to_key(UDP)) == ["<< icmp 3/3"]
    assert talk.stack.open_flows == 0


def test_answer_too_long_for_a_datagram() -> None:
    talk = Talk()
    assert talk.take(talk.stack.send_datagram(UDP, bytes(65_508))) == ["drop: datagram too long"]


def test_datagrams_of_one_flow_until_it_is_idle() -> None:
    talk = Talk(UDP)
    assert talk.datagram(b"1") == ["opened 1", "-> OPEN", "-> DATAGRAM b'1'"]
    assert talk.datagram(b"2") == ["-> DATAGRAM b'2'"]
    assert talk.wait(61) == ["-> RST 0", "closed 1: idle"]


def test_timer_too_early_does_no_harm() -> None:
    talk = established()
    assert talk.take(talk.stack.handle_timer(talk.now)) == []
    assert Talk().stack.next_timer() is None


def test_a_tiny_mtu_is_raised() -> None:
    assert Stack(isn=lambda: 1, mtu=1)._terms.mtu == 576


PACKETS = st.binary(max_size=100) | st.builds(
    lambda key, flags, text, seq: bytes(
        whole(Talk(TCP).template.segment(seq, seq, flags, 100, (text,), len(text)))
        if key
        else whole(make_datagram(to_key(UDP), text))
    ),
    st.booleans(),
    st.integers(0, 255),
    st.binary(max_size=20),
    st.sampled_from([0, 1, 2**32 - 3, 2**32 - 2, 2**31, 2**32 - 4]),
)
FRAMES = st.builds(
    Frame,
    st.sampled_from(FrameType),
    st.integers(1, 3),
    st.binary(max_size=6) | st.just(b"\0\0\1\0") | st.just(b"\0\x6fno"),
)


@given(st.lists(PACKETS | FRAMES | st.floats(0, 200), max_size=30))
def test_anything_in_any_order_gives_actions_and_never_raises(inputs: list[bytes | Frame | float]) -> None:
    stack = Stack(isn=lambda: 2**32 - 5, resolver=(NEAR, 53))
    now = 0.0
    for item in inputs:
        if isinstance(item, Frame):
            actions = stack.receive_frame(item, now)
        elif isinstance(item, float):
            now += item
            actions = stack.handle_timer(now)
        else:
            actions = stack.receive_packet(item, now)
        assert all(describe(action) for action in actions)
    stack.reset_flows(None, "end", now)
    assert stack.open_flows == 0
