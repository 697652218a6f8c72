"""The planner against a naive oracle that decides address by address, in a universe of 32."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st
from telehelper.core.route_plan import FIRST, LAST, MAIN, HostRoute, WantedCidr
from telehelper.core.routes import plan

if TYPE_CHECKING:
    from telehelper.core.cidr import Network

UNIVERSE = IPv4Network("10.0.0.0/27")
BASE = int(UNIVERSE.network_address)


@st.composite
def networks(draw: st.DrawFn) -> IPv4Network:
    prefix = draw(st.integers(27, 32))
    block = draw(st.integers(0, 2 ** (prefix - 27) - 1))
    return IPv4Network((BASE + (block << (32 - prefix)), prefix))


wanted_lists = st.lists(networks(), max_size=4)
hole_lists = st.lists(networks(), max_size=3)
address_lists = st.lists(st.integers(BASE, BASE + 31).map(IPv4Address), max_size=2)
foreign_networks = st.one_of(networks(), st.sampled_from([ip_network("10.0.0.0/8"), ip_network("0.0.0.0/0")]))
host_routes = st.lists(
    st.builds(
        HostRoute,
        foreign_networks,
        st.sampled_from(["eth0", "wg0", "tm0"]),
        st.booleans(),
        asked=st.sampled_from([MAIN, MAIN, LAST, FIRST]),
    ),
    max_size=4,
)
choices = st.sampled_from(["refuse", "take", "exclude", "map"])
LEFT = {"refuse": "conflict", "take": "conflict", "exclude": "skipped", "map": "mapped"}


def lookup(existing: list[HostRoute], ours: list[Network], address: IPv4Address) -> str | None:
    """The kernel's way: tables that a rule asks first, then main, and there the longest prefix."""
    for asked in (FIRST, MAIN):
        found = [r for r in existing if r.asked == asked and address in r.network]
        best = max(found, key=lambda r: r.network.prefixlen, default=None)
        own = max((n.prefixlen for n in ours if asked == MAIN and address in n), default=-1)
        if best is not None and best.network.prefixlen == own:
            raise AssertionError(f"{best} and a route of ours are equal: which one wins is chance")
        if best is not None and best.network.prefixlen > own:
            return best.device
        if own >= 0:
            return "tm0"
    return None


def stands(route: HostRoute) -> bool:
    """Whether no route of ours can have its addresses."""
    return route.connected or route.asked == FIRST or route.network.prefixlen == 32


@settings(deadline=None, max_examples=300)
@given(wanted_lists, host_routes, hole_lists, address_lists, choices)
def test_the_plan_is_what_the_oracle_says(
    wanted: list[IPv4Network],
    existing: list[HostRoute],
    never: list[IPv4Network],
    own: list[IPv4Address],
    on_conflict: str,
) -> None:
    made = plan(
        [WantedCidr(str(network), "pods", "test") for network in wanted],
        existing,
        never_proxy=[str(network) for network in never],
        never_addresses=own,
        own_device="tm0",
        on_conflict=on_conflict,
    )
    inside = {a for a in UNIVERSE if any(a in network for network in wanted)}
    kept_out = {a for a in UNIVERSE if any(a in network for network in never)} | set(own)

    # No wanted address is lost silently: each is in exactly one row, and nothing else is in any.
    state = {a: row.state for row in made.rows for a in row.network}
    assert sorted(a for row in made.rows for a in row.network) == sorted(inside)
    for address in inside & kept_out:
        assert state[address] == "skipped"

    # A conflict: some wanted address would be taken from, or kept by, a route that is not ours.
    others = [
        r
        for r in existing
        if r.device != "tm0" and r.asked != LAST and (r.network.prefixlen > 1 or r.asked == FIRST)
    ]
    refused = False
    for address in inside - kept_out:
        widest = min(network.prefixlen for network in wanted if address in network)
        clash = [
            r
            for r in others
            if address in r.network and (r.connected or r.asked == FIRST or r.network.prefixlen >= widest)
        ]
        lost = [r for r in clash if on_conflict != "take" or stands(r)]
        hopeless = any(r.network.prefixlen < 2 for r in lost)
        assert state[address] == ("conflict" if hopeless else LEFT[on_conflict] if lost else "applied")
        refused = refused or state[address] == "conflict"
    assert bool(made.conflicts) == refused

    # Applying the plan gives us exactly the addresses that it says; no other goes another way, least of all one of a
    # network this machine is attached to. Without our routes all is as before, for none was equal to another's.
    start = [r for r in existing if r.device != "tm0"]
    routes = list(made.routes)
    assert not {r.network for r in start if r.asked == MAIN} & set(routes)
    for address in UNIVERSE:
        ours = state.get(address) == "applied"
        assert lookup(start, routes, address) == ("tm0" if ours else lookup(start, [], address))
        attached = any(
            r.connected and r.asked != LAST and r.network.prefixlen > 1 and address in r.network
            for r in start
        )
        assert not (ours and attached)


def image(network: Network) -> IPv6Network:
    """The IPv6 network with the same hosts: what is 10.0.0.5 becomes fd00::a00:5, and default routes stay default."""
    if not network.prefixlen:
        return IPv6Network("::/0")
    return IPv6Network((int(IPv6Address("fd00::")) | int(network.network_address), 96 + network.prefixlen))


@settings(deadline=None)
@given(wanted_lists, host_routes, hole_lists, address_lists, choices)
def test_ipv6_is_planned_as_ipv4(
    wanted: list[IPv4Network],
    existing: list[HostRoute],
    never: list[IPv4Network],
    own: list[IPv4Address],
    on_conflict: str,
) -> None:
    four = plan(
        [WantedCidr(str(network), "pods", "test") for network in wanted],
        existing,
        never_proxy=[str(network) for network in never],
        never_addresses=own,
        own_device="tm0",
        on_conflict=on_conflict,
    )
    six = plan(
        [WantedCidr(str(image(network)), "pods", "test") for network in wanted],
        [replace(route, network=image(route.network)) for route in existing],
        never_proxy=[str(image(network)) for network in never],
        never_addresses=[image(ip_network(address)).network_address for address in own],
        own_device="tm0",
        on_conflict=on_conflict,
    )
    assert [(image(row.network), row.state) for row in four.rows] == [
        (row.network, row.state) for row in six.rows
    ]
    assert len(four.conflicts) == len(six.conflicts)


@settings(deadline=None)
@given(wanted_lists, hole_lists)
def test_the_order_in_which_cidrs_come_does_not_matter(
    wanted: list[IPv4Network], never: list[IPv4Network]
) -> None:
    texts = [str(network) for network in never]
    one = plan([WantedCidr(str(n), "pods", "x") for n in wanted], [], never_proxy=texts)
    other = plan([WantedCidr(str(n), "pods", "x") for n in reversed(wanted)], [], never_proxy=texts[::-1])
    assert one.routes == other.routes
