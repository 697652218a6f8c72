"""The CIDR algebra."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING

import pytest
from telehelper.core import cidr
from telehelper.errors import UsageError, VifError

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("10.1.2.3", "10.1.2.3/32"),
        ("fd00::/64", "fd00::/64"),
        ("10.0.0.0/255.0.0.0", "10.0.0.0/8"),
    ],
)
def test_good_texts(text: str, expected: str) -> None:
    assert str(cidr.parse(text)) == expected


@pytest.mark.parametrize(
    ("text", "words", "hint"),
    [
        ("foo", "is no CIDR", "10.1.0.0/16"),
        ("", "is no CIDR", "10.1.0.0/16"),
        ("10.0.0.0/33", "is no CIDR", "10.1.0.0/16"),
        ("fe80::1%eth0/128", "is no CIDR", "10.1.0.0/16"),
        ("10.0.0.1/8", "has host bits set", "write 10.0.0.0/8"),
        ("0.0.0.0/0", "is everything", "name the networks"),
        ("128.0.0.0/1", "is everything", "name the networks"),
        ("::/0", "is everything", "name the networks"),
    ],
)
def test_bad_texts_are_usage_errors_of_one_line(text: str, words: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        cidr.parse(text, "--also-proxy")
    assert caught.value.message.startswith("--also-proxy: ")
    assert words in caught.value.message
    assert "\n" not in caught.value.message
    assert hint in caught.value.hint


def test_families_never_mix() -> None:
    four, six = IPv4Network("10.0.0.0/8"), IPv6Network("::a00:0/104")
    assert not cidr.overlap(four, six)
    assert not cidr.contains(six, four)
    assert cidr.subtract(four, [six]) == [four]
    assert cidr.subtract(six, [four]) == [six]
    assert cidr.merge([six, four]) == [four, six]


def test_subtract_splits() -> None:
    rest = cidr.subtract(IPv4Network("10.0.0.0/30"), [IPv4Network("10.0.0.1/32")])
    assert [str(network) for network in rest] == ["10.0.0.0/32", "10.0.0.2/31"]
    rest = cidr.subtract(IPv4Network("10.0.0.0/30"), [IPv4Network("10.0.0.1/32"), IPv4Network("10.0.0.3/32")])
    assert [str(network) for network in rest] == ["10.0.0.0/32", "10.0.0.2/32"]
    rest = cidr.subtract(IPv6Network("fd00::/126"), [IPv6Network("fd00::/127"), IPv6Network("fd00::3/128")])
    assert [str(network) for network in rest] == ["fd00::2/128"]
    assert cidr.subtract(IPv4Network("10.0.0.0/30"), [IPv4Network("10.0.0.0/8")]) == []


def test_covering_lists_the_most_specific_first() -> None:
    candidates = [ip_network(text) for text in ("10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "fd00::/8")]
    found = cidr.covering(IPv4Network("10.1.2.0/24"), candidates)
    assert [str(network) for network in found] == ["10.1.2.0/24", "10.1.0.0/16", "10.0.0.0/8"]


def test_networks_in_order() -> None:
    texts = ["10.0.0.0/16", "10.0.0.0/8", "9.0.0.0/8", "::/8"]
    found = sorted((ip_network(text) for text in texts), key=cidr.sort_key)
    assert [str(network) for network in found] == ["9.0.0.0/8", "10.0.0.0/8", "10.0.0.0/16", "::/8"]


def test_the_pair_avoids_what_is_taken_and_depends_on_the_index_only() -> None:
    assert cidr.free_pair([], 0) == (IPv4Address("198.19.240.0"), IPv4Address("198.19.240.1"))
    assert cidr.free_pair([], 2048) == cidr.free_pair([], 0)
    taken = [IPv4Network("198.19.240.1/32"), IPv4Network("10.0.0.0/8")]
    assert cidr.free_pair(taken, 0) == (IPv4Address("198.19.240.2"), IPv4Address("198.19.240.3"))
    last = [IPv4Network("198.19.255.254/31")]
    assert cidr.free_pair(last, 2047) == (IPv4Address("198.19.240.0"), IPv4Address("198.19.240.1"))


def test_the_ipv6_address_avoids_what_is_taken_and_depends_on_the_index_only() -> None:
    first, second = IPv6Address("2001:2:0:ffff::"), IPv6Address("2001:2:0:ffff::1")
    assert cidr.free_address_v6([], 0) == cidr.free_address_v6([], 2048) == first
    assert cidr.free_address_v6([IPv6Network(first), IPv4Network("198.18.0.0/15")], 0) == second
    assert cidr.free_address_v6([IPv6Network("2001:2:0:ffff::7ff")], 2047) == first


def test_as_many_interfaces_have_an_ipv6_address_as_a_pair() -> None:
    assert cidr.VIF_POOL_V6.num_addresses == cidr.VIF_POOL.num_addresses // 2


@pytest.mark.parametrize(
    ("pick", "taken"), [(cidr.free_pair, "198.18.0.0/15"), (cidr.free_address_v6, "2001:2::/48")]
)
def test_a_full_pool_is_an_error_with_a_hint(pick: Callable[..., object], taken: str) -> None:
    with pytest.raises(VifError, match=r"is free") as caught:
        pick([ip_network(taken)], 5)
    assert "VPN" in caught.value.hint


def test_addresses_are_looked_up_in_networks_of_their_family() -> None:
    found = cidr.NetworkSet(
        [ip_network(text) for text in ("10.0.0.0/24", "10.0.2.0/24", "10.0.0.0/25", "fd00::/64")]
    )
    inside = ("10.0.0.0", "10.0.0.255", "10.0.2.7", "fd00::1")
    outside = ("9.255.255.255", "10.0.1.0", "10.0.3.0", "fd00:0:0:1::", "::a00:1")
    assert all(ip_address(text) in found for text in inside)
    assert not any(ip_address(text) in found for text in outside)
    assert ip_address("10.0.0.1") not in cidr.NetworkSet([])


def test_networks_are_looked_up_in_networks_of_their_family() -> None:
    found = cidr.NetworkSet(
        ip_network(text) for text in ("10.0.0.0/24", "10.0.1.0/24", "10.0.3.0/24", "fd00::/64")
    )
    inside = ("10.0.0.0/24", "10.0.0.0/23", "10.0.1.128/25", "10.0.3.255/32", "fd00::/64", "fd00::1/128")
    outside = ("10.0.0.0/22", "10.0.2.0/24", "10.0.2.0/23", "9.0.0.0/8", "fd00::/63", "::a00:0/120")
    assert all(found.covers(ip_network(text)) for text in inside)
    assert not any(found.covers(ip_network(text)) for text in outside)


def test_addresses_that_stand_for_others_are_apart_from_the_interfaces_own() -> None:
    four, six = cidr.free_map_pool([], 0), cidr.free_map_pool_v6([], 0)
    assert (str(four), str(six)) == ("198.19.192.0/22", "2001:2:0:fffe::/118")
    assert cidr.free_map_pool([IPv4Network("198.19.192.0/20")], 0) == IPv4Network("198.19.208.0/22")
    assert cidr.free_map_pool_v6([six], 0) == IPv6Network("2001:2:0:fffe::400/118")
    assert not cidr.overlap(cidr.MAP_POOL, cidr.VIF_POOL)
    assert not cidr.overlap(cidr.MAP_POOL_V6, cidr.VIF_POOL_V6)
