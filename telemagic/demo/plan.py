"""Which addresses a demo cluster uses: one slot of each family, from prefixes that no real network has.

Both are reserved for benchmarks and never routed in the Internet: 198.18.0.0/15 (RFC 2544 §C.2.2) and its IPv6
sibling 2001:2::/48 (RFC 5180 §8; the IANA IPv6 Special-Purpose Address Registry has it as not globally reachable).

An IPv4 slot is a /20: its first /21 is for pods, the next /22 for services, the last /22 for the node. The last slot is
left out, because telemagic takes the addresses of its own interface from it. The IPv6 slot of the same number is a
/60: its first /64 is for pods, services are a /112 of the second (Kubernetes takes no wider ones than /108), the node is
in the third.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from telehelper.errors import HelperError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_T4 = TypeVar("_T4")
_T6 = TypeVar("_T6")
Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

RANGE: Final = IPv4Network("198.18.0.0/15")
RESERVED: Final = IPv4Network("198.19.240.0/20")  # telemagic's own interface and resolver
RANGE_V6: Final = IPv6Network("2001:2::/48")
RESERVED_V6: Final = IPv6Network("2001:2:0:ffff::/64")  # telemagic's own interface; far behind the last slot
CLUSTER_DOMAIN: Final = "cluster.local"
_SLOT_PREFIX: Final = 20
_SLOT_PREFIX_V6: Final = 60
_SERVICE_PREFIX_V6: Final = 112


@dataclass(frozen=True, slots=True)
class AddressPlan:
    """The addresses of one demo cluster: IPv4 always and first, then IPv6 if the machine has it."""

    slot: IPv4Network
    ipv6: bool = True

    @property
    def slot_v6(self) -> IPv6Network:
        """The IPv6 slot with the same number."""
        number = (int(self.slot.network_address) - int(RANGE.network_address)) // self.slot.num_addresses
        size = 1 << (128 - _SLOT_PREFIX_V6)
        return IPv6Network((int(RANGE_V6.network_address) + number * size, _SLOT_PREFIX_V6))

    @property
    def slots(self) -> tuple[Network, ...]:
        """Everything the cluster may use."""
        return self._families(self.slot, self.slot_v6)

    @property
    def versions(self) -> tuple[int, ...]:
        """The families: 4, or 4 and 6."""
        return tuple(network.version for network in self.slots)

    @property
    def pods(self) -> tuple[Network, ...]:
        """Where pods live."""
        return self._families(next(self.slot.subnets(new_prefix=21)), self._part_v6(0))

    @property
    def services(self) -> tuple[Network, ...]:
        """Where services live."""
        four = list(self.slot.subnets(new_prefix=22))[2]
        return self._families(four, next(self._part_v6(1).subnets(new_prefix=_SERVICE_PREFIX_V6)))

    @property
    def nodes(self) -> tuple[Address, ...]:
        """The node's own addresses."""
        return self._families(list(self.slot.subnets(new_prefix=22))[3][1], self._part_v6(2)[1])

    def pod(self, number: int) -> tuple[Address, ...]:
        """Return the addresses of the n-th pod, from 1."""
        return tuple(network[number] for network in self.pods)

    def service(self, number: int) -> tuple[Address, ...]:
        """Return the service addresses of this number; 1 is the API server's and 10 the name server's, as usual."""
        return tuple(network[number] for network in self.services)

    def _families(self, four: _T4, six: _T6) -> tuple[_T4 | _T6, ...]:
        return (four, six) if self.ipv6 else (four,)

    def _part_v6(self, number: int) -> IPv6Network:
        return list(self.slot_v6.subnets(new_prefix=64))[number]


def slots() -> Iterator[IPv4Network]:
    """Go through all slots, in order."""
    return (slot for slot in RANGE.subnets(new_prefix=_SLOT_PREFIX) if not slot.overlaps(RESERVED))


def choose(taken: Iterable[Network]) -> AddressPlan:
    """Take the first slot that overlaps none of the given prefixes, in either family.

    Raises
    ------
    HelperError
        There is none left.
    """
    used = list(taken)
    four = [network for network in used if isinstance(network, IPv4Network)]
    six = [network for network in used if isinstance(network, IPv6Network)]
    for found in map(AddressPlan, slots()):
        if not any(map(found.slot.overlaps, four)) and not any(map(found.slot_v6.overlaps, six)):
            return found
    raise HelperError(f"all of {RANGE} is taken", hint="take a demo down: telemagic demo down")


def routed_networks(tables: Path = Path("/proc/net")) -> list[Network]:
    """Read the prefixes that the caller's network namespace routes, without default routes."""
    found: list[Network] = []
    for line in (tables / "route").read_text().splitlines()[1:]:
        columns = line.split()
        target, mask = (int.from_bytes(bytes.fromhex(columns[i])[::-1], "big") for i in (1, 7))
        if mask:
            found.append(IPv4Network((target, mask.bit_count()), strict=False))
    table = tables / "ipv6_route"
    for line in table.read_text().splitlines() if table.exists() else ():  # not there without IPv6
        text, length = line.split()[:2]
        if int(length, 16):
            found.append(IPv6Network((int(text, 16), int(length, 16)), strict=False))
    return found
