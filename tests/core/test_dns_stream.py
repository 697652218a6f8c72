"""Our resolver over TCP as transcripts: frames of the stack in, questions and frames out."""

from __future__ import annotations

import errno
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from telehelper.core import dns_stream
from telehelper.core.dns_stream import IDLE, WINDOW, DnsStreams, Output, Question, StreamClient
from telehelper.core.frames import (
    Frame,
    FrameType,
    Open,
    Proto,
    decode_coded,
    decode_u32,
    encode_coded,
    encode_u32,
)

OURS, RESOLVER = ip_address("198.19.240.0"), ip_address("198.19.240.1")


def what(protocol: Proto = Proto.TCP, credit: int = 100_000) -> Open:
    return Open(protocol, OURS, 40000, RESOLVER, 53, 30.0, credit)


def opened(credit: int = 100_000, flow: int = 7) -> DnsStreams:
    streams = DnsStreams()
    assert streams.open(flow, what(credit=credit), 0.0) == [encode_u32(FrameType.OPENED, flow, WINDOW)]
    return streams


def data(payload: bytes, flow: int = 7) -> Frame:
    return Frame(FrameType.DATA, flow, payload)


def framed(message: bytes) -> bytes:
    return len(message).to_bytes(2, "big") + message


def questions(outputs: list[Output]) -> list[bytes]:
    return [output.data for output in outputs if isinstance(output, Question)]


def kinds(outputs: list[Output]) -> list[str]:
    return ["?" if isinstance(output, Question) else output.type.name for output in outputs]


def test_a_question_and_its_answer() -> None:
    streams = opened()
    assert streams.receive_frame(data(framed(b"who?")), 1.0) == [
        Question(StreamClient(7, 1), b"who?"),
        encode_u32(FrameType.CREDIT, 7, 6),
    ]
    assert streams.answer(StreamClient(7, 1), b"me", 1.1) == [data(framed(b"me"))]
    assert streams.answer(StreamClient(7, 1), b"again", 1.2) == []
    assert streams.answer(StreamClient(8, 1), b"nobody's", 1.2) == []


def test_pipelined_questions_are_answered_as_the_answers_come() -> None:
    streams = opened()
    outputs = streams.receive_frame(data(framed(b"one") + framed(b"two") + b"\0"), 1.0)
    assert questions(outputs) == [b"one", b"two"]
    assert decode_u32(outputs[-1]) == 10  # type: ignore[arg-type]
    assert questions(streams.receive_frame(data(b"\5three"), 1.0)) == [b"three"]
    for number in (3, 1, 2):
        assert streams.answer(StreamClient(7, number), b"a%d" % number, 1.1) == [
            data(framed(b"a%d" % number))
        ]


@given(st.lists(st.binary(max_size=300), max_size=20), st.data())
def test_chunks_do_not_matter(messages: list[bytes], draw: st.DataObject) -> None:
    streams = opened()
    wire, seen = b"".join(map(framed, messages)), []
    while wire:
        size = draw.draw(st.integers(1, len(wire)))
        seen += questions(streams.receive_frame(data(wire[:size]), 0.0))
        wire = wire[size:]
    assert seen == messages


def test_a_client_that_has_said_all_gets_its_answers_and_then_the_end() -> None:
    streams = opened()
    streams.receive_frame(data(framed(b"one") + framed(b"two")), 1.0)
    assert streams.receive_frame(Frame(FrameType.FIN, 7), 1.0) == []
    assert streams.answer(StreamClient(7, 1), b"1", 1.1) == [data(framed(b"1"))]
    assert streams.answer(StreamClient(7, 2), b"2", 1.2) == [data(framed(b"2")), Frame(FrameType.FIN, 7)]
    streams.forget(7)
    assert 7 not in streams


def test_a_client_that_leaves_at_once() -> None:
    streams = opened()
    assert streams.receive_frame(Frame(FrameType.FIN, 7), 1.0) == [Frame(FrameType.FIN, 7)]
    assert streams.receive_frame(Frame(FrameType.FIN, 7), 1.0) == []
    assert streams.receive_frame(encode_coded(FrameType.RST, 7, errno.ECONNRESET), 1.0) == []
    assert (len(streams), streams.next_timer()) == (0, None)


def test_frames_that_the_stack_never_sends_are_ignored() -> None:
    assert opened().receive_frame(Frame(FrameType.PONG, 7), 1.0) == []


def test_answers_wait_for_credit() -> None:
    streams = opened(credit=3)
    streams.receive_frame(data(framed(b"one")), 1.0)
    assert streams.answer(StreamClient(7, 1), b"12345", 1.1) == [data(b"\0\0051")]
    assert streams.receive_frame(encode_u32(FrameType.CREDIT, 7, 2), 1.1) == [data(b"23")]
    assert streams.receive_frame(Frame(FrameType.FIN, 7), 1.1) == []
    assert kinds(streams.receive_frame(encode_u32(FrameType.CREDIT, 7, 9), 1.1)) == ["DATA", "FIN"]


def test_a_client_that_does_not_read_is_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns_stream, "MAX_QUEUED", 10)
    streams = opened(credit=0)
    streams.receive_frame(data(framed(b"one") + framed(b"two")), 1.0)
    assert streams.answer(StreamClient(7, 1), b"12345678", 1.1) == []
    (reset,) = streams.answer(StreamClient(7, 2), b"", 1.1)
    assert isinstance(reset, Frame)
    assert decode_coded(reset) == (errno.ECONNRESET, "answers are not read")
    assert 7 not in streams


def test_too_many_questions_wait_in_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns_stream, "MAX_PENDING", 1)
    streams = opened()
    assert kinds(streams.receive_frame(data(framed(b"one") + framed(b"two")), 1.0)) == ["?", "CREDIT"]
    assert kinds(streams.answer(StreamClient(7, 1), b"1", 1.1)) == ["?", "CREDIT", "DATA"]


@pytest.mark.parametrize(
    ("wire", "reason"),
    [(b"\x10\x01", "a question is too long"), (b"\x10\0" + bytes(WINDOW), "more than was granted")],
)
def test_nonsense_is_reset(wire: bytes, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns_stream, "MAX_PENDING", 0 if "granted" in reason else 9)
    streams = opened()
    (reset,) = streams.receive_frame(data(wire), 1.0)
    assert isinstance(reset, Frame)
    assert decode_coded(reset) == (errno.ECONNRESET, reason)


def test_only_so_many_at_once_and_only_tcp(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns_stream, "MAX_FLOWS", 1)
    streams = opened()
    assert kinds(streams.open(8, what(), 0.0)) == ["REJECTED"]
    monkeypatch.setattr(dns_stream, "MAX_FLOWS", 9)
    assert kinds(streams.open(8, what(Proto.ICMP), 0.0)) == ["REJECTED"]
    assert len(streams) == 1


def test_silence_ends_a_flow_politely_and_then_not() -> None:
    streams = opened()
    streams.receive_frame(data(framed(b"one")), 5.0)
    assert streams.next_timer() == 5.0 + IDLE
    assert streams.handle_timer(5.0 + IDLE - 0.1) == []
    assert kinds(streams.handle_timer(5.0 + IDLE)) == ["FIN"]
    assert streams.answer(StreamClient(7, 1), b"late", 21.0) == []
    assert kinds(streams.handle_timer(21.0 + IDLE)) == ["RST"]
    assert streams.next_timer() is None
