"""The machine's routing rules (`ip rule`): which of its tables are asked before the one that we write to.

Theory of operation
-------------------
Our routes are in the main table. A packet that an ordinary program of this machine sends asks the tables in the order
of the rules' priorities, and the first route found decides. So a table that is asked *before* main beats our routes
whatever the prefix lengths (Tailscale's table 52), and one that is asked after it, or for marked packets only, is in
nobody's way (WireGuard's table, behind its rule ``lookup main suppress_prefixlength 0``).

:func:`rank` gives each route its :attr:`~telehelper.core.route_plan.HostRoute.asked`. A rule for one destination narrows its
table's routes to that. A ``throw`` route ends the search in its table: what it covers is cut out of the table's wider
routes. Source addresses are not chosen yet when a route is looked up, so rules ``from`` somewhere do not count; those
for some ports do, because they may hit the notebook's. Jumps (``goto``) are not followed.

Sources: rtnetlink(7), linux/fib_rules.h, net/core/fib_rules.c.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from ipaddress import ip_network
from typing import TYPE_CHECKING, Final

from telehelper.core import cidr
from telehelper.core.route_plan import FIRST, LAST, MAIN, TABLE_LOCAL, TABLE_MAIN, THROW, HostRoute

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from telehelper.core.cidr import Network

_EVERYTHING: Final = {4: ip_network("0.0.0.0/0"), 6: ip_network("::/0")}


@dataclass(frozen=True, slots=True)
class PolicyRule:
    """A rule that ordinary packets of this machine obey."""

    version: int
    priority: int  # the least is obeyed first
    table: int = 0  # the table to ask; 0: none, see `verdict`
    to: Network | None = None  # for packets to this network only
    suppress: int = -1  # routes found with a prefix of so many bits or fewer do not count
    verdict: str = ""  # unreachable, prohibit or blackhole: ends the search


def _is_main(rule: PolicyRule) -> bool:
    return rule.table == TABLE_MAIN and rule.to is None and rule.suppress < cidr.SHORTEST_PREFIX


def _narrowed(route: HostRoute, rule: PolicyRule) -> list[HostRoute]:
    """Return what of a route a rule lets through."""
    if route.network.prefixlen <= rule.suppress:
        return []
    if rule.to is None or cidr.contains(rule.to, route.network):
        return [replace(route, asked=FIRST)]
    if cidr.contains(route.network, rule.to):
        return [replace(route, network=rule.to, asked=FIRST)]
    return []


def _without_throws(table: Sequence[HostRoute]) -> list[HostRoute]:
    throws = [route.network for route in table if route.device == THROW]
    kept = [route for route in table if route.device != THROW]
    if not throws:
        return kept
    found = []
    for route in kept:
        holes = [network for network in throws if network.prefixlen > route.network.prefixlen]
        found += [replace(route, network=part) for part in cidr.subtract(route.network, holes)]
    return found


def _rank_family(routes: Sequence[HostRoute], rules: Iterable[PolicyRule], version: int) -> list[HostRoute]:
    tables: dict[int, list[HostRoute]] = {}
    for route in routes:
        tables.setdefault(route.table, []).append(route)
    first: dict[HostRoute, None] = {}
    asked = {TABLE_MAIN}
    for rule in sorted(rules, key=lambda rule: rule.priority):
        if _is_main(rule):
            break
        if rule.verdict:
            first[HostRoute(rule.to or _EVERYTHING[version], rule.verdict, table=0, asked=FIRST)] = None
        elif rule.table != TABLE_MAIN:
            asked.add(rule.table)
            table = _without_throws(tables.get(rule.table, []))
            first |= dict.fromkeys(part for route in table for part in _narrowed(route, rule))
    rest = [route for route in routes if route.device != THROW and route.table not in asked - {TABLE_MAIN}]
    return [*first, *(replace(r, asked=MAIN if r.table == TABLE_MAIN else LAST) for r in rest)]


def rank(routes: Sequence[HostRoute], rules: Sequence[PolicyRule]) -> list[HostRoute]:
    """Say of each route when it is asked.

    Parameters
    ----------
    routes
        The machine's, of all tables and both families.
    rules
        The machine's. Without any, of a family, the kernel's own are taken: local, main, default.

    Returns
    -------
    list[HostRoute]
        The same routes with `asked` set, some of them narrowed or split; and one for each rule that ends the search.
    """
    found: list[HostRoute] = []
    for version in (4, 6):
        usual = [PolicyRule(version, 0, TABLE_LOCAL), PolicyRule(version, 32766, TABLE_MAIN)]
        family = [rule for rule in rules if rule.version == version] or usual
        found += _rank_family([r for r in routes if r.network.version == version], family, version)
    return found
