"""Which tables are asked before main, on the rules of real machines."""

from __future__ import annotations

from ipaddress import ip_network

from telehelper.core.policy_rules import PolicyRule, rank
from telehelper.core.route_plan import FIRST, LAST, MAIN, HostRoute

LOCAL = PolicyRule(4, 0, 255)
USUAL = [LOCAL, PolicyRule(4, 32766, 254), PolicyRule(4, 32767, 253)]


def route(network: str, device: str = "tun0", table: int = 254) -> HostRoute:
    return HostRoute(ip_network(network), device, table=table)


def asked(routes: list[HostRoute], rules: list[PolicyRule]) -> list[tuple[str, str, str]]:
    return [(str(r.network), r.device, r.asked) for r in rank(routes, rules)]


def test_the_kernels_own_rules_ask_local_main_default() -> None:
    routes = [route("10.0.0.0/8"), route("10.1.2.3/32", "eth0", 255), route("10.2.0.0/16", "eth1", 253)]
    expected = [("10.1.2.3/32", "eth0", FIRST), ("10.0.0.0/8", "tun0", MAIN), ("10.2.0.0/16", "eth1", LAST)]
    assert asked(routes, USUAL) == expected
    assert asked(routes, []) == expected, "and are taken where none can be read"


def test_tailscales_table_is_asked_before_main() -> None:
    rules = [*USUAL, PolicyRule(4, 5270, 52)]
    routes = [route("10.0.0.0/8", "tailscale0", 52), route("10.0.0.0/8", "eth0")]
    assert asked(routes, rules) == [("10.0.0.0/8", "tailscale0", FIRST), ("10.0.0.0/8", "eth0", MAIN)]


def test_wireguards_table_comes_after_mains_routes_that_are_no_default() -> None:
    rules = [*USUAL, PolicyRule(4, 32764, 254, suppress=0), PolicyRule(4, 32765, 51820)]
    assert asked([route("0.0.0.0/0", "wg0", 51820), route("0.0.0.0/0", "eth0")], rules) == [
        ("0.0.0.0/0", "wg0", LAST),
        ("0.0.0.0/0", "eth0", MAIN),
    ]


def test_a_table_that_no_rule_asks_is_in_nobodys_way() -> None:
    assert asked([route("10.0.0.0/8", "eth0", 100)], USUAL) == [("10.0.0.0/8", "eth0", LAST)]


def test_a_rule_for_one_destination_narrows_its_tables_routes() -> None:
    rules = [*USUAL, PolicyRule(4, 100, 7, to=ip_network("10.5.0.0/16"))]
    routes = [route("0.0.0.0/0", "tun0", 7), route("10.5.6.0/24", "tun1", 7), route("10.6.0.0/16", "tun2", 7)]
    assert asked(routes, rules) == [("10.5.0.0/16", "tun0", FIRST), ("10.5.6.0/24", "tun1", FIRST)]


def test_suppressed_routes_do_not_count() -> None:
    rules = [*USUAL, PolicyRule(4, 100, 7, suppress=8)]
    assert asked([route("10.0.0.0/8", "tun0", 7), route("10.1.0.0/16", "tun1", 7)], rules) == [
        ("10.1.0.0/16", "tun1", FIRST)
    ]
    widely = [LOCAL, PolicyRule(4, 50, 254, suppress=24), PolicyRule(4, 100, 7), *USUAL[1:]]
    assert asked([route("10.1.0.0/16", "tun1", 7)], widely) == [("10.1.0.0/16", "tun1", FIRST)], (
        "a rule that asks main for long prefixes only comes before the table, but our routes are not long"
    )


def test_a_rule_that_ends_the_search_is_a_route_without_a_device() -> None:
    rules = [
        *USUAL,
        PolicyRule(4, 5, to=ip_network("10.1.0.0/16"), verdict="unreachable"),
        PolicyRule(4, 40000, verdict="blackhole"),
    ]
    assert rank([], rules) == [HostRoute(ip_network("10.1.0.0/16"), "unreachable", table=0, asked=FIRST)]
    everything = rank([], [*USUAL, PolicyRule(4, 5, verdict="prohibit")])
    assert everything == [HostRoute(ip_network("0.0.0.0/0"), "prohibit", table=0, asked=FIRST)]


def test_a_throw_lets_packets_go_on_to_main() -> None:
    rules = [*USUAL, PolicyRule(4, 5270, 52)]
    routes = [
        route("10.0.0.0/8", "tailscale0", 52),
        route("10.128.0.0/9", "throw", 52),
        route("10.200.0.0/16", "tailscale0", 52),
        route("10.9.0.0/16", "throw"),
    ]
    assert asked(routes, rules) == [
        ("10.0.0.0/9", "tailscale0", FIRST),
        ("10.200.0.0/16", "tailscale0", FIRST),
    ]


def test_families_have_rules_of_their_own() -> None:
    routes = [route("fd00::/48", "tailscale0", 52), route("10.0.0.0/8", "tailscale0", 52)]
    assert asked(routes, [*USUAL, PolicyRule(6, 5270, 52), PolicyRule(6, 32766, 254)]) == [
        ("10.0.0.0/8", "tailscale0", LAST),
        ("fd00::/48", "tailscale0", FIRST),
    ]


def test_a_table_asked_by_two_rules_counts_once() -> None:
    rules = [*USUAL, PolicyRule(4, 5, 52), PolicyRule(4, 6, 52)]
    assert len(rank([route("10.0.0.0/8", "tailscale0", 52)], rules)) == 1


def test_without_a_rule_for_main_all_other_tables_come_before_it() -> None:
    assert asked(
        [route("10.0.0.0/8", "vrf", 7), route("10.0.0.0/8", "eth0")], [LOCAL, PolicyRule(4, 9, 7)]
    ) == [
        ("10.0.0.0/8", "vrf", FIRST),
        ("10.0.0.0/8", "eth0", MAIN),
    ]
