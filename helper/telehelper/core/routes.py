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
     a routing rule has its table asked before ours (:mod:`telehelper.core.policy_rules`).
   - default routes and OpenVPN's pair of /1 are everybody's; our own device's routes are what we replace.

4. What becomes of the addresses in conflict is the user's choice, ``--on-conflict``:

   - *refuse*: :meth:`RoutePlan.check` raises.
   - *take*: the cluster gets them, by routes that are longer than the foreign one. Not possible, and so still a
     conflict, where the machine is connected, a rule asks the other table first, or the other route is one address.
   - *exclude*: they stay where they are. *map*: too, and names in there are answered with addresses that stand for
     them (:mod:`telehelper.core.address_map`).

   With *exclude* and *map* single addresses may still be routed when a name leads there; see
   :mod:`telehelper.core.admission`. A foreign default route that is asked before ours beats all of them.

Both families go the same way. On a machine without IPv6 its CIDRs stay out, and a notice says so.

Because a planned route is never equal to an existing one, deleting the planned routes restores the start.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from ipaddress import ip_network
from typing import TYPE_CHECKING, Final

from telehelper.core import cidr
from telehelper.core.route_plan import (
    APPLIED,
    CONFLICT,
    EXCLUDE,
    FIRST,
    LAST,
    MAP,
    MAPPED,
    REFUSE,
    SKIPPED,
    TAKE,
    Hole,
    HostRoute,
    PlannedRoute,
    RoutePlan,
    WantedCidr,
)
from telehelper.errors import CidrConflict, UsageError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from telehelper.core.cidr import Address, Network

_LEFT: Final = {REFUSE: CONFLICT, TAKE: CONFLICT, EXCLUDE: SKIPPED, MAP: MAPPED}  # what we do not get becomes

# Bits. A shorter prefix of a cluster is no network but a part of the Internet; netd refuses the same.
WIDEST: Final = {4: 8, 6: 16}
WIDEST_ALLOWED: Final = 3  # bits; what --allow-wide lets the user name. netd's limit too
MAX_WANTED: Final = 1024  # CIDRs of a cluster; further ones are not looked at
MAX_NOTICES: Final = 20  # about CIDRs that are none
MAX_ROUTES: Final = 700  # netd takes 1024: there is room for single addresses; the widest are kept

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
class _Want:
    network: Network
    kind: str
    source: str

    def row(self, network: Network, state: str, detail: str = "", device: str = "") -> PlannedRoute:
        return PlannedRoute(network, self.kind, self.source, state, detail, device)


_NO_IPV6: Final = Hole(ip_network("::/0"), "this machine has IPv6 switched off")


def foreign(existing: Iterable[HostRoute], own_device: str | None = None) -> list[HostRoute]:
    """Return the routes that somebody else has on this machine: not ours, and of the default ones those before ours."""
    return [
        route
        for route in existing
        if route.device != own_device and (not route.is_default or route.asked == FIRST)
    ]


def _joined(texts: Iterable[object]) -> str:
    return ", ".join(dict.fromkeys(map(str, texts)))


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


def _parse(text: str, option: str = "", *, wide: bool = False) -> Network:
    network = cidr.parse(text, option)
    widest = WIDEST_ALLOWED if wide else WIDEST[network.version]
    if network.prefixlen < widest:
        where = f"{option}: " if option else ""
        hint = "name the networks you mean" + ("" if wide else ", or insist: --allow-wide")
        raise UsageError(f"{where}{text} is wider than /{widest}", hint=hint)
    return network


def _parse_wanted(wanted: Sequence[WantedCidr], wide: Collection[str]) -> tuple[list[_Want], list[str]]:
    wants: list[_Want] = []
    refused: list[str] = []
    for item in wanted[:MAX_WANTED]:
        try:
            wants.append(_Want(_parse(item.cidr, wide=item.cidr in wide), item.kind, item.source))
        except UsageError as error:  # not the user's words: the cluster's; the others are still good
            refused.append(f"{error.message}: left out ({item.source})")
    if len(wanted) > MAX_WANTED:
        refused.insert(0, f"the cluster names {len(wanted)} networks: all after {MAX_WANTED} are left out")
    return wants, refused[:MAX_NOTICES]


def _parts(
    network: Network, claims: Iterable[tuple[Network, str, str]], want: _Want, state: str
) -> list[PlannedRoute]:
    """Return rows for what of `network` is claimed, each address once: the first claim takes it."""
    rows: list[PlannedRoute] = []
    before: list[Network] = []
    for claim, detail, device in claims:
        if cidr.overlap(claim, network):
            part = claim if cidr.contains(network, claim) else network
            rows += [want.row(rest, state, detail, device) for rest in cidr.subtract(part, before)]
            before.append(part)
    return rows


def _is_conflict(want: _Want, route: HostRoute) -> bool:
    return cidr.contains(want.network, route.network) or route.connected or route.asked == FIRST


def _finer(piece: Network, rivals: Sequence[HostRoute]) -> list[Network]:
    """Return the fewest parts of a piece that are each longer than all rivals they overlap."""
    inside = [route for route in rivals if cidr.contains(piece, route.network)]
    if not inside:
        return [piece]
    return [part for half in piece.subnets() for part in _finer(half, inside)]


def _judge(
    want: _Want, piece: Network, rivals: Sequence[HostRoute], on_conflict: str
) -> tuple[list[PlannedRoute], list[HostRoute]]:
    """Decide on one piece: its rows, and the routes in its way."""
    near = [route for route in rivals if cidr.overlap(route.network, piece)]
    blockers = [route for route in near if _is_conflict(want, route)]
    taking = on_conflict == TAKE
    lost = [route for route in blockers if not taking or route.why_it_stays]
    hopeless = [route for route in lost if route.is_default]
    words = {SKIPPED: "stays: ", MAPPED: "names get other addresses: ", CONFLICT: "overlaps "}
    rows: list[PlannedRoute] = []
    for group, state in ((hopeless, CONFLICT), (lost, _LEFT[on_conflict])):
        claims = [(r.network, words[state] + _reasoned(r), r.device) for r in group]
        rows += _parts(piece, claims, want, state)
        if rows:
            break
    for part in cidr.subtract(piece, [route.network for route in lost]):
        beaten = [route for route in near if cidr.overlap(route.network, part)]
        for finer in _finer(part, beaten):
            over = [route for route in beaten if cidr.overlap(route.network, finer)]
            rows.append(want.row(finer, APPLIED, f"goes before {_joined(over)}" if over else ""))
    return rows, [route for route in lost if route.is_default or _LEFT[on_conflict] == CONFLICT]


def _reasoned(route: HostRoute) -> str:
    return f"{route}, {route.why_it_stays}" if route.why_it_stays else str(route)


def _limited(rows: list[PlannedRoute]) -> tuple[list[PlannedRoute], list[str]]:
    """Skip the narrowest routes if there are too many for a machine."""
    applied = sorted((row for row in rows if row.state == APPLIED), key=lambda row: row.network.prefixlen)
    dropped = set(applied[MAX_ROUTES:])
    if not dropped:
        return rows, []
    why = f"more than {MAX_ROUTES} routes"
    kept = [replace(row, state=SKIPPED, detail=why) if row in dropped else row for row in rows]
    return kept, [f"{why}: {len(dropped)} networks of the cluster are left out"]


def _holes(
    never_proxy: Sequence[str],
    never_addresses: Iterable[Address],
    existing: Iterable[HostRoute],
    *,
    ipv6: bool,
) -> tuple[Hole, ...]:
    gateways = [route.gateway for route in existing if route.is_default and route.gateway is not None]
    return (
        *([] if ipv6 else [_NO_IPV6]),
        *(Hole(cidr.parse(text, "--never-proxy"), "--never-proxy") for text in never_proxy),
        *(Hole(ip_network(a), "the tunnel itself needs it") for a in never_addresses),
        *(Hole(ip_network(a), "this machine's default gateway") for a in gateways),
        *(Hole(network, "never a cluster's") for network in NEVER),
    )


def plan(
    wanted: Sequence[WantedCidr],
    existing: Sequence[HostRoute],
    *,
    also_proxy: Sequence[str] = (),
    never_proxy: Sequence[str] = (),
    never_addresses: Iterable[Address] = (),
    own_device: str | None = None,
    ipv6: bool = True,
    on_conflict: str = REFUSE,
    wide: Collection[str] = (),
) -> RoutePlan:
    """Plan the routes to the VIF; changes nothing and finds all conflicts.

    Parameters
    ----------
    wanted
        The cluster's CIDRs. One that is none is left out and named in `RoutePlan.notices`.
    existing
        The machine's routes, of all tables and both families, ranked (:func:`telehelper.core.policy_rules.rank`).
    also_proxy, never_proxy
        CIDRs as the user typed them.
    never_addresses
        What the tunnel itself needs (the API server) and the machine's former nameservers.
    own_device
        The VIF, if it is there already: its routes are no conflict.
    ipv6
        Whether the VIF has IPv6. Without, nothing of it is routed, and `RoutePlan.notices` tells what.
    on_conflict
        refuse, take, exclude or map.
    wide
        CIDRs as the user typed them that may be as wide as WIDEST_ALLOWED; nobody lets a cluster choose such.

    Raises
    ------
    UsageError
        A CIDR of the user's is none, or there is no such answer to a conflict.
    """
    if on_conflict not in _LEFT:
        raise UsageError(f"{on_conflict!r:.40} is no answer to a conflict", hint=f"one of {', '.join(_LEFT)}")
    wants, notices = _parse_wanted(wanted, wide)
    also = [_parse(text, "--also-proxy", wide=text in wide) for text in also_proxy]
    wants += [_Want(network, "user", "--also-proxy") for network in also]
    holes = _holes(never_proxy, never_addresses, existing, ipv6=ipv6)
    rivals = [route for route in foreign(existing, own_device) if route.asked != LAST]
    rows: list[PlannedRoute] = []
    conflicts: dict[tuple[str, HostRoute], CidrConflict] = {}
    for want in _unite(wants):
        for piece in cidr.subtract(want.network, [hole.network for hole in holes]):
            judged, blockers = _judge(want, piece, rivals, on_conflict)
            rows += judged
            for route in blockers:
                conflicts[str(want.network), route] = _conflict(want, route)
        rows += _parts(want.network, [(hole.network, hole.detail, "") for hole in holes], want, SKIPPED)
    rows, too_many = _limited(sorted(rows, key=lambda row: cidr.sort_key(row.network)))
    notices += too_many
    if not ipv6 and (left_out := [str(row.network) for row in rows if row.network.version == 6]):
        notices.append(f"{_NO_IPV6.detail}: {', '.join(left_out)} cannot be reached")
    named = tuple(want.network for want in _unite(wants))
    return RoutePlan(tuple(rows), tuple(conflicts.values()), tuple(notices), named, holes, tuple(rivals))


def _conflict(want: _Want, route: HostRoute) -> CidrConflict:
    return CidrConflict.of(
        str(want.network), str(route.network), route.device, what=route.what, why=route.why_it_stays
    )
