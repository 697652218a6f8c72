"""What this machine's network looks like: routes, rules and addresses, read over netlink; needs no privilege."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import re
import socket
from dataclasses import dataclass, replace
from ipaddress import IPv4Interface, IPv6Interface, ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pyroute2 import AsyncIPRoute, NetlinkError
from pyroute2.netlink.exceptions import NetlinkDumpInterrupted

from telehelper.core.cidr import SHORTEST_PREFIX
from telehelper.core.policy_rules import PolicyRule, rank
from telehelper.core.route_plan import TABLE_MAIN, THROW, HostRoute
from telehelper.errors import VifError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from telehelper.core.cidr import Address, Network

READ_TRIES: Final = 6  # the tables may change while they are read: then the list is inconsistent
READ_PAUSE: Final = 0.05  # seconds; who changes them is mostly done by then

# linux/rtnetlink.h: RTN_UNICAST, RTN_LOCAL, and the types that have no device. Broadcast and multicast routes come
# with an address's own.
_UNICAST: Final = 1
_LOCAL: Final = 2
_DEVICELESS: Final = {6: "blackhole", 7: "unreachable", 8: "prohibit", 9: THROW}
_KERNEL: Final = 2  # RTPROT_KERNEL: made with an address
_ROUTER_ADVERTISEMENT: Final = 9  # RTPROT_RA
_CLONED: Final = 0x200  # RTM_F_CLONED: a cache entry, no route
_IPV6: Final = Path(
    "/proc/sys/net/ipv6/conf"
)  # a directory for each interface; not there in a kernel without IPv6

# linux/fib_rules.h: FR_ACT_TO_TBL, the actions that end the search, FIB_RULE_INVERT; FRA_SUPPRESS_PREFIXLEN of none.
_TO_TABLE: Final = 1
_ENDING: Final = {6: "blackhole", 7: "unreachable", 8: "prohibit"}
_INVERT: Final = 0x2
_NO_SUPPRESS: Final = 0xFFFFFFFF
# What a packet of an ordinary program has not when its route is looked up: a source address, another interface to come
# from or go to, a mark (that is seen to apart), a virtual router.
_NOT_ORDINARY: Final = ("FRA_SRC", "FRA_OIFNAME", "FRA_L3MDEV")
_SOME_PACKETS: Final = ("FRA_IP_PROTO", "FRA_SPORT_RANGE", "FRA_DPORT_RANGE")

_POINT_TO_POINT: Final = frozenset({512, 65534})  # linux/if_arp.h ARPHRD_PPP, ARPHRD_NONE: what VPNs are
_KINDS: Final = {  # IFLA_INFO_KIND: for people
    "tun": "a VPN",
    "wireguard": "a VPN",
    "ppp": "a VPN",
    "xfrm": "a VPN",
    "vti": "a VPN",
    "vti6": "a VPN",
    "gre": "a tunnel",
    "ipip": "a tunnel",
    "sit": "a tunnel",
    "ip6tnl": "a tunnel",
    "vxlan": "an overlay network",
    "geneve": "an overlay network",
    "veth": "a container's link",
}
_OURS: Final = re.compile(r"tele\d+")  # netd names interfaces so
_CONTAINER: Final = _KINDS["veth"]
_VIRTUAL_MACHINES: Final = ("virbr", "vmnet", "vboxnet", "mpqemubr")


@dataclass(frozen=True, slots=True)
class HostAddress:
    """An address this machine has."""

    interface: IPv4Interface | IPv6Interface
    device: str


@dataclass(frozen=True, slots=True)
class Link:
    """An interface: its name, the kernel's word for its kind (empty for hardware) and its ARP type."""

    name: str
    kind: str = ""
    arp_type: int = 1


def describe(link: Link) -> str:
    """Say what an interface is, for people; empty if it is nothing special."""
    if link.kind == "tun" and _OURS.fullmatch(link.name):
        return "another telemagic connection"
    if link.kind == "bridge":
        machines = link.name.startswith(_VIRTUAL_MACHINES)
        return "a virtual machines' bridge" if machines else "a container bridge"
    if link.arp_type in _POINT_TO_POINT and not link.kind:
        return "a VPN"
    return _KINDS.get(link.kind, "")


def _network(message: Mapping[str, Any], attributes: Mapping[str, Any]) -> Network:
    everything = "0.0.0.0" if message["family"] == socket.AF_INET else "::"  # noqa: S104  # a destination
    return ipaddress.ip_network(f"{attributes.get('RTA_DST', everything)}/{message['dst_len']}", strict=False)


def _gateway(attributes: Mapping[str, Any]) -> Address | None:
    text = attributes.get("RTA_GATEWAY")
    return ip_address(text) if text is not None else None


def _hops(attributes: Mapping[str, Any], links: Mapping[int, Link]) -> list[tuple[Link, Address | None]]:
    """Return where a route leads to: each interface once, with its gateway."""
    hops: dict[int, Address | None] = {}
    if attributes.get("RTA_OIF") is not None:
        hops[attributes["RTA_OIF"]] = _gateway(attributes)
    for hop in attributes.get("RTA_MULTIPATH", ()):
        hops.setdefault(hop["oif"], _gateway(dict(hop.get("attrs", ()))))
    found = [(links.get(index, Link(f"interface {index}")), gateway) for index, gateway in hops.items()]
    return found or [(Link("an unknown interface"), None)]  # a nexthop object the kernel did not spell out


def to_routes(message: Mapping[str, Any], links: Mapping[int, Link]) -> list[HostRoute]:
    """Turn one netlink route into ours: one per device it leads to, none if it decides nothing.

    A network is *connected* when the kernel made the route with an address, or the router announced it as on-link.
    A VPN's route without gateway has link scope too, but is somebody's choice: scope alone does not tell.
    """
    kind = message["type"]
    if message["flags"] & _CLONED or kind not in (_UNICAST, _LOCAL, *_DEVICELESS):
        return []
    attributes = dict(message["attrs"])
    network = _network(message, attributes)
    has_gateway = any(name in attributes for name in ("RTA_GATEWAY", "RTA_VIA", "RTA_MULTIPATH"))
    connected = message["proto"] in (_KERNEL, _ROUTER_ADVERTISEMENT) and not has_gateway and kind == _UNICAST
    table = attributes.get("RTA_TABLE", message.get("table", TABLE_MAIN))
    if kind in _DEVICELESS:
        return [HostRoute(network, _DEVICELESS[kind], table=table)]
    return [
        HostRoute(network, link.name, connected, table, describe(link), gateway=gateway)
        for link, gateway in _hops(attributes, links)
    ]


def to_rule(message: Mapping[str, Any], uid: int) -> PolicyRule | None:
    """Turn one netlink rule into ours; None if no ordinary packet of this user obeys it, or it decides nothing."""
    attributes = {name: value for name, value in message["attrs"] if value is not None}
    action, table = message["action"], attributes.get("FRA_TABLE", message.get("table", 0))
    if not ((action == _TO_TABLE and table) or action in _ENDING):
        return None  # a jump, or nothing at all
    never, sometimes = _is_never_met(attributes, uid), any(name in attributes for name in _SOME_PACKETS)
    to = attributes.get("FRA_DST")
    network = ipaddress.ip_network(f"{to}/{message['dst_len']}", strict=False) if to is not None else None
    if message["flags"] & _INVERT:
        # "not" of a condition that an ordinary packet hardly ever meets is met nearly always. Of "not to" we take
        # everything: rather a conflict too many than routes without effect.
        if not never and not sometimes and network is None:
            return None
        network = None
    elif never:
        return None
    suppress = attributes.get("FRA_SUPPRESS_PREFIXLEN", _NO_SUPPRESS)
    if suppress == _NO_SUPPRESS:
        # What takes all of some port is a proxy's business, and no reason not to connect.
        suppress = SHORTEST_PREFIX - 1 if sometimes and not message["flags"] & _INVERT else -1
    return PolicyRule(
        4 if message["family"] == socket.AF_INET else 6,
        attributes.get("FRA_PRIORITY", 0),
        table if action == _TO_TABLE else 0,
        network,
        suppress,
        _ENDING.get(action, ""),
    )


def _is_never_met(attributes: Mapping[str, Any], uid: int) -> bool:
    """Whether no ordinary packet of a user meets a rule's conditions."""
    first, _, last = str(attributes.get("FRA_UID_RANGE", f"{uid}:{uid}")).partition(":")
    return (
        any(attributes.get(name) for name in _NOT_ORDINARY)
        or attributes.get("FRA_FWMARK", 0) != 0
        or attributes.get("FRA_IIFNAME", "lo") != "lo"  # what this machine sends counts as coming from lo
        or not int(first) <= uid <= int(last)
    )


def _with_local_network(routes: Sequence[HostRoute]) -> list[HostRoute]:
    """Say "the local network" of what has no better name and is on the way to the default gateway."""
    uplinks = {route.device for route in routes if route.is_default and route.gateway is not None}
    return [
        replace(route, what="the local network")
        if route.device in uplinks and route.what in ("", _CONTAINER)
        else route
        for route in routes
    ]


def has_ipv6(device: str, sysctl: Path = _IPV6) -> bool:
    """Whether this machine lets an interface have IPv6 addresses."""
    try:
        return (sysctl / device / "disable_ipv6").read_text().strip() == "0"
    except OSError:
        return False


async def read_routes() -> list[HostRoute]:
    """Read the machine's routes: all tables, both families, with what its routing rules make of them.

    Raises
    ------
    VifError
        They cannot be read, or change so fast that no consistent list is to be had.
    """
    for _ in range(READ_TRIES):
        try:
            return await _read_routes()
        except NetlinkDumpInterrupted:
            await asyncio.sleep(READ_PAUSE)
        except (NetlinkError, OSError) as error:
            raise VifError(f"cannot read the machine's routes: {error}") from error
    raise VifError("the machine's routes change too fast to be read", hint="try again")


async def _read_routes() -> list[HostRoute]:
    routes: list[HostRoute] = []
    rules: list[PolicyRule] = []
    async with AsyncIPRoute() as ip:
        links = await _read_links(ip)
        for family in (socket.AF_INET, socket.AF_INET6):
            async for message in await ip.get_routes(family=family):
                routes += to_routes(message, links)
            found = [to_rule(message, os.getuid()) async for message in await ip.get_rules(family=family)]
            rules += [rule for rule in found if rule is not None]
    return rank(_with_local_network(routes), rules)


async def read_addresses() -> list[HostAddress]:
    """Read the machine's addresses; OSError or NetlinkError if netlink is not to be had."""
    addresses: list[HostAddress] = []
    async with AsyncIPRoute() as ip:
        links = await _read_links(ip)
        async for message in await ip.get_addr():
            attributes = dict(message["attrs"])
            # On a point-to-point link IFA_ADDRESS is the other end. IPv6 has no IFA_LOCAL.
            own = attributes.get("IFA_LOCAL", attributes.get("IFA_ADDRESS"))
            if own is not None:
                interface = ipaddress.ip_interface(f"{own}/{message['prefixlen']}")
                index = message["index"]
                addresses.append(HostAddress(interface, links.get(index, Link(f"interface {index}")).name))
    return addresses


async def _read_links(ip: AsyncIPRoute) -> dict[int, Link]:
    links: dict[int, Link] = {}
    async for message in await ip.get_links():
        attributes = dict(message["attrs"])
        info = dict((attributes.get("IFLA_LINKINFO") or {"attrs": ()})["attrs"])
        kind = info.get("IFLA_INFO_KIND", "")
        links[message["index"]] = Link(attributes["IFLA_IFNAME"], kind, message["ifi_type"])
    return links
