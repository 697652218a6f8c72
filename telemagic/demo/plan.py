"""Which addresses a demo cluster uses: one slot of 198.18.0.0/15, which no real network has (RFC 2544 §C.2.2).

A slot is a /20: its first /21 is for pods, the next /22 for services, the last /22 for the node. The last slot is
left out, because telemagic takes the addresses of its own interface from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING, Final

from telehelper.errors import HelperError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

RANGE: Final = IPv4Network("198.18.0.0/15")
RESERVED: Final = IPv4Network("198.19.240.0/20")  # telemagic's own interface and resolver
_SLOT_PREFIX: Final = 20
CLUSTER_DOMAIN: Final = "cluster.local"


@dataclass(frozen=True, slots=True)
class AddressPlan:
    """The addresses of one demo cluster."""

    slot: IPv4Network

    @property
    def pods(self) -> IPv4Network:
        """Where pods live."""
        return next(self.slot.subnets(new_prefix=21))

    @property
    def services(self) -> IPv4Network:
        """Where services live."""
        return list(self.slot.subnets(new_prefix=22))[2]

    @property
    def node(self) -> IPv4Address:
        """The node's own address."""
        return list(self.slot.subnets(new_prefix=22))[3][1]

    def pod(self, number: int) -> IPv4Address:
        """Return the address of the n-th pod, from 1."""
        return self.pods[number]

    def service(self, number: int) -> IPv4Address:
        """Return the service address with this number; 1 is the API server's and 10 the name server's, as usual."""
        return self.services[number]


def slots() -> Iterator[IPv4Network]:
    """Go through all slots, in order."""
    return (slot for slot in RANGE.subnets(new_prefix=_SLOT_PREFIX) if not slot.overlaps(RESERVED))


def choose(taken: Iterable[IPv4Network]) -> AddressPlan:
    """Take the first slot that overlaps none of the given prefixes.

    Raises
    ------
    HelperError
        There is none left.
    """
    used = list(taken)
    for slot in slots():
        if not any(slot.overlaps(other) for other in used):
            return AddressPlan(slot)
    raise HelperError(f"all of {RANGE} is taken", hint="take a demo down: telemagic demo down")


def routed_networks(table: Path = Path("/proc/net/route")) -> list[IPv4Network]:
    """Read the prefixes that the caller's network namespace routes, without default routes."""
    found = []
    for line in table.read_text().splitlines()[1:]:
        columns = line.split()
        target, mask = (int.from_bytes(bytes.fromhex(columns[i])[::-1], "big") for i in (1, 7))
        if mask:
            found.append(IPv4Network((target, mask.bit_count()), strict=False))
    return found
