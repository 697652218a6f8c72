"""Reading the machine's routes and rules: from netlink messages, and from a real namespace."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from ipaddress import ip_address, ip_interface, ip_network
from typing import TYPE_CHECKING, Any

import pytest
from pyroute2 import NetlinkError
from pyroute2.netlink.exceptions import NetlinkDumpInterrupted
from telehelper.core.policy_rules import PolicyRule
from telehelper.core.route_plan import FIRST, LAST, HostRoute
from telehelper.datapath import host_routes
from telehelper.datapath.host_routes import HostAddress, Link, describe, has_ipv6, to_routes, to_rule
from telehelper.errors import VifError

if TYPE_CHECKING:
    from pathlib import Path

LINKS = {1: Link("lo", arp_type=772), 4: Link("eth0"), 5: Link("wg0", "wireguard", 65534)}
GATEWAY = ip_address("192.0.2.1")


def message(dst: str | None, length: int, /, **attributes: Any) -> dict[str, Any]:
    """Return an IPv4 unicast route of the main table, as pyroute2 gives it."""
    header = {"family": 2, "dst_len": length, "type": 1, "flags": 0, "proto": 3, "scope": 0, "table": 254}
    header |= {key: attributes.pop(key) for key in list(attributes) if key in header}
    attrs = [("RTA_TABLE", header["table"]), *attributes.items()]
    return {**header, "attrs": attrs + ([("RTA_DST", dst)] if dst else [])}


def test_a_default_route() -> None:
    assert to_routes(message(None, 0, RTA_OIF=4, RTA_GATEWAY="192.0.2.1"), LINKS) == [
        HostRoute(ip_network("0.0.0.0/0"), "eth0", gateway=GATEWAY)
    ]
    assert to_routes(message(None, 0, RTA_OIF=4, family=10), LINKS) == [HostRoute(ip_network("::/0"), "eth0")]


def test_connected_is_what_came_with_an_address_and_not_what_a_vpn_chose() -> None:
    assert to_routes(message("192.0.2.0", 24, RTA_OIF=4, proto=2, scope=253), LINKS)[0].connected
    assert to_routes(message("2001:db8::", 64, RTA_OIF=4, proto=9, family=10), LINKS)[0].connected
    assert not to_routes(message("10.0.0.0", 8, RTA_OIF=5, proto=3, scope=253), LINKS)[0].connected
    assert not to_routes(message("10.0.0.0", 8, RTA_OIF=5, proto=2, RTA_GATEWAY="192.0.2.1"), LINKS)[
        0
    ].connected


def test_our_own_addresses_are_routes_of_the_local_table() -> None:
    assert to_routes(message("192.0.2.2", 32, RTA_OIF=4, type=2, table=255, proto=2), LINKS) == [
        HostRoute(ip_network("192.0.2.2/32"), "eth0", connected=False, table=255)
    ]


def test_a_blackhole_has_no_device() -> None:
    assert to_routes(message("10.0.0.0", 8, type=6), LINKS) == [
        HostRoute(ip_network("10.0.0.0/8"), "blackhole")
    ]


def test_several_hops_unknown_devices_and_nexthop_objects() -> None:
    hops = [{"oif": 4, "attrs": [("RTA_GATEWAY", "192.0.2.1")]}, {"oif": 9}, {"oif": 4}]
    assert [(r.device, r.gateway) for r in to_routes(message("10.0.0.0", 8, RTA_MULTIPATH=hops), LINKS)] == [
        ("eth0", GATEWAY),
        ("interface 9", None),
    ]
    assert [r.device for r in to_routes(message("10.0.0.0", 8, RTA_NH_ID=3), LINKS)] == [
        "an unknown interface"
    ]


def test_broadcast_and_cache_entries_decide_nothing() -> None:
    assert to_routes(message("192.0.2.255", 32, RTA_OIF=4, type=3, table=255), LINKS) == []
    assert to_routes(message("192.0.2.9", 32, RTA_OIF=4, flags=0x200), LINKS) == []


def test_a_route_of_a_vpn_says_so() -> None:
    (found,) = to_routes(message("10.0.0.0", 8, RTA_OIF=5), LINKS)
    assert str(found) == "10.0.0.0/8 on wg0 (a VPN)"


def test_a_throw_is_known_for_what_it_is() -> None:
    assert to_routes(message("10.0.0.0", 8, type=9, table=52), LINKS) == [
        HostRoute(ip_network("10.0.0.0/8"), "throw", table=52)
    ]


@pytest.mark.parametrize(
    ("link", "what"),
    [
        (Link("docker0", "bridge"), "a container bridge"),
        (Link("br-3f2a", "bridge"), "a container bridge"),
        (Link("virbr0", "bridge"), "a virtual machines' bridge"),
        (Link("tun0", "tun", 65534), "a VPN"),
        (Link("wg0", "wireguard", 65534), "a VPN"),
        (Link("ppp0", "", 512), "a VPN"),
        (Link("utun", "", 65534), "a VPN"),
        (Link("tele7", "tun", 65534), "another telemagic connection"),
        (Link("telephone0", "tun", 65534), "a VPN"),
        (Link("tele0", "veth"), "a container's link"),
        (Link("flannel.1", "vxlan"), "an overlay network"),
        (Link("gre1", "gre", 778), "a tunnel"),
        (Link("eth0"), ""),
        (Link("bond0", "bond"), ""),
    ],
)
def test_what_an_interface_is(link: Link, what: str) -> None:
    assert describe(link) == what


# --- rules -------------------------------------------------------------------------------------------------------


def rule(*attributes: tuple[str, object], family: int = 2, **header: int) -> PolicyRule | None:
    """Read a rule, given as pyroute2 does."""
    usual = {"family": family, "dst_len": 0, "src_len": 0, "table": 254, "action": 1, "flags": 0}
    attrs = [("FRA_SUPPRESS_PREFIXLEN", 0xFFFFFFFF), *attributes]
    return to_rule({**usual, **header, "attrs": attrs}, uid=1000)


TABLE = ("FRA_TABLE", 52)
MARK = ("FRA_FWMARK", 0x80000)


def test_a_rule_for_everything() -> None:
    assert rule(TABLE, ("FRA_PRIORITY", 5270)) == PolicyRule(4, 5270, 52)
    assert rule(TABLE, family=10) == PolicyRule(6, 0, 52)
    assert rule() == PolicyRule(4, 0, 254), "a table below 256 may be in the header alone"


def test_a_rule_for_one_destination() -> None:
    assert rule(TABLE, ("FRA_DST", "10.1.0.0"), dst_len=16) == PolicyRule(4, 0, 52, ip_network("10.1.0.0/16"))


def test_a_rule_that_suppresses_and_ones_that_end() -> None:
    assert rule(("FRA_TABLE", 254), ("FRA_SUPPRESS_PREFIXLEN", 0)) == PolicyRule(4, 0, 254, suppress=0)
    for action, verdict in ((6, "blackhole"), (7, "unreachable"), (8, "prohibit")):
        assert rule(("FRA_TABLE", 0), action=action, table=0) == PolicyRule(4, 0, verdict=verdict)


@pytest.mark.parametrize(
    "attribute",
    [MARK, ("FRA_SRC", "10.0.0.1"), ("FRA_OIFNAME", "eth0"), ("FRA_IIFNAME", "eth0"), ("FRA_L3MDEV", 1)],
)
def test_rules_that_no_ordinary_packet_obeys(attribute: tuple[str, object]) -> None:
    assert rule(TABLE, attribute) is None
    assert rule(TABLE, attribute, flags=2) == PolicyRule(4, 0, 52), "not fwmark … (WireGuard)"


def test_rules_for_this_user_count_and_those_for_others_do_not() -> None:
    assert rule(TABLE, ("FRA_UID_RANGE", "1000:1000")) == PolicyRule(4, 0, 52)
    assert rule(TABLE, ("FRA_UID_RANGE", "0:999")) is None
    assert rule(TABLE, ("FRA_UID_RANGE", "0:999"), flags=2) == PolicyRule(4, 0, 52)
    assert rule(TABLE, ("FRA_IIFNAME", "lo")) == PolicyRule(4, 0, 52), "all that this machine sends"


def test_rules_for_some_ports_count_unless_they_take_everything() -> None:
    for attribute in (("FRA_IP_PROTO", 6), ("FRA_DPORT_RANGE", "443:443"), ("FRA_SPORT_RANGE", "1:9")):
        assert rule(TABLE, attribute) == PolicyRule(4, 0, 52, suppress=1)
    not_dns = rule(("FRA_TABLE", 254), ("FRA_DPORT_RANGE", "53:53"), ("FRA_SUPPRESS_PREFIXLEN", 0), flags=2)
    assert not_dns == PolicyRule(4, 0, 254, suppress=0), "what a proxy's TUN goes before"


def test_not_to_somewhere_counts_as_to_everywhere_and_not_everything_as_nothing() -> None:
    assert rule(TABLE, ("FRA_DST", "10.1.0.0"), dst_len=16, flags=2) == PolicyRule(4, 0, 52)
    assert rule(TABLE, flags=2) is None


def test_jumps_and_rules_without_a_table_decide_nothing() -> None:
    assert rule(("FRA_GOTO", 500), action=2) is None
    assert rule(action=3) is None
    assert rule(table=0) is None


@pytest.mark.parametrize(("content", "expected"), [("0\n", True), ("1\n", False), (None, False)])
def test_ipv6_is_there_unless_switched_off_or_left_out_of_the_kernel(
    tmp_path: Path, content: str | None, expected: bool
) -> None:
    (tmp_path / "tele0").mkdir()
    if content is not None:
        (tmp_path / "tele0" / "disable_ipv6").write_text(content)
    assert has_ipv6("tele0", tmp_path) is expected


def read_with(monkeypatch: pytest.MonkeyPatch, *results: list[HostRoute] | Exception) -> list[HostRoute]:
    """Read the machine's routes, as a netlink that gives these results does."""
    left = list(results)

    async def read() -> list[HostRoute]:
        result = left.pop(0)
        if isinstance(result, Exception):
            raise result
        return result

    monkeypatch.setattr(host_routes, "_read_routes", read)
    monkeypatch.setattr(host_routes, "READ_PAUSE", 0.0)
    return asyncio.run(host_routes.read_routes())


def test_tables_that_changed_meanwhile_are_read_again_but_not_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = [HostRoute(ip_network("10.0.0.0/8"), "tun0")]
    assert read_with(monkeypatch, NetlinkDumpInterrupted(), found) == found
    with pytest.raises(VifError, match="too fast"):
        read_with(monkeypatch, *[NetlinkDumpInterrupted() for _ in range(host_routes.READ_TRIES)])


@pytest.mark.parametrize("error", [NetlinkError(1, "not permitted"), OSError(24, "Too many open files")])
def test_tables_that_cannot_be_read_are_said(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    with pytest.raises(VifError, match="cannot read the machine's routes"):
        read_with(monkeypatch, error)


SETUP = """
ip link set lo up
ip link add d0 type veth peer name d1
ip link set d0 up && ip addr add 10.1.2.3/24 dev d0
ip link set d1 up && ip addr add 10.9.0.1 peer 10.9.0.2/32 dev d1
ip -6 addr add fd00:1::1/64 dev d0 nodad
ip link add docker0 type bridge && ip link set docker0 up && ip addr add 172.17.0.1/16 dev docker0
ip tuntap add dev tun0 mode tun && ip link set tun0 up
ip route add 10.96.0.0/12 dev d1
ip route add 10.128.0.0/12 dev tun0
ip route add 10.200.0.0/16 nexthop dev d0 nexthop dev tun0
ip route add blackhole 10.66.0.0/16
ip route add 10.52.0.0/16 dev tun0 table 52
ip route add throw 10.52.0.0/17 table 52
ip route add 10.53.0.0/16 dev tun0 table 53
ip rule add priority 5270 lookup 52
ip rule add priority 5271 fwmark 7 lookup 53
ip rule add priority 5272 to 10.77.0.0/16 unreachable
ip route add default via 10.1.2.9
echo 1 > /proc/sys/net/ipv6/conf/d1/disable_ipv6
exec "$0" -c "$1"
"""
READ = """
import asyncio, json
from telehelper.datapath.host_routes import has_ipv6, read_addresses, read_routes
print([has_ipv6(device) for device in ("d0", "d1", "none")])
for route in asyncio.run(read_routes()): print(repr(route))
for address in asyncio.run(read_addresses()): print(repr(address))
"""
LAN, VPN, BRIDGE, LINK = "the local network", "a VPN", "a container bridge", "a container's link"


@pytest.mark.netns
def test_a_real_namespace_is_read_without_privilege() -> None:
    command = ["unshare", "-Urn", "sh", "-ec", SETUP, sys.executable, READ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    found = set(done.stdout.splitlines())
    assert "[True, False, False]" in found
    expected = {
        HostRoute(ip_network("0.0.0.0/0"), "d0", what=LAN, gateway=ip_address("10.1.2.9")),
        HostRoute(ip_network("10.1.2.0/24"), "d0", connected=True, what=LAN),
        HostRoute(ip_network("10.1.2.3/32"), "d0", table=255, what=LAN, asked=FIRST),
        HostRoute(ip_network("10.9.0.2/32"), "d1", connected=True, what=LINK),
        HostRoute(ip_network("172.17.0.0/16"), "docker0", connected=True, what=BRIDGE),
        HostRoute(ip_network("10.96.0.0/12"), "d1", what=LINK),
        HostRoute(ip_network("10.128.0.0/12"), "tun0", what=VPN),
        HostRoute(ip_network("10.200.0.0/16"), "d0", what=LAN),
        HostRoute(ip_network("10.200.0.0/16"), "tun0", what=VPN),
        HostRoute(ip_network("10.66.0.0/16"), "blackhole"),
        HostRoute(ip_network("10.52.128.0/17"), "tun0", table=52, what=VPN, asked=FIRST),
        HostRoute(ip_network("10.53.0.0/16"), "tun0", table=53, what=VPN, asked=LAST),
        HostRoute(ip_network("10.77.0.0/16"), "unreachable", table=0, asked=FIRST),
        HostRoute(ip_network("fd00:1::/64"), "d0", connected=True, what=LAN),
        HostAddress(ip_interface("127.0.0.1/8"), "lo"),
        HostAddress(ip_interface("10.1.2.3/24"), "d0"),
        HostAddress(ip_interface("10.9.0.1/32"), "d1"),
        HostAddress(ip_interface("fd00:1::1/64"), "d0"),
    }
    assert {repr(item) for item in expected} <= found
    assert not any("10.52.0.0" in line for line in found), "what is thrown goes on to the next table"
