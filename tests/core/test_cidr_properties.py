"""The CIDR algebra against sets of addresses, in a universe of 64."""

from __future__ import annotations

import itertools
from ipaddress import IPv4Address, IPv4Network

from hypothesis import given, settings
from hypothesis import strategies as st
from telehelper.core import cidr

BASE = int(IPv4Network("10.0.0.0/26").network_address)


@st.composite
def networks(draw: st.DrawFn) -> IPv4Network:
    prefix = draw(st.integers(26, 32))
    block = draw(st.integers(0, 2 ** (prefix - 26) - 1))
    return IPv4Network((BASE + (block << (32 - prefix)), prefix))


def addresses(*nets: cidr.Network) -> set[int]:
    return {int(net.network_address) + i for net in nets for i in range(net.num_addresses)}


@settings(deadline=None)
@given(networks(), st.lists(networks()))
def test_subtract_is_set_difference(network: IPv4Network, holes: list[IPv4Network]) -> None:
    rest = cidr.subtract(network, holes)
    assert addresses(*rest) == addresses(network) - addresses(*holes)
    assert sum(net.num_addresses for net in rest) == len(addresses(*rest))  # disjoint
    assert rest == sorted(rest)


@settings(deadline=None)
@given(st.lists(networks()))
def test_merge_is_union_in_fewest_pieces(nets: list[IPv4Network]) -> None:
    merged = cidr.merge(nets)
    assert addresses(*merged) == addresses(*nets)
    assert all(not cidr.overlap(a, b) for i, a in enumerate(merged) for b in merged[:i])
    pairs = itertools.pairwise(merged)
    assert all(
        a.prefixlen != b.prefixlen or a.supernet() != b.supernet() or a == b for a, b in pairs
    )  # no two halves left


@settings(deadline=None)
@given(networks(), networks())
def test_overlap_and_contains_are_what_sets_say(one: IPv4Network, other: IPv4Network) -> None:
    assert cidr.overlap(one, other) == bool(addresses(one) & addresses(other))
    assert cidr.contains(one, other) == (addresses(one) >= addresses(other))


@settings(deadline=None)
@given(st.lists(networks(), max_size=8), st.integers(0, 1000))
def test_free_pair_is_free_and_none_is_missed(taken: list[IPv4Network], index: int) -> None:
    pool = IPv4Network("10.0.0.0/26")
    free = {a for a in addresses(pool) if a % 2 == 0} - {a & ~1 for a in addresses(*taken)}
    if free:
        first, second = cidr.free_pair(taken, index, pool)
        assert int(first) in free
        assert int(second) == int(first) + 1


@settings(deadline=None)
@given(st.lists(networks()), st.integers(0, 63))
def test_a_set_has_exactly_the_addresses_of_its_networks(nets: list[IPv4Network], offset: int) -> None:
    assert (IPv4Address(BASE + offset) in cidr.NetworkSet(nets)) == (BASE + offset in addresses(*nets))
