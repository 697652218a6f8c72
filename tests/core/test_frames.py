from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from telehelper.core.frames import (
    MAX_DATA,
    MAX_PAYLOAD,
    MAX_TEXT,
    SPOKEN,
    TIMED,
    UNKNOWN,
    VERSION,
    Frame,
    FrameDecoder,
    FrameType,
    Open,
    Opened,
    Proto,
    decode_coded,
    decode_open,
    decode_opened,
    decode_timing,
    decode_u32,
    encode,
    encode_coded,
    encode_header,
    encode_open,
    encode_opened,
    encode_timing,
    encode_u32,
)
from telehelper.errors import TunnelError

FLOWLESS = {FrameType.HELLO, FrameType.PING, FrameType.PONG, FrameType.GOAWAY}
ADDRESSES = st.builds(IPv4Address, st.integers(0, 2**32 - 1)) | st.builds(
    IPv6Address,
    st.integers(2**64, 2**128 - 1),  # not among the mapped IPv4 addresses
)
OPENS = st.builds(
    Open,
    st.sampled_from(Proto),
    ADDRESSES,
    st.integers(0, 65535),
    ADDRESSES,
    st.integers(0, 65535),
    st.integers(0, 2**32 - 1).map(lambda ms: ms / 1000),
    st.integers(0, 2**32 - 1),
)


@st.composite
def frames(draw: st.DrawFn) -> Frame:
    kind = draw(st.sampled_from(FrameType))
    flow = 0 if kind in FLOWLESS else draw(st.integers(1, 2**32 - 1))
    smallest = 1 if kind is FrameType.DATA else 0
    return Frame(kind, flow, draw(st.binary(min_size=smallest, max_size=50)))


@given(st.lists(frames()), st.binary(max_size=7))
def test_whole_byte_by_byte_and_with_a_rest(sent: list[Frame], rest: bytes) -> None:
    stream = b"".join(map(encode, sent))
    whole, single = FrameDecoder(), FrameDecoder()
    assert whole.feed(stream) == sent
    assert whole.at_boundary()
    assert [frame for byte in stream for frame in single.feed(bytes((byte,)))] == sent
    trailing = FrameDecoder()
    assert trailing.feed(bytearray(stream + rest)) == sent
    assert trailing.at_boundary() == (not rest)


@given(st.lists(frames(), min_size=1), st.integers(1, 40))
def test_chunking_does_not_matter(sent: list[Frame], step: int) -> None:
    stream = b"".join(map(encode, sent))
    decoder = FrameDecoder()
    chunks = [memoryview(stream)[at : at + step] for at in range(0, len(stream), step)]
    assert [frame for chunk in chunks for frame in decoder.feed(chunk)] == sent


@given(st.binary(max_size=100))
def test_any_bytes_are_frames_or_a_tunnel_error(data: bytes) -> None:
    try:
        got = FrameDecoder().feed(data)
    except TunnelError:
        return
    assert data.startswith(b"".join(map(encode, got)))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\0" + bytes(7), "unknown frame type 0"),
        (b"\x0e" + bytes(7), "unknown frame type 14"),
        (encode_header(Frame(FrameType.DATAGRAM, 1, bytes(MAX_PAYLOAD + 1))), "over the limit"),
        (encode_header(Frame(FrameType.FIN, 0)), "FIN frame on flow 0"),
        (encode_header(Frame(FrameType.PING, 1)), "PING frame on flow 1"),
        (encode_header(Frame(FrameType.DATA, 1)), "DATA frame of 0 bytes"),
        (encode_header(Frame(FrameType.DATA, 1, bytes(MAX_DATA + 1))), f"DATA frame of {MAX_DATA + 1} bytes"),
    ],
)
def test_no_frames(data: bytes, message: str) -> None:
    with pytest.raises(TunnelError, match=message):
        FrameDecoder().feed(data)


@given(OPENS)
def test_open(what: Open) -> None:
    assert decode_open(encode_open(5, what)) == what


def test_open_caps_its_timeout() -> None:
    what = Open(Proto.TCP, IPv4Address(1), 1, IPv6Address(2**100), 2, 1e12, 3)
    assert decode_open(encode_open(5, what)).timeout == (2**32 - 1) / 1000


def test_malformed_payloads() -> None:
    with pytest.raises(TunnelError, match="OPEN has 3 bytes"):
        decode_open(Frame(FrameType.OPEN, 1, b"abc"))
    good = encode_open(1, Open(Proto.TCP, IPv4Address(1), 1, IPv4Address(2), 2, 1.0, 3))
    with pytest.raises(TunnelError, match="OPEN of protocol 99"):
        decode_open(good._replace(payload=b"\x63" + bytes(good.payload[1:])))
    with pytest.raises(TunnelError, match="CREDIT has 3 bytes"):
        decode_u32(Frame(FrameType.CREDIT, 1, b"abc"))
    for payload in (b"a", bytes(3 + MAX_TEXT)):
        with pytest.raises(TunnelError, match="RST has"):
            decode_coded(Frame(FrameType.RST, 1, payload))


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_times_go_in_microseconds(credit: int, microseconds: int) -> None:
    what = Opened(credit, microseconds / 1e6)
    assert decode_opened(encode_opened(5, what)) == what
    assert decode_timing(encode_timing(5, microseconds / 1e6)) == microseconds / 1e6


def test_times_have_a_limit() -> None:
    longest = (2**32 - 1) / 1e6
    assert decode_opened(encode_opened(5, Opened(1, 1e9))).dial == longest
    assert decode_timing(encode_timing(5, 1e9)) == longest


def test_an_opened_of_version_1_says_nothing_of_the_dial() -> None:
    frame = encode_opened(5, Opened(77))
    assert frame == encode_u32(FrameType.OPENED, 5, 77)
    assert decode_opened(frame) == (77, UNKNOWN)
    assert (SPOKEN, TIMED) == ((VERSION, 1), 2)


def test_malformed_times() -> None:
    for size in (0, 3, 5, 9):
        with pytest.raises(TunnelError, match=f"OPENED has {size} bytes, not 4 or 8"):
            decode_opened(Frame(FrameType.OPENED, 1, bytes(size)))
        with pytest.raises(TunnelError, match=f"TIMING has {size} bytes, not 4"):
            decode_timing(Frame(FrameType.TIMING, 1, bytes(size)))


def test_numbers_and_texts() -> None:
    assert decode_u32(encode_u32(FrameType.CREDIT, 1, 77)) == 77
    assert decode_coded(encode_coded(FrameType.RST, 1, 104, "über")) == (104, "über")
    assert len(decode_coded(encode_coded(FrameType.RST, 1, 104, "x" * 2000))[1]) == MAX_TEXT
    assert decode_coded(Frame(FrameType.RST, 1, b"\0\1\xff"))[1] == "\ufffd"
    evil = encode_coded(FrameType.RST, 1, 104, "x\n\x1b[2Jy")
    assert decode_coded(evil) == (104, r"x\n\x1b[2Jy"), "it cannot steer a terminal"
