"""The route planner, case by case."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from telehelper.core.routes import HostRoute, RoutePlan, WantedCidr, foreign, plan
from telehelper.errors import CidrConflict, UsageError

PODS = WantedCidr("10.244.0.0/16", "pods", "node podCIDR")
SERVICES = WantedCidr("10.96.0.0/16", "services", "ServiceCIDR")


def route(network: str, device: str, *, connected: bool = False, table: int = 254) -> HostRoute:
    return HostRoute(ip_network(network), device, connected, table)


def rows(made: RoutePlan) -> list[tuple[str, str, str, str, str]]:
    return [(str(r.network), r.kind, r.source, r.state, r.detail) for r in made.rows]


LAPTOP = [
    route("0.0.0.0/0", "eth0"),
    route("192.168.1.0/24", "eth0", connected=True),
    route("127.0.0.0/8", "lo", table=255),
]


def test_nothing_in_the_way() -> None:
    made = plan([PODS, SERVICES], LAPTOP)
    assert rows(made) == [
        ("10.96.0.0/16", "services", "ServiceCIDR", "applied", ""),
        ("10.244.0.0/16", "pods", "node podCIDR", "applied", ""),
    ]
    assert made.routes == (ip_network("10.96.0.0/16"), ip_network("10.244.0.0/16"))
    made.check()


def test_default_routes_the_openvpn_pair_and_our_own_device_are_no_conflict() -> None:
    existing = [
        route("0.0.0.0/0", "eth0"),
        route("0.0.0.0/1", "tun0"),
        route("128.0.0.0/1", "tun0"),
        route("::/0", "eth0"),
        route("10.96.0.0/16", "tm0"),
    ]
    made = plan([SERVICES], existing, own_device="tm0")
    made.check()
    assert made.routes == (ip_network("10.96.0.0/16"),)
    assert foreign(existing, "tm0") == []


@pytest.mark.parametrize("network", ["10.96.0.0/16", "10.96.3.0/24", "10.96.3.7/32"])
def test_an_equal_or_more_specific_route_is_a_conflict(network: str) -> None:
    made = plan([PODS, SERVICES], [*LAPTOP, route(network, "docker0")])
    assert made.routes == (ip_network("10.244.0.0/16"),)
    assert rows(made)[0][3:] == ("conflict", f"overlaps {network} on docker0")
    with pytest.raises(CidrConflict) as caught:
        made.check()
    assert caught.value.data == {"wanted": "10.96.0.0/16", "existing": network, "device": "docker0"}


def test_a_vpns_wider_route_is_beaten() -> None:
    made = plan([SERVICES], [*LAPTOP, route("10.0.0.0/8", "wg0")])
    made.check()
    assert rows(made) == [
        ("10.96.0.0/16", "services", "ServiceCIDR", "applied", "goes before 10.0.0.0/8 on wg0")
    ]


def test_a_connected_network_is_never_cut_off_its_neighbours() -> None:
    made = plan([SERVICES], [route("10.0.0.0/8", "eth0", connected=True)])
    with pytest.raises(CidrConflict, match=r"10\.96\.0\.0/16 overlaps 10\.0\.0\.0/8 on eth0"):
        made.check()


def test_a_wider_route_in_a_table_asked_before_main_would_beat_ours() -> None:
    existing = [route("10.0.0.0/8", "tailscale0", table=52)]
    assert plan([SERVICES], existing).conflicts
    assert not plan([SERVICES], [route("10.0.0.0/8", "eth1", table=253)]).conflicts


def test_never_proxy_splits_and_ends_a_conflict() -> None:
    made = plan([SERVICES], [route("10.96.0.0/18", "docker0")], never_proxy=["10.96.0.0/18"])
    made.check()
    assert rows(made) == [
        ("10.96.0.0/18", "services", "ServiceCIDR", "skipped", "--never-proxy"),
        ("10.96.64.0/18", "services", "ServiceCIDR", "applied", ""),
        ("10.96.128.0/17", "services", "ServiceCIDR", "applied", ""),
    ]


def test_a_hole_does_not_make_a_conflict_disappear() -> None:
    # The pieces round the hole are longer than the foreign /18 and would silently beat it.
    made = plan([SERVICES], [route("10.96.0.0/18", "docker0")], never_addresses=[ip_address("10.96.0.1")])
    with pytest.raises(CidrConflict):
        made.check()
    assert len(made.conflicts) == 1


def test_the_tunnels_own_addresses_stay_out() -> None:
    made = plan(
        [WantedCidr("10.96.0.0/30", "services", "ServiceCIDR")],
        [],
        never_addresses=[ip_address("10.96.0.1"), ip_address("203.0.113.7"), ip_address("fd00::1")],
    )
    assert rows(made) == [
        ("10.96.0.0/32", "services", "ServiceCIDR", "applied", ""),
        ("10.96.0.1/32", "services", "ServiceCIDR", "skipped", "the tunnel itself needs it"),
        ("10.96.0.2/31", "services", "ServiceCIDR", "applied", ""),
    ]


def test_loopback_and_link_local_are_never_routed_even_if_asked_for() -> None:
    made = plan([], [], also_proxy=["169.254.169.254", "127.0.0.0/8", "fe80::/64"])
    assert made.routes == ()
    assert {row[3:] for row in rows(made)} == {("skipped", "never a cluster's")}


def test_equal_and_nested_cidrs_become_one_with_all_sources() -> None:
    wanted = [
        SERVICES,
        WantedCidr("10.96.0.0/16", "services", "apiserver flag"),
        WantedCidr("10.96.0.0/12", "pods", "guess"),
        WantedCidr("10.200.0.0/24", "pods", "node podCIDR"),
    ]
    made = plan(wanted, [], also_proxy=["10.200.0.0/24"])
    assert rows(made) == [
        (
            "10.96.0.0/12",
            "pods",
            "guess, 10.96.0.0/16 ServiceCIDR, 10.96.0.0/16 apiserver flag",
            "applied",
            "",
        ),
        ("10.200.0.0/24", "pods, user", "node podCIDR, --also-proxy", "applied", ""),
    ]


def test_overlapping_holes_give_each_address_one_row() -> None:
    made = plan([SERVICES], [], never_proxy=["10.96.0.0/17", "10.96.0.0/18", "10.0.0.0/8"])
    assert rows(made) == [
        ("10.96.0.0/17", "services", "ServiceCIDR", "skipped", "--never-proxy"),
        ("10.96.128.0/17", "services", "ServiceCIDR", "skipped", "--never-proxy"),
    ]


def test_a_bad_cidr_of_the_user_is_an_error_of_the_clusters_a_notice() -> None:
    with pytest.raises(UsageError, match=r"--also-proxy: .* is no CIDR"):
        plan([], [], also_proxy=["foo"])
    with pytest.raises(UsageError, match=r"--never-proxy: .* is everything"):
        plan([], [], never_proxy=["0.0.0.0/0"])
    made = plan([WantedCidr("0.0.0.0/0", "pods", "node podCIDR"), SERVICES], [])
    assert made.notices == ("0.0.0.0/0 is everything: left out (node podCIDR)",)
    assert made.routes == (ip_network("10.96.0.0/16"),)


def test_a_plan_prints_as_a_table() -> None:
    made = plan([SERVICES, PODS, WantedCidr("x", "pods", "y")], [route("10.96.0.0/24", "br0")])
    assert str(made).splitlines() == [
        "10.96.0.0/16         services     conflict  ServiceCIDR (overlaps 10.96.0.0/24 on br0)",
        "10.244.0.0/16        pods         applied   node podCIDR",
        "'x' is no CIDR: left out (y)",
    ]


# --- IPv6 --------------------------------------------------------------------------------------------------------

PODS_V6 = WantedCidr("fd00:10:244::/56", "pods", "node podCIDR")
LAPTOP_V6 = [
    *LAPTOP,
    route("::/0", "eth0"),
    route("2001:db8:1::/64", "eth0", connected=True),
    route("fe80::/64", "eth0", connected=True),
    route("::1/128", "lo", table=255),
]


def test_both_families_are_planned_side_by_side() -> None:
    made = plan([PODS_V6, PODS], LAPTOP_V6)
    made.check()
    assert made.routes == (ip_network("10.244.0.0/16"), ip_network("fd00:10:244::/56"))
    assert made.notices == ()


def test_an_ipv6_network_of_the_machine_is_a_conflict() -> None:
    made = plan([PODS, PODS_V6], [*LAPTOP_V6, route("fd00:10:244:3::/64", "docker0")])
    with pytest.raises(CidrConflict) as caught:
        made.check()
    assert caught.value.data == {
        "wanted": "fd00:10:244::/56", "existing": "fd00:10:244:3::/64", "device": "docker0",
    }  # fmt: skip


def test_what_stays_out_stays_out_of_ipv6_too() -> None:
    made = plan(
        [WantedCidr("fd00::/126", "services", "ServiceCIDR")],
        LAPTOP_V6,
        never_proxy=["fd00::3"],
        never_addresses=[ip_address("fd00::1")],
    )
    assert [(row[0], row[3], row[4]) for row in rows(made)] == [
        ("fd00::/128", "applied", ""),
        ("fd00::1/128", "skipped", "the tunnel itself needs it"),
        ("fd00::2/128", "applied", ""),
        ("fd00::3/128", "skipped", "--never-proxy"),
    ]


@pytest.mark.parametrize("text", ["::1/128", "::ffff:10.0.0.0/104", "fe80::/64", "ff05::/16"])
def test_ipv6_that_is_never_a_clusters(text: str) -> None:
    made = plan([WantedCidr(text, "pods", "node podCIDR")], LAPTOP_V6)
    assert rows(made) == [
        (text.replace("10.0.0.0", "a00:0"), "pods", "node podCIDR", "skipped", "never a cluster's")
    ]


def test_on_a_machine_without_ipv6_it_is_left_out_with_a_notice_never_an_error() -> None:
    existing = [*LAPTOP, route("fd00:10:244::/64", "docker0")]  # no conflict either
    made = plan(
        [PODS, PODS_V6], existing, also_proxy=["2001:db8::/64"], never_proxy=["fd00::/16"], ipv6=False
    )
    made.check()
    assert made.routes == (ip_network("10.244.0.0/16"),)
    off = "this machine has IPv6 switched off"
    assert rows(made)[1:] == [
        ("2001:db8::/64", "user", "--also-proxy", "skipped", off),
        ("fd00:10:244::/56", "pods", "node podCIDR", "skipped", off),
    ]
    assert made.notices == (f"{off}: 2001:db8::/64, fd00:10:244::/56 cannot be reached",)
    assert str(made).splitlines()[-1] == made.notices[0]


def test_a_cluster_without_ipv6_gives_no_notice_of_it() -> None:
    assert plan([PODS], LAPTOP, ipv6=False).notices == ()
