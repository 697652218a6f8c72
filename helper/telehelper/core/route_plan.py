"""Routes as data: those that a machine has, those that a cluster wants, and what was planned of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from telehelper.core import cidr
from telehelper.errors import CidrConflict

if TYPE_CHECKING:
    from telehelper.core.cidr import Address, Network

TABLE_LOCAL: Final = 255  # linux/rtnetlink.h RT_TABLE_LOCAL: this machine's own addresses
TABLE_MAIN: Final = 254  # RT_TABLE_MAIN
THROW: Final = "throw"  # `HostRoute.device` of a route that ends the search in its table

FIRST: Final = "first"  # `HostRoute.asked`: before main, so it beats any route of ours
MAIN: Final = "main"  # it is in the table where ours are: the longer prefix wins
LAST: Final = "last"  # after main, or never for ordinary packets

APPLIED: Final = "applied"
SKIPPED: Final = "skipped"
CONFLICT: Final = "conflict"
MAPPED: Final = "mapped"

REFUSE: Final = "refuse"
TAKE: Final = "take"
EXCLUDE: Final = "exclude"
MAP: Final = "map"


@dataclass(frozen=True, slots=True)
class WantedCidr:
    """A CIDR of the cluster as its manager wrote it. ``kind``: pods, services or user; ``source``: how it was found."""

    cidr: str
    kind: str
    source: str


@dataclass(frozen=True, slots=True)
class HostRoute:
    """A route this machine has."""

    network: Network
    device: str  # or the type of a route that has none: "blackhole"
    connected: bool = False  # the machine has an address in this network
    table: int = TABLE_MAIN
    what: str = ""  # the device, for people: "a VPN"
    asked: str = MAIN
    gateway: Address | None = None

    @property
    def is_default(self) -> bool:
        """Whether it is for everything, or half of it as OpenVPN's pair."""
        return self.network.prefixlen < cidr.SHORTEST_PREFIX

    @property
    def why_it_stays(self) -> str:
        """Why no route of ours can have its addresses; empty if one can."""
        if self.table == TABLE_LOCAL:
            return "this machine's own"
        if self.asked == FIRST:
            return "a routing rule puts it before all of ours" + (
                f": table {self.table}" if self.table else ""
            )
        if self.connected:
            return "this machine is attached to it"
        if self.network.num_addresses == 1:
            return "no route can be more specific"
        return ""

    def __str__(self) -> str:
        return f"{self.network} on {self.device}" + (f" ({self.what})" if self.what else "")


@dataclass(frozen=True, slots=True)
class PlannedRoute:
    """One row of a plan. ``state``: applied, skipped, conflict or mapped; ``device``: who has it, empty if we do."""

    network: Network
    kind: str
    source: str
    state: str
    detail: str = ""
    device: str = ""


@dataclass(frozen=True, slots=True)
class Hole:
    """What must stay out, and why."""

    network: Network
    detail: str


@dataclass(frozen=True, slots=True)
class RoutePlan:
    """What to route to the VIF, what not, and why. ``str(plan)`` is a table for people."""

    rows: tuple[PlannedRoute, ...]
    conflicts: tuple[CidrConflict, ...] = ()
    notices: tuple[str, ...] = ()  # what was left out and the user does not know of, one line each
    named: tuple[Network, ...] = ()  # all that is wanted: the cluster's, as somebody said
    holes: tuple[Hole, ...] = ()
    rivals: tuple[HostRoute, ...] = ()  # the machine's routes that ours have to do with

    @property
    def routes(self) -> tuple[Network, ...]:
        """The routes to make, in order."""
        return tuple(row.network for row in self.rows if row.state == APPLIED)

    def check(self) -> None:
        """Refuse a plan with conflicts.

        Raises
        ------
        CidrConflict
            Its message and `data` are of the first of them, the message names the others too.
        """
        if self.conflicts:
            raise CidrConflict.joined(self.conflicts)

    def __str__(self) -> str:
        lines = [
            f"{row.network!s:<20} {row.kind:<12} {row.state:<9} {row.source}"
            + (f" ({row.detail})" if row.detail else "")
            for row in self.rows
        ]
        return "\n".join([*lines, *self.notices])
