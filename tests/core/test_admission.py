"""Which addresses may be routed because a name led there, and how many are remembered."""

from __future__ import annotations

from ipaddress import IPv4Address, ip_address, ip_network
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from telehelper.core.admission import NOT_GLOBAL, AdmissionPolicy, SingleRoutes, Verdict
from telehelper.core.route_plan import FIRST, MAIN, HostRoute, WantedCidr
from telehelper.core.routes import NEVER, plan

if TYPE_CHECKING:
    from telehelper.core.cidr import Address

GKE = WantedCidr("34.118.224.0/20", "services", "ServiceCIDR")
PODS = WantedCidr("10.244.0.0/16", "pods", "podCIDR")


def route(
    network: str, device: str, *, connected: bool = False, table: int = 254, asked: str = MAIN
) -> HostRoute:
    return HostRoute(ip_network(network), device, connected, table, asked=asked)


MACHINE = [
    HostRoute(ip_network("0.0.0.0/0"), "eth0", gateway=ip_address("192.168.1.1")),
    route("192.168.1.0/24", "eth0", connected=True),
    route("192.168.1.7/32", "eth0", table=255, asked=FIRST),
    route("172.17.0.0/16", "docker0", connected=True),
    route("10.0.0.0/8", "tun0"),
    route("10.9.9.9/32", "tun0"),
    route("100.64.0.0/16", "tailscale0", table=52, asked=FIRST),
]


def judge(
    address: str,
    *wanted: WantedCidr,
    on_conflict: str = "refuse",
    never_proxy: tuple[str, ...] = (),
    ipv6: bool = True,
) -> Verdict:
    made = plan(
        wanted,
        MACHINE,
        never_proxy=never_proxy,
        never_addresses=[ip_address("10.1.1.1"), ip_address("203.0.113.7")],
        on_conflict=on_conflict,
        ipv6=ipv6,
    )
    return AdmissionPolicy(made, on_conflict).judge(ip_address(address))


@pytest.mark.parametrize(
    "address",
    ["10.3.0.1", "172.20.0.10", "192.168.49.2", "100.65.0.1", "198.18.3.4", "fd00:10::7", "2001:2::7"],
)
def test_what_a_cluster_can_have_gets_a_route_of_its_own(address: str) -> None:
    assert judge(address) == ("single", "")


def test_what_is_routed_already_passes() -> None:
    assert judge("10.244.3.4", PODS) == ("routed", "")


@pytest.mark.parametrize("address", ["8.8.8.8", "34.118.224.5", "2606:4700::1111", "192.0.2.1"])
def test_a_public_address_is_not_pulled_to_the_cluster(address: str) -> None:
    assert judge(address, PODS) == ("refused", "a public address outside the cluster's networks")


def test_but_one_of_a_network_that_was_named_is() -> None:
    foreign = route("34.118.224.0/20", "tun0")
    made = plan([GKE], [foreign], on_conflict="exclude")
    assert made.routes == ()
    assert AdmissionPolicy(made, "exclude").judge(ip_address("34.118.224.5")).fate == "single"


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("127.0.0.1", "never a cluster's"),
        ("169.254.169.254", "never a cluster's"),
        ("224.0.0.1", "never a cluster's"),
        ("::1", "never a cluster's"),
        ("fe80::1", "never a cluster's"),
        ("10.1.1.1", "the tunnel itself needs it"),
        ("203.0.113.7", "the tunnel itself needs it"),
        ("192.168.1.1", "this machine's default gateway"),
        ("10.66.0.1", "--never-proxy"),
        ("198.19.240.7", "kept for the addresses of telemagic itself"),
        ("198.19.192.7", "kept for the addresses of telemagic itself"),
        ("2001:2:0:fffe::7", "kept for the addresses of telemagic itself"),
        ("2001:2:0:ffff::7", "kept for the addresses of telemagic itself"),
        ("192.168.1.9", "192.168.1.0/24 on eth0, this machine is attached to it"),
        ("172.17.0.2", "172.17.0.0/16 on docker0, this machine is attached to it"),
        ("10.9.9.9", "10.9.9.9/32 on tun0, no route can be more specific"),
        ("100.64.0.3", "100.64.0.0/16 on tailscale0, a routing rule puts it before all of ours: table 52"),
    ],
)
@pytest.mark.parametrize("on_conflict", ["refuse", "take", "exclude"])
def test_what_is_refused_and_why(address: str, reason: str, on_conflict: str) -> None:
    found = judge(address, PODS, on_conflict=on_conflict, never_proxy=("10.66.0.0/16", "10.244.0.0/16"))
    assert found == ("refused", reason)


def test_without_ipv6_nothing_of_it_is_routed() -> None:
    assert judge("fd00:10::7", ipv6=False) == ("refused", "this machine has IPv6 switched off")


def test_map_takes_a_route_from_nobody() -> None:
    for address in ("10.3.0.1", "10.9.9.9", "172.17.0.2", "192.168.1.9", "100.64.0.3"):
        assert judge(address, on_conflict="map").fate == "mapped"
    assert judge("172.20.0.10", on_conflict="map").fate == "single", "nobody has it"
    assert judge("8.8.8.8", on_conflict="map").fate == "refused"
    assert judge("127.0.0.1", on_conflict="map").fate == "refused"


addresses = st.integers(0, 2**32 - 1).map(IPv4Address)


@given(
    addresses | st.sampled_from([ip_address(f"192.168.1.{n}") for n in range(256)]),
    st.sampled_from(["take", "map"]),
)
def test_whatever_is_answered_a_single_route_takes_nothing_that_it_must_not(
    address: Address, on_conflict: str
) -> None:
    fate = judge(str(address), PODS, on_conflict=on_conflict).fate
    if fate in ("single", "mapped"):
        assert any(address in network for network in NOT_GLOBAL)
        assert not any(address in network for network in NEVER)
    if fate == "single":
        around = [r for r in MACHINE if address in r.network and r.network.prefixlen]
        assert not any(r.connected or r.asked == FIRST or r.network.prefixlen == 32 for r in around)


# --- the single ones ---------------------------------------------------------------------------------------------

A = [IPv4Address(f"10.0.0.{n}") for n in range(10)]


def nothing() -> list[Address]:
    return []


def test_each_is_kept_once() -> None:
    singles = SingleRoutes(3)
    assert singles.add([A[0], A[1], A[0]], nothing) == []
    assert singles.add([A[1]], nothing) == []
    assert list(singles) == [A[0], A[1]]
    assert len(singles) == 2
    assert singles.touch(A[0])
    assert not singles.touch(A[2])
    assert list(singles) == [A[1], A[0]]


def test_the_one_resolved_longest_ago_goes() -> None:
    singles = SingleRoutes(3)
    singles.add(A[:3], nothing)
    singles.touch(A[0])
    assert singles.add([A[3]], nothing) == []
    assert list(singles) == [A[2], A[0], A[3]]


def test_never_one_with_an_open_flow_nor_one_of_the_same_answer() -> None:
    singles = SingleRoutes(3)
    singles.add(A[:3], nothing)
    assert singles.add([A[2], A[3]], lambda: [A[0]]) == []
    assert list(singles) == [A[0], A[2], A[3]]
    assert singles.add([A[4], A[5]], lambda: A[:4]) == [A[4], A[5]], "no room: they are told to the caller"
    assert len(singles) == 3


def test_flows_are_asked_about_only_without_room() -> None:
    def asked() -> list[Address]:
        raise AssertionError("this costs a copy of the flow table")

    SingleRoutes(3).add(A[:3], asked)


def test_an_answer_larger_than_all_room_fills_it() -> None:
    singles = SingleRoutes(3)
    assert singles.add(A[:5], nothing) == A[3:5]
    assert list(singles) == A[:3]


def test_a_new_plan_replaces_those_that_it_covers_or_forbids() -> None:
    singles = SingleRoutes()
    four = [ip_address(a) for a in ("10.244.0.7", "10.3.0.1", "192.168.9.9", "172.20.0.1")]
    singles.add(four, nothing)
    made = plan([PODS], [route("192.168.9.0/24", "eth1", connected=True)], never_proxy=["10.3.0.0/16"])
    singles.keep(AdmissionPolicy(made, "refuse"))
    assert list(singles) == [ip_address("172.20.0.1")]


@given(
    st.lists(st.lists(st.sampled_from(A), min_size=1, max_size=4), max_size=20),
    st.sets(st.sampled_from(A), max_size=2),
)
def test_the_bound_holds_and_what_is_in_use_stays(answers: list[list[Address]], used: set[Address]) -> None:
    singles = SingleRoutes(4)
    for answer in answers:
        before = set(singles)
        full = singles.add(answer, lambda: used)
        assert len(singles) <= 4
        assert before & used <= set(singles)
        assert set(answer) - set(full) <= set(singles)
        assert not set(full) & set(singles)
