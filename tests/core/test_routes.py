"""The route planner, case by case."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from telehelper.core.route_plan import FIRST, LAST, MAIN, HostRoute, RoutePlan, WantedCidr
from telehelper.core.routes import MAX_NOTICES, MAX_ROUTES, MAX_WANTED, foreign, plan
from telehelper.errors import CidrConflict, UsageError

PODS = WantedCidr("10.244.0.0/16", "pods", "node podCIDR")
SERVICES = WantedCidr("10.96.0.0/16", "services", "ServiceCIDR")


def route(
    network: str,
    device: str,
    *,
    connected: bool = False,
    table: int = 254,
    what: str = "",
    asked: str = MAIN,
    gateway: str = "",
) -> HostRoute:
    hop = ip_address(gateway) if gateway else None
    return HostRoute(ip_network(network), device, connected, table, what, asked, hop)


def rows(made: RoutePlan) -> list[tuple[str, str, str, str, str]]:
    return [(str(r.network), r.kind, r.source, r.state, r.detail) for r in made.rows]


LAPTOP = [
    route("0.0.0.0/0", "eth0", gateway="192.168.1.1"),
    route("192.168.1.0/24", "eth0", connected=True),
    route("127.0.0.0/8", "lo", table=255, asked=FIRST),
]
VPN, DOCKER = "a VPN", "a container bridge"


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
    made = plan([PODS, SERVICES], [*LAPTOP, route(network, "tun0", what=VPN)])
    (conflict,) = [row for row in made.rows if row.state == "conflict"]
    assert (str(conflict.network), conflict.device) == (network, "tun0")
    assert conflict.detail.startswith(f"overlaps {network} on tun0 (a VPN)")
    with pytest.raises(
        CidrConflict, match=rf"10\.96\.0\.0/16 overlaps {network} on tun0 \(a VPN\)"
    ) as caught:
        made.check()
    facts = {"wanted": "10.96.0.0/16", "existing": network, "device": "tun0", "what": VPN}
    assert {name: caught.value.data[name] for name in facts} == facts


def test_all_conflicts_are_known_and_told_in_one_error() -> None:
    existing = [
        route("10.96.1.0/24", "tun0", what=VPN),
        route("10.96.2.0/24", "docker0", what=DOCKER, connected=True),
        route("10.244.0.0/16", "tele1", what="another telemagic connection"),
        route("10.244.9.0/24", "tele1"),
    ]
    made = plan([PODS, SERVICES], existing)
    assert [error.clash for error in made.conflicts] == [
        "10.96.0.0/16 overlaps 10.96.1.0/24 on tun0 (a VPN)",
        "10.96.0.0/16 overlaps 10.96.2.0/24 on docker0 (a container bridge), this machine is attached to it",
        "10.244.0.0/16 overlaps 10.244.0.0/16 on tele1 (another telemagic connection)",
        "10.244.0.0/16 overlaps 10.244.9.0/24 on tele1",
    ]
    with pytest.raises(CidrConflict) as caught:
        made.check()
    text = str(caught.value)
    assert text.startswith(
        "the cluster's 10.96.0.0/16 overlaps 10.96.1.0/24 on tun0 (a VPN); 10.96.0.0/16 overlaps"
    )
    assert text.endswith("; and 1 more; nothing was changed")
    assert "--on-conflict map" in caught.value.hint
    assert "exclude" in caught.value.hint
    assert "take" not in caught.value.hint, "one of them cannot be taken"


def test_what_can_be_taken_is_offered() -> None:
    with pytest.raises(CidrConflict) as caught:
        plan([SERVICES], [route("10.96.1.0/24", "tun0", what=VPN)]).check()
    assert "take (the cluster gets it)" in caught.value.hint
    assert "--never-proxy 10.96.1.0/24" in caught.value.hint


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
    made = plan([SERVICES], [route("10.0.0.0/8", "tailscale0", table=52, asked=FIRST, what=VPN)])
    with pytest.raises(CidrConflict, match="a routing rule puts it before all of ours: table 52"):
        made.check()
    assert made.routes == ()
    for table, asked in ((253, LAST), (51820, LAST), (254, MAIN)):
        assert not plan([SERVICES], [route("10.0.0.0/8", "eth1", table=table, asked=asked)]).conflicts


def test_a_route_that_is_never_asked_is_in_nobodys_way() -> None:
    made = plan([SERVICES], [route("10.96.1.0/24", "wg0", table=51820, asked=LAST)])
    made.check()
    assert [row.state for row in made.rows] == ["applied"]


@pytest.mark.parametrize("on_conflict", ["refuse", "take", "exclude", "map"])
def test_a_default_route_before_ours_is_a_conflict_whatever_is_chosen(on_conflict: str) -> None:
    everything = route("0.0.0.0/0", "tailscale0", table=52, asked=FIRST, what=VPN)
    made = plan([SERVICES], [everything, route("10.96.0.0/24", "tun0")], on_conflict=on_conflict)
    assert {row.state for row in made.rows} == {"conflict"}
    with pytest.raises(CidrConflict) as caught:
        made.check()
    assert "exit node" in caught.value.hint


def test_the_default_gateway_is_never_routed() -> None:
    made = plan(
        [WantedCidr("10.96.0.0/30", "services", "x")], [route("0.0.0.0/0", "eth0", gateway="10.96.0.1")]
    )
    assert [(row[0], row[4]) for row in rows(made) if row[3] == "skipped"] == [
        ("10.96.0.1/32", "this machine's default gateway")
    ]
    assert len(made.routes) == 2


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
    made = plan([SERVICES, PODS, WantedCidr("x", "pods", "y")], [route("10.96.0.0/17", "br0")])
    assert str(made).splitlines() == [
        "10.96.0.0/17         services     conflict  ServiceCIDR (overlaps 10.96.0.0/17 on br0)",
        "10.96.128.0/17       services     applied   ServiceCIDR",
        "10.244.0.0/16        pods         applied   node podCIDR",
        "'x' is no CIDR: left out (y)",
    ]


def test_a_cidr_of_a_cluster_is_no_part_of_the_internet() -> None:
    made = plan([WantedCidr("10.0.0.0/7", "pods", "x"), WantedCidr("fc00::/15", "pods", "y"), SERVICES], [])
    assert made.notices == (
        "10.0.0.0/7 is wider than /8: left out (x)",
        "fc00::/15 is wider than /16: left out (y)",
    )
    with pytest.raises(UsageError, match=r"--also-proxy: 10.0.0.0/7 is wider than /8"):
        plan([], [], also_proxy=["10.0.0.0/7"])
    assert plan([SERVICES], [], never_proxy=["8.0.0.0/5"]).routes == (), "but it may be kept out"


def test_unless_the_user_named_it_and_insists() -> None:
    wanted = [
        WantedCidr("64.0.0.0/3", "user", "--cidr"),
        WantedCidr("fc00::/7", "user", "a cluster that lies"),
    ]
    made = plan(wanted, [], also_proxy=["32.0.0.0/4"], wide=["64.0.0.0/3", "32.0.0.0/4"])
    assert list(map(str, made.routes)) == ["32.0.0.0/4", "64.0.0.0/3"]
    assert made.notices == ("fc00::/7 is wider than /16: left out (a cluster that lies)",)
    around = plan([WantedCidr("96.0.0.0/3", "user", "--cidr")], [], wide=["96.0.0.0/3"])
    assert "127.0.0.0/8" not in map(str, around.routes)
    assert all(route.prefixlen >= 4 for route in around.routes)
    for everything in ("0.0.0.0/0", "::/0", "128.0.0.0/2"):
        with pytest.raises(UsageError, match=r"is wider than /3|is everything"):
            plan([], [], also_proxy=[everything], wide=[everything])
    with pytest.raises(UsageError) as caught:
        plan([], [], also_proxy=["8.0.0.0/5"])
    assert "--allow-wide" in caught.value.hint


def test_more_routes_than_a_machine_should_have_lose_the_narrowest() -> None:
    wanted = [WantedCidr(f"10.{n // 128}.{n % 128 * 2}.0/24", "pods", "x") for n in range(MAX_ROUTES)]
    made = plan([*wanted, WantedCidr("172.16.0.1/32", "pods", "y")], [])
    assert len(made.routes) == MAX_ROUTES
    assert rows(made)[-1][3:] == ("skipped", f"more than {MAX_ROUTES} routes")
    assert made.notices == (f"more than {MAX_ROUTES} routes: 1 networks of the cluster are left out",)


def test_a_cluster_cannot_keep_us_busy_with_networks() -> None:
    wanted = [WantedCidr(f"10.{n // 256}.{n % 256}.7/32", "pods", "x") for n in range(MAX_WANTED + 1)]
    made = plan([*wanted, *[WantedCidr("nonsense", "pods", "y")] * 100], [])
    assert (
        made.notices[0]
        == f"the cluster names {MAX_WANTED + 101} networks: all after {MAX_WANTED} are left out"
    )
    assert len(made.rows) == MAX_WANTED
    assert len(plan([WantedCidr("nonsense", "pods", "y")] * 100, []).notices) == MAX_NOTICES


def test_an_unknown_answer_to_a_conflict() -> None:
    with pytest.raises(UsageError, match="'ignore' is no answer to a conflict"):
        plan([PODS], [], on_conflict="ignore")


# --- what becomes of a conflict ----------------------------------------------------------------------------------

SMALL = WantedCidr("10.96.0.0/22", "services", "ServiceCIDR")


def states(made: RoutePlan) -> list[tuple[str, str, str]]:
    return [(str(row.network), row.state, row.device) for row in made.rows]


def test_take_splits_until_every_route_is_longer_than_the_foreign_one() -> None:
    made = plan([SMALL], [route("10.96.1.0/24", "tun0", what=VPN)], on_conflict="take")
    made.check()
    assert rows(made) == [
        ("10.96.0.0/24", "services", "ServiceCIDR", "applied", ""),
        ("10.96.1.0/25", "services", "ServiceCIDR", "applied", "goes before 10.96.1.0/24 on tun0 (a VPN)"),
        ("10.96.1.128/25", "services", "ServiceCIDR", "applied", "goes before 10.96.1.0/24 on tun0 (a VPN)"),
        ("10.96.2.0/23", "services", "ServiceCIDR", "applied", ""),
    ]


def test_take_of_nested_foreign_routes_goes_as_deep_as_each() -> None:
    existing = [route("10.96.0.0/22", "tun0"), route("10.96.3.0/24", "tun0")]
    made = plan([SMALL], existing, on_conflict="take")
    made.check()
    assert [str(network) for network in made.routes] == [
        "10.96.0.0/23", "10.96.2.0/24", "10.96.3.0/25", "10.96.3.128/25",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("existing", "why"),
    [
        (route("10.96.1.0/24", "docker0", connected=True), "this machine is attached to it"),
        (route("10.0.0.0/8", "eth0", connected=True), "this machine is attached to it"),
        (route("10.96.1.9/32", "tun0"), "no route can be more specific"),
        (
            route("10.96.1.0/24", "tun0", table=52, asked=FIRST),
            "a routing rule puts it before all of ours: table 52",
        ),
        (route("10.96.1.9/32", "tun0", table=255, asked=FIRST), "this machine's own"),
        (
            route("10.96.1.0/24", "unreachable", table=0, asked=FIRST),
            "a routing rule puts it before all of ours",
        ),
    ],
)
def test_what_cannot_be_taken_is_refused_with_the_reason(existing: HostRoute, why: str) -> None:
    made = plan([SMALL], [existing, route("10.96.2.0/25", "tun0")], on_conflict="take")
    with pytest.raises(CidrConflict, match=rf"{existing.device}, {why}; nothing was changed"):
        made.check()
    assert made.conflicts[0].data["why"] == why
    assert len(made.conflicts) == 1, "the other one could be taken"


def test_exclude_leaves_the_overlap_where_it_is() -> None:
    made = plan([SMALL], [route("10.96.1.0/24", "tun0", what=VPN)], on_conflict="exclude")
    made.check()
    assert states(made) == [
        ("10.96.0.0/24", "applied", ""),
        ("10.96.1.0/24", "skipped", "tun0"),
        ("10.96.2.0/23", "applied", ""),
    ]
    assert made.rows[1].detail == "stays: 10.96.1.0/24 on tun0 (a VPN)"


def test_map_routes_nothing_of_the_overlap_either() -> None:
    existing = [route("10.0.0.0/8", "eth0", connected=True, what="the local network")]
    made = plan([SMALL, PODS], existing, on_conflict="map")
    made.check()
    assert states(made) == [("10.96.0.0/22", "mapped", "eth0"), ("10.244.0.0/16", "mapped", "eth0")]
    assert made.rows[0].detail == (
        "names get other addresses: 10.0.0.0/8 on eth0 (the local network), this machine is attached to it"
    )


@pytest.mark.parametrize("on_conflict", ["refuse", "take", "exclude", "map"])
def test_without_a_conflict_the_choice_changes_nothing(on_conflict: str) -> None:
    existing = [*LAPTOP, route("10.0.0.0/8", "wg0", what=VPN)]
    assert plan([PODS, SERVICES], existing, on_conflict=on_conflict) == plan([PODS, SERVICES], existing)


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
    text = str(ip_network(text))  # a mapped address looks different from Python 3.13 on
    assert rows(made) == [(text, "pods", "node podCIDR", "skipped", "never a cluster's")]


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
