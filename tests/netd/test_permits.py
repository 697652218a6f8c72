"""Which requests are permitted when, and with which values."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_interface, ip_network
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from telehelper.errors import CidrConflict, ControlError, HelperRefused
from telehelper.messages import (
    PROTOCOL_VERSION,
    Configure,
    GetStatus,
    Message,
    OpenVif,
    SetDns,
    Undo,
)
from telehelper.netd.permits import (
    FORBIDDEN,
    HOST_POOLS,
    MAX_ROUTES,
    SHORTEST,
    WIDEST,
    Gate,
    check_configure,
    check_conflicts,
    check_dns,
    check_open,
)
from telehelper.netd.plan import Held, Network, network_of

if TYPE_CHECKING:
    from telehelper.netd.plan import VifConfig

OPEN, CONFIGURE = OpenVif(PROTOCOL_VERSION, 65000), Configure((), ())
DNS = SetDns("auto", "198.19.240.2", ("shop.svc.cluster.local",))


def wanted(*cidrs: str, addresses: tuple[str, ...] = ("198.19.240.1/32",)) -> VifConfig:
    return check_configure(Configure(addresses, tuple(cidr for cidr in cidrs)))


def held(*pairs: tuple[str, int]) -> list[Held]:
    return [Held(ip_network(cidr), index) for cidr, index in pairs]


# --- the table ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "requests",
    [
        [OPEN, CONFIGURE, DNS, CONFIGURE, CONFIGURE, Undo()],
        [Undo()],
        [OPEN, Undo()],
    ],
)
def test_a_usual_session_is_let_through(requests: list[Message]) -> None:
    gate = Gate()
    for request in requests:
        gate.admit(request)


@pytest.mark.parametrize(
    ("requests", "why"),
    [
        ([GetStatus()], "GetStatus is not permitted"),
        ([OPEN, OPEN], "OpenVif is permitted once only"),
        ([CONFIGURE], "Configure is permitted only after OpenVif"),
        ([OPEN, DNS], "SetDns is permitted only after Configure"),
        ([Undo(), Undo()], "Undo is permitted once only"),
    ],
)
def test_a_surprise_is_not(requests: list[Message], why: str) -> None:
    gate = Gate()
    for request in requests[:-1]:
        gate.admit(request)
    with pytest.raises(ControlError, match=why):
        gate.admit(requests[-1])


# --- values ------------------------------------------------------------------------------------------------------


def test_open_wants_our_version_and_a_possible_mtu() -> None:
    check_open(OPEN)
    with pytest.raises(HelperRefused, match="netd speaks version"):
        check_open(OpenVif(PROTOCOL_VERSION + 1, 1500))
    for mtu in (0, 1279, 65536):
        with pytest.raises(HelperRefused, match="out of range"):
            check_open(OpenVif(PROTOCOL_VERSION, mtu))


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("nonsense", "is no address"),
        ("2001:2::1%eth0", "is no address"),
        ("2001:2::1%a\nb/128", "is no address"),
        ("198.19.240.1/24", "is no host address"),
        ("10.0.0.1/32", "is not in 198.18.0.0/15"),
        ("127.0.0.1", "is not in"),
        ("fd00::1/128", "is not in"),
    ],
)
def test_addresses_are_hosts_of_a_benchmark_network(address: str, why: str) -> None:
    with pytest.raises(HelperRefused, match=why):
        wanted(addresses=(address,))


@pytest.mark.parametrize(
    ("cidr", "why"),
    [
        ("nonsense", "is no CIDR"),
        ("10.0.0.1/8", "is no CIDR"),  # host bits
        ("0.0.0.0/0", "too wide"),
        ("128.0.0.0/1", "too wide"),
        ("2000::/3", "too wide"),
        ("127.0.0.0/8", "stays the machine's own"),
        ("127.0.0.1/32", "stays the machine's own"),
        ("169.254.169.254/32", "stays the machine's own"),
        ("224.0.0.0/8", "stays the machine's own"),
        ("255.255.255.255/32", "stays the machine's own"),
        ("0.0.0.0/8", "stays the machine's own"),
        ("::/0", "too wide"),
        ("fc00::/7", "too wide"),
        ("2000::/15", "too wide"),
        ("fe80::/10", "too wide"),
        ("ff00::/8", "too wide"),
        ("::/16", "stays the machine's own"),
        ("::1/128", "stays the machine's own"),
        ("::ffff:10.0.0.0/104", "stays the machine's own"),
        ("64:ff9b::/96", "stays the machine's own"),
        ("fe80::/64", "stays the machine's own"),
        ("febf::/16", "stays the machine's own"),
        ("ff02::/16", "stays the machine's own"),
    ],
)
def test_some_routes_are_refused_whatever_the_machine_has(cidr: str, why: str) -> None:
    with pytest.raises(HelperRefused, match=why):
        wanted(cidr)


def cidrs(bits: int) -> st.SearchStrategy[str]:
    """Proper CIDRs of one family, with all prefix lengths."""
    maker = IPv4Network if bits == 32 else IPv6Network
    pairs = st.tuples(st.integers(0, 2**bits - 1), st.integers(0, bits))
    return pairs.map(lambda pair: str(maker(pair, strict=False)))


@given(cidrs(32) | cidrs(128), st.booleans())
def test_a_route_that_passes_keeps_every_rule(text: str, wide: bool) -> None:
    try:
        config = check_configure(Configure((), (text,)), wide=wide)
    except HelperRefused:
        return
    (found,) = config
    assert found == ip_network(text)
    assert isinstance(found, Network)
    assert found.prefixlen >= (WIDEST if wide else SHORTEST[found.version])
    assert not any(found.overlaps(forbidden) for forbidden in FORBIDDEN)


@given(st.text(max_size=30))
def test_any_text_is_an_address_of_ours_or_refused(text: str) -> None:
    try:
        config = check_configure(Configure((text,), ()))
    except HelperRefused:
        return
    (address,) = config
    assert any(network_of(address).subnet_of(pool) for pool in HOST_POOLS if pool.version == address.version)  # type: ignore[arg-type]  # of the same family


@pytest.mark.parametrize("cidr", ["64.0.0.0/3", "10.0.0.0/7", "2000::/3", "fc00::/7"])
def test_only_the_users_word_makes_wide_ones_good(cidr: str) -> None:
    assert check_configure(Configure((), (cidr,)), wide=True) == (ip_network(cidr),)
    with pytest.raises(HelperRefused, match="too wide"):
        wanted(cidr)


@pytest.mark.parametrize(
    ("cidr", "why"),
    [
        ("0.0.0.0/0", "nothing shorter than /3"),
        ("::/0", "nothing shorter than /3"),
        ("64.0.0.0/2", "nothing shorter than /3"),
        ("0.0.0.0/3", "stays the machine's own"),
        ("96.0.0.0/3", "stays the machine's own"),
        ("224.0.0.0/3", "stays the machine's own"),
        ("e000::/3", "stays the machine's own"),
    ],
)
def test_but_not_everything(cidr: str, why: str) -> None:
    with pytest.raises(HelperRefused, match=why):
        check_configure(Configure((), (cidr,)), wide=True)


def test_what_is_named_twice_is_there_once() -> None:
    twice = Configure(("198.18.0.1/32",) * 2, ("10.0.0.0/8",) * 2)
    assert check_configure(twice) == (ip_interface("198.18.0.1/32"), ip_network("10.0.0.0/8"))


def test_the_plan_is_bounded() -> None:
    routes = tuple(f"10.{n // 256}.{n % 256}.0/24" for n in range(MAX_ROUTES + 1))
    assert len(check_configure(Configure((), routes[:-1]))) == MAX_ROUTES
    with pytest.raises(HelperRefused, match="more than"):
        check_configure(Configure((), routes))
    with pytest.raises(HelperRefused, match="more than"):
        check_configure(Configure(("198.18.0.1/32",) * 9, ()))


# --- what the machine has ----------------------------------------------------------------------------------------

OURS, LO, ETH, VPN = 7, 1, 2, 3


@pytest.mark.parametrize(
    ("addresses", "routes"),
    [
        ([], []),
        ([("10.0.0.0/24", OURS), ("10.0.0.0/8", LO)], [("10.0.0.0/24", OURS)]),
        ([("192.168.1.0/24", ETH)], [("192.168.1.0/24", ETH)]),
        ([], [("10.0.0.0/8", VPN)]),  # wider: ours is the more specific one and wins
        ([("2001:db8::/64", ETH)], [("2001:db8::/64", ETH)]),
    ],
)
def test_no_conflict(addresses: list[tuple[str, int]], routes: list[tuple[str, int]]) -> None:
    check_conflicts(wanted("10.0.0.0/16"), OURS, held(*addresses), held(*routes))


@pytest.mark.parametrize(
    ("addresses", "routes", "existing"),
    [
        ([("10.0.3.0/24", ETH)], [], "10.0.3.0/24"),  # a network we are attached to is inside
        ([("10.0.0.0/8", ETH)], [], "10.0.0.0/8"),  # … or around: the gateway is there
        ([], [("10.0.0.0/16", VPN)], "10.0.0.0/16"),  # the same
        ([], [("10.0.9.0/24", VPN)], "10.0.9.0/24"),  # a more specific one would take packets from ours
        ([("198.19.240.1/32", ETH)], [], "198.19.240.1/32"),  # our address is another interface's
        ([], [("10.0.0.1/32", ETH)], "10.0.0.1/32"),  # the default gateway, or any single host
    ],
)
def test_conflict(addresses: list[tuple[str, int]], routes: list[tuple[str, int]], existing: str) -> None:
    with pytest.raises(CidrConflict) as caught:
        check_conflicts(wanted("10.0.0.0/16"), OURS, held(*addresses), held(*routes))
    assert caught.value.data["existing"] == existing


@pytest.mark.parametrize(
    ("addresses", "routes", "existing"),
    [
        ([("fd00:0:0:3::/64", ETH)], [], "fd00:0:0:3::/64"),
        ([("fd00::/16", ETH)], [], "fd00::/16"),
        ([], [("fd00::/48", VPN)], "fd00::/48"),
        ([("2001:2:0:ffff::1/128", ETH)], [], "2001:2:0:ffff::1/128"),
    ],
)
def test_conflict_of_ipv6(
    addresses: list[tuple[str, int]], routes: list[tuple[str, int]], existing: str
) -> None:
    with pytest.raises(CidrConflict) as caught:
        check_conflicts(
            wanted("fd00::/48", addresses=("2001:2:0:ffff::1/128",)), OURS, held(*addresses), held(*routes)
        )
    assert caught.value.data["existing"] == existing


def test_to_be_taken_a_foreign_network_needs_longer_routes() -> None:
    vpn = held(("10.0.3.0/24", VPN))
    check_conflicts(wanted("10.0.3.0/25", "10.0.3.128/25", "10.0.3.7/32"), OURS, [], vpn)
    for cidr in ("10.0.3.0/24", "10.0.2.0/23"):
        with pytest.raises(CidrConflict):
            check_conflicts(wanted(cidr), OURS, [], vpn)
    with pytest.raises(CidrConflict):  # but never one the machine is attached to
        check_conflicts(wanted("10.0.3.0/25"), OURS, vpn, [])


def test_link_local_addresses_of_others_are_no_conflict() -> None:
    check_conflicts(wanted("fd00::/64"), OURS, held(("fe80::/64", ETH)), [])


# --- DNS ---------------------------------------------------------------------------------------------------------


def test_a_nameserver_must_be_behind_the_interface() -> None:
    check_dns(DNS, wanted("198.19.240.2/32"))
    check_dns(SetDns("none", "198.19.240.1", ()), wanted())
    check_dns(SetDns("none", "fd00::1", ()), wanted("fd00::/64"))
    with pytest.raises(HelperRefused, match="not behind the interface"):
        check_dns(DNS, wanted("10.0.0.0/8", "fd00::/64"))


@pytest.mark.parametrize(
    "nameserver", ["fd00::1%a", "fd00::1%a\nnameserver 192.0.2.1", "fd00:0::1", "FD00::1"]
)
def test_a_nameserver_is_written_as_we_would(nameserver: str) -> None:
    with pytest.raises(HelperRefused, match=r"not behind the interface|is no address"):
        check_dns(SetDns("auto", nameserver, ()), wanted("fd00::/64"))


def test_search_names_may_have_an_underscore() -> None:
    check_dns(SetDns("auto", "10.0.0.1", ("_msdcs.corp.example",)), wanted("10.0.0.0/8"))


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        (SetDns("nsswitch", "10.0.0.1", ()), "is no mechanism"),
        (SetDns("auto", "ns.example", ()), "is no address"),
        (SetDns("auto", "10.0.0.1\nnameserver 10.0.0.2", ()), "is no address"),
        (SetDns("auto", "10.0.0.1", ("a",) * 7), "more than 6"),
        (SetDns("auto", "10.0.0.1", (), ndots=16), "ndots"),
        (SetDns("auto", "10.0.0.1", (), ndots=-1), "ndots"),
        (SetDns("auto", "10.0.0.1", ("",)), "is no domain name"),
        (SetDns("auto", "10.0.0.1", (".",)), "is no domain name"),
        (SetDns("auto", "10.0.0.1", ("a b",)), "is no domain name"),
        (SetDns("auto", "10.0.0.1", ("a\noptions debug",)), "is no domain name"),
        (SetDns("auto", "10.0.0.1", ("a\n",)), "is no domain name"),
        (SetDns("auto", "10.0.0.1", ("-a.b",)), "is no domain name"),
        (SetDns("auto", "10.0.0.1", ("a-.b",)), "is no domain name"),
        (SetDns("auto", "10.0.0.1", ("a" * 64,)), "is no domain name"),
        (SetDns("auto", "10.0.0.1", (".".join(["a" * 63] * 4),)), "is no domain name"),
    ],
)
def test_what_would_not_be_safe_in_the_file_is_refused(request_: SetDns, why: str) -> None:
    with pytest.raises(HelperRefused, match=why):
        check_dns(request_, wanted("10.0.0.0/8"))


def resolved(*domains: str) -> SetDns:
    return SetDns("resolved", "10.0.0.1", (), domains=domains)


def test_domains_of_a_cluster() -> None:
    namespaces = ("~svc", "~dev", "~shop", "~18.198.in-addr.arpa")
    check_dns(
        resolved("shop.svc.cluster.local", "svc.cluster.local", "cluster.local", *namespaces),
        wanted("10.0.0.0/8"),
    )


@pytest.mark.parametrize(
    ("domain", "why"),
    [
        (".", "is no domain name"),
        ("~.", "is no domain name"),
        ("~", "is no domain name"),
        ("", "is no domain name"),
        ("~~svc", "is no domain name"),
        ("a\nb", "is no domain name"),
        ("shop", "are not the cluster's"),  # would be appended to every name
        ("~com", "are not the cluster's"),
        ("~LOCAL", "are not the cluster's"),
        ("~internal", "are not the cluster's"),
        ("~in-addr.arpa", "are not the cluster's"),
        ("in-addr.arpa", "are not the cluster's"),
    ],
)
def test_domains_that_would_take_names_away(domain: str, why: str) -> None:
    with pytest.raises(HelperRefused, match=why):
        check_dns(resolved("cluster.local", domain), wanted("10.0.0.0/8"))


def test_domains_are_bounded() -> None:
    with pytest.raises(HelperRefused, match="or 256 domains"):
        check_dns(resolved(*(f"~ns{i}" for i in range(257))), wanted("10.0.0.0/8"))
