from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest
from telehelper.core.actions import SendPacket
from telehelper.core.datagram import make_datagram
from telehelper.core.frames import FrameType
from telehelper.core.icmp import make_unreachable
from telehelper.core.packet import GSO_UDP, NEEDS_CSUM, VNET, quote, to_key

from tests.core.builders import NEAR, UDP, UDP6, Talk, whole

if TYPE_CHECKING:
    from telehelper.core.flows import FiveTuple


def opened(five_tuple: FiveTuple = UDP) -> Talk:
    talk = Talk(five_tuple)
    assert talk.datagram(b"ping") == ["opened 1", "-> OPEN", "-> DATAGRAM b'ping'"]
    assert talk.state == "DIALING"
    assert talk.opened(0) == []
    assert talk.state == "OPEN"
    return talk


@pytest.mark.parametrize("five_tuple", [UDP, UDP6])
def test_datagrams_both_ways(five_tuple: FiveTuple) -> None:
    talk = opened(five_tuple)
    assert talk.datagram(b"") == ["-> DATAGRAM b''"]
    assert talk.far(FrameType.DATAGRAM, b"pong") == ["<< udp b'pong'"]
    record = talk.stack.snapshot(talk.now)[0]
    assert (record.bytes_up, record.bytes_down, record.packets_up, record.packets_down) == (4, 4, 2, 1)
    assert record.first_byte_at == talk.now


def test_answer_too_long_for_a_packet() -> None:
    assert opened().far(FrameType.DATAGRAM, bytes(65_508)) == ["drop: datagram too long"]
    assert opened(UDP6).far(FrameType.DATAGRAM, bytes(65_508))[0].startswith("<< udp")
    talk = opened()
    talk.far(FrameType.DATAGRAM, bytes(65_508))
    assert talk.stack.drops == {"datagram too long": 1}


def test_idle() -> None:
    talk = opened()
    talk.wait(50)
    talk.datagram(b"x")
    assert talk.wait(50) == []
    talk.far(FrameType.DATAGRAM, b"y")
    assert talk.wait(59) == []
    assert talk.wait(2) == ["-> RST 0", "closed 1: idle"]
    assert talk.state == "CLOSED"


def test_dns_is_idle_sooner() -> None:
    talk = Talk(UDP._replace(dport=53))
    talk.datagram(b"?")
    assert talk.wait(5.1) == ["-> RST 0", "closed 1: idle"]


@pytest.mark.parametrize("kind", [FrameType.REJECTED, FrameType.RST])
def test_refused(kind: FrameType) -> None:
    assert opened().coded(kind, errno.ECONNREFUSED) == ["<< icmp 3/3", "closed 1: ECONNREFUSED"]
    assert opened().coded(kind, errno.ETIMEDOUT) == ["closed 1: ETIMEDOUT"]
    assert opened().coded(kind, 0, "idle") == ["closed 1: idle"]
    assert opened().coded(kind, 0) == ["closed 1: reset by the cluster"]
    talk = opened()
    talk.coded(kind, errno.EHOSTUNREACH)
    assert talk.datagram(b"again")[0] == "opened 2"


@pytest.mark.parametrize("five_tuple", [UDP, UDP6])
def test_the_application_has_gone(five_tuple: FiveTuple) -> None:
    talk = opened(five_tuple)
    talk.far(FrameType.DATAGRAM, b"late")
    answered = talk.actions[0]
    assert isinstance(answered, SendPacket)
    refusal = make_unreachable(quote(whole(answered)), errno.ECONNREFUSED)
    assert talk.take(talk.stack.receive_packet(whole(refusal), talk.now)) == [
        "-> RST ECONNREFUSED",
        "closed 1: closed by the application",
    ]
    assert talk.take(talk.stack.receive_packet(whole(refusal), talk.now)) == ["drop: ICMP"]
    assert talk.datagram(b"again")[0] == "opened 2"


def test_frames_that_break_the_rules() -> None:
    assert opened().far(FrameType.DATA, b"x") == [
        "-> RST EPROTO",
        "closed 1: protocol error: DATA on a flow of datagrams",
    ]
    assert opened().far(FrameType.RST, b"x")[0] == "-> RST EPROTO"


def test_carrier_dies() -> None:
    talk = opened()
    assert talk.take(talk.stack.reset_flows([1, 99], "carrier lost", talk.now)) == ["closed 1: carrier lost"]


def test_offloaded_datagrams_are_cut() -> None:
    data = bytearray(whole(make_datagram(to_key(UDP), b"aaaabbbbcc")))
    VNET.pack_into(data, 0, NEEDS_CSUM, GSO_UDP, 28, 4, 20, 6)
    talk = Talk(UDP)
    lines = talk.take(talk.stack.receive_packet(bytes(data), talk.now))
    assert lines[2:] == ["-> DATAGRAM b'aaaa'", "-> DATAGRAM b'bbbb'", "-> DATAGRAM b'cc'"]


def test_resolver() -> None:
    resolver = NEAR + 1
    five_tuple = UDP._replace(dst=resolver, dport=53)
    talk = Talk(five_tuple, resolver=(resolver, 53))
    assert talk.datagram(b"query") == ["local 53 b'query'"]
    assert talk.stack.open_flows == 0
    assert talk.take(talk.stack.send_datagram(five_tuple, b"answer")) == ["<< udp b'answer'"]
    assert talk.datagram(b"?", to_key(five_tuple._replace(dport=54))) == ["<< icmp 3/3"]
