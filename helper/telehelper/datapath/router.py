"""The near side's routes: which of the cluster's networks go to the interface, and the addresses it takes itself.

The whole wanted configuration is given to netd each time, under one lock: planned routes, single addresses that names
led to, and the pools of addresses that stand for others. What netd was told last is what we believe to be there.
"""

from __future__ import annotations

import asyncio
from ipaddress import ip_network
from time import monotonic
from typing import TYPE_CHECKING, Final

from telehelper.core import cidr, routes
from telehelper.core.address_map import AddressMap
from telehelper.core.admission import ROUTED, SINGLE, TO_MAP, AdmissionPolicy, SingleRoutes
from telehelper.core.route_plan import MAP, WantedCidr
from telehelper.datapath.address_map import AddressMapper
from telehelper.datapath.host_routes import has_ipv6, read_routes
from telehelper.datapath.report import resolved_rows, route_rows
from telehelper.errors import TelemagicError
from telehelper.messages import RouteRow

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from ipaddress import IPv4Address, IPv6Address

    from telehelper.core.cidr import Network
    from telehelper.core.frames import Address, Frame
    from telehelper.core.route_plan import HostRoute, RoutePlan
    from telehelper.datapath.engine import FrameSink
    from telehelper.datapath.netd_client import NetdClient
    from telehelper.messages import Connect
    from telehelper.rpc.manager_pb2 import ClusterInfo

MAX_ADMITTED: Final = 64  # new addresses of one answer; the rest of it is left out
KEPT_NEVER: Final = 256  # addresses that are kept out; those of the API server may change
KEPT_REFUSALS: Final = 64  # shown in the table of routes; the oldest goes


class Router:
    """Plans and applies routes.

    Attributes
    ----------
    device
        The interface's name, set once it is there.
    plan
        What is in force.
    in_use
        Returns the addresses that flows are open to.
    """

    def __init__(self, netd: NetdClient) -> None:
        self.device = ""
        self.plan: RoutePlan | None = None
        self.address: IPv4Address | None = None
        self.address_v6: IPv6Address | None = None  # only if the cluster has IPv6, and this machine too
        self.resolver: IPv4Address | None = None
        self.in_use: Callable[[], Collection[Address]] = tuple
        self._netd = netd
        self._planning = asyncio.Lock()  # plans are applied in the order in which they were asked for
        self._changing = asyncio.Lock()
        self._never: list[Address] = []  # what the tunnel and the machine's own DNS need
        self._policy: AdmissionPolicy | None = None
        self._singles = SingleRoutes()
        self._maps: list[AddressMap] = []
        self._pending: set[Address] = set()  # of the single ones: netd has not said yet that they are routed
        self._avoid: list[Network] = []  # what our own addresses must not be in
        self._refused: dict[Address, str] = {}  # why an address that a name led to is not routed

    # --- networks

    async def set_routes(self, info: ClusterInfo, request: Connect, never: Sequence[Address]) -> str:
        """Plan the routes, apply them; also again, when the cluster's networks or the machine's change.

        The first time a plan with conflicts is refused. Later what can be applied of it is, and `notices` tells the
        rest.

        Raises
        ------
        CidrConflict, UsageError
            Nothing was changed.
        """
        async with self._planning:
            return await self._plan_and_apply(info, request, never)

    async def _plan_and_apply(self, info: ClusterInfo, request: Connect, never: Sequence[Address]) -> str:
        # Once kept out, kept out for good: the API server's name does not resolve while the network is down.
        self._never = [*dict.fromkeys([*never, *self._never])][:KEPT_NEVER]
        # In a thread with a loop of asyncio's own: uvloop cannot drive a netlink socket.
        existing = await asyncio.to_thread(lambda: asyncio.run(read_routes()))
        plan = routes.plan(
            [WantedCidr(c.cidr, c.kind, c.source) for c in info.cidrs],
            existing,
            also_proxy=request.also_proxy,
            never_proxy=request.never_proxy,
            never_addresses=self._never,
            own_device=self.device,
            ipv6=has_ipv6(self.device),
            on_conflict=request.on_conflict,
            wide=(*request.cidrs, *request.also_proxy) if request.allow_wide else (),
        )
        if self.plan is None:
            plan.check()
        async with self._changing:
            self._choose_addresses(plan, existing, request.on_conflict)
            policy = AdmissionPolicy(plan, request.on_conflict)
            await self._configure(plan, [a for a in self._singles if policy.judge(a).fate == SINGLE])
            self.plan, self._policy = plan, policy
            self._singles.keep(policy)
            self._refused.clear()  # for the reasons of the former plan
        return ", ".join(str(network) for network in plan.routes) or "none"

    async def repair(self) -> list[str]:
        """Put back what somebody has removed of our routes; returns them as CIDRs. Raises as netd refuses."""
        async with self._planning, self._changing:
            if self.plan is None:
                return []
            existing = await asyncio.to_thread(lambda: asyncio.run(read_routes()))
            there = {str(route.network) for route in existing if route.device == self.device}
            addresses, wanted = self._wanted(self.plan, list(self._singles))
            missing = [route for route in wanted if route not in there]
            if missing:  # netd makes the difference to what it was told last
                await self._netd.configure(addresses, [route for route in wanted if route in there])
                await self._netd.configure(addresses, wanted)
            return missing

    @property
    def notices(self) -> tuple[str, ...]:
        """What was left out and the user does not know of, one line each."""
        if self.plan is None:
            return ()
        conflicts = [f"{error.clash}: the overlap is not routed" for error in self.plan.conflicts]
        return (*self.plan.notices, *conflicts)

    def rows(self, names: Mapping[Address, str]) -> tuple[RouteRow, ...]:
        """Describe the plan, and what was routed because a name led there; `names` are those, by address."""
        if self.plan is None:
            return ()
        pools = [
            RouteRow(
                str(addresses.pool),
                self.device,
                "addresses",
                "--on-conflict map",
                "applied",
                "stand for others",
            )
            for addresses in self._maps
        ]
        mappings = [mapping for addresses in self._maps for mapping in addresses]
        resolved = resolved_rows(self._singles, mappings, self._refused, self.device, names)
        return (*route_rows(self.plan, self.device), *pools, *resolved)

    # --- single addresses

    async def admit(self, addresses: Sequence[Address]) -> Mapping[Address, Address]:
        """Make addresses that the cluster's DNS gave reachable, before programs get them (route on resolve).

        An address in a network that is routed passes at once. Others get a route of their own, or one that stands for
        them, if :class:`~telehelper.core.admission.AdmissionPolicy` permits it. What it refuses passes unchanged if
        it is IPv4, because there is nothing to try after it; programs try IPv6 first, and would wait.

        Returns
        -------
        Mapping
            What to tell programs for each address: the same, or a mapped one. One that is missing is left out of the
            answer.
        """
        policy = self._policy
        if policy is None:
            return {address: address for address in addresses}
        told: dict[Address, Address] = {}
        new: list[Address] = []
        for address in addresses:
            fate, reason = policy.judge(address)
            if fate == ROUTED or (fate == SINGLE and self._is_there(address)):
                told[address] = address
            elif self._is_ours(address):
                continue  # no cluster has it: only mischief leads there
            elif fate == SINGLE:
                new.append(address)
            elif fate == TO_MAP:
                mapped = self._map(address)
                if mapped is not None:
                    told[address] = mapped
            else:
                self._refuse(address, reason, told)
        for address, reason in (await self._route(new[:MAX_ADMITTED])).items() if new else ():
            if reason:
                self._refuse(address, reason, told)
            else:
                told[address] = address
                self._refused.pop(address, None)
        return told

    def _refuse(self, address: Address, reason: str, told: dict[Address, Address]) -> None:
        self._refused.pop(address, None)
        self._refused[address] = reason
        if len(self._refused) > KEPT_REFUSALS:
            del self._refused[next(iter(self._refused))]
        if address.version == 4:
            told[address] = address

    def _is_there(self, address: Address) -> bool:
        """Whether an address has a route of its own already."""
        return address not in self._pending and self._singles.touch(address)

    def is_own(self, address: Address) -> bool:
        """Whether an address is the interface's own, which programs of this machine have as their source."""
        return address in (self.address, self.address_v6)

    def _is_ours(self, address: Address) -> bool:
        """Whether an address is the interface's own, or stands for another: no cluster has it."""
        own = (self.address, self.address_v6, self.resolver)
        return address in own or any(address in addresses.pool for addresses in self._maps)

    def _map(self, address: Address) -> Address | None:
        found = [addresses for addresses in self._maps if addresses.pool.version == address.version]
        return found[0].assign(address, monotonic()) if found else None

    async def _route(self, addresses: Sequence[Address]) -> dict[Address, str]:
        """Give addresses routes of their own; returns them with the reasons why they have none, empty if they have.

        Those there is no room for are missing.
        """
        async with self._changing:
            full = self._singles.add(addresses, self.in_use)
            added = [address for address in addresses if address not in full]
            return await self._apply(added)

    async def _apply(self, added: Sequence[Address]) -> dict[Address, str]:
        """Have netd route what was added; what it refuses is removed again."""
        if self.plan is None or not added:
            return {}
        try:
            self._pending.update(added)
            await self._configure(self.plan, list(self._singles))
        except TelemagicError as error:
            self._singles.remove(added)
            if len(added) == 1:
                return {added[0]: str(error)}
        except asyncio.CancelledError:
            self._singles.remove(added)
            raise
        else:
            return dict.fromkeys(added, "")
        finally:
            self._pending.difference_update(added)
        reasons: dict[Address, str] = {}
        for address in added:  # netd does all or nothing, and one of them only may be bad
            self._singles.add([address], self.in_use)
            reasons |= await self._apply([address])
        return reasons

    def real(self, address: Address) -> Address:
        """Return whom an address stands for: itself, if it is not mapped."""
        for addresses in self._maps:
            if addresses.pool.version == address.version and address in addresses.pool:
                return addresses.real(address) or address
        return address

    def sink(self, tunnel: FrameSink, answer: Callable[[list[Frame]], None]) -> FrameSink:
        """Return where the engine's frames go: the tunnel, behind what turns mapped addresses back if there are any."""
        return AddressMapper(tunnel, self._maps, answer) if self._maps else tunnel

    # --- inside

    async def _configure(self, plan: RoutePlan, singles: Sequence[Address]) -> None:
        await self._netd.configure(*self._wanted(plan, singles))

    def _wanted(self, plan: RoutePlan, singles: Sequence[Address]) -> tuple[list[str], list[str]]:
        networks: list[Network] = [*(addresses.pool for addresses in self._maps), *plan.routes]
        networks += [ip_network(address) for address in singles]
        wanted = [f"{self.resolver}/32", *map(str, networks)]
        addresses = [f"{self.address}/32"]
        if any(network.version == 6 for network in networks):
            if self.address_v6 is None:
                self.address_v6 = cidr.free_address_v6(self._avoid, self._index)
            addresses.append(f"{self.address_v6}/128")
        return addresses, wanted

    @property
    def _index(self) -> int:
        return int.from_bytes(self.device.encode(), "big")  # two clusters of one machine begin at two places

    def _choose_addresses(self, plan: RoutePlan, existing: Sequence[HostRoute], on_conflict: str) -> None:
        """Choose, once and for all, the interface's and the resolver's addresses, and those that stand for others.

        The kernel takes the interface's own address as the source of what it sends there (RFC 6724 §5, rule 5), so
        there is one of IPv6 exactly while there are routes of it. The resolver needs no second one.
        """
        self._avoid = [*(route.network for route in routes.foreign(existing, self.device)), *plan.named]
        if self.address is None or self.resolver is None:
            self.address, self.resolver = cidr.free_pair(self._avoid, self._index)
        if on_conflict != MAP:
            return
        versions = {addresses.pool.version for addresses in self._maps}
        if 4 not in versions:
            self._maps.append(AddressMap(cidr.free_map_pool(self._avoid, self._index)))
        six = any(network.version == 6 for network in plan.named)
        if 6 not in versions and six and has_ipv6(self.device):
            self._maps.append(AddressMap(cidr.free_map_pool_v6(self._avoid, self._index)))
