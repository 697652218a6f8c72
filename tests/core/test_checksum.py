from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st
from telehelper.core import checksum


def naive(data: bytes) -> int:
    data += b"\0" * (len(data) & 1)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


@given(st.binary(max_size=200))
def test_equals_the_loop_of_rfc_1071(data: bytes) -> None:
    got = checksum.complement(checksum.add(data))
    assert got == naive(data) or {got, naive(data)} == {0, 0xFFFF}  # the two forms of zero


@given(st.binary(max_size=100).map(lambda data: data + b"\0" * (len(data) & 1)))
def test_data_with_its_checksum_sums_to_zero(data: bytes) -> None:
    check = checksum.complement(checksum.add(data)).to_bytes(2, "big")
    assert checksum.add(data, check) == 0


def test_example_of_rfc_1071() -> None:
    assert checksum.add(bytes.fromhex("0001f203f4f5f6f7")) == 0xDDF2
    assert checksum.complement(0xDDF2) == 0x220D
