"""Keeps the index as the API server shows it: services, endpoints and pods, listed and then followed.

Everywhere if the user may, else in one namespace. EndpointSlices are read, or where a role knows only of the older
Endpoints, those. Where a list may not be watched it is asked for again and again.
"""

from __future__ import annotations

import asyncio
import contextlib
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from telehelper.background import begin
from telehelper.datapath.agentless.index import Index
from telehelper.datapath.agentless.objects import (
    EndpointSlice,
    Pod,
    Service,
    key_of,
    read_endpoints,
    read_pod,
    read_service,
    read_slice,
)
from telehelper.datapath.backoff import BackOff
from telehelper.errors import ClusterError, CredentialsRefused
from telehelper.kube.client import ApiNotFound

if TYPE_CHECKING:
    from collections.abc import Callable

    from telehelper.datapath.agentless.objects import Json
    from telehelper.kube.client import ApiClient

POLL: Final = 3.0  # seconds from one list to the next, where it may not be watched
POLL_SHARE: Final = 20  # a list that takes a second to read is asked for every twenty
FIRST_LIST: Final = 15.0  # seconds for each kind's first list


class Kind(NamedTuple):
    """One kind of object: where it is in the API, and how it is read."""

    prefix: str
    plural: str
    type: type[Service | EndpointSlice | Pod]
    read: Callable[[Json], Service | EndpointSlice | Pod | None]

    def path(self, namespace: str) -> str:
        """Return the path of the list, of one namespace if it is given."""
        return (
            f"{self.prefix}/namespaces/{namespace}/{self.plural}"
            if namespace
            else f"{self.prefix}/{self.plural}"
        )


SERVICES: Final = Kind("/api/v1", "services", Service, read_service)
SLICES: Final = Kind("/apis/discovery.k8s.io/v1", "endpointslices", EndpointSlice, read_slice)
ENDPOINTS: Final = Kind("/api/v1", "endpoints", EndpointSlice, read_endpoints)
PODS: Final = Kind("/api/v1", "pods", Pod, read_pod)


class Feed:
    """Keeps one kind of object in the index.

    Attributes
    ----------
    error
        Why what the index shows may be old; empty while it is followed.
    """

    def __init__(self, api: ApiClient, kind: Kind, namespace: str, index: Index) -> None:
        self.error = ""
        self._api = api
        self._kind = kind
        self._path = kind.path(namespace)
        self._index = index
        self._back_off = BackOff()
        self._loaded: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Fill the index for the first time and follow from then on; a ClusterError if the list may not be read."""
        self._task = begin(self._run())
        try:
            async with asyncio.timeout(FIRST_LIST):
                await asyncio.shield(self._loaded)
        except BaseException:
            await self.close()
            raise

    def wake(self) -> None:
        """Try again now what waits for its next try."""
        self._back_off.wake()

    async def close(self) -> None:
        """Stop following."""
        self._loaded.cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            try:
                await self._follow()
            except CredentialsRefused as error:
                if self._fails_at_once(error):
                    return
                # Lists may be read, watches perhaps not; or the token has expired, and asking again shows which.
                await self._poll(error)
            except ClusterError as error:
                if self._fails_at_once(error):
                    return
                self.error = error.message
            await self._back_off.wait()

    def _fails_at_once(self, error: ClusterError) -> bool:
        if self._loaded.done():
            return False
        self._loaded.set_exception(error)
        return True

    async def _follow(self) -> None:
        async with contextlib.aclosing(self._api.watch(self._path)) as events:
            async for event in events:
                self._take(event["type"], event["object"])

    async def _poll(self, refused: CredentialsRefused) -> None:
        """List again and again; return when even that fails."""
        while True:
            began = monotonic()
            try:
                self._take("LIST", await self._api.get(self._path))
            except ClusterError as error:
                self.error = error.message
                return
            self.error = "" if refused.data.get("status") == "403" else self.error
            await asyncio.sleep(max(POLL, POLL_SHARE * (monotonic() - began)))

    def _take(self, kind: str, item: Any) -> None:  # noqa: ANN401  # JSON
        if kind == "LIST":
            self._replace(item)
        elif isinstance(item, dict):
            self._change(item, is_gone=kind == "DELETED")
        self.error = ""
        self._back_off.reset()
        if not self._loaded.done():
            self._loaded.set_result(None)

    def _replace(self, listed: Json) -> None:
        items = listed.get("items")
        seen = set()
        for item in items if isinstance(items, list) else ():
            if isinstance(item, dict):
                self._change(item, is_gone=False)
                seen.add(key_of(item))
        for key in self._index.keys(self._kind.type):
            if key not in seen:
                self._index.remove(self._kind.type, key)

    def _change(self, item: Json, *, is_gone: bool) -> None:
        found = None if is_gone else self._kind.read(item)
        if found is not None:
            self._index.put(found)
        elif (key := key_of(item)) is not None:
            self._index.remove(self._kind.type, key)


class Catalog:
    """The index, kept up to date. Made by :func:`open_catalog`."""

    def __init__(self, index: Index, feeds: list[Feed]) -> None:
        self.index = index
        self._feeds = feeds

    @property
    def error(self) -> str:
        """Why what the index shows may be old; empty while all of it is followed."""
        return next((feed.error for feed in self._feeds if feed.error), "")

    def wake(self) -> None:
        """Try again now what waits for its next try."""
        for feed in self._feeds:
            feed.wake()

    async def close(self) -> None:
        """Stop following."""
        await asyncio.gather(*(feed.close() for feed in self._feeds))


async def open_catalog(api: ApiClient, namespace: str) -> Catalog:
    """Read what is visible of the cluster: everything, or where that is forbidden, one namespace.

    Parameters
    ----------
    api
        With the user's own rights.
    namespace
        What to read where not everything may be.

    Raises
    ------
    CredentialsRefused
        Not even that may be read; the hint says which rights it takes.
    ApiServerUnavailable
        It does not answer.
    """
    try:
        return await _open(api, "")
    except CredentialsRefused as error:
        if error.data.get("status") == "401":
            raise
    try:
        return await _open(api, namespace)
    except CredentialsRefused as error:
        raise CredentialsRefused(
            f"without a traffic manager, services, endpoints and pods must be readable: {error.message}",
            hint=f"ask for a Role in {namespace!r} with get, list and watch on services, endpointslices and pods",
            **error.data,
        ) from error


async def _open(api: ApiClient, namespace: str) -> Catalog:
    index = Index([namespace] if namespace else None)
    feeds = [Feed(api, kind, namespace, index) for kind in (SERVICES, SLICES, PODS)]
    catalog = Catalog(index, feeds)
    try:
        services, slices, pods = await asyncio.gather(
            *(feed.start() for feed in feeds), return_exceptions=True
        )
        if isinstance(slices, CredentialsRefused | ApiNotFound):
            feeds[1], slices = Feed(api, ENDPOINTS, namespace, index), None
            await feeds[1].start()
        for result in (services, slices, pods):
            if result is not None:
                raise result
    except BaseException:
        await catalog.close()
        raise
    return catalog
