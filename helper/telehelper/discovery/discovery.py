"""Finding out about the cluster: ask the API server for as much as the rights allow, once or for ever.

Everything is asked at once. Lists that matter for changes are then followed by watches, or where those are forbidden by
asking again; so an idle cluster costs a few open requests. Of long lists a sample is looked at, and changes are followed
all the same, as far as the memory for them goes.
"""

from __future__ import annotations

import asyncio
import contextlib
from time import monotonic
from typing import TYPE_CHECKING, Final

from telehelper.discovery import refused_service
from telehelper.discovery.conclusions import DEFAULT_DOMAIN, Discovered, conclude
from telehelper.discovery.fields import Json, field, items, key, text
from telehelper.discovery.questions import (
    FOLLOWED,
    NODES,
    PAGE,
    PAGES,
    PARTICULARS,
    PODS,
    REFUSED_SERVICE,
    SERVICE_CIDRS,
    SERVICE_CIDRS_BETA,
    SERVICES,
    SLICES,
    in_namespace,
    slim,
    slim_list,
)
from telehelper.discovery.reader import ApiReader, FakeApiReader
from telehelper.discovery.services import service_cidrs
from telehelper.errors import ApiServerUnavailable, ClusterError, CredentialsRefused

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Coroutine

    from telehelper.core.resolv_conf import ResolvConf
    from telehelper.discovery.fields import Address

__all__ = [
    "DEFAULT_DOMAIN",
    "NODES",
    "SERVICE_CIDRS",
    "ApiReader",
    "Discovered",
    "Explorer",
    "FakeApiReader",
    "discover",
]

MAX_TIME: Final = 5.0  # seconds for one look; what every cluster has is worth that long
PATIENCE: Final = 1.0  # seconds for what only some clusters have, if the rest is there by then
RETRY: Final = 1.0  # seconds after an API server that did not answer: it may be starting
INTERVAL: Final = 10.0  # seconds between two looks at a list that may not be watched
RARELY: Final = 60.0  # seconds between two looks at what hardly ever changes, and at what was forbidden
SETTLE: Final = 1.0  # seconds in which changes that come together become one
# Drawing conclusions from thousands of pods, which change all the time, takes 0.1 s: that is done every twentieth part of it
SHARE: Final = 20
MAX_KEPT: Final = PAGE * PAGES * 2  # objects of one list; further ones are not looked at


async def discover(
    reader: ApiReader | None,
    resolv: ResolvConf,
    own_namespace: str = "",
    *,
    excluded: Collection[Address] = (),
) -> Discovered:
    """Look once, for at most ``MAX_TIME``, and make the best of the answers; never fails.

    Parameters
    ----------
    reader
        The API server; None if there is none to ask.
    resolv
        The resolver configuration of a pod; empty if there is none to be read.
    own_namespace
        What is looked at when the whole cluster may not be.
    excluded
        Addresses that no guess may cover, besides the nodes': the API server's.
    """
    return await Explorer(reader, resolv, own_namespace, excluded=excluded).look()


class Explorer:
    """Looks around in a cluster, and goes on looking. Parameters as of :func:`discover`."""

    def __init__(
        self,
        reader: ApiReader | None,
        resolv: ResolvConf,
        own_namespace: str = "",
        *,
        excluded: Collection[Address] = (),
    ) -> None:
        self._reader = reader
        self._resolv = resolv
        self._namespace = own_namespace
        self._excluded = tuple(excluded)
        self._found: dict[str, Json] = {}  # answers that are no list that is followed
        self._lists: dict[str, dict[tuple[str, str], Json]] = {}  # those that are
        self._refused: dict[str, ClusterError] = {}
        self._paths: dict[
            str, str
        ] = {}  # where a question found its answer: in the cluster, or in one namespace
        self._changed = asyncio.Event()

    async def known(self) -> Discovered:
        """Return what follows from the answers so far.

        In a thread: who looks around has flows to carry, too, and would hold them all up.
        """
        listed = {question: {"items": list(kept.values())} for question, kept in self._lists.items()}
        found, refused = {**self._found, **listed}, dict(self._refused)
        return await asyncio.to_thread(
            conclude, found, refused, self._resolv, self._namespace, self._excluded
        )

    async def look(self) -> Discovered:
        """Ask everything, and return what is known then."""
        if self._reader is None:
            self._refused[NODES] = ApiServerUnavailable("there is no API server to ask")
            return await self.known()
        basic = {
            question: self._begin(self._ask_list(question))
            for question in FOLLOWED
            if question != SERVICE_CIDRS
        }
        others = {question: self._begin(self._ask_particular(question)) for question in PARTICULARS}
        basic[SERVICE_CIDRS] = self._begin(self._ask_services())
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            _, late = await asyncio.wait(basic.values(), timeout=MAX_TIME)
            await asyncio.wait(others.values(), timeout=max(0.0, began + PATIENCE - loop.time()))
        finally:
            for task in (*basic.values(), *others.values()):
                task.cancel()
            await asyncio.gather(*basic.values(), *others.values(), return_exceptions=True)
        for question, task in basic.items():
            if task in late and question not in self._lists:
                words = f"no answer to {question} within {MAX_TIME:.0f} s"
                self._refused.setdefault(question, ApiServerUnavailable(words))
        return await self.known()

    async def follow(self, on_change: Callable[[Discovered], None], interval: float = INTERVAL) -> None:
        """Tell of each change after a look; ends by being cancelled.

        Parameters
        ----------
        on_change
            Called with all that is known, a moment after it changed.
        interval
            Seconds between two looks at what may not be watched.
        """
        told = await self.known()
        pause = 0.0
        async with asyncio.TaskGroup() as group:
            if self._reader is not None:
                for question in FOLLOWED:
                    group.create_task(self._follow_list(self._reader, question, interval))
                group.create_task(self._ask_rarely(max(interval, RARELY)))
            while True:
                await self._changed.wait()
                await asyncio.sleep(max(min(SETTLE, interval), pause))
                self._changed.clear()
                began = monotonic()
                now = await self.known()
                pause = SHARE * (monotonic() - began)
                if now != told:
                    told = now
                    on_change(now)

    # --- asking

    @staticmethod
    def _begin(work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        return asyncio.ensure_future(work)

    async def _get(self, question: str, path: str, params: dict[str, str]) -> bool:
        """Ask one question at one path, page by page; returns whether there was an answer."""
        assert self._reader is not None  # noqa: S101 - look() and follow() saw to it; for mypy
        params = dict(params)
        listed: list[Json] = []
        try:
            for _ in range(PAGES):
                answer = slim_list(question, await self._reader.get(path, **params))
                listed += items(answer)
                params["continue"] = text(answer, "metadata", "continue")
                if not params["continue"]:
                    break
        except ClusterError as error:
            if not listed:
                self._refused[question] = error
                return False
        self._refused.pop(question, None)
        self._paths[question] = path
        if question in FOLLOWED:
            self._take_list(question, listed)
        else:
            self._take(question, {**answer, "items": listed} if "items" in answer else answer)
        return True

    async def _ask_list(self, question: str) -> None:
        """Ask for a list in the whole cluster, and if that is forbidden in the own namespace."""
        limit = {"limit": str(PAGE)}
        if await self._get(question, question, limit):
            return
        error = self._refused[question]
        if question in (PODS, SERVICES) and self._namespace and isinstance(error, CredentialsRefused):
            found = await self._get(question, in_namespace(question, self._namespace), limit)
            if question == PODS and not found:
                await self._get(SLICES, in_namespace(SLICES, self._namespace), limit)
            self._refused[question] = error  # of the whole cluster, for the notices

    async def _ask_particular(self, question: str) -> None:
        await self._get(question, question, PARTICULARS[question])

    async def _ask_services(self) -> None:
        """Ask for ServiceCIDRs, of either version, and if there are none by a Service that must be refused."""
        limit = {"limit": str(PAGE)}
        if not await self._get(SERVICE_CIDRS, SERVICE_CIDRS, limit):
            error = self._refused[SERVICE_CIDRS]
            if error.slug == "api-not-found" and not await self._get(
                SERVICE_CIDRS, SERVICE_CIDRS_BETA, limit
            ):
                self._refused[SERVICE_CIDRS] = error
        listed = {"items": list(self._lists.get(SERVICE_CIDRS, {}).values())}
        if not service_cidrs({SERVICE_CIDRS: listed}):
            await self._ask_by_refusal()

    async def _ask_by_refusal(self) -> None:
        """Find the service CIDRs by dry runs, if creating services is allowed in our namespace."""
        assert self._reader is not None  # noqa: S101 - as above
        reader, namespace = self._reader, self._namespace or "default"
        path = f"/api/v1/namespaces/{namespace}/services"
        reviews = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        with contextlib.suppress(ClusterError):  # no answer is as good as a no
            review = await reader.create(reviews, refused_service.review(namespace))
            if field(review, "status", "allowed") is not True:
                return
            ranges = []
            for version in (4, 6):

                async def ask(address: str, version: int = version) -> refused_service.Verdict:
                    try:
                        body = refused_service.service(version, address)
                        return refused_service.accepted(await reader.create(path, body, dry_run=True))
                    except ClusterError as error:
                        return refused_service.verdict_of(error)

                if (network := await refused_service.find_range(ask, version)) is not None:
                    ranges.append(str(network))
            self._take(REFUSED_SERVICE, {"ranges": ranges})

    # --- following

    async def _follow_list(self, reader: ApiReader, question: str, interval: float) -> None:
        while True:
            path = self._paths.get(question, question)
            pause = interval
            try:
                async with contextlib.aclosing(reader.watch(path, limit=str(PAGE))) as events:
                    async for event in events:
                        self._take_event(question, event)
            except ClusterError as error:
                if question not in self._lists:
                    self._refused[question] = error
                    is_away = error.slug != "api-not-found" and not isinstance(error, CredentialsRefused)
                    # A right that is missing, or a resource: both may come, but hardly now.
                    pause = min(RETRY, interval) if is_away else max(interval, RARELY)
            await asyncio.sleep(pause)

    async def _ask_rarely(self, interval: float) -> None:
        while True:
            await asyncio.sleep(interval)
            for question in [one for one in PARTICULARS if one in self._found]:
                await self._ask_particular(question)

    def _take_event(self, question: str, event: Json) -> None:
        """Take one event of a watch."""
        item = event.get("object")
        if not isinstance(item, dict):
            return
        listed = self._lists.setdefault(question, {})
        if event.get("type") == "LIST":
            is_whole = self._paths.setdefault(question, question) == question
            if is_whole and self._refused.pop(question, None) is not None:
                self._changed.set()
            found = items(slim_list(question, item))
            # Of a long list this is the beginning only, and what is not in it may be there all the same.
            is_sample = bool(text(item, "metadata", "continue"))
            self._take_list(question, [*found, *listed.values()] if is_sample else found)
            return
        kept, name = slim(question, item), key(item)
        if event.get("type") == "DELETED":
            if listed.pop(name, None) is not None:
                self._changed.set()
        elif listed.get(name) != kept and (name in listed or len(listed) < MAX_KEPT):
            listed[name] = kept
            self._changed.set()

    def _take(self, question: str, answer: Json) -> None:
        if self._found.get(question) != answer:
            self._found[question] = answer
            self._changed.set()

    def _take_list(self, question: str, listed: list[Json]) -> None:
        kept: dict[tuple[str, str], Json] = {}
        for item in listed[:MAX_KEPT]:
            kept.setdefault(key(item), item)
        if self._lists.get(question) != kept:
            self._lists[question] = kept
            self._changed.set()
