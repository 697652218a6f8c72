"""Reading the machine's routes and addresses: from netlink messages, and from a real namespace."""

from __future__ import annotations

import subprocess
import sys
from ipaddress import ip_interface, ip_network
from typing import TYPE_CHECKING, Any

import pytest
from telehelper.core.routes import HostRoute
from telehelper.datapath.host_routes import HostAddress, has_ipv6, to_routes

if TYPE_CHECKING:
    from pathlib import Path

NAMES = {1: "lo", 4: "eth0", 5: "wg0"}


def message(dst: str | None, length: int, /, **attributes: Any) -> dict[str, Any]:
    """Return an IPv4 unicast route of the main table, as pyroute2 gives it."""
    header = {"family": 2, "dst_len": length, "type": 1, "flags": 0, "proto": 3, "scope": 0, "table": 254}
    header |= {key: attributes.pop(key) for key in list(attributes) if key in header}
    attrs = [("RTA_TABLE", header["table"]), *attributes.items()]
    return {**header, "attrs": attrs + ([("RTA_DST", dst)] if dst else [])}


def test_a_default_route() -> None:
    assert to_routes(message(None, 0, RTA_OIF=4, RTA_GATEWAY="192.0.2.1"), NAMES) == [
        HostRoute(ip_network("0.0.0.0/0"), "eth0")
    ]
    assert to_routes(message(None, 0, RTA_OIF=4, family=10), NAMES) == [HostRoute(ip_network("::/0"), "eth0")]


def test_connected_is_what_came_with_an_address_and_not_what_a_vpn_chose() -> None:
    assert to_routes(message("192.0.2.0", 24, RTA_OIF=4, proto=2, scope=253), NAMES)[0].connected
    assert to_routes(message("2001:db8::", 64, RTA_OIF=4, proto=9, family=10), NAMES)[0].connected
    assert not to_routes(message("10.0.0.0", 8, RTA_OIF=5, proto=3, scope=253), NAMES)[0].connected
    assert not to_routes(message("10.0.0.0", 8, RTA_OIF=5, proto=2, RTA_GATEWAY="192.0.2.1"), NAMES)[
        0
    ].connected


def test_our_own_addresses_are_routes_of_the_local_table() -> None:
    assert to_routes(message("192.0.2.2", 32, RTA_OIF=4, type=2, table=255, proto=2), NAMES) == [
        HostRoute(ip_network("192.0.2.2/32"), "eth0", connected=False, table=255)
    ]


def test_a_blackhole_has_no_device() -> None:
    assert to_routes(message("10.0.0.0", 8, type=6), NAMES) == [
        HostRoute(ip_network("10.0.0.0/8"), "blackhole")
    ]


def test_several_hops_unknown_devices_and_nexthop_objects() -> None:
    hops = [{"oif": 4}, {"oif": 9}]
    assert [r.device for r in to_routes(message("10.0.0.0", 8, RTA_MULTIPATH=hops), NAMES)] == [
        "eth0",
        "interface 9",
    ]
    assert [r.device for r in to_routes(message("10.0.0.0", 8, RTA_NH_ID=3), NAMES)] == [
        "an unknown interface"
    ]


def test_broadcast_and_cache_entries_decide_nothing() -> None:
    assert to_routes(message("192.0.2.255", 32, RTA_OIF=4, type=3, table=255), NAMES) == []
    assert to_routes(message("192.0.2.9", 32, RTA_OIF=4, flags=0x200), NAMES) == []


@pytest.mark.parametrize(("content", "expected"), [("0\n", True), ("1\n", False), (None, False)])
def test_ipv6_is_there_unless_switched_off_or_left_out_of_the_kernel(
    tmp_path: Path, content: str | None, expected: bool
) -> None:
    (tmp_path / "tele0").mkdir()
    if content is not None:
        (tmp_path / "tele0" / "disable_ipv6").write_text(content)
    assert has_ipv6("tele0", tmp_path) is expected


SETUP = """
ip link set lo up
ip link add d0 type veth peer name d1
ip link set d0 up && ip addr add 10.1.2.3/24 dev d0
ip link set d1 up && ip addr add 10.9.0.1 peer 10.9.0.2/32 dev d1
ip -6 addr add fd00:1::1/64 dev d0 nodad
ip route add 10.96.0.0/12 dev d1
ip route add 10.200.0.0/16 nexthop dev d0 nexthop dev d1
ip route add blackhole 10.66.0.0/16
ip route add 10.52.0.0/16 dev d0 table 52
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


@pytest.mark.netns
def test_a_real_namespace_is_read_without_privilege() -> None:
    command = ["unshare", "-Urn", "sh", "-ec", SETUP, sys.executable, READ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    found = set(done.stdout.splitlines())
    assert "[True, False, False]" in found
    expected = {
        HostRoute(ip_network("0.0.0.0/0"), "d0"),
        HostRoute(ip_network("10.1.2.0/24"), "d0", connected=True),
        HostRoute(ip_network("10.1.2.3/32"), "d0", table=255),
        HostRoute(ip_network("10.9.0.2/32"), "d1", connected=True),
        HostRoute(ip_network("10.96.0.0/12"), "d1"),
        HostRoute(ip_network("10.200.0.0/16"), "d0"),
        HostRoute(ip_network("10.200.0.0/16"), "d1"),
        HostRoute(ip_network("10.66.0.0/16"), "blackhole"),
        HostRoute(ip_network("10.52.0.0/16"), "d0", table=52),
        HostRoute(ip_network("fd00:1::/64"), "d0", connected=True),
        HostAddress(ip_interface("127.0.0.1/8"), "lo"),
        HostAddress(ip_interface("10.1.2.3/24"), "d0"),
        HostAddress(ip_interface("10.9.0.1/32"), "d1"),
        HostAddress(ip_interface("fd00:1::1/64"), "d0"),
    }
    assert {repr(item) for item in expected} <= found
