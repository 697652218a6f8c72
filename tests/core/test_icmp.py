from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from telehelper.core import checksum
from telehelper.core.datagram import make_datagram
from telehelper.core.frames import Proto
from telehelper.core.icmp import Echo, make_echo_reply, make_unreachable, parse_echo, parse_unreachable
from telehelper.core.packet import IcmpMessage, TcpTemplate, parse, pseudo_sum, quote, reverse, to_key

from tests.core.builders import TCP, TCP6, UDP, UDP6, describe, whole

if TYPE_CHECKING:
    from telehelper.core.actions import SendPacket
    from telehelper.core.flows import FiveTuple

QUOTED4 = quote(whole(make_datagram(to_key(UDP), b"hello")))
QUOTED6 = quote(whole(make_datagram(to_key(UDP6), b"hello")))


@pytest.mark.parametrize(
    ("code", "v4", "v6"),
    [
        (errno.ECONNREFUSED, "3/3", "1/4"),
        (errno.ENETUNREACH, "3/0", "1/0"),
        (errno.EHOSTUNREACH, "3/1", "1/3"),
        (errno.EACCES, "3/13", "1/1"),
        (errno.EPERM, "3/13", "1/1"),
        (errno.EIO, "3/1", "1/3"),
    ],
)
def test_codes(code: int, v4: str, v6: str) -> None:
    assert describe(make_unreachable(QUOTED4, code)) == f"<< icmp {v4}"
    assert describe(make_unreachable(QUOTED6, code)) == f"<< icmp {v6}"


def test_addresses_checksum_and_quotation_v4() -> None:
    data = whole(make_unreachable(QUOTED4, errno.ECONNREFUSED))[10:]
    assert data[12:20] == UDP.dst.packed + UDP.src.packed
    assert checksum.add(data[:20]) == 0
    assert checksum.add(data[20:]) == 0
    assert data[28:] == QUOTED4
    assert len(QUOTED4) == 28


def test_addresses_checksum_and_quotation_v6() -> None:
    data = whole(make_unreachable(QUOTED6, errno.ECONNREFUSED))[10:]
    addresses = UDP6.dst.packed + UDP6.src.packed
    assert data[8:40] == addresses
    assert (checksum.add(data[40:]) + pseudo_sum(addresses, 58, len(data) - 40)) % 0xFFFF == 0
    assert data[48:] == QUOTED6


def message(packet: SendPacket) -> IcmpMessage:
    found = parse(whole(packet))
    assert isinstance(found, IcmpMessage)
    return found


@pytest.mark.parametrize(("five_tuple", "request_type"), [(UDP, 8), (UDP6, 128)])
def test_echo(five_tuple: FiveTuple, request_type: int) -> None:
    key = to_key(five_tuple)
    reply = message(make_echo_reply(key, 65_535, memoryview(b"data")))
    assert parse_echo(reply) is None
    request = reply._replace(type=request_type)
    assert parse_echo(request) == Echo(key[:-4] + key[-2:] + b"\0\0", 65_535, memoryview(b"data"))


@pytest.mark.parametrize("five_tuple", [UDP, UDP6])
def test_unreachable_says_whose_packet_it_was(five_tuple: FiveTuple) -> None:
    key = to_key(five_tuple)
    ours = reverse(key)
    refused = make_unreachable(quote(whole(make_datagram(ours, b"hello"))), errno.ECONNREFUSED)
    assert parse_unreachable(message(refused)) == (Proto.UDP, key)


@pytest.mark.parametrize("five_tuple", [TCP, TCP6])
def test_unreachable_of_a_segment(five_tuple: FiveTuple) -> None:
    key = to_key(five_tuple)
    segment = TcpTemplate(reverse(key), 1400, offload=True).segment(1, 2, 16, 3)
    refused = make_unreachable(quote(whole(segment)), errno.EHOSTUNREACH)
    assert parse_unreachable(message(refused)) == (Proto.TCP, key)


def test_other_messages_are_no_unreachable() -> None:
    four = message(make_unreachable(QUOTED4, errno.EACCES))
    six = message(make_unreachable(QUOTED6, errno.EACCES))
    for other in (
        four._replace(type=11),
        four._replace(code=4),  # fragmentation needed
        four._replace(type=1),  # "unreachable", but of ICMPv6
        six._replace(type=2),  # packet too big
        four._replace(body=four.body[: 4 + 23]),
        six._replace(body=six.body[: 4 + 43]),
        four._replace(body=four.body[:4]),
        four._replace(body=memoryview(b"0000\x41" + bytes(40))),  # a header of four bytes
    ):
        assert parse_unreachable(other) is None
    assert parse_unreachable(six._replace(code=4)) is not None  # of ICMPv6: port unreachable
    assert parse_unreachable(four._replace(body=four.body[: 4 + 24])) is not None


@given(
    addresses=st.sampled_from([8, 32]),
    kind=st.sampled_from([0, 1, 2, 3, 4, 8, 128, 255]),
    code=st.integers(0, 5),
    body=st.binary(min_size=4, max_size=80),
)
def test_any_message_is_something_or_nothing(addresses: int, kind: int, code: int, body: bytes) -> None:
    found = IcmpMessage(bytes(addresses), kind, code, memoryview(body))
    echo = parse_echo(found)
    assert echo is None or len(echo.key) == addresses + 4
    cited = parse_unreachable(found)
    assert cited is None or len(cited[1]) == addresses + 4
