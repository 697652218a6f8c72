"""Route on resolve: which addresses that the cluster's DNS gives may be routed one by one, and which ones are.

Theory of operation
-------------------
A name of the cluster may lead to an address that no planned route covers: discovery may not see the network (rights for
one namespace only), or the network is another's and stays so (``--on-conflict exclude``). Before the answer is given to
a program, the address gets a route of its own. Whoever answers the cluster's DNS chooses these addresses, so they are
hostile input: a cluster must not pull 8.8.8.8 of the whole machine to itself by answering a name with it.

:class:`AdmissionPolicy` says what becomes of an address:

=========  ============================================================================================
routed     a route covers it already
single     it may have a route of its own: it is in a network that discovery or the user named, or is of
           those that are not globally reachable; no route of the machine's stands in the way
mapped     another address stands for it (``--on-conflict map``, and a route of the machine's has it)
refused    all others: what must stay out (loopback, the API server, nameservers, ``--never-proxy``), public
           addresses, this machine's own, those of telemagic's connections, and the networks it is attached to
=========  ============================================================================================

:class:`SingleRoutes` remembers the single ones, at most MAX_SINGLES: the one resolved longest ago goes, unless a flow
is open to it.
"""

from __future__ import annotations

from collections import OrderedDict
from ipaddress import ip_network
from typing import TYPE_CHECKING, Final, NamedTuple

from telehelper.core.cidr import MAP_POOL, MAP_POOL_V6, VIF_POOL, VIF_POOL_V6, NetworkSet
from telehelper.core.route_plan import MAP

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from telehelper.core.cidr import Address
    from telehelper.core.route_plan import HostRoute, RoutePlan

ROUTED: Final = "routed"
SINGLE: Final = "single"
TO_MAP: Final = "mapped"
REFUSED: Final = "refused"

MAX_SINGLES: Final = 256

# What a cluster's network is made of, besides what is named: RFC 1918, shared address space (RFC 6598), for benchmarks
# (RFC 2544, RFC 5180), unique local (RFC 4193).
NOT_GLOBAL: Final = tuple(
    ip_network(text)
    for text in (
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "100.64.0.0/10",
        "198.18.0.0/15",
        "fc00::/7",
        "2001:2::/48",
    )
)


class Verdict(NamedTuple):
    """What becomes of an address: routed, single, mapped or refused; and why it is refused."""

    fate: str
    reason: str = ""


_OURS: Final = NetworkSet([VIF_POOL, VIF_POOL_V6, MAP_POOL, MAP_POOL_V6])
_REFUSED_OURS: Final = Verdict(REFUSED, "kept for the addresses of telemagic itself")
_ROUTED: Final = Verdict(ROUTED)
_SINGLE: Final = Verdict(SINGLE)
_TO_MAP: Final = Verdict(TO_MAP)


class AdmissionPolicy:
    """Judges addresses by a plan of routes and by what the plan was made for; see the module's theory of operation."""

    def __init__(self, plan: RoutePlan, on_conflict: str) -> None:
        self._routed = NetworkSet(plan.routes)
        self._named = NetworkSet([*plan.named, *NOT_GLOBAL])
        self._kept_out = NetworkSet(hole.network for hole in plan.holes)
        self._holes = plan.holes
        self._rivals = plan.rivals
        self._mapping = on_conflict == MAP

    def judge(self, address: Address) -> Verdict:
        """Say what becomes of one address."""
        if address in self._routed:
            return _ROUTED
        if address in self._kept_out:
            return Verdict(REFUSED, next(h.detail for h in self._holes if address in h.network))
        if address in _OURS:
            return _REFUSED_OURS
        if address not in self._named:
            return Verdict(REFUSED, "a public address outside the cluster's networks")
        around = [route for route in self._rivals if address in route.network]
        if around and self._mapping:
            return _TO_MAP
        standing = next(filter(None, (_why_not(route) for route in around)), "")
        return Verdict(REFUSED, standing) if standing else _SINGLE


def _why_not(route: HostRoute) -> str:
    return f"{route}, {route.why_it_stays}" if route.why_it_stays else ""


class SingleRoutes:
    """The addresses that have a route of their own, the one resolved longest ago first."""

    def __init__(self, limit: int = MAX_SINGLES) -> None:
        self._limit = limit
        self._kept: OrderedDict[Address, None] = OrderedDict()

    def __iter__(self) -> Iterator[Address]:
        return iter(self._kept)

    def __len__(self) -> int:
        return len(self._kept)

    def touch(self, address: Address) -> bool:
        """Note that an address was resolved again; tells whether it has a route."""
        if address not in self._kept:
            return False
        self._kept.move_to_end(address)
        return True

    def add(self, addresses: Sequence[Address], in_use: Callable[[], Collection[Address]]) -> list[Address]:
        """Add addresses, at the cost of others that are not in use.

        Parameters
        ----------
        addresses
            Those to add.
        in_use
            Returns the addresses that flows are open to; asked only if there is no room.

        Returns
        -------
        list[Address]
            Those there was no room for.
        """
        wanted = list(dict.fromkeys(address for address in addresses if not self.touch(address)))
        excess = len(self._kept) + len(wanted) - self._limit
        if excess > 0:
            busy = {*in_use(), *addresses}
            for address in [known for known in self._kept if known not in busy][:excess]:
                del self._kept[address]
        room = max(0, self._limit - len(self._kept))
        self._kept |= dict.fromkeys(wanted[:room])
        return wanted[room:]

    def remove(self, addresses: Iterable[Address]) -> None:
        """Forget addresses."""
        for address in addresses:
            self._kept.pop(address, None)

    def keep(self, policy: AdmissionPolicy) -> None:
        """Forget what another policy covers otherwise, or no longer permits."""
        self.remove([address for address in self._kept if policy.judge(address).fate != SINGLE])
