"""A small algebra of CIDRs, on `ipaddress` networks of both families."""

from __future__ import annotations

import ipaddress
from bisect import bisect_right
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TYPE_CHECKING, Final, TypeVar

from telehelper.errors import UsageError, VifError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
_N = TypeVar("_N", IPv4Network, IPv6Network)

# Of the ranges for benchmarks, which are on nobody's network: the end of RFC 2544's, for pairs, and a corner of
# RFC 5180's 2001:2::/48 for as many single addresses. These are not globally reachable, and yet no unique local ones:
# from them programs try a cluster's global IPv6 addresses before its IPv4 ones, and its unique local addresses after
# (RFC 6724 §6, rules 5 and 6).
VIF_POOL: Final = IPv4Network("198.19.240.0/20")
VIF_POOL_V6: Final = IPv6Network("2001:2:0:ffff::/117")
# Where addresses are taken from that stand for others (:mod:`telehelper.core.address_map`): out of the same ranges,
# apart from the interfaces' own, and divided into parts of 1,024 addresses, one for each connection.
MAP_POOL: Final = IPv4Network("198.19.192.0/19")
MAP_POOL_V6: Final = IPv6Network("2001:2:0:fffe::/112")
MAP_BITS: Final = 10
SHORTEST_PREFIX: Final = 2  # bits; /0 and OpenVPN's /1 pair mean "everything", which we never take over


def parse(text: str, option: str = "") -> Network:
    """Read a CIDR or an address that a person typed.

    Parameters
    ----------
    text
        "10.1.0.0/16", "10.1.2.3", "fd00::/64".
    option
        The flag it came with, for the message.

    Raises
    ------
    UsageError
        It is no CIDR, has host bits set, or means (half of) the whole Internet.
    """
    where = f"{option}: " if option else ""
    if "%" in text:  # ipaddress would take a zone ("fe80::1%eth0"), a route does not
        raise UsageError(f"{where}{text!r:.60} is no CIDR", hint="write it like 10.1.0.0/16")
    try:
        loose = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise UsageError(f"{where}{text!r:.60} is no CIDR", hint="write it like 10.1.0.0/16") from None
    if loose.prefixlen < SHORTEST_PREFIX:
        raise UsageError(f"{where}{text} is everything", hint="name the networks you mean")
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        raise UsageError(f"{where}{text} has host bits set", hint=f"write {loose}") from None


def contains(outer: Network, inner: Network) -> bool:
    """Whether every address of `inner` is in `outer`; networks of two families contain nothing of each other."""
    if outer.version != inner.version or outer.prefixlen > inner.prefixlen:
        return False
    shift = outer.max_prefixlen - outer.prefixlen
    return int(outer.network_address) >> shift == int(inner.network_address) >> shift


def overlap(one: Network, other: Network) -> bool:
    """Whether some address is in both."""
    return contains(one, other) or contains(other, one)


def covering(network: Network, candidates: Iterable[Network]) -> list[Network]:
    """Return the candidates that contain `network`, the most specific first."""
    found = {candidate for candidate in candidates if contains(candidate, network)}
    return sorted(found, key=lambda candidate: -candidate.prefixlen)


def sort_key(network: Network) -> tuple[int, int, int]:
    """Order networks: IPv4 before IPv6, by address, the wider first."""
    return network.version, int(network.network_address), network.prefixlen


def merge(networks: Iterable[Network]) -> list[Network]:
    """Return the fewest networks with exactly these addresses, in order."""
    every = list(networks)
    four = ipaddress.collapse_addresses(n for n in every if isinstance(n, IPv4Network))
    six = ipaddress.collapse_addresses(n for n in every if isinstance(n, IPv6Network))
    return [*four, *six]


def _exclude(network: Network, hole: Network) -> list[Network]:
    if contains(hole, network):
        return []
    if isinstance(network, IPv4Network) and isinstance(hole, IPv4Network) and contains(network, hole):
        return list(network.address_exclude(hole))
    if isinstance(network, IPv6Network) and isinstance(hole, IPv6Network) and contains(network, hole):
        return list(network.address_exclude(hole))
    return [network]


def subtract(network: Network, holes: Iterable[Network]) -> list[Network]:
    """Return the fewest networks with the addresses of `network` that are in no hole, in order."""
    pieces = [network]
    for hole in [hole for hole in holes if overlap(hole, network)]:
        pieces = [rest for piece in pieces for rest in _exclude(piece, hole)]
    return merge(pieces)


class NetworkSet:
    """Networks to look addresses and networks up in; takes the logarithm of their number."""

    def __init__(self, networks: Iterable[Network]) -> None:
        self._starts: dict[int, list[int]] = {4: [], 6: []}
        self._ends: dict[int, list[int]] = {4: [], 6: []}
        for network in merge(networks):
            self._starts[network.version].append(int(network.network_address))
            self._ends[network.version].append(int(network.broadcast_address))

    def __contains__(self, address: Address) -> bool:
        value = int(address)
        return self._has(address.version, value, value)

    def covers(self, network: Network) -> bool:
        """Whether every address of a network is in here."""
        return self._has(network.version, int(network.network_address), int(network.broadcast_address))

    def _has(self, version: int, first: int, last: int) -> bool:
        at = bisect_right(self._starts[version], first) - 1
        return at >= 0 and last <= self._ends[version][at]


def free_pair(
    avoid: Sequence[Network], index: int, pool: IPv4Network = VIF_POOL
) -> tuple[IPv4Address, IPv4Address]:
    """Pick two neighbouring addresses, for the VIF and for its resolver.

    Parameters
    ----------
    avoid
        Networks in use: the machine's routes and addresses (without its default route) and the cluster's CIDRs.
    index
        Where in the pool to begin, taken modulo its size; the same index and networks give the same answer.

    Raises
    ------
    VifError
        Everything in the pool is in use.
    """
    first = _first_free(pool, 31, avoid, index).network_address
    return first, first + 1


def free_address_v6(avoid: Sequence[Network], index: int, pool: IPv6Network = VIF_POOL_V6) -> IPv6Address:
    """Pick an IPv6 address for the VIF; parameters and errors as of `free_pair`."""
    return _first_free(pool, 128, avoid, index).network_address


def free_map_pool(avoid: Sequence[Network], index: int) -> IPv4Network:
    """Pick IPv4 addresses that stand for others; parameters and errors as of `free_pair`."""
    return _first_free(MAP_POOL, 32 - MAP_BITS, avoid, index)


def free_map_pool_v6(avoid: Sequence[Network], index: int) -> IPv6Network:
    """Pick IPv6 addresses that stand for others; parameters and errors as of `free_pair`."""
    return _first_free(MAP_POOL_V6, 128 - MAP_BITS, avoid, index)


def _first_free(pool: _N, prefix: int, avoid: Sequence[Network], index: int) -> _N:
    parts = 1 << prefix - pool.prefixlen
    size = 1 << pool.max_prefixlen - prefix
    for step in range(parts):
        start = int(pool.network_address) + (index + step) % parts * size
        part = type(pool)((start, prefix))
        if not any(overlap(part, taken) for taken in avoid):
            return part
    raise VifError(f"no address of {pool} is free", hint="disconnect the VPN whose routes cover it")
