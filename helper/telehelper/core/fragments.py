"""Packets put together again from the fragments that the near kernel sends: RFC 791 §3.2, RFC 8200 §4.5.

An application may send a datagram longer than the TUN's MTU, which the kernel then cuts. Its fragments come together
and in order, mixed at most with another's, and some are missing if the TUN's queue ran over. So what is held is little,
bounded in number, bytes and time, and the oldest goes first. Time is looked at when a fragment comes, there is no timer.

Fragments that overlap spoil their packet (RFC 5722 §4; for IPv4 too, where RFC 791 would let the last one win, because
no honest kernel makes any): what is there is thrown away, and what still comes. An exact copy is ignored.
"""

from __future__ import annotations

import struct
from bisect import bisect
from typing import Final, NamedTuple, NoReturn

from telehelper.core import checksum
from telehelper.core.packet import (
    FRAGMENT6,
    IP6_HEADER,
    MAX_PACKET,
    NO_OFFLOAD,
    VNET,
    PacketError,
)

MAX_PARTIAL: Final = 64  # packets under way
MAX_BYTES: Final = (
    4 * 1024 * 1024
)  # of all of them; one of the longest in the least pieces is a quarter of that
PIECE_COST: Final = 128  # bytes; what Python needs to keep a piece, beside its text
PATIENCE: Final = 5.0  # seconds; RFC 8200 says 60, but there is no network in between

_OVERLAP: Final = "overlapping fragments"
_HEADER6: Final = struct.Struct("!BxHI")  # next header, offset and flag, identification


class _Piece(NamedTuple):
    key: bytes  # what the fragments of one packet have in common
    head: bytes  # the IP header, as that of the whole packet but for length and checksum
    offset: int
    text: bytes
    is_last: bool


def _parse(data: bytes | memoryview) -> _Piece:
    """Read a fragment; its IP header was found to be good."""
    packet = memoryview(data)[VNET.size :]
    if packet[0] >> 4 == 4:
        at, end = (packet[0] & 15) * 4, int.from_bytes(packet[2:4], "big")
        field = int.from_bytes(packet[6:8], "big")
        offset, more, limit = (field & 0x1FFF) * 8, bool(field & 0x2000), MAX_PACKET - at
        key = bytes(packet[12:20]) + bytes(packet[4:6]) + bytes(packet[9:10])
        head = bytes(packet[:6]) + bytes(2) + bytes(packet[8:at])
    else:
        at, end = IP6_HEADER + _HEADER6.size, IP6_HEADER + int.from_bytes(packet[4:6], "big")
        if end < at:
            raise PacketError("truncated")
        following, field, ident = _HEADER6.unpack_from(packet, IP6_HEADER)
        if following == FRAGMENT6:
            raise PacketError("fragment of a fragment")
        offset, more, limit = field & 0xFFF8, bool(field & 1), MAX_PACKET
        key = bytes(packet[8:IP6_HEADER]) + ident.to_bytes(4, "big")
        head = bytes(packet[:6]) + bytes((following,)) + bytes(packet[7:IP6_HEADER])
    text = bytes(packet[at:end])
    if not text or (more and len(text) % 8) or offset + len(text) > limit:
        raise PacketError("malformed fragment")
    return _Piece(key, head, offset, text, not more)


class _Partial:
    """What there is of one packet."""

    __slots__ = ("_end", "_got", "_head", "_offsets", "_texts", "cost", "is_spoiled", "until")

    def __init__(self, until: float) -> None:
        self.until = until
        self.cost = PIECE_COST  # bytes held
        self.is_spoiled = False
        self._head = b""
        self._offsets: list[int] = []  # in order
        self._texts: list[bytes] = []  # beside them
        self._got = 0  # bytes in them
        self._end: int | None = None  # of the whole text, once the last piece is there

    def add(self, piece: _Piece) -> bytes | None:
        """Take a piece, and return the packet if it is whole now; PacketError if it is spoiled."""
        if self.is_spoiled:
            raise PacketError(_OVERLAP)
        at, end = piece.offset, piece.offset + len(piece.text)
        place = bisect(self._offsets, at)
        before_at = self._offsets[place - 1] if place else -1
        if before_at == at and self._texts[place - 1] == piece.text and piece.is_last == (end == self._end):
            return None  # a copy
        before = before_at + len(self._texts[place - 1]) if place else 0
        after = self._offsets[place] if place < len(self._offsets) else end
        beyond = (self._end is not None and at >= self._end) or (piece.is_last and place < len(self._offsets))
        if before > at or after < end or beyond:
            self._spoil()
        self._offsets.insert(place, at)
        self._texts.insert(place, piece.text)
        self._got += len(piece.text)
        self.cost += len(piece.text) + PIECE_COST
        if at == 0:
            self._head = piece.head
        if piece.is_last:
            self._end = end
        return self._assemble() if self._got == self._end else None

    def _spoil(self) -> NoReturn:
        self.is_spoiled = True
        self.cost = PIECE_COST
        self._offsets.clear()
        self._texts.clear()
        raise PacketError(_OVERLAP)

    def _assemble(self) -> bytes:
        text = b"".join(self._texts)
        head = bytearray(self._head)
        if head[0] >> 4 == 6:
            head[4:6] = len(text).to_bytes(2, "big")
        elif len(head) + len(text) > MAX_PACKET:  # the first piece's header is longer than that of the last
            self._spoil()
        else:
            head[2:4] = (len(head) + len(text)).to_bytes(2, "big")
            head[10:12] = bytes(2)
            head[10:12] = checksum.complement(checksum.add(bytes(head))).to_bytes(2, "big")
        return NO_OFFLOAD + head + text


class Reassembler:
    """All packets under way.

    Attributes
    ----------
    given_up
        How many were thrown away unfinished, for want of room or of a piece.
    """

    def __init__(self) -> None:
        self._partials: dict[bytes, _Partial] = {}  # oldest first
        self._cost = 0
        self.given_up = 0

    def receive(self, data: bytes | memoryview, now: float) -> bytes | None:
        """Take a packet for which :func:`~telehelper.core.packet.parse` raised FragmentError.

        Returns
        -------
        bytes | None
            The whole packet, to be parsed, if this was what it lacked.

        Raises
        ------
        PacketError
            The fragment is of no use.
        """
        piece = _parse(data)
        self._make_room(now)
        partial = self._partials.get(piece.key)
        if partial is None:
            partial = self._partials[piece.key] = _Partial(now + PATIENCE)
            self._cost += partial.cost
        self._cost -= partial.cost
        try:
            whole = partial.add(piece)
        finally:
            self._cost += partial.cost
        if whole is not None:
            self._forget(piece.key)
        return whole

    def _make_room(self, now: float) -> None:
        while self._partials:
            key, oldest = next(iter(self._partials.items()))
            if oldest.until > now and len(self._partials) < MAX_PARTIAL and self._cost < MAX_BYTES:
                return
            self._forget(key)
            self.given_up += not oldest.is_spoiled

    def _forget(self, key: bytes) -> None:
        self._cost -= self._partials.pop(key).cost
