"""The planner against a naive oracle that decides address by address, in a universe of 32."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st
from telehelper.core.routes import HostRoute, WantedCidr, plan

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
        st.sampled_from([254, 254, 253, 52]),
    ),
    max_size=4,
)


def lookup(table: dict[Network, str], address: IPv4Address) -> str | None:
    """The kernel's way: the longest prefix that contains the address."""
    found = [network for network in table if address in network]
    return table[max(found, key=lambda network: network.prefixlen)] if found else None


@settings(deadline=None)
@given(wanted_lists, host_routes, hole_lists, address_lists)
def test_the_plan_is_what_the_oracle_says(
    wanted: list[IPv4Network], existing: list[HostRoute], never: list[IPv4Network], own: list[IPv4Address]
) -> None:
    made = plan(
        [WantedCidr(str(network), "pods", "test") for network in wanted],
        existing,
        never_proxy=[str(network) for network in never],
        never_addresses=own,
        own_device="tm0",
    )
    inside = {a for a in UNIVERSE if any(a in network for network in wanted)}
    kept_out = {a for a in UNIVERSE if any(a in network for network in never)} | set(own)

    # Every wanted address is in exactly one row, and nothing else is in any.
    listed = [a for row in made.rows for a in row.network if isinstance(a, IPv4Address)]
    assert sorted(listed) == sorted(inside)
    skipped = {a for row in made.rows if row.state == "skipped" for a in row.network}
    assert skipped == inside & kept_out

    # A conflict: some wanted address would be taken from, or kept by, a route that is not ours.
    others = [r for r in existing if r.device != "tm0" and r.network.prefixlen > 1]
    clash = False
    for address in inside - kept_out:
        widest = min(network.prefixlen for network in wanted if address in network)
        for r in others:
            stubborn = r.connected or r.table == 52 or r.network.prefixlen >= widest
            clash = clash or (address in r.network and stubborn)
    assert bool(made.conflicts) == clash

    # Applying the plan gives us exactly the wanted addresses and changes no other; undoing it restores the start.
    if not clash:
        start: dict[Network, str] = {r.network: r.device for r in others if r.table == 254}
        assert not start.keys() & set(made.routes)
        table = start | dict.fromkeys(made.routes, "tm0")
        for address in UNIVERSE:
            expected = "tm0" if address in inside - kept_out else lookup(start, address)
            assert lookup(table, address) == expected
        for network in made.routes:
            del table[network]
        assert table == start


def image(network: Network) -> IPv6Network:
    """The IPv6 network with the same hosts: what is 10.0.0.5 becomes fd00::a00:5, and default routes stay default."""
    if not network.prefixlen:
        return IPv6Network("::/0")
    return IPv6Network((int(IPv6Address("fd00::")) | int(network.network_address), 96 + network.prefixlen))


@settings(deadline=None)
@given(wanted_lists, host_routes, hole_lists, address_lists)
def test_ipv6_is_planned_as_ipv4(
    wanted: list[IPv4Network], existing: list[HostRoute], never: list[IPv4Network], own: list[IPv4Address]
) -> None:
    four = plan(
        [WantedCidr(str(network), "pods", "test") for network in wanted],
        existing,
        never_proxy=[str(network) for network in never],
        never_addresses=own,
        own_device="tm0",
    )
    six = plan(
        [WantedCidr(str(image(network)), "pods", "test") for network in wanted],
        [replace(route, network=image(route.network)) for route in existing],
        never_proxy=[str(image(network)) for network in never],
        never_addresses=[image(ip_network(address)).network_address for address in own],
        own_device="tm0",
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
