from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from telehelper.core import checksum
from telehelper.core.datagram import make_datagram
from telehelper.core.frames import Proto
from telehelper.core.icmp import make_echo_reply
from telehelper.core.packet import (
    DATA_VALID,
    DEFAULT_MSS,
    GSO_TCP4,
    GSO_TCP6,
    GSO_UDP,
    MAX_PACKET,
    NEEDS_CSUM,
    VNET,
    Datagram,
    FragmentError,
    IcmpMessage,
    PacketError,
    Segment,
    TcpTemplate,
    make_reset,
    parse,
    parse_syn_options,
    pseudo_sum,
    quote,
    reverse,
    syn_options,
    to_five_tuple,
    to_key,
)

from tests.core.builders import TCP, TCP6, UDP, UDP6, whole

if TYPE_CHECKING:
    from telehelper.core.flows import FiveTuple

KEY = to_key(TCP)
KEYS = st.sampled_from([to_key(TCP), to_key(TCP6)])


def segment_bytes(
    text: bytes = b"hello", *, key: bytes = KEY, offload: bool = False, flags: int = 24
) -> bytearray:
    template = TcpTemplate(key, 1400, offload=offload)
    return bytearray(whole(template.segment(1, 2, flags, 3, (text,), len(text))))


def refit(data: bytearray) -> bytearray:
    """Make the IPv4 header's checksum right again."""
    data[20:22] = bytes(2)
    header = 10 + (data[10] & 15) * 4
    data[20:22] = checksum.complement(checksum.add(bytes(data[10:header]))).to_bytes(2, "big")
    return data


def reason(data: bytes | bytearray) -> str:
    with pytest.raises(PacketError) as caught:
        parse(bytes(data))
    return str(caught.value)


@given(
    key=KEYS,
    seq=st.integers(0, 2**32 - 1),
    ack=st.integers(0, 2**32 - 1),
    flags=st.integers(0, 255).map(lambda flags: flags & ~2),
    window=st.integers(0, 65535),
    text=st.binary(max_size=3000),
    offload=st.booleans(),
)
def test_parse_undoes_segment(
    key: bytes, seq: int, ack: int, flags: int, window: int, text: bytes, offload: bool
) -> None:
    template = TcpTemplate(key, 1460, offload=offload)
    text = text[: template.limit]
    halves = (text[:7], memoryview(text)[7:])
    data = whole(template.segment(seq, ack, flags, window, halves, len(text)))
    assert parse(data) == Segment(key, seq, ack, flags, window, memoryview(text))
    assert parse(memoryview(data)) == Segment(key, seq, ack, flags, window, memoryview(text))


@given(key=KEYS, payload=st.binary(max_size=2000))
def test_parse_undoes_make_datagram(key: bytes, payload: bytes) -> None:
    assert parse(whole(make_datagram(key, payload))) == Datagram(key, memoryview(payload))


@given(st.binary(max_size=120))
def test_any_bytes_are_a_packet_or_an_error(data: bytes) -> None:
    for head in (b"", bytes(10), bytes(10) + b"\x45", bytes(10) + b"\x60"):
        try:
            parse(head + data)
        except PacketError as error:
            assert str(error)  # noqa: PT017  # either outcome is right


@given(
    data=st.sampled_from(
        [segment_bytes(), segment_bytes(key=to_key(TCP6)), whole(make_datagram(KEY, b"hi"))]
    ),
    at=st.integers(0, 80),
    value=st.integers(0, 255),
    cut=st.integers(0, 90),
)
def test_a_damaged_packet_is_a_packet_or_an_error(data: bytes, at: int, value: int, cut: int) -> None:
    damaged = bytearray(data)
    damaged[at % len(damaged)] = value
    for candidate in (damaged, refit(damaged), damaged[:cut]):
        try:
            parse(bytes(candidate))
        except PacketError as error:
            assert str(error)  # noqa: PT017  # either outcome is right


class TestRefused:
    def test_no_ip(self) -> None:
        assert reason(b"") == "no IP packet"
        assert reason(bytes(10) + b"\x50" + bytes(60)) == "no IP packet"

    def test_truncated(self) -> None:
        four, six = segment_bytes(), segment_bytes(key=to_key(TCP6))
        for data in (four[:20], four[:-1], six[:45], six[:-1]):
            assert reason(data) == "truncated"
        four[10] = 0x44  # a header of 16 bytes
        assert reason(refit(four)) == "truncated"

    def test_total_length_below_the_header(self) -> None:
        data = segment_bytes()
        data[12:14] = b"\0\x0a"
        assert reason(refit(data)) == "truncated"

    def test_tcp_header_does_not_fit(self) -> None:
        data = segment_bytes()
        data[12:14] = (20 + 12).to_bytes(2, "big")
        assert reason(refit(data)) == "truncated"
        for offset in (0x40, 0xF0):
            data = segment_bytes()
            data[42] = offset
            assert reason(data) == "truncated"

    def test_udp_lengths(self) -> None:
        data = bytearray(whole(make_datagram(to_key(UDP), b"hello")))
        for length in (7, 14):
            data[34:36] = length.to_bytes(2, "big")
            assert reason(data) == "truncated"
        data[12:14] = (20 + 7).to_bytes(2, "big")
        assert reason(refit(data)) == "truncated"

    def test_checksums(self) -> None:
        data = segment_bytes()
        data[22] ^= 1
        assert reason(data) == "IP checksum"
        data = segment_bytes()
        data[-1] ^= 1
        assert reason(data) == "checksum"

    def test_fragment_and_multicast(self) -> None:
        data = segment_bytes()
        data[16:18] = b"\x20\x00"
        with pytest.raises(FragmentError):
            parse(bytes(refit(data)))
        data = segment_bytes(key=to_key(TCP6))
        data[16] = 44
        with pytest.raises(FragmentError):
            parse(bytes(data))
        for at in (
            22,
            26,
        ):  # the source is nobody's either: an answer would go to all of them (RFC 1122 §3.2.1.3)
            data = segment_bytes()
            data[at] = 239
            assert reason(refit(data)) == "multicast"
        for at in (18, 34):
            data = segment_bytes(key=to_key(TCP6))
            data[at] = 0xFF
            assert reason(data) == "multicast"

    def test_other_protocols(self) -> None:
        data = segment_bytes()
        data[19] = 47
        assert reason(refit(data)) == "protocol 47"
        data[19] = 58
        assert reason(refit(data)) == "protocol 58"
        data = segment_bytes(key=to_key(TCP6))
        data[16] = 1
        assert reason(data) == "protocol 1"


def test_ipv6() -> None:
    packet = parse(bytes(segment_bytes(b"abc", key=to_key(TCP6))))
    assert isinstance(packet, Segment)
    assert packet.key == to_key(TCP6)
    assert len(quote(bytes(segment_bytes(key=to_key(TCP6))))) == 48


@pytest.mark.parametrize("five_tuple", [UDP, UDP6])
def test_icmp(five_tuple: FiveTuple) -> None:
    key = to_key(five_tuple)
    data = bytearray(whole(make_echo_reply(key, 7, b"hello")))
    body = key[-2:] + b"\0\7hello"
    kind = 129 if len(key) == 36 else 0
    assert parse(bytes(data)) == IcmpMessage(key[:-4], kind, 0, memoryview(body))
    at = 10 + (40 if len(key) == 36 else 20)
    data[-1] ^= 1
    assert reason(data) == "checksum"
    if len(key) == 36:
        data[14:16] = (7).to_bytes(2, "big")
    else:
        data[12:14] = (20 + 7).to_bytes(2, "big")
        refit(data)
    assert reason(data[: at + 7]) == "truncated"


def test_checksum_left_to_us_or_vouched_for_is_not_verified() -> None:
    for flag in (NEEDS_CSUM, DATA_VALID):
        data = segment_bytes()
        data[-1] ^= 1
        data[0] = flag
        assert isinstance(parse(bytes(data)), Segment)


def test_udp_checksum_zero_means_none() -> None:
    data = bytearray(whole(make_datagram(to_key(UDP), b"hello")))
    data[0] = 0
    assert reason(data) == "checksum"
    data[36:38] = b"\0\0"
    assert isinstance(parse(bytes(data)), Datagram)


def test_ip_options_and_trailing_bytes_are_skipped() -> None:
    data = segment_bytes(b"abc")
    data[10] = 0x46
    data[12:14] = (20 + 4 + 20 + 3).to_bytes(2, "big")
    data[30:30] = b"\1\1\1\1"
    packet = parse(bytes(refit(data)) + b"trailing")
    assert isinstance(packet, Segment)
    assert bytes(packet.text) == b"abc"
    assert len(quote(bytes(data))) == 32


def test_udp_offload_says_its_step() -> None:
    data = bytearray(whole(make_datagram(to_key(UDP), b"a" * 30)))
    VNET.pack_into(data, 0, NEEDS_CSUM, GSO_UDP, 28, 10, 20, 6)
    packet = parse(bytes(data))
    assert isinstance(packet, Datagram)
    assert packet.gso_size == 10


class TestOffload:
    @pytest.mark.parametrize(("key", "start", "kind"), [(KEY, 20, GSO_TCP4), (to_key(TCP6), 40, GSO_TCP6)])
    def test_header_for_a_long_segment(self, key: bytes, start: int, kind: int) -> None:
        template = TcpTemplate(key, 1000, offload=True)
        assert template.limit % 1000 == 0
        assert template.limit + start + 20 <= MAX_PACKET
        text = b"x" * template.limit
        data = whole(template.segment(1, 2, 16, 3, (text,), len(text)))
        assert VNET.unpack_from(data) == (NEEDS_CSUM, kind, start + 20, 1000, start, 16)

    def test_header_for_a_short_segment(self) -> None:
        data = segment_bytes(offload=True)
        assert VNET.unpack_from(data) == (NEEDS_CSUM, 0, 0, 0, 20, 16)

    @given(key=KEYS, size=st.integers(0, 1400))
    def test_the_kernel_completes_the_checksum(self, key: bytes, size: int) -> None:
        data = segment_bytes(b"x" * size, key=key, offload=True)
        start = 10 + VNET.unpack_from(data)[4]
        # What the kernel does: sum from csum_start on, the field's content included, and put the complement there.
        full = checksum.complement(checksum.add(bytes(data[start:])))
        data[start + 16 : start + 18] = struct.pack("!H", full)
        data[0] = 0
        assert isinstance(parse(bytes(data)), Segment)


class TestOptions:
    def test_round_trip(self) -> None:
        assert parse_syn_options(syn_options(1460, 9)) == (1460, 9)
        assert parse_syn_options(syn_options(1460, None)) == (1460, None)

    def test_linux(self) -> None:
        options = bytes.fromhex("020405b40402080a0001e2400000000001030307")
        assert parse_syn_options(options) == (1460, 7)

    def test_odd_ones(self) -> None:
        for options in (b"", b"\0\2\4\5\xb4", b"\2", b"\2\1", b"\2\\9\5\xb4", b"\2\3\1", b"\3\4\1\1"):
            assert parse_syn_options(options) == (DEFAULT_MSS, None)
        assert parse_syn_options(b"\2\4\0\1\3\3\x20") == (64, 14)

    @given(st.binary(max_size=40))
    def test_any_bytes(self, options: bytes) -> None:
        mss, shift = parse_syn_options(options)
        assert 64 <= mss <= 65535
        assert shift is None or 0 <= shift <= 14

    def test_they_are_read_from_a_syn(self) -> None:
        template = TcpTemplate(KEY, 1460, offload=True)
        packet = parse(whole(template.segment(1, 0, 2, 3, options=syn_options(1460, 9))))
        assert isinstance(packet, Segment)
        assert packet.options == syn_options(1460, 9)


@pytest.mark.parametrize("five_tuple", [TCP, TCP6, UDP, UDP6])
def test_keys(five_tuple: FiveTuple) -> None:
    key = to_key(five_tuple)
    assert to_five_tuple(five_tuple.protocol, key) == five_tuple
    back = to_five_tuple(Proto.TCP, reverse(key))
    assert (back.src, back.dport) == (five_tuple.dst, five_tuple.sport)
    assert reverse(reverse(key)) == key


def test_resets_for_strays() -> None:
    with_ack = parse(bytes(segment_bytes(flags=16)))
    assert isinstance(with_ack, Segment)
    answer = parse(whole(make_reset(with_ack)))
    assert isinstance(answer, Segment)
    assert (answer.key, answer.seq, answer.flags) == (reverse(KEY), 2, 4)
    without = parse(bytes(segment_bytes(flags=3)))
    assert isinstance(without, Segment)
    answer = parse(whole(make_reset(without)))
    assert isinstance(answer, Segment)
    assert (answer.seq, answer.ack, answer.flags) == (0, 1 + 5 + 2, 20)


def test_pseudo_header_of_rfc_768() -> None:
    assert pseudo_sum(b"\0\1\0\2\0\3\0\4", 17, 100) == 10 + 17 + 100
