"""Fuzz targets for what comes as bytes: packets, TCP options, the mux's frames, control messages, DNS."""

from __future__ import annotations

import contextlib
import json
import struct
from ipaddress import IPv4Address
from typing import Any, Final

from hypothesis import strategies as st
from telehelper import messages, observing, views
from telehelper.codec import Decoder, Envelope, encode
from telehelper.core import dns_message, dns_stream
from telehelper.core.datagram import make_datagram
from telehelper.core.dns_message import MessageError
from telehelper.core.frames import (
    Frame,
    FrameDecoder,
    FrameType,
    Open,
    Proto,
    decode_coded,
    decode_open,
    decode_u32,
    encode_coded,
    encode_open,
    encode_u32,
)
from telehelper.core.frames import encode as encode_frame
from telehelper.core.mux import Mux
from telehelper.core.packet import (
    MAX_SHIFT,
    PacketError,
    TcpTemplate,
    parse,
    parse_syn_options,
    syn_options,
    to_key,
)
from telehelper.core.stack import Stack
from telehelper.errors import ControlError, TunnelError

from tests.core.builders import TCP, TCP6, UDP, UDP6, describe, whole
from tests.fuzz.junk import mutated, spoiled

# --- packets -----------------------------------------------------------------------------------------------------


def _packets() -> list[bytes]:
    found = []
    for five_tuple in (TCP, TCP6):
        template = TcpTemplate(to_key(five_tuple), 1460, offload=True)
        found += [
            whole(template.segment(7, 9, flags, 512, (b"hello",), 5, options))
            for flags, options in ((2, syn_options(1460, 7)), (16, b""), (17, b""), (4, b""), (24, b""))
        ]
    found += [whole(make_datagram(to_key(each), b"payload")) for each in (UDP, UDP6)]
    return found


packets: Final = st.binary(max_size=120) | spoiled(_packets())


def check_packet(data: bytes) -> None:
    """Any bytes from the TUN are a packet or a PacketError, bytes and view alike, and a stack takes them without raising."""
    seen = []
    for form in (data, memoryview(data)):
        try:
            seen.append(repr(_plain(parse(form))))
        except PacketError as error:
            seen.append(f"{type(error).__name__}: {error}")
    assert seen[0] == seen[1], seen
    stack = Stack(isn=lambda: 5, resolver=(IPv4Address("198.18.0.53"), 53))
    for now in (0.0, 1.0, 100.0):
        for action in (*stack.receive_packet(data, now), *stack.handle_timer(now + 0.5)):
            describe(action)


def _plain(packet: Any) -> Any:
    return tuple(bytes(each) if isinstance(each, memoryview) else each for each in packet)


options: Final = st.binary(max_size=40) | spoiled(
    [syn_options(1460, 7), syn_options(64, None), b"\4\2\10\12" + bytes(8)]
)


def check_tcp_options(data: bytes) -> None:
    """Any options of a SYN give an MSS from 64 to 65,535 and a shift from 0 to 14 or none; ours are read as written."""
    mss, shift = parse_syn_options(data)
    assert 64 <= mss <= 65_535
    assert shift is None or 0 <= shift <= MAX_SHIFT
    assert parse_syn_options(syn_options(mss, shift)) == (mss, shift)


# --- the mux -----------------------------------------------------------------------------------------------------

_OPEN: Final = Open(Proto.TCP, TCP.src, 1, TCP.dst, 2, 5.0, 4096)
_FRAMES: Final = [
    encode_coded(FrameType.HELLO, 0, 1, "token"),
    encode_open(1, _OPEN),
    encode_u32(FrameType.OPENED, 1, 9),
    encode_coded(FrameType.REJECTED, 1, 111, "refused"),
    Frame(FrameType.DATA, 1, b"bytes"),
    Frame(FrameType.FIN, 1),
    encode_u32(FrameType.CREDIT, 1, 2**32 - 1),
    Frame(FrameType.DATAGRAM, 3, b""),
    Frame(FrameType.PING, 0, bytes(8)),
    Frame(FrameType.PONG, 0, bytes(8)),
    encode_coded(FrameType.GOAWAY, 0, 0, "moving"),
]
_WIRES: Final = [*map(encode_frame, _FRAMES), b"".join(map(encode_frame, _FRAMES))]
frames: Final = st.tuples(st.binary(max_size=60) | spoiled(_WIRES), st.integers(1, 30))


def check_frames(item: tuple[bytes, int]) -> None:
    """Any bytes of a carrier are the same frames however they are cut, or a TunnelError; so are payloads; a mux takes both."""
    data, size = item
    whole_, cut = _cut(FrameDecoder().feed, [data]), _cut(FrameDecoder().feed, _chunks(data, size))
    assert whole_[0] == cut[0] or (whole_[1] and cut[1]), (whole_, cut)
    assert whole_[1] == cut[1]
    for frame in cut[0]:
        for read in (decode_open, decode_u32, decode_coded):
            with contextlib.suppress(TunnelError):
                read(frame)
    mux = Mux(0.0)
    with contextlib.suppress(TunnelError):
        for number, chunk in enumerate(_chunks(data, size)):
            mux.receive_data(chunk, number * 0.1)
    mux.handle_timer(mux.next_timer())
    assert mux.queued == sum(map(len, mux.take(10**9)))


def _chunks(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def _cut(feed: Any, chunks: list[bytes]) -> tuple[list[Frame], str]:
    found: list[Frame] = []
    try:
        for chunk in chunks:
            found += [frame._replace(payload=bytes(frame.payload)) for frame in feed(chunk)]
    except TunnelError as error:
        return found, str(error)
    return found, ""


# --- control messages --------------------------------------------------------------------------------------------

_MESSAGES: Final = [
    messages.Hello(3, 7),
    messages.Connect("/k", "c", "n", 30.0, also_proxy=("10.0.0.0/8",)),
    messages.PhaseChanged("TUN", "done", "tele0", 0.5),
    messages.Failed("usage", "no", data={"a": "b"}),
    messages.RouteTable((messages.RouteRow("10.0.0.0/8", "tele0", "pods", "nodes", "applied"),)),
    messages.Configure(("198.18.0.1/32",), ("10.96.0.0/16",)),
    messages.SetDns("auto", "198.18.0.2", ("shop.svc.cluster.local",)),
    views.GetPods(""),
    observing.GetFlows(),
]
_DOCS: Final = [json.loads(encode(each, 3)[4:]) for each in _MESSAGES]
_LENGTH: Final = struct.Struct("!I")


def _envelope(doc: object) -> bytes:
    data = json.dumps(doc).encode()
    return _LENGTH.pack(len(data)) + data


control: Final = (
    mutated(_DOCS).map(_envelope)
    | spoiled([encode(each, 1) for each in _MESSAGES])
    | st.binary(max_size=60)
    | st.text('[]{}",:0e9-', max_size=80).map(lambda text: _LENGTH.pack(len(text)) + text.encode())
)


def check_control(data: bytes) -> None:
    """Any bytes on a control socket are messages, the same however they are cut, that can be sent on, or a ControlError."""
    found: list[list[Envelope] | str] = []
    for chunks in ([data], _chunks(data, 3)):
        decoder = Decoder(limit=100_000)
        got: list[Envelope] = []
        try:
            for chunk in chunks:
                got += decoder.feed(chunk)
        except ControlError:
            found.append("refused")
            continue
        found.append(got)
        for envelope in got:
            assert Decoder().feed(encode(envelope.body, envelope.id)) == [envelope]
    assert found[0] == found[1]


# --- DNS ---------------------------------------------------------------------------------------------------------

_QUERY: Final = b"\0\7\1\0\0\1\0\0\0\0\0\1\4shop\0\0\1\0\1\0\0)\4\xd0\0\0\0\0\0\0"
_ANSWERS: Final = [
    b"\0\7\x81\x80\0\1\0\1\0\0\0\0\4shop\0\0\1\0\1\xc0\x0c\0\1\0\1\0\0\0\5\0\4\n\0\0\1",
    b"\0\7\x81\x80\0\1\0\1\0\0\0\0\4shop\0\0\x21\0\1\xc0\x0c\0\x21\0\1\0\0\0\5\0\7\0\0\0\1\0P\0",
    b"\0\7\x81\x83\0\1\0\0\0\1\0\0\4shop\0\0\1\0\1\xc0\x0c\0\6\0\1\0\0\0\5\0\x16\0\0" + bytes(20),
]
dns: Final = st.binary(max_size=120) | spoiled([_QUERY, *_ANSWERS])


def check_dns(data: bytes) -> None:
    """Any bytes are a query, a response or a MessageError; what was read is written again within its limit; TCP loses none."""
    with contextlib.suppress(MessageError):
        query = dns_message.parse_query(data)
        again = dns_message.encode_query(3, query, query.question.name)
        assert dns_message.parse_query(again).question.name == query.question.name
    with contextlib.suppress(MessageError):
        response = dns_message.parse_response(data)
        for limit in (512, 65_535):
            wire = dns_message.encode_response(response, limit)
            assert len(wire) <= max(limit, dns_message.HEADER.size + len(response.question.raw))
            dns_message.parse_response(wire)
    if len(data) >= dns_message.HEADER.size:
        dns_message.encode_failure(data, 2)
    _check_stream(data)


def _check_stream(data: bytes) -> None:
    seen = set()
    for size in (1, 7, 10_000):
        streams = dns_stream.DnsStreams()
        out = streams.open(1, _OPEN, 0.0)
        for chunk in _chunks(data + b"\0\2ab", size):
            if 1 in streams:
                out += streams.receive_frame(Frame(FrameType.DATA, 1, chunk), 0.0)
        asked = tuple(each.data for each in out if isinstance(each, dns_stream.Question))
        seen.add(
            (asked, True) if 1 in streams else ((), False)
        )  # what a reset flow had asked before is nobody's
    assert len(seen) == 1, seen
