"""What netd may be asked, and with which values: the table of permits, and the checks of every request.

The other side is the user's data plane, and some of its values come from a cluster, so nothing is taken on trust.
A request that is not permitted ends netd (:meth:`Gate.admit`); a permitted one with values that break a rule here is
refused, and netd goes on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from ipaddress import ip_address, ip_interface, ip_network
from typing import Final, TypeVar

from telehelper.errors import CidrConflict, ControlError, HelperRefused
from telehelper.messages import NOT_OURS, PROTOCOL_VERSION, Configure, Message, OpenVif, SetDns, Undo
from telehelper.netd.plan import Held, Interface, Item, Network, VifConfig, device_name, network_of

MAX_ROUTES: Final = 1024  # a routing table a person can still read; larger plans are a bug or an attack
MAX_ADDRESSES: Final = 8  # one per family is used
MTU_RANGE: Final = range(1280, 65536)  # bytes; RFC 8200 §5 asks for 1280, IP's length field ends at 65535
MAX_SEARCH: Final = 6  # names; what glibc before 2.26 and musl take
MAX_DOMAINS: Final = 256  # names; systemd-resolved takes 1024
MAX_NAME: Final = 253  # characters; RFC 1035 §2.3.4 less the root label
LOOPBACK_INDEX: Final = 1  # `lo` is the first interface of every network namespace

# Networks for benchmarks, which no real network uses: RFC 2544 §C.2.2 and RFC 5180 §8.
HOST_POOLS: Final = (ip_network("198.18.0.0/15"), ip_network("2001:2::/48"))
SHORTEST: Final = {4: 8, 6: 16}  # prefix length; a shorter one is a part of the Internet, not a cluster
# Prefix length that --allow-wide permits, an eighth of all addresses; never a default route
WIDEST: Final = 3

# RFC 6890's special prefixes that must stay the machine's own: "this network", loopback, link-local (cloud
# metadata lives there), multicast, reserved; and ::/8, which has the IPv6 loopback and the IPv4-mapped addresses.
FORBIDDEN: Final = tuple(map(ip_network, (
    "0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4", "::/8", "fe80::/10", "ff00::/8",
)))  # fmt: skip

# RFC 1123 §2.1, and the underscore, which search names of real machines have
_LABEL: Final = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)\Z")


_T = TypeVar("_T")


# The requests that may come: whether once only, and after which other.
PERMITS: Final[dict[type[Message], tuple[bool, type[Message] | None]]] = {
    OpenVif: (True, None),
    Configure: (False, OpenVif),
    SetDns: (False, Configure),
    Undo: (True, None),
}


class Gate:
    """Lets requests through as :data:`PERMITS` says, and remembers which came."""

    def __init__(self) -> None:
        self._seen: set[type[Message]] = set()

    def admit(self, request: Message) -> None:
        """Let the request through, or raise ControlError: the other side is broken or hostile."""
        kind = type(request)
        if kind not in PERMITS:
            raise ControlError(f"{kind.__name__} is not permitted")
        once, after = PERMITS[kind]
        if once and kind in self._seen:
            raise ControlError(f"{kind.__name__} is permitted once only")
        if after is not None and after not in self._seen:
            raise ControlError(f"{kind.__name__} is permitted only after {after.__name__}")
        self._seen.add(kind)


def check_open(request: OpenVif) -> None:
    """Check version and MTU, or raise HelperRefused."""
    if request.version != PROTOCOL_VERSION:
        hint = "restart the kernel: telemagic was updated under it"
        both = f"netd speaks version {PROTOCOL_VERSION}, the data plane {request.version}"
        raise HelperRefused(both, hint=hint)
    if request.mtu not in MTU_RANGE:
        raise HelperRefused(f"an MTU of {request.mtu} bytes is out of range")


def _parsed(parse: Callable[[str], _T], text: str, what: str) -> _T:
    try:
        # Behind "%" an IPv6 address may have any text at all, line ends included.
        return parse("" if "%" in text else text)
    except ValueError:
        raise HelperRefused(f"{text!r:.60} is no {what}") from None


def _address(text: str) -> Interface:
    address = _parsed(ip_interface, text, "address")
    if address.network.num_addresses != 1:
        raise HelperRefused(f"{address} is no host address")
    if not any(address.version == pool.version and address.ip in pool for pool in HOST_POOLS):
        raise HelperRefused(f"{address} is not in {HOST_POOLS[0]} or {HOST_POOLS[1]}")
    return address


def _route(text: str, *, wide: bool) -> Network:
    network = _parsed(ip_network, text, "CIDR")  # strict: host bits must be zero
    shortest = WIDEST if wide else SHORTEST[network.version]
    if network.prefixlen < shortest:
        raise HelperRefused(f"{network} is too wide: nothing shorter than /{shortest}")
    for forbidden in FORBIDDEN:
        if network.overlaps(forbidden):
            raise HelperRefused(f"{network} is in {forbidden}, which stays the machine's own")
    return network


def check_configure(request: Configure, *, wide: bool = False) -> VifConfig:
    """Turn a request into a configuration that cannot be wrong by itself, or raise HelperRefused.

    ``wide``: the user has said that networks may be as wide as :data:`WIDEST`.
    """
    if len(request.routes) > MAX_ROUTES or len(request.addresses) > MAX_ADDRESSES:
        raise HelperRefused(f"more than {MAX_ROUTES} routes or {MAX_ADDRESSES} addresses")
    addresses = dict.fromkeys(map(_address, request.addresses))
    return (*addresses, *dict.fromkeys(_route(text, wide=wide) for text in request.routes))


def check_conflicts(wanted: Iterable[Item], ours: int, addresses: list[Held], routes: list[Held]) -> None:
    """Compare what is new with what the machine has; raise CidrConflict with the first clash found.

    A route of ours must not touch a network the machine is attached to, nor cover a route of another interface that
    is as specific or more so, a default gateway's address among them. A wider foreign route (a VPN's 10.0.0.0/8) may
    be there: ours wins, as it should, and when it is gone the other one is as before.
    """
    attached = [h for h in addresses if h.index not in (ours, LOOPBACK_INDEX) and not h.network.is_link_local]
    foreign = [held for held in routes if held.index != ours]
    for network in map(network_of, wanted):
        covered = [held for held in foreign if network.prefixlen <= held.network.prefixlen]
        for held in (*attached, *covered):
            if network.overlaps(held.network):
                raise CidrConflict.of(str(network), str(held.network), device_name(held.index))


def check_dns(request: SetDns, config: VifConfig) -> None:
    """Refuse with HelperRefused what would not be safe to write into a file, or would not come back to us."""
    if request.mechanism not in ("auto", "resolved", "resolvconf", "none"):
        raise HelperRefused(f"{request.mechanism!r:.40} is no mechanism: auto, resolved, resolvconf or none")
    nameserver = _parsed(ip_address, request.nameserver, "address")
    if str(nameserver) != request.nameserver or not any(nameserver in network_of(item) for item in config):
        raise HelperRefused(f"the nameserver {request.nameserver!r:.60} is not behind the interface")
    too_many = len(request.search) > MAX_SEARCH or len(request.domains) > MAX_DOMAINS
    if too_many or not 0 <= request.ndots <= 15:
        raise HelperRefused(
            f"more than {MAX_SEARCH} search names or {MAX_DOMAINS} domains, or ndots not in 0 to 15"
        )
    for name in request.search:
        _check_name(name)
    for domain in request.domains:
        _check_domain(domain)


def _check_name(name: str) -> None:
    if len(name) > MAX_NAME or not all(_LABEL.match(label) for label in name.split(".")):
        raise HelperRefused(f"{name!r:.60} is no domain name")


def _check_domain(domain: str) -> None:
    """Refuse what would send names to us that are not the cluster's: the root, and whole top-level domains.

    A single label may be a namespace's name, but then it is for routing only, and none of :data:`~telehelper.messages.NOT_OURS`.
    """
    name = domain.removeprefix("~")
    _check_name(name)
    if name.lower() in NOT_OURS or (domain == name and "." not in name):
        raise HelperRefused(f"names under {domain!r:.60} are not the cluster's")
