from __future__ import annotations

import errno

import pytest
from telehelper.core import checksum
from telehelper.core.icmp import make_unreachable
from telehelper.core.packet import make_datagram, pseudo_sum, quote, to_key

from tests.core.builders import UDP, UDP6, describe, whole

QUOTED4 = quote(whole(make_datagram(to_key(UDP), b"hello")))
QUOTED6 = quote(whole(make_datagram(to_key(UDP6), b"hello")))


@pytest.mark.parametrize(
    ("code", "v4", "v6"),
    [
        (errno.ECONNREFUSED, "3/3", "1/4"),
        (errno.ENETUNREACH, "3/0", "1/0"),
        (errno.EHOSTUNREACH, "3/1", "1/3"),
        (errno.EACCES, "3/13", "1/1"),
        (errno.EIO, "3/1", "1/3"),
    ],
)
def test_codes(code: int, v4: str, v6: str) -> None:
    assert describe(make_unreachable(QUOTED4, code)) == f"<< icmp {v4}"
    assert describe(make_unreachable(QUOTED6, code)) == f"<< icmp {v6}"


def test_addresses_checksum_and_quotation_v4() -> None:
    data = whole(make_unreachable(QUOTED4, errno.ECONNREFUSED))[10:]
    assert data[12:20] == UDP.dst.packed + UDP.src.packed
    assert checksum.add(data[:20]) == 0
    assert checksum.add(data[20:]) == 0
    assert data[28:] == QUOTED4
    assert len(QUOTED4) == 28


def test_addresses_checksum_and_quotation_v6() -> None:
    data = whole(make_unreachable(QUOTED6, errno.ECONNREFUSED))[10:]
    addresses = UDP6.dst.packed + UDP6.src.packed
    assert data[8:40] == addresses
    assert (checksum.add(data[40:]) + pseudo_sum(addresses, 58, len(data) - 40)) % 0xFFFF == 0
    assert data[48:] == QUOTED6
