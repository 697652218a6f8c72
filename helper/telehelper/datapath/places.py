"""What an address is in the cluster: which service, pod and node; asked for when a flow leads there, and remembered.

Theory of operation
-------------------
Nothing is asked for beforehand. `place_of` is a look-up; an address that is not known yet is put down, and a round of
questions answers all that were put down, one round in `PAUSE` seconds. Where the uplink follows the API server anyway
(agentless), its index is read instead, and nobody is asked.

*One round* lists services and EndpointSlices, which say of each endpoint its pod and node, page by page; pages are small,
so that none takes the event loop more than some milliseconds. For an address that is no service's, the API server is asked
for pods with this very address (field selector ``status.podIP``), never for all pods. Everywhere if the user may, else in
the connected namespace and those of the names that were resolved.

What a round has listed is kept, so that a flow to another service, which may be over within a second, need not wait for the
next round.

*Certainty.* A pod is named if the address is its own, or of a service with exactly one ready endpoint. Many pods share a
node's address: then only the node is named.

*Silence.* What may not be read, or does not answer, stays unknown, and what is known stays known; a forbidden list is
not asked for again for a while.

Bounds: `KEPT` addresses, `WANTED` put down, `MAX_PAGES` of a list, `PODS` questions for single pods in a round.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from time import monotonic
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from telehelper.background import begin
from telehelper.datapath.agentless.catalog import PODS as POD_KIND
from telehelper.datapath.agentless.catalog import SERVICES, SLICES, Kind
from telehelper.datapath.agentless.index import Index
from telehelper.datapath.agentless.objects import Endpoint, read_pod
from telehelper.datapath.report import NOWHERE, Place
from telehelper.discovery.fields import text
from telehelper.errors import ClusterError, CredentialsRefused

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from telehelper.core.frames import Address
    from telehelper.datapath.agentless.objects import Json, Key, Pod
    from telehelper.datapath.inventory import ApiReader

PAUSE: Final = 10.0  # seconds between two rounds
FRESH: Final = (
    300.0  # seconds; then what an address is is asked for again, and the old answer kept until then
)
UNKNOWN_AGAIN: Final = 60.0  # seconds; as FRESH, of one that was found nowhere
INDEX_AGAIN: Final = 10.0  # seconds; as FRESH, of what is read from an index: that costs nothing
FORBIDDEN_AGAIN: Final = 300.0  # seconds; roles change seldom
ROUND: Final = 30.0  # seconds that a round may take
KEPT: Final = 20_000  # addresses; the one put down longest ago is forgotten
WANTED: Final = 1000  # addresses; further ones are put down when they are asked for the next time
SEVERAL: Final = 10  # pods of one address; enough to see that there are several
PODS: Final = 50  # in a round; the rest waits for the next
MAX_PAGES: Final = 1000  # of one list
NAMESPACES: Final = 8  # that are looked at one by one, where not everywhere may be
# Objects on a page: a slice has up to 100 endpoints, 30 KiB or so; reading a page takes 5 ms at most.
_PAGE: Final = {SERVICES: 100, SLICES: 10}
Item = TypeVar("Item")


class _Known(NamedTuple):
    """What an address is, and until when (monotonic seconds) that is believed."""

    place: Place
    until: float


class Places:
    """See the module's theory of operation; satisfies :class:`telehelper.datapath.observer.Places`.

    Parameters
    ----------
    real
        Tells the cluster's own address of one that programs were told.
    name_of
        Tells the name that was resolved to an address, or an empty text: ``postgres.shop``.
    on_change
        Called when addresses have become something else.

    Attributes
    ----------
    api
        With the user's own rights; None: nothing is asked for.
    namespace
        The connected one.
    index
        Tells what the uplink follows; None if it follows nothing.
    """

    def __init__(
        self,
        real: Callable[[Address], Address],
        name_of: Callable[[Address], str],
        on_change: Callable[[], None],
    ) -> None:
        self.api: ApiReader | None = None
        self.namespace = ""
        self.index: Callable[[], Index | None] = lambda: None
        self._real = real
        self._name_of = name_of
        self._on_change = on_change
        self._known: OrderedDict[Address, _Known] = OrderedDict()
        self._wanted: dict[Address, None] = {}
        self._forbidden: dict[str, float] = {}  # until when, by path
        self._next_round = 0.0
        self._seen = Index()  # what the last round listed
        self._seen_until = 0.0
        self._asking: asyncio.Task[None] | None = None
        self._is_incomplete = False  # the present round: the API server did not answer all of it

    def place_of(self, address: Address) -> Place:
        """Return what an address is, as far as is known; asks for it if that is too little, or too old."""
        known = self._known.get(address)
        if known is None or known.until < monotonic():
            self._want(address)
            known = self._known.get(address)
        return known.place if known is not None else NOWHERE

    async def close(self) -> None:
        """Stop asking."""
        self.api = None
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)

    # --- asking

    def _want(self, address: Address) -> None:
        index = self.index()
        if index is not None:
            self._keep(address, place_in(index, self._real(address)), INDEX_AGAIN)
            return
        if monotonic() < self._seen_until and self._is_listed(address):
            return
        if self.api is not None and len(self._wanted) < WANTED:
            self._wanted[address] = None
            if self._asking is None or self._asking.done():
                self._asking = begin(self._ask(self.api))

    def _is_listed(self, address: Address) -> bool:
        """Whether the last round's lists say all of an address; of a pod they do not surely tell the name."""
        real = self._real(address)
        is_service = self._seen.service_at(real) is not None
        place = place_in(self._seen, real)
        if place != NOWHERE and (is_service or address not in self._known):
            self._keep(address, place, FRESH if is_service else 0.0)
        return is_service

    async def _ask(self, api: ApiReader) -> None:
        while self._wanted:
            await asyncio.sleep(self._next_round - monotonic())
            self._next_round = monotonic() + PAUSE
            wanted, self._wanted = list(self._wanted), {}
            self._is_incomplete = False
            try:
                async with asyncio.timeout(ROUND):
                    await self._round(api, wanted)
            except TimeoutError:
                self._is_incomplete = True
                self._settle(dict.fromkeys(wanted, NOWHERE))

    async def _round(self, api: ApiReader, wanted: Sequence[Address]) -> None:
        index = Index()
        reals = {address: self._real(address) for address in wanted}
        scopes = self._scopes(wanted)
        for kind in (SERVICES, SLICES):
            await self._fill(api, kind, scopes, index)
        left = [address for address, real in reals.items() if index.service_at(real) is None]
        for address in left[:PODS]:
            for pod in await self._pods(api, scopes, reals[address]):
                index.put(pod)
        found = {address: place_in(index, real) for address, real in reals.items()}
        for address in left[PODS:]:
            if found[address] == NOWHERE:
                del found[address]
                self._wanted[address] = None
        if not self._is_incomplete:
            self._seen, self._seen_until = index, monotonic() + FRESH
        self._settle(found)

    def _scopes(self, wanted: Sequence[Address]) -> list[str]:
        """Return the namespaces to look at where not everywhere may be: the connected one, and those of names."""
        labels = [self._name_of(address).split(".") for address in wanted]
        known = [label[1] for label in labels if len(label) > 1]
        return list(dict.fromkeys(name for name in (self.namespace, *known) if name))[:NAMESPACES]

    async def _fill(self, api: ApiReader, kind: Kind, scopes: Sequence[str], index: Index) -> None:
        if await self._list(api, kind, "", index):
            return
        for namespace in scopes:
            await self._list(api, kind, namespace, index)

    async def _list(self, api: ApiReader, kind: Kind, namespace: str, index: Index) -> bool:
        """List all of a kind; False if that may not be."""
        path = kind.path(namespace)
        if self._is_forbidden(path):
            return False
        try:
            async for item in _items(api, path, _PAGE[kind]):
                found = kind.read(item)
                if found is not None:
                    index.put(found)
        except CredentialsRefused:
            self._forbidden[path] = monotonic() + FORBIDDEN_AGAIN
            return False
        except ClusterError:
            self._is_incomplete = True  # it does not answer; asking on, by namespace, would not help
        return True

    async def _pods(self, api: ApiReader, scopes: Sequence[str], address: Address) -> list[Pod]:
        """Return the pods that have an address; several have a node's."""
        for namespace in ("", *scopes):
            path = POD_KIND.path(namespace)
            if self._is_forbidden(path):
                continue
            try:
                answer = await api.get(path, fieldSelector=f"status.podIP={address}", limit=str(SEVERAL))
            except CredentialsRefused:
                self._forbidden[path] = monotonic() + FORBIDDEN_AGAIN
                continue
            except ClusterError:
                self._is_incomplete = True
                return []
            items = answer.get("items")
            read = (
                [read_pod(item) for item in items if isinstance(item, dict)]
                if isinstance(items, list)
                else []
            )
            found = [pod for pod in read if pod is not None and address in pod.addresses]
            if found or not namespace:
                return found
        return []

    def _is_forbidden(self, path: str) -> bool:
        return self._forbidden.get(path, 0.0) > monotonic()

    # --- keeping

    def _settle(self, found: Mapping[Address, Place]) -> None:
        """Keep what a round has found, and of what it could not find what was known before."""
        changed = []
        for address, place in found.items():
            before = self._known.get(address)
            if place == NOWHERE and before is not None and self._is_incomplete:
                self._keep(address, before.place, UNKNOWN_AGAIN)
            elif self._keep(address, place, UNKNOWN_AGAIN if place == NOWHERE else FRESH):
                changed.append(address)
        if changed:
            self._on_change()

    def _keep(self, address: Address, place: Place, seconds: float) -> bool:
        """Remember; return whether that is news."""
        before = self._known.pop(address, None)
        self._known[address] = _Known(place, monotonic() + seconds)
        if len(self._known) > KEPT:
            self._known.popitem(last=False)
        return place != (before.place if before is not None else NOWHERE)


async def _items(api: ApiReader, path: str, page: int) -> AsyncIterator[Json]:
    following = ""
    for _ in range(MAX_PAGES):
        params = {"limit": str(page)} | ({"continue": following} if following else {})
        answer = await api.get(path, **params)
        items = answer.get("items")
        for item in items if isinstance(items, list) else ():
            if isinstance(item, dict):
                yield item
        following = text(answer, "metadata", "continue")
        if not following:
            return


def place_in(index: Index, address: Address) -> Place:
    """Look an address up; NOWHERE if it is not there."""
    service = index.service_at(address)
    if service is not None:
        routes = [r for r in index.routes(service.key) if r.endpoint.address.version == address.version]
        only = routes[0].endpoint if len(routes) == 1 else Endpoint(address)
        pod_name = only.pod.name if only.pod is not None else ""
        return Place(_name(service.key), service.key.namespace, pod_name, only.node)
    routes = index.routes_at(address)
    key = _only({route.slice.service for route in routes})
    name, namespace = (_name(key), key.namespace) if key is not None else ("", "")
    pod = index.pod_at(address)
    if pod is not None:
        return Place(name, pod.key.namespace, pod.key.name, pod.node)
    nodes = {route.endpoint.node for route in routes} | {index.node_at(address)}
    return Place(name, namespace, node=_only(nodes - {""}) or "")


def _name(service: Key) -> str:
    return f"{service.name}.{service.namespace}"


def _only(found: set[Item]) -> Item | None:
    """Return the one there is; None if there are none or several."""
    return next(iter(found)) if len(found) == 1 else None
