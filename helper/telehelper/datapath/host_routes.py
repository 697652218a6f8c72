"""What this machine's network looks like: routes and addresses, read over netlink; needs no privilege."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pyroute2 import AsyncIPRoute

from telehelper.core.routes import TABLE_MAIN, HostRoute

if TYPE_CHECKING:
    from collections.abc import Mapping

    from telehelper.core.cidr import Network

# linux/rtnetlink.h: RTN_UNICAST, RTN_LOCAL, and the types that have no device. Broadcast and multicast routes come
# with an address's own, RTN_THROW only ends a table.
_UNICAST: Final = 1
_LOCAL: Final = 2
_DEVICELESS: Final = {6: "blackhole", 7: "unreachable", 8: "prohibit"}
_KERNEL: Final = 2  # RTPROT_KERNEL: made with an address
_ROUTER_ADVERTISEMENT: Final = 9  # RTPROT_RA
_CLONED: Final = 0x200  # RTM_F_CLONED: a cache entry, no route
_IPV6: Final = Path(
    "/proc/sys/net/ipv6/conf"
)  # a directory for each interface; not there in a kernel without IPv6


@dataclass(frozen=True, slots=True)
class HostAddress:
    """An address this machine has."""

    interface: IPv4Interface | IPv6Interface
    device: str


def _network(message: Mapping[str, Any], attributes: Mapping[str, Any]) -> Network:
    everything = "0.0.0.0" if message["family"] == socket.AF_INET else "::"  # noqa: S104  # a destination
    return ipaddress.ip_network(f"{attributes.get('RTA_DST', everything)}/{message['dst_len']}", strict=False)


def _devices(attributes: Mapping[str, Any], names: Mapping[int, str]) -> list[str]:
    hops = [attributes.get("RTA_OIF")] + [hop["oif"] for hop in attributes.get("RTA_MULTIPATH", ())]
    found = [names.get(index, f"interface {index}") for index in dict.fromkeys(hops) if index is not None]
    return found or ["an unknown interface"]  # a nexthop object the kernel did not spell out


def to_routes(message: Mapping[str, Any], names: Mapping[int, str]) -> list[HostRoute]:
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
    devices = [_DEVICELESS[kind]] if kind in _DEVICELESS else _devices(attributes, names)
    return [HostRoute(network, device, connected, table) for device in devices]


def has_ipv6(device: str, sysctl: Path = _IPV6) -> bool:
    """Whether this machine lets an interface have IPv6 addresses."""
    try:
        return (sysctl / device / "disable_ipv6").read_text().strip() == "0"
    except OSError:
        return False


async def read_routes() -> list[HostRoute]:
    """Read the machine's routes: all tables, both families.

    Raises
    ------
    OSError
        Netlink is not to be had (pyroute2's NetlinkError is one too).
    """
    routes: list[HostRoute] = []
    async with AsyncIPRoute() as ip:
        names = await _read_names(ip)
        for family in (socket.AF_INET, socket.AF_INET6):
            async for message in await ip.get_routes(family=family):
                routes += to_routes(message, names)
    return routes


async def read_addresses() -> list[HostAddress]:
    """Read the machine's addresses; raises as `read_routes`."""
    addresses: list[HostAddress] = []
    async with AsyncIPRoute() as ip:
        names = await _read_names(ip)
        async for message in await ip.get_addr():
            attributes = dict(message["attrs"])
            # On a point-to-point link IFA_ADDRESS is the other end. IPv6 has no IFA_LOCAL.
            own = attributes.get("IFA_LOCAL", attributes.get("IFA_ADDRESS"))
            if own is not None:
                interface = ipaddress.ip_interface(f"{own}/{message['prefixlen']}")
                device = names.get(message["index"], f"interface {message['index']}")
                addresses.append(HostAddress(interface, device))
    return addresses


async def _read_names(ip: AsyncIPRoute) -> dict[int, str]:
    names: dict[int, str] = {}
    async for link in await ip.get_links():
        names[link["index"]] = dict(link["attrs"])["IFLA_IFNAME"]
    return names
