from __future__ import annotations

import asyncio
from ipaddress import IPv4Network, IPv6Network, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from telehelper.discovery.refused_service import (
    ASKED,
    UNKNOWN,
    Verdict,
    accepted,
    find_range,
    rejected,
    review,
    service,
    verdict_of,
)
from telehelper.errors import ApiServerUnavailable, ClusterError, CredentialsRefused

from tests.discovery.allocator import MISMATCH, NAMED, NAMED_OF_OLD, WORDLESS, Allocator, at_random


def ask(allocator: Allocator, version: int = 4) -> IPv4Network | IPv6Network | None:
    async def dry_run(address: str) -> Verdict:
        try:
            return accepted(allocator("/services", service(version, address)))
        except ClusterError as error:
            return verdict_of(error)

    return asyncio.run(find_range(dry_run, version))


@pytest.mark.parametrize("words", [NAMED, NAMED_OF_OLD])
@pytest.mark.parametrize("network", ["10.96.0.0/12", "10.43.0.0/16", "34.118.224.0/20", "172.20.0.0/16"])
def test_the_words_name_the_range(words: str, network: str) -> None:
    allocator = Allocator(network, words=words)
    assert str(ask(allocator)) == network
    assert allocator.wanted == ["1.1.1.1"] * ASKED, "so that several ranges are noticed"


@pytest.mark.parametrize("words", [WORDLESS, MISMATCH])
@pytest.mark.parametrize(
    "network",
    ["10.96.0.0/12", "10.0.0.0/8", "10.43.0.0/16", "198.18.8.0/22", "34.118.224.0/20", "10.0.0.128/28"],
)
def test_without_the_range_in_the_words_it_is_bisected(words: str, network: str) -> None:
    allocator = Allocator(network, words=words)
    assert str(ask(allocator)) == network
    assert len(allocator.wanted) <= 3 * ASKED + 1 + 6


@pytest.mark.parametrize("network", ["fd00:10:96::/112", "fd00:10:96::/108", "2001:db8:1:2::/64"])
@pytest.mark.parametrize("words", [NAMED, WORDLESS])
def test_ipv6(network: str, words: str) -> None:
    allocator = Allocator("10.96.0.0/16", network, words=words)
    assert str(ask(allocator, 6)) == network
    assert str(ask(allocator, 4)) == "10.96.0.0/16"


@settings(deadline=None)
@given(st.integers(8, 29), st.integers(0, 2**32 - 1))
def test_every_ipv4_range_is_found_by_bisection(prefix: int, number: int) -> None:
    network = IPv4Network((number, prefix), strict=False)
    if (
        not int(network.network_address)
        or network.broadcast_address == IPv4Network("0.0.0.0/0").broadcast_address
    ):
        return
    if network.overlaps(IPv4Network("1.1.1.1/32")):
        return  # then nothing is refused
    found = ask(Allocator(str(network), words=WORDLESS))
    assert found == network


@settings(deadline=None)
@given(st.integers(64, 125), st.integers(1, 2**56 - 1))
def test_every_ipv6_range_is_found_by_bisection(prefix: int, number: int) -> None:
    network = IPv6Network(((0xFD << 120) + (number << 8), prefix), strict=False)
    assert ask(Allocator(str(network), words=WORDLESS), 6) == network


def test_an_address_that_is_in_use_is_in_range() -> None:
    used = tuple(str(ip_network("10.96.0.0/12")[2**size - 2]) for size in range(2, 21))
    assert str(ask(Allocator("10.96.0.0/12", words=WORDLESS, used=used))) == "10.96.0.0/12"


@pytest.mark.parametrize("words", [NAMED, WORDLESS])
def test_several_ranges_are_never_mixed_up(words: str) -> None:
    """Each dry run asks one of them at random: what is found is one of them, or nothing."""
    networks = ("10.96.0.0/16", "10.112.0.0/20", "172.30.0.0/16")
    answers = {str(ask(Allocator(*networks, words=words, pick=at_random(seed)))) for seed in range(60)}
    assert answers <= {*networks, "None"}
    assert "None" in answers


def test_a_family_that_the_cluster_does_not_have_has_no_range() -> None:
    allocator = Allocator("10.96.0.0/12")
    assert ask(allocator, 6) is None
    assert len(allocator.wanted) == 2 * ASKED


class Odd:
    """An API server that says the same to everything."""

    def __init__(self, verdict: Verdict) -> None:
        self.verdict = verdict
        self.asked = 0

    async def ask(self, _: str) -> Verdict:
        self.asked += 1
        return self.verdict


@pytest.mark.parametrize(
    "verdict",
    [
        UNKNOWN,
        Verdict(False),
        Verdict(True),
        accepted({"spec": {"clusterIP": "10.0.0.0"}}),
        accepted({"spec": {"clusterIP": "0.0.0.0"}}),
        accepted({"spec": {"clusterIP": "::1"}}),
        accepted({"spec": {"clusterIP": ["10.0.0.0"]}}),
        accepted({"spec": None}),
        accepted([]),
        rejected("The range of valid IPs is 10.96.0.0/99"),
        rejected("The range of valid IPs is fd00::/108"),
    ],
)
def test_what_does_not_fit_together_is_unknown(verdict: Verdict) -> None:
    odd = Odd(verdict)
    assert asyncio.run(find_range(odd.ask, 4)) is None
    assert odd.asked <= 3 * ASKED + 1 + 6


def test_a_refusal_of_the_request_tells_nothing() -> None:
    for error in (CredentialsRefused("10.0.0.1 is not in the valid range"), ApiServerUnavailable("500")):
        assert verdict_of(error) == UNKNOWN
    assert rejected("admission webhook denied the request") == UNKNOWN
    assert rejected("provided IP is already allocated") == Verdict(True)


def test_what_is_sent_wants_one_family_and_asks_for_the_right_to_create() -> None:
    assert service(6, "")["spec"] == {
        "ipFamilies": ["IPv6"],
        "ipFamilyPolicy": "SingleStack",
        "ports": [{"port": 443, "protocol": "TCP"}],
    }
    assert service(4, "1.1.1.1")["spec"]["clusterIPs"] == ["1.1.1.1"]
    assert review("shop")["spec"]["resourceAttributes"] == {
        "namespace": "shop",
        "verb": "create",
        "group": "",
        "resource": "services",
    }
