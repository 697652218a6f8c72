from __future__ import annotations

import time
from ipaddress import IPv4Address, ip_address, ip_network
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from telehelper.core.routes import NEVER
from telehelper.discovery.claims import (
    CERTAIN,
    GUESS,
    LIKELY,
    MAX_CIDRS,
    MAX_COVERS,
    MAX_NOTICE,
    MAX_NOTICES,
    PODS,
    SERVICES,
    Claim,
    FoundCidr,
    Notice,
    bounded,
    claim,
    covering,
    decide,
)

if TYPE_CHECKING:
    from telehelper.discovery.fields import Address


def chosen(
    claims: list[Claim], *seen: str, excluded: tuple[str, ...] = (), is_exact: bool = False
) -> tuple[list[FoundCidr], list[str]]:
    notices: list[Notice] = []
    found = decide(
        PODS, claims, list(map(ip_address, seen)), list(map(ip_address, excluded)), notices, is_exact=is_exact
    )
    assert {notice.topic for notice in notices} <= {PODS}
    return found, [notice.text for notice in notices]


def one(texts: str, source: str = "A", **more: bool | str) -> Claim:
    (made,) = claim(texts.split(), source, **more)  # type: ignore[arg-type]
    return made


def test_the_first_claim_that_stands_is_taken_and_who_says_the_same_is_named() -> None:
    found, notices = chosen(
        [one("10.0.0.0/16"), one("10.0.1.0/24", "B"), one("10.9.0.0/16", "C")], "10.0.1.7"
    )
    assert found == [FoundCidr("10.0.0.0/16", PODS, "A; also: B", CERTAIN)]
    assert notices == ["C: 10.9.0.0/16 does not contain the visible pod 10.0.1.7, so it is not used"]


def test_a_claim_that_misses_a_visible_address_is_not_used() -> None:
    found, notices = chosen([one("10.0.0.0/24"), one("10.0.0.0/16", "B")], "10.0.0.7", "10.0.1.7")
    assert found == [FoundCidr("10.0.0.0/16", PODS, "B", CERTAIN)]
    assert notices == ["A: 10.0.0.0/24 does not contain the visible pod 10.0.1.7, so it is not used"]


def test_one_that_need_not_be_whole_stands_with_strangers_and_those_are_covered() -> None:
    found, notices = chosen([one("10.0.0.0/24", alone=CERTAIN, is_whole=False)], "10.0.0.7", "10.5.1.7")
    assert found == [
        FoundCidr("10.0.0.0/24", PODS, "A", CERTAIN),
        FoundCidr("10.5.1.0/24", PODS, "round visible pods", GUESS),
    ]
    assert notices == []


def test_but_not_if_it_contains_nothing_that_is_visible() -> None:
    found, notices = chosen([one("10.0.0.0/24", is_whole=False)], "10.5.1.7")
    assert found == [FoundCidr("10.5.1.0/24", PODS, "round visible pods", GUESS)]
    assert len(notices) == 1


@pytest.mark.parametrize(
    ("made", "seen", "confidence"),
    [
        (one("10.0.0.0/24"), (), LIKELY),
        (one("10.0.0.0/24"), ("10.0.0.1",), CERTAIN),
        (one("10.0.0.0/24", alone=CERTAIN), (), CERTAIN),
        (one("10.0.0.0/24", witnessed=LIKELY), ("10.0.0.1",), LIKELY),
    ],
)
def test_visible_addresses_make_sure(made: Claim, seen: tuple[str, ...], confidence: str) -> None:
    found, _ = chosen([made], *seen)
    assert [row.confidence for row in found] == [confidence]


def test_each_family_is_decided_for_itself() -> None:
    found, notices = chosen(
        [one("10.0.0.0/24 2001:db8:9::/64"), one("10.0.0.0/16 2001:db8:1::/64", "B")],
        "10.0.0.7",
        "2001:db8:1::7",
    )
    assert found == [
        FoundCidr("10.0.0.0/24", PODS, "A; also: B", CERTAIN),
        FoundCidr("2001:db8:1::/64", PODS, "B", CERTAIN),
    ]
    assert len(notices) == 1


def test_neighbours_are_joined() -> None:
    found, _ = chosen([one("10.0.1.0/24 10.0.0.0/24 10.0.3.0/24")])
    assert [row.cidr for row in found] == ["10.0.0.0/23", "10.0.3.0/24"]


# --- what can be no cluster's ------------------------------------------------------------------------------------

HOSTILE = [
    "0.0.0.0/0",
    "0.0.0.0/1",
    "128.0.0.0/1",
    "10.0.0.0/7",
    "127.0.0.0/8",
    "127.0.0.1",
    "169.254.0.0/16",
    "169.254.169.254/32",
    "224.0.0.0/8",
    "255.255.255.255",
    "::/0",
    "::/1",
    "2000::/3",
    "fe80::/64",
    "ff00::/32",
    "::1/128",
    "::ffff:0:0/96",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_what_can_be_no_clusters_is_left_out_with_a_notice(text: str) -> None:
    found, notices = chosen([one(f"{text} 10.1.0.0/16", alone=CERTAIN)])
    assert [row.cidr for row in found] == ["10.1.0.0/16"]
    assert notices == [f"A names {ip_network(text)}, which can be no cluster's: left out"]


def test_many_of_them_are_one_notice() -> None:
    _, notices = chosen([one(" ".join(HOSTILE))])
    assert notices == [f"A names 0.0.0.0/0 and {len(HOSTILE) - 1} more, which can be no cluster's: left out"]


def test_a_hundred_thousand_networks_are_none() -> None:
    texts = [f"10.{n >> 8 & 255}.{n & 255}.{n % 2 * 128}/25" for n in range(0, 100_000, 2)]
    began = time.process_time()
    found, notices = chosen([one(" ".join(texts))])
    assert time.process_time() - began < 10.0
    assert found == []
    assert len(notices) == 1
    assert "more than can be routed" in notices[0]


def test_as_many_as_can_be_routed_are_taken() -> None:
    found, notices = chosen([one(" ".join(f"10.{n}.0.0/24" for n in range(MAX_CIDRS)))])
    assert (len(found), notices) == (MAX_CIDRS, [])


@pytest.mark.parametrize("text", ["", "nonsense", "10.0.0.0/33", "fe80::1%eth0/64", "10.0.0.0/8/8", "²/8"])
def test_what_is_no_network_is_no_claim(text: str) -> None:
    assert claim([text], "A") == []


# --- guesses -----------------------------------------------------------------------------------------------------


def covers(*seen: str, excluded: tuple[str, ...] = ()) -> list[str]:
    return [row.cidr for row in covering(map(ip_address, seen), PODS, set(map(ip_address, excluded)))]


def test_a_block_round_each_address_and_neighbours_joined() -> None:
    assert covers("10.0.0.7", "10.0.0.99", "10.0.1.3", "10.9.0.1", "fd00::1:2") == [
        "10.0.0.0/23",
        "10.9.0.0/24",
        "fd00::/64",
    ]


def test_no_block_has_an_excluded_address_in_it() -> None:
    assert covers("192.168.37.140", excluded=("192.168.37.12",)) == ["192.168.37.128/25"]
    assert covers("192.168.37.140", excluded=("192.168.37.141", "192.168.37.12")) == ["192.168.37.140/32"]
    assert covers("192.168.37.140", excluded=("192.168.37.140",)) == []
    assert covers("fd00::5", excluded=("fd00::1",)) == ["fd00::4/126"]


@settings(deadline=None)
@given(st.lists(st.integers(0, 511), min_size=1, max_size=20), st.lists(st.integers(0, 511), max_size=20))
def test_guesses_cover_what_is_seen_and_nothing_that_is_excluded(
    seen: list[int], excluded: list[int]
) -> None:
    base = int(IPv4Address("10.7.0.0"))
    visible: set[Address] = {IPv4Address(base + n) for n in seen}
    kept_out: set[Address] = {IPv4Address(base + n) for n in excluded}
    networks = [ip_network(row.cidr) for row in covering(visible, PODS, kept_out)]
    assert all(any(address in network for network in networks) for address in visible - kept_out)
    assert not [address for address in kept_out if any(address in network for network in networks)]
    assert all(network.prefixlen >= 23 for network in networks)


def test_addresses_that_are_never_a_clusters_are_not_covered() -> None:
    assert covers("127.0.0.1", "169.254.1.1", "::1", "fe80::1", "224.0.0.1") == []
    assert all(network.version in (4, 6) for network in NEVER)


def test_too_many_blocks_are_cut_to_those_with_most_addresses() -> None:
    seen = [f"10.{n % 200}.{n // 200}.1" for n in range(400)] + ["10.250.1.1", "10.250.1.2"]
    found = covers(*seen)
    assert len(found) <= MAX_COVERS
    assert "10.250.1.0/24" in found


def test_addresses_whose_neighbours_are_unknown_are_only_themselves() -> None:
    found, _ = chosen([], "10.0.0.7", "fd00::7", is_exact=True)
    assert [row.cidr for row in found] == ["10.0.0.7/32", "fd00::7/128"]


def test_ten_thousand_addresses_take_no_time() -> None:
    seen = [IPv4Address(int(IPv4Address("10.0.0.0")) + 7 * n) for n in range(10_000)]
    nodes: set[Address] = {IPv4Address(int(IPv4Address("10.0.0.3")) + 70 * n) for n in range(1_000)}
    began = time.process_time()
    found = decide(SERVICES, [one("10.0.0.0/24", is_whole=False)], seen, nodes, [])
    assert time.process_time() - began < 3.0
    assert len(found) <= MAX_COVERS + 1


def test_notices_are_few_printable_and_short() -> None:
    many = [Notice("", f"line {n}\n\x1b[31m" + "x" * 1000) for n in range(100)] + [Notice("", "line 0")] * 5
    kept = bounded(many)
    assert len(kept) == MAX_NOTICES
    assert all(len(notice.text) <= MAX_NOTICE and notice.text.isprintable() for notice in kept)
