"""The control sockets' codec: messages to bytes and back; sans-IO.

On the wire a message is a 4-byte big-endian length and that many bytes of JSON:
``{"type": "GetFlows", "id": 3, "body": {…}}``. ``id`` ties a reply to its request; 0 is an event, which nobody answers.
A field that is marked :data:`~telehelper.messages.APART` is not in the body: its text follows the JSON behind a NUL,
which JSON never has. A table of some MiB, which is JSON itself, would be escaped and read twice otherwise.

Decoding is strict, because netd reads this as root: an unknown type, a missing or unknown field, a value of another
type, or a message over the limit raises :class:`~telehelper.errors.ControlError`, and the connection is closed.
Standard library only, for the same reason.
"""

from __future__ import annotations

import json
import struct
import typing
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, Final

from telehelper.errors import ControlError
from telehelper.messages import APART, Message

MAX_MESSAGE: Final = 16 * 1024 * 1024  # bytes; a flow table of 10,000 rows is about 3 MiB
MAX_NETD_MESSAGE: Final = 256 * 1024  # bytes; a plan of 1,000 routes is about 60 KiB
_LENGTH: Final = struct.Struct("!I")
_END: Final = b"\0"  # of the JSON, where a text follows
_FLOAT_LIMIT: Final = 2**53  # up to which each whole number is a float
_INFINITIES: Final = (float("inf"), float("-inf"))


def _registry() -> dict[str, type[Message]]:
    # With slots a dataclass is made twice, and the first try lives on until it is collected.
    return {cls.__name__: cls for cls in Message.__subclasses__() if "__slots__" in cls.__dict__}


@cache
def _hints(cls: type[Message]) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _apart(cls: type[Message]) -> str:
    """Return the name of the field that travels beside the JSON, or nothing."""
    return next((f.name for f in fields(cls) if f.metadata == APART), "")


def _to_json(value: object) -> object:
    if isinstance(value, Message):
        return {f.name: _to_json(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, tuple):
        return [_to_json(item) for item in value]
    return value


def _from_json(value: object, hint: Any, where: str) -> Any:  # noqa: ANN401  # the hint decides the type
    origin = typing.get_origin(hint)
    if origin is tuple:
        if not isinstance(value, list):
            raise ControlError(f"{where} must be a list")
        item = typing.get_args(hint)[0]
        return tuple(_from_json(v, item, f"{where}[{i}]") for i, v in enumerate(value))
    if origin is dict:
        item = typing.get_args(hint)[1]
        if not isinstance(value, dict):
            raise ControlError(f"{where} must be an object")
        return {k: _from_json(v, item, f"{where}[{k!r:.40}]") for k, v in value.items()}
    if isinstance(hint, type) and issubclass(hint, Message):
        return _build(hint, value, where)
    if hint is float and type(value) is int and abs(value) < _FLOAT_LIMIT:
        return float(value)
    # exact: True is no int here. JSON's 1e999 is read as infinity, which could not be sent on.
    if type(value) is not hint or value in _INFINITIES:
        raise ControlError(f"{where} must be {hint.__name__}")
    return value


def _build(cls: type[Message], body: object, where: str) -> Message:
    if not isinstance(body, dict):
        raise ControlError(f"{where} must be an object")
    hints = _hints(cls)  # type: ignore[arg-type]  # mypy takes the instances' __hash__ for the class's
    unknown = body.keys() - hints.keys()
    if unknown:
        raise ControlError(f"{where} has unknown field {min(unknown)!r:.40}")
    values = {name: _from_json(value, hints[name], f"{where}.{name}") for name, value in body.items()}
    try:
        return cls(**values)
    except TypeError:
        raise ControlError(f"{where} lacks a field") from None


@dataclass(frozen=True, slots=True)
class Envelope:
    """A message with the number of the request it is or answers; 0 for events."""

    id: int
    body: Message


def encode(body: Message, request: int = 0) -> bytes:
    """Encode one message; `request` is the number of the request it is or answers."""
    apart = _apart(type(body))
    rest = {f.name: _to_json(getattr(body, f.name)) for f in fields(body) if f.name != apart}
    doc = {"type": type(body).__name__, "id": request, "body": rest}
    parts = [json.dumps(doc, separators=(",", ":"), allow_nan=False).encode()]
    if apart:
        parts += [_END, getattr(body, apart).encode()]
    return b"".join((_LENGTH.pack(sum(map(len, parts))), *parts))


def _refuse_constant(name: str) -> float:
    raise ControlError(f"{name} is no number here")


def _parse(buffer: bytearray, start: int, end: int) -> Envelope:
    cut = buffer.find(_END, start, end)
    has_text = cut >= 0
    try:
        # As text: of bytes, json would guess the encoding, and take twice the time.
        doc = json.loads(_text(buffer, start, cut if has_text else end), parse_constant=_refuse_constant)
        text = _text(buffer, cut + 1, end) if has_text else ""
    except (ValueError, RecursionError):  # UnicodeDecodeError is a ValueError
        raise ControlError("a control message is not JSON") from None
    if not isinstance(doc, dict) or doc.keys() != {"type", "id", "body"}:
        raise ControlError("a control message needs exactly type, id and body")
    kind, number = doc["type"], doc["id"]
    if type(number) is not int or not 0 <= number < 2**32:
        raise ControlError("a control message's id must be a 32-bit number")
    cls = _registry().get(kind) if isinstance(kind, str) else None
    if cls is None:
        raise ControlError(f"unknown control message {kind!r:.40}")
    body, apart = doc["body"], _apart(cls)
    if has_text is not bool(apart) or (isinstance(body, dict) and apart in body):
        raise ControlError(f"{kind} must have {apart or 'nothing'} beside its JSON")
    if apart and isinstance(body, dict):
        body[apart] = text
    return Envelope(number, _build(cls, body, kind))


def _text(buffer: bytearray, start: int, end: int) -> str:
    with memoryview(buffer) as whole:  # a slice of the buffer itself would be a copy
        return str(whole[start:end], "utf-8")


class Decoder:
    """Cuts a byte stream into messages. After it raised, the stream is broken: close the connection.

    Parameters
    ----------
    limit
        Longest message accepted, in bytes.
    """

    def __init__(self, limit: int = MAX_MESSAGE) -> None:
        self._limit = limit
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Envelope]:
        """Take bytes as they came and return the messages completed by them.

        Raises
        ------
        ControlError
            The bytes are no message, or one longer than the limit.
        """
        self._buffer += data
        out: list[Envelope] = []
        while len(self._buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer)
            if length > self._limit:
                raise ControlError(f"a control message of {length} bytes is over the limit of {self._limit}")
            end = _LENGTH.size + length
            if len(self._buffer) < end:
                break
            out.append(_parse(self._buffer, _LENGTH.size, end))
            del self._buffer[:end]
        return out

    def at_boundary(self) -> bool:
        """Whether no message is half received: the only good moment for an EOF."""
        return not self._buffer
