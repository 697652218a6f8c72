from __future__ import annotations

import random
from typing import TYPE_CHECKING, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from telehelper.core import checksum
from telehelper.core.datagram import make_datagram
from telehelper.core.fragments import MAX_BYTES, MAX_PARTIAL, PATIENCE, PIECE_COST, Reassembler
from telehelper.core.packet import NO_OFFLOAD, Datagram, FragmentError, PacketError, parse, to_key
from telehelper.core.stack import Stack

from tests.core.builders import UDP, UDP6, describe, whole

if TYPE_CHECKING:
    from telehelper.core.flows import FiveTuple

OVERLAP = "overlapping fragments"


def datagram(five_tuple: FiveTuple, payload: bytes) -> bytes:
    """Make an IP packet as an application's kernel does: with the whole checksum, and without virtio_net_hdr."""
    data = bytearray(whole(make_datagram(to_key(five_tuple), payload))[10:])
    at = 40 if data[0] >> 4 == 6 else 20
    full = checksum.complement(checksum.add(bytes(data[at:]))) or 0xFFFF
    data[at + 6 : at + 8] = full.to_bytes(2, "big")
    return bytes(data)


class Part(NamedTuple):
    """A fragment to be."""

    start: int
    end: int
    more: bool


def cut(packet: bytes, part: Part, ident: int = 1, options: bytes = b"") -> bytes:
    """Cut a fragment out of an IP packet; past its end there are zeros."""
    is_v6 = packet[0] >> 4 == 6
    text = packet[40 if is_v6 else 20 :]
    text = (text + bytes(max(0, part.end - len(text))))[part.start : part.end]
    if is_v6:
        head = bytearray(packet[:40])
        head[4:6] = (8 + len(text)).to_bytes(2, "big")
        extension = (
            bytes((head[6], 0)) + (part.start | part.more).to_bytes(2, "big") + ident.to_bytes(4, "big")
        )
        head[6] = 44
        return NO_OFFLOAD + head + extension + text
    head = bytearray(packet[:20] + options)
    head[0] = 0x40 | len(head) // 4
    head[2:4] = (len(head) + len(text)).to_bytes(2, "big")
    head[4:6] = ident.to_bytes(2, "big")
    head[6:8] = (part.start // 8 | part.more << 13).to_bytes(2, "big")
    head[10:12] = bytes(2)
    head[10:12] = checksum.complement(checksum.add(bytes(head))).to_bytes(2, "big")
    return NO_OFFLOAD + head + text


def parts(length: int, step: int) -> list[Part]:
    return [Part(at, min(at + step, length), at + step < length) for at in range(0, length, step)]


def give(reassembler: Reassembler, data: bytes, now: float = 0.0) -> bytes | None:
    with pytest.raises(FragmentError):
        parse(data)
    return reassembler.receive(data, now)


def refused(reassembler: Reassembler, data: bytes) -> str:
    with pytest.raises(PacketError) as caught:
        give(reassembler, data)
    return str(caught.value)


both = pytest.mark.parametrize("five_tuple", [UDP, UDP6])


@both
@pytest.mark.parametrize("step", [8, 1480, 1448, 65_528])
def test_a_datagram_as_the_kernel_cuts_it(five_tuple: FiveTuple, step: int) -> None:
    payload = random.Random(1).randbytes(20_000)
    packet, reassembler = datagram(five_tuple, payload), Reassembler()
    text = len(packet) - (40 if five_tuple is UDP6 else 20)
    pieces = [cut(packet, part) for part in parts(text, step)]
    if (
        len(pieces) == 1
    ):  # an IPv4 packet that is whole is no fragment; for IPv6 see "atomic fragments", RFC 6946
        pieces = pieces if five_tuple is UDP6 else []
    for piece in pieces[:-1]:
        assert give(reassembler, piece) is None
    for piece in pieces[-1:]:
        found = give(reassembler, piece)
        assert found is not None
        assert parse(found) == Datagram(to_key(five_tuple), memoryview(payload))
    assert (reassembler._partials, reassembler._cost) == ({}, 0)


@both
def test_the_longest_datagram(five_tuple: FiveTuple) -> None:
    payload = bytes(65_507 if five_tuple is UDP else 65_527)
    packet, reassembler = datagram(five_tuple, payload), Reassembler()
    *first, last = [cut(packet, part) for part in parts(len(payload) + 8, 1448)]
    assert {give(reassembler, piece) for piece in first} == {None}
    found = give(reassembler, last)
    assert found is not None
    assert isinstance(parse(found), Datagram)


@settings(deadline=None)
@given(
    five_tuple=st.sampled_from([UDP, UDP6]),
    length=st.integers(9, 3000),
    step=st.integers(1, 100).map(lambda units: units * 8),
    seed=st.randoms(use_true_random=False),
    copies=st.integers(0, 5),
)
def test_order_and_copies_do_not_matter(
    five_tuple: FiveTuple, length: int, step: int, seed: random.Random, copies: int
) -> None:
    """Three datagrams, their fragments mixed, some twice: each comes out once and whole."""
    reassembler, pieces, packets = Reassembler(), [], []
    for ident in range(3):
        packets.append(datagram(five_tuple, bytes([ident]) * length))
        cuts = parts(length + 8, min(step, length // 8 * 8))
        pieces += [cut(packets[-1], part, ident) for part in cuts]
    pieces += [seed.choice(pieces) for _ in range(copies)]
    seed.shuffle(pieces)
    found = [out for piece in pieces if (out := give(reassembler, piece)) is not None]
    texts = {bytes(packet.text) for out in found if isinstance(packet := parse(out), Datagram)}
    assert texts == {bytes([ident]) * length for ident in range(3)}
    assert len(found) == 3 or copies  # copies that come after the whole may make a whole of themselves


@settings(deadline=None, max_examples=300)
@given(
    five_tuple=st.sampled_from([UDP, UDP6]),
    pieces=st.lists(st.tuples(st.integers(0, 7), st.integers(1, 8), st.booleans()), min_size=1, max_size=10),
)
def test_as_a_plain_map_of_bytes_would(five_tuple: FiveTuple, pieces: list[tuple[int, int, bool]]) -> None:
    """The oracle: which bytes are there, where the end is, and that two pieces never both claim one."""
    packet, reassembler = datagram(five_tuple, bytes(56)), Reassembler()
    taken: list[Part] = []
    spoiled = False
    for start, count, more in pieces:
        part = Part(start * 8, (start + count) * 8, more)
        if part == Part(0, part.end, False) and five_tuple is UDP:
            continue  # not a fragment
        ends = {piece.end for piece in [*taken, part] if not piece.more}
        clash = any(piece.start < part.end and part.start < piece.end for piece in taken)
        beyond = bool(ends) and any(piece.end > min(ends) for piece in [*taken, part])
        data = cut(packet, part)
        if spoiled or (part not in taken and (clash or beyond or len(ends) > 1)):
            spoiled = True
            assert refused(reassembler, data) == OVERLAP
            continue
        if part not in taken:
            taken.append(part)
        is_whole = bool(ends) and sum(piece.end - piece.start for piece in taken) == min(ends)
        found = give(reassembler, data)
        assert (found is not None) == is_whole
        if is_whole:
            assert found is not None
            assert (
                found[10 + (40 if five_tuple is UDP6 else 20) :]
                == (packet + bytes(200))[len(packet) - 64 : len(packet) - 64 + min(ends)]
            )
            taken = []


@both
def test_what_is_spoiled_stays_so(five_tuple: FiveTuple) -> None:
    packet, reassembler = datagram(five_tuple, bytes(100)), Reassembler()
    give(reassembler, cut(packet, Part(0, 16, True)))
    assert refused(reassembler, cut(packet, Part(8, 24, True))) == OVERLAP
    assert refused(reassembler, cut(packet, Part(16, 108, False))) == OVERLAP
    assert reassembler._cost == PIECE_COST
    late = cut(packet, Part(0, 16, True))
    assert reassembler.receive(late, PATIENCE + 1) is None  # by now the number may be another packet's
    assert reassembler.given_up == 0


@both
def test_the_same_place_with_other_bytes_is_no_copy(five_tuple: FiveTuple) -> None:
    packet, reassembler = datagram(five_tuple, bytes(100)), Reassembler()
    give(reassembler, cut(packet, Part(8, 16, True)))
    assert give(reassembler, cut(packet, Part(8, 16, True))) is None
    assert refused(reassembler, cut(datagram(five_tuple, b"x" * 100), Part(8, 16, True))) == OVERLAP


@both
def test_packets_are_told_apart(five_tuple: FiveTuple) -> None:
    packet, reassembler = datagram(five_tuple, bytes(100)), Reassembler()
    other = datagram(five_tuple._replace(dst=five_tuple.src), bytes(100))
    for source, ident in ((packet, 1), (packet, 2), (other, 1)):
        assert give(reassembler, cut(source, Part(0, 16, True), ident)) is None
    for source, ident in ((packet, 1), (packet, 2), (other, 1)):
        assert give(reassembler, cut(source, Part(16, 108, False), ident)) is not None


@both
def test_useless_ones(five_tuple: FiveTuple) -> None:
    packet, reassembler = datagram(five_tuple, bytes(100)), Reassembler()
    for part in (Part(8, 8, True), Part(8, 20, True), Part(65_528, 65_536, False)):
        assert refused(reassembler, cut(packet, part)) == "malformed fragment"
    assert reassembler._partials == {}


def test_headers_that_lie() -> None:
    packet, reassembler = datagram(UDP6, bytes(100)), Reassembler()
    short = bytearray(cut(packet, Part(0, 16, True)))
    short[14:16] = b"\0\7"
    assert refused(reassembler, bytes(short)) == "truncated"
    nested = bytearray(cut(packet, Part(0, 108, False)))
    nested[50] = 44
    assert refused(reassembler, bytes(nested)) == "fragment of a fragment"


def test_options_count_once_and_must_fit() -> None:
    packet, reassembler = datagram(UDP, bytes(65_507)), Reassembler()
    nops = b"\1" * 40
    assert give(reassembler, cut(packet, Part(0, 32_768, True), options=nops)) is None
    assert refused(reassembler, cut(packet, Part(32_768, 65_515, False))) == OVERLAP
    small = datagram(UDP, b"x" * 92)
    give(reassembler, cut(small, Part(0, 80, True), 2, nops))
    found = give(reassembler, cut(small, Part(80, 100, False), 2))
    assert found is not None
    assert parse(found) == Datagram(to_key(UDP), memoryview(b"x" * 92))
    assert len(found) == 10 + 60 + 8 + 92


class TestBounds:
    def test_time(self) -> None:
        packet, reassembler = datagram(UDP, bytes(100)), Reassembler()
        give(reassembler, cut(packet, Part(0, 16, True)), 0.0)
        give(reassembler, cut(packet, Part(0, 16, True), 2), PATIENCE - 0.1)
        assert reassembler.given_up == 0
        assert give(reassembler, cut(packet, Part(16, 108, False)), PATIENCE) is None
        assert reassembler.given_up == 1
        assert give(reassembler, cut(packet, Part(16, 108, False), 2), PATIENCE) is not None

    def test_number(self) -> None:
        packet, reassembler = datagram(UDP, bytes(100)), Reassembler()
        for ident in range(MAX_PARTIAL + 10):
            give(reassembler, cut(packet, Part(0, 16, True), ident))
            assert len(reassembler._partials) <= MAX_PARTIAL
        assert reassembler.given_up == 10
        assert give(reassembler, cut(packet, Part(16, 108, False), 9)) is None
        assert give(reassembler, cut(packet, Part(16, 108, False), 60)) is not None

    @pytest.mark.parametrize("size", [8, 65_000])
    def test_bytes(self, size: int) -> None:
        """Whatever the size of the pieces: what Python needs for a small one is counted too."""
        packet, reassembler = datagram(UDP, bytes(65_507)), Reassembler()
        most = 0
        pieces = parts(65_000, size)
        for ident in range(min(80, 80_000 // len(pieces))):
            for part in pieces:
                give(reassembler, cut(packet, part._replace(more=True), ident))
                most = max(most, reassembler._cost)
        assert MAX_BYTES / 2 < most <= MAX_BYTES + 66_000
        assert reassembler.given_up


@given(st.lists(st.binary(max_size=60), max_size=10), st.sampled_from([UDP, UDP6]))
def test_hostile_bytes_are_dropped_or_kept_and_never_raise(tails: list[bytes], five_tuple: FiveTuple) -> None:
    stack = Stack(isn=lambda: 1)
    head = cut(datagram(five_tuple, bytes(100)), Part(0, 16, True))
    for now, tail in enumerate(tails):
        for length in (10, 30, 50):
            data = head[:length] + tail
            for action in stack.receive_packet(data, float(now)):
                assert describe(action)
            if five_tuple is UDP and len(data) >= 30:
                fixed = bytearray(data)
                fixed[12:14] = (len(data) - 10).to_bytes(2, "big")
                fixed[20:22] = bytes(2)
                fixed[20:22] = checksum.complement(checksum.add(bytes(fixed[10:30]))).to_bytes(2, "big")
                stack.receive_packet(bytes(fixed), float(now))
            elif len(data) >= 50:
                fixed = bytearray(data)
                fixed[14:16] = (len(data) - 50).to_bytes(2, "big")
                stack.receive_packet(bytes(fixed), float(now))
