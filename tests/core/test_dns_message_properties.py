"""The DNS codec takes any bytes, and loses nothing of a good message."""

from __future__ import annotations

import contextlib

import dns.message
from hypothesis import given, settings
from hypothesis import strategies as st
from telehelper.core import dns_message as codec
from telehelper.core.dns_message import MessageError, Name, Query, Question, Record, Response

labels = st.binary(min_size=1, max_size=20)
names: st.SearchStrategy[Name] = st.lists(labels, max_size=6).map(tuple)
records = st.one_of(
    st.builds(
        Record,
        names,
        st.sampled_from([codec.A, codec.AAAA, 16, 999]),
        st.just(1),
        st.integers(0, 2**31 - 1),
        st.binary(max_size=40).map(lambda data: (data,)),
    ),
    st.builds(
        Record,
        names,
        st.sampled_from([codec.CNAME, codec.PTR, 2]),
        st.just(1),
        st.integers(0, 100),
        names.map(lambda name: (name,)),
    ),
    st.builds(
        Record,
        names,
        st.just(codec.SRV),
        st.just(1),
        st.integers(0, 100),
        names.map(lambda name: (b"\0\0\0\1\x15\x38", name)),
    ),
    st.builds(
        Record,
        names,
        st.just(codec.SOA),
        st.just(1),
        st.integers(0, 100),
        st.tuples(names, names, st.binary(min_size=20, max_size=20)),
    ),
)


def question(name: Name, qtype: int) -> Question:
    out = bytearray()
    codec.write_name(name, out, None)
    return Question(codec.lower(name), qtype, 1, bytes(out) + qtype.to_bytes(2, "big") + b"\0\1")


sections = st.lists(records, max_size=5).map(tuple)
responses = st.builds(
    Response,
    st.integers(0, 65535),
    st.just(codec.QR | codec.RA),
    st.builds(question, names, st.sampled_from([1, 28, 33])),
    sections,
    sections,
    sections,
)


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_a_message_or_a_message_error(data: bytes) -> None:
    for read in (codec.parse_query, codec.parse_response):
        with contextlib.suppress(MessageError):
            read(data)
    with contextlib.suppress(MessageError):
        codec.parse_response(b"\0\1\x80\0\0\1\0\2\0\1\0\1" + data)


@settings(deadline=None)
@given(responses)
def test_emitting_and_parsing_is_the_identity(response: Response) -> None:
    assert codec.parse_response(codec.encode_response(response, 65535)) == response


@settings(deadline=None)
@given(responses, st.integers(512, 700))
def test_an_answer_never_exceeds_its_limit_and_stays_readable(response: Response, limit: int) -> None:
    wire = codec.encode_response(response, limit)
    assert len(wire) <= limit
    again = codec.parse_response(wire)
    assert again.answers == response.answers[: len(again.answers)]


@settings(deadline=None)
@given(st.lists(st.from_regex(r"[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True), min_size=1, max_size=5))
def test_dnspython_reads_the_same_query(parts: list[str]) -> None:
    name = tuple(part.encode() for part in parts)
    query = Query(9, codec.RD, question(name, codec.A), b"")
    wire = codec.encode_query(9, query, name)
    assert dns.message.from_wire(wire).question[0].name.labels == (*name, b"")
    assert codec.parse_query(wire) == query
