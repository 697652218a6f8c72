"""DNS messages: the small codec of the resolver's hot path.

Queries are kept raw where that can be: the question goes back to the client byte for byte (some clients mix upper and
lower case in it to recognise forged answers), and its EDNS OPT record goes on to the server as it came. Answers are
taken apart only as far as giving them another question needs: the names in the record types that RFC 1035 defines
(only those may be compressed, RFC 3597 §4) are read and written anew, all other data is copied.

A name is a tuple of labels (bytes, at most 63 each), most specific first; the root is the empty tuple.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

HEADER: Final = struct.Struct("!HHHHHH")  # id, flags, and the numbers of records in the four sections
_RECORD: Final = struct.Struct("!HHIH")  # type, class, ttl, length of the data
_PAIR: Final = struct.Struct("!HH")

QR: Final = 0x8000
OPCODE: Final = 0x7800
TC: Final = 0x0200
RD: Final = 0x0100
RA: Final = 0x0080
CD: Final = 0x0010
RCODE: Final = 0x000F

NOERROR: Final = 0
FORMERR: Final = 1
SERVFAIL: Final = 2
NXDOMAIN: Final = 3
NOTIMP: Final = 4
REFUSED: Final = 5

A: Final = 1
CNAME: Final = 5
SOA: Final = 6
PTR: Final = 12
AAAA: Final = 28
SRV: Final = 33
OPT: Final = 41

MIN_PAYLOAD: Final = 512  # bytes; what every client takes over UDP, RFC 1035 §4.2.1
MAX_PAYLOAD: Final = 4096  # bytes; the most we send over UDP, whatever the client claims (RFC 6891 §6.2.5)
MAX_NAME: Final = 255  # bytes on the wire, RFC 1035 §2.3.4

# Types whose data holds names that may be compressed: bytes before the names, how many names. RFC 1035 §3.3, and
# SRV (RFC 2782 forbids compressing its target, RFC 2052 allowed it; so we read it but never write it).
_NAMES_IN: Final = {2: (0, 1), CNAME: (0, 1), SOA: (0, 2), PTR: (0, 1), 15: (2, 1), SRV: (6, 1)}

Name = tuple[bytes, ...]


class MessageError(ValueError):
    """Bytes that are no DNS message; caught where messages come in, never leaves the core."""


class Question(NamedTuple):
    """What is asked. ``raw`` is the question section as it came."""

    name: Name  # in lower case
    qtype: int
    qclass: int
    raw: bytes

    @property
    def asked(self) -> Name:
        """The name as the client spelled it."""
        return read_name(self.raw, 0)[0]


class Query(NamedTuple):
    """A client's query."""

    id: int
    flags: int
    question: Question
    opt: bytes  # the EDNS OPT record as it came, or empty

    @property
    def limit(self) -> int:
        """Bytes the client takes in an answer over UDP."""
        claimed = int.from_bytes(self.opt[3:5], "big")  # the OPT record's class, RFC 6891 §6.1.2
        return min(max(claimed, MIN_PAYLOAD), MAX_PAYLOAD)


class Record(NamedTuple):
    """A resource record; ``data`` is its data in pieces, with names as names."""

    owner: Name
    rtype: int
    rclass: int
    ttl: int
    data: tuple[bytes | Name, ...]


class Response(NamedTuple):
    """A server's answer, taken apart."""

    id: int
    flags: int
    question: Question
    answers: tuple[Record, ...]
    authorities: tuple[Record, ...]
    additionals: tuple[Record, ...]

    @property
    def rcode(self) -> int:
        """The response code."""
        return self.flags & RCODE


def read_name(data: bytes, at: int) -> tuple[Name, int]:
    """Read the name that begins at `at`; return it and where what follows it begins.

    RFC 1035 §4.1.4: a pointer is to a *prior* occurrence, so each must lead further back, which ends all loops.
    """
    labels: list[bytes] = []
    size, after, bound = 1, -1, at
    while True:
        length = data[at] if at < len(data) else 0x40
        if length == 0:
            return tuple(labels), at + 1 if after < 0 else after
        if length < 0x40:
            label = data[at + 1 : at + 1 + length]
            size += length + 1
            if len(label) < length or size > MAX_NAME:
                raise MessageError("a name is cut off or too long")
            labels.append(label)
            at += 1 + length
        elif length >= 0xC0 and at + 1 < len(data):
            after = at + 2 if after < 0 else after
            at = (length & 0x3F) << 8 | data[at + 1]
            if at >= bound:
                raise MessageError("a pointer does not lead back")
            bound = at
        else:
            raise MessageError("a name is cut off or has an unknown label type")


def write_name(name: Name, out: bytearray, seen: dict[Name, int] | None) -> None:
    """Append a name; with `seen` (where each name began), compressed."""
    while name:
        if seen is not None:
            at = seen.get(name)
            if at is not None:
                out += (0xC000 | at).to_bytes(2, "big")
                return
            if len(out) < 0x4000:  # a pointer has 14 bits
                seen[name] = len(out)
        out.append(len(name[0]))
        out += name[0]
        name = name[1:]
    out.append(0)


def wire_length(name: Name) -> int:
    """Return the bytes an uncompressed name takes."""
    return sum(len(label) + 1 for label in name) + 1


def lower(name: Name) -> Name:
    """Return the name as it is compared: ASCII letters in lower case (RFC 4343)."""
    return tuple(label.lower() for label in name)


def to_text(name: Name) -> str:
    """Return a name for people, without the final dot; unprintable bytes and dots in labels are escaped."""
    return ".".join(
        "".join(chr(c) if 0x20 < c < 0x7F and c not in b".\\" else f"\\{c:03}" for c in label)
        for label in name
    )


def from_text(text: str) -> Name:
    """Read a name that we or Kubernetes wrote: ASCII, no escapes, with or without the final dot."""
    return tuple(label.encode() for label in text.lower().rstrip(".").split(".") if label)


def _read_question(data: bytes) -> tuple[Question, int]:
    name, at = read_name(data, HEADER.size)
    if at - HEADER.size != wire_length(name) or at + 4 > len(data):
        raise MessageError("the question is cut off or points elsewhere")
    qtype, qclass = _PAIR.unpack_from(data, at)
    return Question(lower(name), qtype, qclass, data[HEADER.size : at + 4]), at + 4


def parse_query(data: bytes) -> Query:
    """Read a query; other records than one OPT are left out.

    Raises
    ------
    MessageError
        It is cut off, or has not exactly one question.
    """
    if len(data) < HEADER.size:
        raise MessageError("shorter than a header")
    ident, flags, questions, answers, authorities, additionals = HEADER.unpack_from(data)
    if questions != 1:
        raise MessageError(f"{questions} questions")
    question, at = _read_question(data)
    opt = b""
    if (answers, authorities, additionals) == (0, 0, 1) and data[at : at + 3] == b"\0\0\x29":
        if at + 11 > len(data):
            raise MessageError("the OPT record is cut off")
        end = at + 11 + int.from_bytes(data[at + 9 : at + 11], "big")
        opt = data[at:end]
        if len(opt) != end - at:
            raise MessageError("the OPT record is cut off")
    return Query(ident, flags, question, opt)


def encode_query(ident: int, query: Query, name: Name) -> bytes:
    """Make the query that asks for `name` what `query` asks for its own."""
    out = bytearray(HEADER.pack(ident, query.flags, 1, 0, 0, 1 if query.opt else 0))
    write_name(name, out, None)
    out += _PAIR.pack(query.question.qtype, query.question.qclass)
    return bytes(out) + query.opt


def _read_data(data: bytes, rtype: int, at: int, end: int) -> tuple[bytes | Name, ...]:
    if rtype not in _NAMES_IN:
        return (data[at:end],)
    before, count = _NAMES_IN[rtype]
    parts: list[bytes | Name] = [data[at : at + before]] if before else []
    at += before
    for _ in range(count):
        name, at = read_name(data, at)
        parts.append(name)
    if at > end or (at < end and rtype != SOA):
        raise MessageError("a record's names do not fill its data")
    if at < end:
        parts.append(data[at:end])
    return tuple(parts)


def _read_records(data: bytes, at: int, count: int) -> tuple[tuple[Record, ...], int]:
    records: list[Record] = []
    for _ in range(count):
        owner, at = read_name(data, at)
        if at + _RECORD.size > len(data):
            raise MessageError("a record is cut off")
        rtype, rclass, ttl, length = _RECORD.unpack_from(data, at)
        at += _RECORD.size
        if at + length > len(data):
            raise MessageError("a record is cut off")
        records.append(Record(owner, rtype, rclass, ttl, _read_data(data, rtype, at, at + length)))
        at += length
    return tuple(records), at


def parse_response(data: bytes) -> Response:
    """Read a server's answer.

    Raises
    ------
    MessageError
        It is cut off, no answer, or has not exactly one question.
    """
    if len(data) < HEADER.size:
        raise MessageError("shorter than a header")
    ident, flags, questions, *counts = HEADER.unpack_from(data)
    if not flags & QR or questions != 1:
        raise MessageError("no answer to one question")
    question, at = _read_question(data)
    answers, at = _read_records(data, at, counts[0])
    authorities, at = _read_records(data, at, counts[1])
    additionals, _ = _read_records(data, at, counts[2])
    return Response(ident, flags, question, answers, authorities, additionals)


def _write_record(record: Record, out: bytearray, seen: dict[Name, int]) -> None:
    write_name(record.owner, out, seen)
    out += _RECORD.pack(record.rtype, record.rclass, record.ttl, 0)
    at = len(out)
    for part in record.data:
        if isinstance(part, bytes):
            out += part
        else:
            write_name(part, out, None if record.rtype == SRV else seen)
    out[at - 2 : at] = (len(out) - at).to_bytes(2, "big")


def _write_section(
    records: tuple[Record, ...], out: bytearray, seen: dict[Name, int], limit: int
) -> tuple[int, bool]:
    """Append the records that fit; return how many, and whether all did."""
    for written, record in enumerate(records):
        at = len(out)
        _write_record(record, out, seen)
        if len(out) > limit:
            del out[at:]
            return written, False
    return len(records), True


def encode_response(response: Response, limit: int) -> bytes:
    """Write an answer of at most `limit` bytes, as far as the question allows.

    What does not fit is left out, from the end. When part of the answer itself is missing TC is set (RFC 2181 §9), and
    the client asks again over TCP; a headless service of 30 pods is such an answer.
    """
    opts = tuple(r for r in response.additionals if r.rtype == OPT)
    room = limit - sum(11 + sum(len(part) for part in r.data) for r in opts)
    out = bytearray(HEADER.size) + response.question.raw
    seen = _places(response.question.asked)
    counts = [0, 0, 0]
    others = tuple(r for r in response.additionals if r.rtype != OPT)
    whole = True
    for section, records in enumerate((response.answers, response.authorities, others)):
        if whole:
            counts[section], whole = _write_section(records, out, seen, room)
    flags = response.flags | (TC if counts[0] < len(response.answers) else 0)
    counts[2] += _write_section(opts, out, seen, limit)[0]
    HEADER.pack_into(out, 0, response.id, flags, 1, *counts)
    return bytes(out)


def _places(name: Name) -> dict[Name, int]:
    """Return where in a message the question's name and its endings begin."""
    places: dict[Name, int] = {}
    at = HEADER.size
    for i, label in enumerate(name):
        places[name[i:]] = at
        at += 1 + len(label)
    return places


def encode_failure(data: bytes, rcode: int) -> bytes:
    """Answer a query that has at least a header with nothing but a response code; its question, if whole, goes back."""
    ident, flags, *_ = HEADER.unpack_from(data)
    try:
        question = parse_query(data).question.raw
    except MessageError:
        question = b""
    flags = QR | flags & (OPCODE | RD | CD) | RA | rcode
    return HEADER.pack(ident, flags, 1 if question else 0, 0, 0, 0) + question
