"""The control codec: what is encoded comes out again; anything else is a ControlError."""

from __future__ import annotations

import dataclasses
import json
import struct
import typing
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from telehelper import codec
from telehelper.codec import Decoder, Envelope, encode
from telehelper.errors import ControlError
from telehelper.messages import Connect, GetStatus, Message
from telehelper.observing import CellEnded, Snapshot

# By name: the class that @dataclass(slots=True) replaced may still be among the subclasses; the later one counts.
CLASSES = list({cls.__name__: cls for cls in Message.__subclasses__()}.values())
TEXT = st.text(max_size=20)


def values(hint: Any) -> st.SearchStrategy[Any]:
    """Any value of a field's type."""
    origin = typing.get_origin(hint)
    if origin is tuple:
        return st.lists(values(typing.get_args(hint)[0]), max_size=3).map(tuple)
    if origin is dict:
        return st.dictionaries(TEXT, values(typing.get_args(hint)[1]), max_size=3)
    if isinstance(hint, type) and issubclass(hint, Message):
        return bodies(hint)
    simple: dict[Any, st.SearchStrategy[Any]] = {
        int: st.integers(),
        float: st.floats(allow_nan=False, allow_infinity=False),
        bool: st.booleans(),
        str: TEXT,
    }
    return simple[hint]


def bodies(cls: type[Message]) -> st.SearchStrategy[Message]:
    hints = typing.get_type_hints(cls)
    return st.builds(cls, **{field.name: values(hints[field.name]) for field in dataclasses.fields(cls)})


IDS = st.integers(0, 2**32 - 1)
ENVELOPES = st.builds(Envelope, IDS, st.one_of([bodies(cls) for cls in CLASSES]))


def packed(doc: object, beside: bytes = b"") -> bytes:
    data = json.dumps(doc).encode() + beside
    return struct.pack("!I", len(data)) + data


def refusal(data: bytes, limit: int = codec.MAX_MESSAGE) -> str:
    with pytest.raises(ControlError) as caught:
        Decoder(limit).feed(data)
    return str(caught.value)


@pytest.mark.parametrize("cls", CLASSES)
def test_every_message_comes_out_as_it_went_in(cls: type[Message]) -> None:
    @settings(max_examples=25)
    @given(bodies(cls), IDS)
    def check(body: Message, number: int) -> None:
        decoder = Decoder()
        assert decoder.feed(encode(body, number)) == [Envelope(number, body)]
        assert decoder.at_boundary()

    check()


@settings(max_examples=50)
@given(st.lists(ENVELOPES, max_size=4), st.data())
def test_chunking_never_matters(envelopes: list[Envelope], data: st.DataObject) -> None:
    stream = b"".join(encode(envelope.body, envelope.id) for envelope in envelopes)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    decoder, out = Decoder(), list[Envelope]()
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        out += decoder.feed(stream[start:end])
    assert out == envelopes
    assert decoder.at_boundary()


def test_byte_by_byte() -> None:
    decoder, out = Decoder(), list[Envelope]()
    for byte in encode(GetStatus(), 7):
        assert not out
        out += decoder.feed(bytes([byte]))
    assert out == [Envelope(7, GetStatus())]


@given(st.binary(max_size=200))
def test_any_bytes_are_messages_or_a_control_error(data: bytes) -> None:
    for stream in (data, struct.pack("!I", len(data)) + data):
        try:
            out = Decoder(1000).feed(stream)
        except ControlError:
            continue
        assert all(isinstance(envelope, Envelope) for envelope in out)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(CLASSES), JSON, JSON)
def test_any_json_is_a_message_or_a_control_error(cls: type[Message], number: object, body: object) -> None:
    try:
        Decoder().feed(packed({"type": cls.__name__, "id": number, "body": body}))
    except ControlError:
        return
    assert isinstance(number, int)


def test_a_half_message_is_kept_and_is_no_boundary() -> None:
    decoder = Decoder()
    assert decoder.feed(encode(GetStatus())[:-1]) == []
    assert not decoder.at_boundary()


def test_the_limit_is_on_the_length_alone() -> None:
    assert "100 bytes is over the limit of 99" in refusal(struct.pack("!I", 100), limit=99)
    assert Decoder(99).feed(struct.pack("!I", 99)) == []


@pytest.mark.parametrize(
    ("doc", "why"),
    [
        ([], "exactly type, id and body"),
        ({"type": "GetStatus", "id": 1}, "exactly type, id and body"),
        ({"type": "GetStatus", "id": 1, "body": {}, "more": 1}, "exactly type, id and body"),
        ({"type": "GetStatus", "id": True, "body": {}}, "32-bit number"),
        ({"type": "GetStatus", "id": -1, "body": {}}, "32-bit number"),
        ({"type": "GetStatus", "id": 2**32, "body": {}}, "32-bit number"),
        ({"type": "Message", "id": 1, "body": {}}, "unknown control message"),
        ({"type": ["GetStatus"], "id": 1, "body": {}}, "unknown control message"),
        ({"type": "GetStatus", "id": 1, "body": []}, "GetStatus must be an object"),
        ({"type": "GetStatus", "id": 1, "body": {"a": 1}}, "unknown field 'a'"),
        ({"type": "Hello", "id": 1, "body": {"version": 1}}, "Hello lacks a field"),
        ({"type": "Hello", "id": 1, "body": {"version": True, "pid": 1}}, "Hello.version must be int"),
        ({"type": "Hello", "id": 1, "body": {"version": 1.0, "pid": 1}}, "Hello.version must be int"),
        ({"type": "RouteTable", "id": 1, "body": {"rows": {}}}, "RouteTable.rows must be a list"),
        ({"type": "RouteTable", "id": 1, "body": {"rows": [1]}}, "RouteTable.rows[0] must be an object"),
        (
            {"type": "Failed", "id": 1, "body": {"slug": "a", "message": "b", "data": []}},
            "data must be an object",
        ),
        (
            {"type": "Failed", "id": 1, "body": {"slug": "a", "message": "b", "data": {"c": 1}}},
            "Failed.data['c'] must be str",
        ),
        ({"type": "FlowTable", "id": 1, "body": {"taken_at": 0.0, "rows": "[]"}}, "must have rows beside"),
        ({"type": "FlowTable", "id": 1, "body": {"taken_at": 0.0}}, "must have rows beside its JSON"),
    ],
)
def test_what_is_wrong_is_named(doc: object, why: str) -> None:
    assert why in refusal(packed(doc))


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_numbers_that_json_does_not_have_are_refused_both_ways(number: str) -> None:
    data = f'{{"type": "CellEnded", "id": 1, "body": {{"cell": 1, "at": {number}}}}}'.encode()
    assert "is no number here" in refusal(struct.pack("!I", len(data)) + data)
    with pytest.raises(ValueError, match="JSON compliant"):
        encode(CellEnded(1, float(number)))


@pytest.mark.parametrize("number", ["1e999", "-1e999", "1" + "0" * 400, str(2**53)])
def test_numbers_that_are_no_float_are_refused(number: str) -> None:
    data = f'{{"type": "CellEnded", "id": 1, "body": {{"cell": 1, "at": {number}}}}}'.encode()
    assert refusal(struct.pack("!I", len(data)) + data) == "CellEnded.at must be float"


@pytest.mark.parametrize(
    ("body", "beside", "why"),
    [
        ({"number": 1, "text": "b"}, b"\0a", "must have text beside its JSON"),  # twice
        ([1], b"\0a", "must be an object"),
        ({}, b"\0a", "Snapshot lacks a field"),
        ({"number": 1}, b"\0\xff", "is not JSON"),
        ({"number": 1}, b" a", "is not JSON"),
    ],
)
def test_a_text_beside_the_json_is_as_strict(body: object, beside: bytes, why: str) -> None:
    assert why in refusal(packed({"type": "Snapshot", "id": 1, "body": body}, beside))


def test_a_message_without_such_a_text_may_have_none() -> None:
    assert "must have nothing beside" in refusal(packed({"type": "GetStatus", "id": 1, "body": {}}, b"\0a"))


@given(st.text())
def test_a_text_beside_the_json_may_hold_anything(text: str) -> None:
    data = encode(Snapshot(1, text), 2)
    assert Decoder().feed(data) == [Envelope(2, Snapshot(1, text))]
    assert data.endswith(b"\0" + text.encode())  # as it is: nothing to escape, nothing to read twice


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", "{}".encode("utf-16"), b"[" * 100_000])
def test_what_is_no_json_is_refused(data: bytes) -> None:
    assert refusal(struct.pack("!I", len(data)) + data) == "a control message is not JSON"


def test_a_whole_number_is_taken_for_a_float_field() -> None:
    doc = {
        "type": "Connect",
        "id": 1,
        "body": {"kubeconfig": "", "context": "", "namespace": "", "timeout": 30},
    }
    ((envelope),) = Decoder().feed(packed(doc))
    assert envelope.body == Connect("", "", "", 30.0)
    assert isinstance(envelope.body, Connect)
    assert isinstance(envelope.body.timeout, float)
