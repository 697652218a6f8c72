"""The mux's frames: what crosses a carrier, and the codec for it.

A frame is an 8-byte header, type (8 bits), payload length (24 bits), flow (32 bits), network byte order, and the
payload. Flow 0 is the carrier itself. The datapath numbers flows; a number is not used again while its flow is in
any table.

==========  ====  =========  ==============================================================
type        flow  direction  payload
==========  ====  =========  ==============================================================
HELLO       0     both       version (16 bits), session token (UTF-8); first on a carrier
OPEN        ≠ 0   up         see :class:`Open`
OPENED      ≠ 0   down       see :class:`Opened`
REJECTED    ≠ 0   down       errno (16 bits), reason (UTF-8)
DATA        ≠ 0   both       bytes of the flow, 1 to MAX_DATA
FIN         ≠ 0   both       empty: no more DATA in this direction
RST         ≠ 0   both       errno (16 bits), reason (UTF-8): both directions are over
CREDIT      ≠ 0   both       bytes (32 bits) that may be sent beyond what was granted before
DATAGRAM    ≠ 0   both       one UDP datagram's payload, may be empty; of an ICMP flow: see echo.py
PING, PONG  0     both       8 bytes, echoed
GOAWAY      0     both       code (16 bits), reason (UTF-8): no new flows here
TIMING      ≠ 0   down       µs (32 bits) the service took for its first byte, before the first DATA; once at most
==========  ====  =========  ==============================================================

Truncated, oversized or unknown frames raise :class:`~telehelper.errors.TunnelError` with a reason, and the carrier
must be closed. Errno values are Linux's.

*Versions.* Version 2 added what measures time: TIMING, and four more bytes of OPENED. Both sides speak all of `SPOKEN`.
The near side says in OpenSession and in HELLO which it wants, the newest first and an older one if that is refused; the
manager answers HELLO with the same, and towards a near side that wants 1 keeps to 4 bytes of OPENED and no TIMING.
What is not told is unknown: -1. A near side takes either form at any time.
"""

from __future__ import annotations

import enum
import functools
import struct
from ipaddress import IPv4Address, IPv6Address
from typing import Final, NamedTuple

from telehelper.errors import TunnelError, printable

VERSION: Final = 2
SPOKEN: Final = (VERSION, 1)  # newest first
TIMED: Final = 2  # from this version on, times are told
HEADER: Final = struct.Struct("!II")
MAX_DATA: Final = 64 * 1024  # bytes in one DATA frame; a whole offloaded segment fits
MAX_PAYLOAD: Final = 66 * 1024  # bytes; a UDP datagram of 65,535 fits
MAX_TEXT: Final = 1024  # bytes of a reason or a token

Address = IPv4Address | IPv6Address


class FrameType(enum.IntEnum):
    """The first byte of a frame."""

    HELLO = 1
    OPEN = 2
    OPENED = 3
    REJECTED = 4
    DATA = 5
    FIN = 6
    RST = 7
    CREDIT = 8
    DATAGRAM = 9
    PING = 10
    PONG = 11
    GOAWAY = 12
    TIMING = 13


class Frame(NamedTuple):
    """One frame. A tuple, because a busy tunnel makes a hundred thousand a second."""

    type: FrameType
    flow: int
    payload: bytes | bytearray | memoryview = b""


class Proto(enum.IntEnum):
    """IP protocol numbers of what can be opened."""

    ICMP = 1
    TCP = 6
    UDP = 17


class Open(NamedTuple):
    """Payload of OPEN: dial this. Addresses go as 16 bytes, IPv4 as ``::ffff:a.b.c.d`` (RFC 4291 §2.5.5.2)."""

    protocol: Proto
    src: Address
    sport: int
    dst: Address
    dport: int
    timeout: float  # seconds the manager may spend dialing
    credit: int  # bytes the manager may send down at first


_OPEN: Final = struct.Struct("!BxHHxxII16s16s")
_OPENED: Final = struct.Struct("!II")
UNKNOWN: Final = -1.0  # seconds: what was not measured


_PROTOCOLS: Final = {int(protocol): protocol for protocol in Proto}


def _pack_address(address: Address) -> bytes:
    return address.packed if address.version == 6 else b"\0" * 10 + b"\xff\xff" + address.packed


@functools.lru_cache(4096)
def _unpack_address(data: bytes) -> Address:
    address = IPv6Address(data)
    return address.ipv4_mapped or address


def encode_open(flow: int, what: Open) -> Frame:
    """Make an OPEN frame."""
    payload = _OPEN.pack(
        what.protocol,
        what.sport,
        what.dport,
        min(round(what.timeout * 1000), 0xFFFFFFFF),
        what.credit,
        _pack_address(what.src),
        _pack_address(what.dst),
    )
    return Frame(FrameType.OPEN, flow, payload)


def decode_open(frame: Frame) -> Open:
    """Read an OPEN frame's payload; TunnelError if it is malformed."""
    if len(frame.payload) != _OPEN.size:
        raise TunnelError(f"OPEN has {len(frame.payload)} bytes, not {_OPEN.size}")
    protocol, sport, dport, timeout_ms, credit, src, dst = _OPEN.unpack(frame.payload)
    known = _PROTOCOLS.get(protocol)
    if known is None:
        raise TunnelError(f"OPEN of protocol {protocol}")
    return Open(known, _unpack_address(src), sport, _unpack_address(dst), dport, timeout_ms / 1000, credit)


def encode_u32(kind: FrameType, flow: int, value: int) -> Frame:
    """Make a CREDIT frame, or an OPENED of version 1."""
    return Frame(kind, flow, value.to_bytes(4, "big"))


def decode_u32(frame: Frame) -> int:
    """Read a CREDIT's number of bytes; TunnelError if it is malformed."""
    if len(frame.payload) != 4:
        raise TunnelError(f"{frame.type.name} has {len(frame.payload)} bytes, not 4")
    return int.from_bytes(frame.payload, "big")


class Opened(NamedTuple):
    """Payload of OPENED: the far side has connected. ``dial`` goes as 32 bits of µs, in version 1 not at all."""

    credit: int  # bytes that may be sent up; 32 bits
    dial: float = UNKNOWN  # seconds that it took


def encode_opened(flow: int, what: Opened) -> Frame:
    """Make an OPENED frame; without a dial it is one of version 1."""
    credit, dial = what
    if dial < 0:
        return Frame(FrameType.OPENED, flow, credit.to_bytes(4, "big"))
    return Frame(FrameType.OPENED, flow, _OPENED.pack(credit, _microseconds(dial)))


def decode_opened(frame: Frame) -> Opened:
    """Read an OPENED's payload, of any version; TunnelError if it is malformed."""
    payload = frame.payload
    if len(payload) == _OPENED.size:
        credit, dial = _OPENED.unpack(payload)
        return Opened(credit, dial / 1e6)
    if len(payload) != 4:
        raise TunnelError(f"OPENED has {len(payload)} bytes, not 4 or 8")
    return Opened(int.from_bytes(payload, "big"))


def encode_timing(flow: int, wait: float) -> Frame:
    """Make a TIMING frame of so many seconds."""
    return Frame(FrameType.TIMING, flow, _microseconds(wait).to_bytes(4, "big"))


def decode_timing(frame: Frame) -> float:
    """Read a TIMING's seconds; TunnelError if it is malformed."""
    if len(frame.payload) != 4:
        raise TunnelError(f"TIMING has {len(frame.payload)} bytes, not 4")
    return int.from_bytes(frame.payload, "big") / 1e6


def _microseconds(seconds: float) -> int:
    return min(round(seconds * 1e6), 0xFFFFFFFF)  # 71 minutes at most


def encode_coded(kind: FrameType, flow: int, code: int, text: str = "") -> Frame:
    """Make a HELLO, REJECTED, RST or GOAWAY frame: a 16-bit number and a text, cut to MAX_TEXT bytes."""
    return Frame(kind, flow, code.to_bytes(2, "big") + text.encode()[:MAX_TEXT])


def decode_coded(frame: Frame) -> tuple[int, str]:
    """Read a HELLO, REJECTED, RST or GOAWAY: its number and its text; TunnelError if it is malformed.

    The text is shown to people, in logs, tables and terminals: it is made printable.
    """
    payload = bytes(frame.payload)
    if not 2 <= len(payload) <= 2 + MAX_TEXT:
        raise TunnelError(f"{frame.type.name} has {len(payload)} bytes")
    return int.from_bytes(payload[:2], "big"), printable(payload[2:].decode("utf-8", "replace"))


def encode_header(frame: Frame) -> bytes:
    """Return the 8 bytes that go before the payload, so that the payload need not be copied."""
    return HEADER.pack(frame.type << 24 | len(frame.payload), frame.flow)


def encode(frame: Frame) -> bytes:
    """Return the whole frame as bytes."""
    return encode_header(frame) + bytes(frame.payload)


_HEADER_SIZE: Final = HEADER.size
_unpack_header: Final = HEADER.unpack_from
_FLOWLESS: Final = frozenset({FrameType.HELLO, FrameType.PING, FrameType.PONG, FrameType.GOAWAY})
_TYPES: Final = {int(kind): kind for kind in FrameType}


def _check_header(kind: int, length: int, flow: int) -> FrameType:
    frame_type = _TYPES.get(kind)
    if frame_type is None:
        raise TunnelError(f"unknown frame type {kind}")
    if length > MAX_PAYLOAD:
        raise TunnelError(f"{frame_type.name} frame of {length} bytes is over the limit of {MAX_PAYLOAD}")
    if (flow == 0) != (frame_type in _FLOWLESS):
        raise TunnelError(f"{frame_type.name} frame on flow {flow}")
    if frame_type is FrameType.DATA and not 0 < length <= MAX_DATA:
        raise TunnelError(f"DATA frame of {length} bytes")
    return frame_type


class FrameDecoder:
    """Cuts a carrier's bytes into frames; however they are chunked, the frames are the same.

    Nothing is copied but a frame that comes in several chunks, which is joined once. Holds at most one such frame.
    """

    def __init__(self) -> None:
        self._partial = bytearray()  # the beginning of one frame

    def feed(self, data: bytes | bytearray | memoryview) -> list[Frame]:
        """Take bytes as they came and return the frames completed by them.

        Payloads may be views of `data`: who keeps one beyond the life of that buffer must copy it.

        Raises
        ------
        TunnelError
            The bytes are no frame. The carrier is lost: what follows cannot be found again.
        """
        out: list[Frame] = []
        buffer, at, size = memoryview(data), 0, len(data)
        if self._partial:
            at = self._complete(buffer, out)
        while size - at >= _HEADER_SIZE:
            head, flow = _unpack_header(buffer, at)
            length = head & 0xFFFFFF
            frame_type = _check_header(head >> 24, length, flow)
            start = at + _HEADER_SIZE
            if start + length > size:
                break
            at = start + length
            out.append(Frame(frame_type, flow, buffer[start:at]))
        if at < size:
            self._partial += buffer[at:]
        return out

    def _complete(self, buffer: memoryview, out: list[Frame]) -> int:
        """Add to the partial frame until it is whole; return how many bytes that took."""
        partial = self._partial
        taken = min(max(_HEADER_SIZE - len(partial), 0), len(buffer))
        partial += buffer[:taken]
        if len(partial) < _HEADER_SIZE:
            return taken
        head, flow = _unpack_header(partial, 0)
        length: int = head & 0xFFFFFF
        frame_type = _check_header(head >> 24, length, flow)
        more = min(_HEADER_SIZE + length - len(partial), len(buffer) - taken)
        partial += buffer[taken : taken + more]
        if len(partial) == _HEADER_SIZE + length:
            out.append(Frame(frame_type, flow, memoryview(partial)[_HEADER_SIZE:]))
            self._partial = bytearray()
        return taken + more

    def at_boundary(self) -> bool:
        """Whether no frame is half received."""
        return not self._partial
