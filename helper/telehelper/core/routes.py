"""The route planner: what the cluster wants, against what the machine has, before anything is touched.

Theory of operation
-------------------
In goes what is wanted (CIDRs discovered in the cluster and the user's ``--also-proxy``), what must stay out (the
user's ``--never-proxy``, the API server's addresses and what is never the cluster's: loopback, link-local,
multicast), and the machine's own routes. Out comes a :class:`RoutePlan`: rows that partition the wanted addresses
(every wanted address is in exactly one row), of which the applied ones are the routes to make. Nothing here
changes a machine; whoever applies a plan calls :meth:`RoutePlan.check` first.

1. Equal and nested wanted CIDRs become one, all their sources are kept.
2. What stays out is cut away; a CIDR may fall into several routes thereby.
3. What is left is compared with the machine's routes. The kernel sends a packet by the longest prefix, so

   - a route *inside* or equal to a wanted CIDR would keep its addresses from us, or we would take them away from
     it: a **conflict**. That it be compared with the CIDR as wanted, not with the pieces of step 2, matters:
     a hole in the right place would make our pieces longer than the foreign route, and we would silently win.
   - a *wider* route is legitimately beaten by ours (a company VPN has all of 10.0.0.0/8, the cluster is in it),
     unless the machine itself is connected to that network (our route would cut it off its own neighbours) or
     the route is in another table, whose rule may be asked before the main table.
   - default routes and OpenVPN's pair of /1 are everybody's; our own device's routes are what we replace.

Both families go the same way. On a machine without IPv6 its CIDRs stay out, and a notice says so.

Because a planned route is never equal to an existing one, deleting the planned routes restores the start.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_network
from typing import TYPE_CHECKING, Final

from telehelper.core import cidr
from telehelper.errors import CidrConflict, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from telehelper.core.cidr import Address, Network

TABLE_MAIN: Final = 254  # linux/rtnetlink.h RT_TABLE_MAIN
TABLE_DEFAULT: Final = 253  # RT_TABLE_DEFAULT: asked after main

APPLIED: Final = "applied"
SKIPPED: Final = "skipped"
CONFLICT: Final = "conflict"

# Never the cluster's, whatever it says: "this network", loopback, link-local (cloud metadata), multicast, reserved; of
# IPv6 all of ::/8, which has the loopback and the IPv4-mapped addresses. netd refuses the same.
NEVER: Final = tuple(
    ip_network(text)
    for text in (
        "0.0.0.0/8",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "::/8",
        "fe80::/10",
        "ff00::/8",
    )
)


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


@dataclass(frozen=True, slots=True)
class PlannedRoute:
    """One row of a plan. ``state``: applied, skipped or conflict."""

    network: Network
    kind: str
    source: str
    state: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class RoutePlan:
    """What to route to the VIF, what not, and why. ``str(plan)`` is a table for people."""

    rows: tuple[PlannedRoute, ...]
    conflicts: tuple[CidrConflict, ...] = ()
    notices: tuple[str, ...] = ()  # what was left out and the user does not know of, one line each

    @property
    def routes(self) -> tuple[Network, ...]:
        """The routes to make, in order."""
        return tuple(row.network for row in self.rows if row.state == APPLIED)

    def check(self) -> None:
        """Refuse a plan with conflicts.

        Raises
        ------
        CidrConflict
            The first of them.
        """
        if self.conflicts:
            raise self.conflicts[0]

    def __str__(self) -> str:
        lines = [
            f"{row.network!s:<20} {row.kind:<12} {row.state:<9} {row.source}"
            + (f" ({row.detail})" if row.detail else "")
            for row in self.rows
        ]
        return "\n".join([*lines, *self.notices])


@dataclass(frozen=True, slots=True)
class _Want:
    network: Network
    kind: str
    source: str


@dataclass(frozen=True, slots=True)
class _Hole:
    network: Network
    detail: str


_NO_IPV6: Final = _Hole(ip_network("::/0"), "this machine has IPv6 switched off")


def foreign(existing: Iterable[HostRoute], own_device: str | None = None) -> list[HostRoute]:
    """Return the routes that somebody else has on this machine: not the default ones, not ours."""
    return [
        route
        for route in existing
        if route.device != own_device and route.network.prefixlen >= cidr.SHORTEST_PREFIX
    ]


def _joined(texts: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(texts))


def _unite(wants: Sequence[_Want]) -> list[_Want]:
    """Make one of equal and nested CIDRs; what the widest one swallows stays in its source."""
    groups: list[list[_Want]] = []
    for want in sorted(wants, key=lambda want: cidr.sort_key(want.network)):
        # In this order a CIDR is inside an earlier one exactly if it is inside the last widest one.
        if groups and cidr.contains(groups[-1][0].network, want.network):
            groups[-1].append(want)
        else:
            groups.append([want])
    out: list[_Want] = []
    for group in groups:
        network = group[0].network
        sources = [w.source if w.network == network else f"{w.network} {w.source}" for w in group]
        kinds = [w.kind for w in group if w.network == network]
        out.append(_Want(network, _joined(kinds), _joined(sources)))
    return out


def _parse_wanted(wanted: Sequence[WantedCidr]) -> tuple[list[_Want], list[str]]:
    wants: list[_Want] = []
    refused: list[str] = []
    for item in wanted:
        try:
            wants.append(_Want(cidr.parse(item.cidr), item.kind, item.source))
        except UsageError as error:  # not the user's words: the cluster's; the others are still good
            refused.append(f"{error.message}: left out ({item.source})")
    return wants, refused


def _skipped(want: _Want, holes: Sequence[_Hole]) -> list[PlannedRoute]:
    """Return rows for what of `want` is in a hole, each address once: the first hole takes it."""
    rows: list[PlannedRoute] = []
    before: list[Network] = []
    for hole in holes:
        if cidr.overlap(hole.network, want.network):
            part = hole.network if cidr.contains(want.network, hole.network) else want.network
            rest = cidr.subtract(part, before)
            rows += [PlannedRoute(n, want.kind, want.source, SKIPPED, hole.detail) for n in rest]
            before.append(part)
    return rows


def _is_conflict(want: _Want, route: HostRoute) -> bool:
    if cidr.contains(want.network, route.network) or route.connected:
        return True
    return route.table not in (TABLE_MAIN, TABLE_DEFAULT)


def _judge(want: _Want, piece: Network, others: Sequence[HostRoute]) -> tuple[PlannedRoute, HostRoute | None]:
    """Decide on one piece: its row, and the route in its way."""
    near = [route for route in others if cidr.overlap(route.network, piece)]
    for route in near:
        if _is_conflict(want, route):
            detail = f"overlaps {route.network} on {route.device}"
            return PlannedRoute(piece, want.kind, want.source, CONFLICT, detail), route
    beaten = _joined(f"{route.network} on {route.device}" for route in near)
    detail = f"goes before {beaten}" if beaten else ""
    return PlannedRoute(piece, want.kind, want.source, APPLIED, detail), None


def plan(
    wanted: Sequence[WantedCidr],
    existing: Sequence[HostRoute],
    *,
    also_proxy: Sequence[str] = (),
    never_proxy: Sequence[str] = (),
    never_addresses: Iterable[Address] = (),
    own_device: str | None = None,
    ipv6: bool = True,
) -> RoutePlan:
    """Plan the routes to the VIF; changes nothing and finds all conflicts.

    Parameters
    ----------
    wanted
        The cluster's CIDRs. One that is none is left out and named in `RoutePlan.notices`.
    existing
        The machine's routes, of all tables and both families.
    also_proxy, never_proxy
        CIDRs as the user typed them.
    never_addresses
        What the tunnel itself needs (the API server) and the machine's former nameservers.
    own_device
        The VIF, if it is there already: its routes are no conflict.
    ipv6
        Whether the VIF has IPv6. Without, nothing of it is routed, and `RoutePlan.notices` tells what.

    Raises
    ------
    UsageError
        A CIDR of the user's is none.
    """
    wants, notices = _parse_wanted(wanted)
    wants += [_Want(cidr.parse(text, "--also-proxy"), "user", "--also-proxy") for text in also_proxy]
    holes = [] if ipv6 else [_NO_IPV6]
    holes += [_Hole(cidr.parse(text, "--never-proxy"), "--never-proxy") for text in never_proxy]
    holes += [_Hole(ip_network(a), "the tunnel itself needs it") for a in never_addresses]
    holes += [_Hole(network, "never a cluster's") for network in NEVER]
    others = foreign(existing, own_device)
    rows: list[PlannedRoute] = []
    conflicts: dict[tuple[str, str, str], CidrConflict] = {}
    for want in _unite(wants):
        for piece in cidr.subtract(want.network, [hole.network for hole in holes]):
            row, blocker = _judge(want, piece, others)
            rows.append(row)
            if blocker is not None:
                facts = str(want.network), str(blocker.network), blocker.device
                conflicts[facts] = CidrConflict.of(*facts)
        rows += _skipped(want, holes)
    rows.sort(key=lambda row: cidr.sort_key(row.network))
    if not ipv6 and (left_out := [str(row.network) for row in rows if row.network.version == 6]):
        notices.append(f"{_NO_IPV6.detail}: {', '.join(left_out)} cannot be reached")
    return RoutePlan(tuple(rows), tuple(conflicts.values()), tuple(notices))
