from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from telehelper.core import checksum
from telehelper.core.datagram import DatagramTemplate, make_datagram, max_datagram, split
from telehelper.core.packet import NEEDS_CSUM, VNET, Datagram, parse, to_key

from tests.core.builders import UDP, UDP6, whole

if TYPE_CHECKING:
    from telehelper.core.flows import FiveTuple


@pytest.mark.parametrize(("five_tuple", "longest"), [(UDP, 65_507), (UDP6, 65_527)])
def test_every_length_is_a_packet(five_tuple: FiveTuple, longest: int) -> None:
    key = to_key(five_tuple)
    template = DatagramTemplate(key)
    assert template.limit == max_datagram(key) == longest
    for size in (0, 1, 1472, 1473, longest):
        payload = bytes(range(256)) * 256
        assert parse(whole(template.datagram(payload[:size]))) == Datagram(key, memoryview(payload[:size]))


@given(five_tuple=st.sampled_from([UDP, UDP6]), payload=st.binary(max_size=3000))
def test_the_kernel_completes_the_checksum(five_tuple: FiveTuple, payload: bytes) -> None:
    data = bytearray(whole(make_datagram(to_key(five_tuple), payload)))
    flags, kind, _, _, start, offset = VNET.unpack_from(data)
    assert (flags, kind, start, offset) == (NEEDS_CSUM, 0, 20 if five_tuple is UDP else 40, 6)
    at = 10 + start
    # What the kernel does: sum from csum_start on, the field's content included, and put the complement there.
    full = checksum.complement(checksum.add(bytes(data[at:]))) or 0xFFFF
    data[at + offset : at + offset + 2] = full.to_bytes(2, "big")
    data[0] = 0
    assert parse(bytes(data)) == Datagram(to_key(five_tuple), memoryview(payload))


def test_a_template_keeps_nothing_of_a_datagram() -> None:
    template = DatagramTemplate(to_key(UDP))
    first = whole(template.datagram(b"one"))
    template.datagram(bytes(60_000))
    assert whole(template.datagram(b"one")) == first


@pytest.mark.parametrize(
    ("step", "pieces"),
    [
        (0, [b"aaaabbbbcc"]),
        (4, [b"aaaa", b"bbbb", b"cc"]),
        (5, [b"aaaab", b"bbbcc"]),
        (10, [b"aaaabbbbcc"]),
        (99, [b"aaaabbbbcc"]),
    ],
)
def test_split(step: int, pieces: list[bytes]) -> None:
    assert split(Datagram(b"", memoryview(b"aaaabbbbcc"), step)) == pieces


def test_an_empty_datagram_is_one() -> None:
    assert split(Datagram(b"", memoryview(b""))) == [b""]
    assert split(Datagram(b"", memoryview(b""), 4)) == [b""]
