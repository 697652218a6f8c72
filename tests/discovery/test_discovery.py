from __future__ import annotations

import asyncio
import time
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from telehelper.core.resolv_conf import ResolvConf
from telehelper.discovery import discovery
from telehelper.discovery.discovery import Discovered, Explorer, FakeApiReader, discover
from telehelper.discovery.questions import (
    KUBE_DNS,
    NAMESPACES,
    NODES,
    PAGE,
    PARTICULARS,
    PODS,
    SERVICE_CIDRS,
    SERVICE_CIDRS_BETA,
    SERVICES,
    SLICES,
    in_namespace,
)
from telehelper.discovery.reader import NotThere
from telehelper.errors import ApiServerUnavailable, ClusterError, CredentialsRefused

from tests.datapath.waiting import until
from tests.discovery.sample import answers, forbidden, sample

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable

WAIT = 10.0  # seconds for anything
STALL = 0.03  # seconds of work in one go; drawing conclusions from all pods takes twice that at least
Json = dict[str, Any]


def looked(reader: FakeApiReader | None, namespace: str = "shop") -> Discovered:
    return asyncio.run(discover(reader, ResolvConf(), namespace))


def cidrs(info: Discovered) -> set[str]:
    return {one.cidr for one in info.cidrs}


def node(name: str, *blocks: str) -> Json:
    return {"metadata": {"name": name}, "spec": {"podCIDRs": list(blocks)}}


def pod(name: str, address: str, namespace: str = "shop", **more: Any) -> Json:
    status = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}], **more}
    return {"metadata": {"name": name, "namespace": namespace}, "spec": {}, "status": status}


# --- one look ----------------------------------------------------------------------------------------------------


def test_without_an_api_server_there_is_one_notice() -> None:
    info = looked(None)
    assert info.cidrs == ()
    assert (
        info.notices[-1] == "the cluster's networks could not all be asked for: there is no API server to ask"
    )


def test_an_api_server_that_never_answers_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent(FakeApiReader):
        async def get(self, path: str, **_params: str) -> Json:
            await asyncio.Event().wait()
            raise AssertionError(path)

    monkeypatch.setattr(discovery, "MAX_TIME", 0.02)
    monkeypatch.setattr(discovery, "PATIENCE", 0.01)
    info = looked(Silent({}))
    assert info.cidrs == ()
    assert len([line for line in info.notices if "could not all be asked for: no answer to" in line]) == 1


def test_what_only_some_clusters_have_is_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(FakeApiReader):
        async def get(self, path: str, **params: str) -> Json:
            if path in PARTICULARS:
                await asyncio.Event().wait()
            return await super().get(path, **params)

    monkeypatch.setattr(discovery, "PATIENCE", 0.02)
    info = looked(Slow(answers("kubeadm")))
    assert [(one.cidr, one.source) for one in info.cidrs] == [
        ("10.96.0.0/12", "ServiceCIDR kubernetes"),
        ("10.244.0.0/23", "podCIDR of 2 nodes"),
    ]


def test_all_is_asked_at_once() -> None:
    class Counting(FakeApiReader):
        now = most = 0

        async def get(self, path: str, **params: str) -> Json:
            self.now += 1
            self.most = max(self.most, self.now)
            await asyncio.sleep(0.01)
            self.now -= 1
            return await super().get(path, **params)

    reader = Counting(answers("kubeadm"))
    looked(reader)
    assert reader.most == len(PARTICULARS) + 5


def test_of_a_large_list_a_sample_is_looked_at() -> None:
    class Large(FakeApiReader):
        pages = 0

        async def get(self, path: str, **params: str) -> Json:
            if path != PODS:
                return await super().get(path, **params)
            assert params["limit"] == str(PAGE)
            assert bool(params.get("continue")) is (self.pages > 0)
            page, self.pages = self.pages, self.pages + 1
            items = [pod(f"p{page}-{n}", f"10.{page}.{n // 200}.{n % 200 + 1}") for n in range(PAGE)]
            return {"metadata": {"continue": f"token-{page}"}, "items": items}

    reader = Large({NODES: {"items": [node("a", "10.0.0.0/13")]}})
    info = looked(reader)
    assert reader.pages == 4
    assert [(one.cidr, one.confidence) for one in info.cidrs] == [("10.0.0.0/13", "certain")]


def test_a_list_that_breaks_off_is_used_as_far_as_it_came() -> None:
    class Breaking(FakeApiReader):
        async def get(self, path: str, **params: str) -> Json:
            if params.get("continue"):
                raise ClusterError("410 the continue parameter is too old")
            return await super().get(path, **params)

    listed = {"metadata": {"continue": "x"}, "items": [pod("a", "10.0.0.1")]}
    assert cidrs(looked(Breaking({PODS: listed, NODES: {"items": []}}))) == {"10.0.0.0/24"}


def test_service_cidrs_of_the_beta() -> None:
    listed = {"items": [{"metadata": {"name": "kubernetes"}, "spec": {"cidrs": ["10.96.0.0/12"]}}]}
    reader = FakeApiReader({SERVICE_CIDRS_BETA: listed})
    info = looked(reader)
    assert [(one.cidr, one.source) for one in info.cidrs] == [("10.96.0.0/12", "ServiceCIDR kubernetes")]
    refused = FakeApiReader({SERVICE_CIDRS: forbidden(SERVICE_CIDRS), SERVICE_CIDRS_BETA: listed})
    looked(refused)
    assert SERVICE_CIDRS_BETA not in refused.asked, "it would be forbidden too"


def test_where_the_cluster_may_not_be_looked_at_the_namespace_is() -> None:
    reader = sample("namespaced")
    info = looked(reader)
    assert cidrs(info) == {"10.101.33.0/24", "10.244.1.0/24"}
    assert in_namespace(SLICES, "shop") not in reader.asked, "pods tell more"


def test_slices_tell_of_pods_that_may_not_be_listed() -> None:
    reader = sample("namespaced")
    reader.objects[in_namespace(PODS, "shop")] = forbidden("pods")
    info = looked(reader)
    assert ("10.244.1.7/32", "guess") in [(one.cidr, one.confidence) for one in info.cidrs]


def test_nothing_in_a_namespace_is_asked_without_one() -> None:
    reader = sample("namespaced")
    assert looked(reader, "").cidrs == ()
    assert not [path for path in reader.asked if "/namespaces/shop/" in path]


# --- following ---------------------------------------------------------------------------------------------------


class WatchedReader(FakeApiReader):
    """An API server whose lists can be watched: `send()` is an event of one of them."""

    def __init__(self, objects: dict[str, Any]) -> None:
        super().__init__(objects)
        self.queues: dict[str, asyncio.Queue[Json | ClusterError]] = {}
        self.watches: deque[str] = deque()

    async def watch(self, path: str, **params: str) -> AsyncGenerator[Json, None]:
        self.watches.append(path)
        yield {"type": "LIST", "object": await self.get(path, **params)}
        queue = self.queues.setdefault(path, asyncio.Queue())
        while True:
            event = await queue.get()
            if isinstance(event, ClusterError):
                raise event
            yield event

    def send(self, path: str, kind: str, item: Any) -> None:
        self.queues.setdefault(path, asyncio.Queue()).put_nowait({"type": kind, "object": item})

    def fail(self, path: str, error: ClusterError) -> None:
        self.queues.setdefault(path, asyncio.Queue()).put_nowait(error)


FULL: dict[str, Any] = {
    SERVICE_CIDRS: {"items": [{"metadata": {"name": "kubernetes"}, "spec": {"cidrs": ["10.96.0.0/16"]}}]},
    NODES: {"items": [node("a", "10.244.0.0/24")]},
    NAMESPACES: {"items": [{"metadata": {"name": "shop"}}]},
    PODS: {"items": [pod("web", "10.244.0.7")]},
    SERVICES: {"items": []},
    KUBE_DNS: {"spec": {"clusterIP": "10.96.0.10"}},
}


class Followed:
    """What a follower has told."""

    def __init__(self) -> None:
        self.told: list[Discovered] = []
        self._news = asyncio.Event()

    def __call__(self, info: Discovered) -> None:
        self.told.append(info)
        self._news.set()
        self._news = asyncio.Event()

    async def until(self, holds: Callable[[Discovered], bool]) -> Discovered:
        async with asyncio.timeout(WAIT):
            while not (self.told and holds(self.told[-1])):
                await self._news.wait()
        return self.told[-1]


@asynccontextmanager
async def following(
    reader: FakeApiReader, namespace: str = "shop", interval: float = 0.01
) -> AsyncIterator[tuple[Followed, Discovered]]:
    explorer = Explorer(reader, ResolvConf(), namespace)
    first = await explorer.look()
    followed = Followed()
    task = asyncio.ensure_future(explorer.follow(followed, interval))
    try:
        yield followed, first
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def test_what_is_new_is_told() -> None:
    async def scenario() -> None:
        reader = WatchedReader(dict(FULL))
        async with following(reader) as (followed, first):
            assert cidrs(first) == {"10.96.0.0/16", "10.244.0.0/24"}
            reader.send(NODES, "ADDED", node("b", "10.244.1.0/24"))
            await followed.until(lambda info: "10.244.0.0/23" in cidrs(info))
            reader.send(PODS, "ADDED", pod("stray", "10.9.9.9"))
            reader.send(NAMESPACES, "ADDED", {"metadata": {"name": "new"}})
            info = await followed.until(
                lambda info: "10.9.9.0/24" in cidrs(info) and "new" in info.namespaces
            )
            assert "podCIDR of 2 nodes" in info.notices[-1], "a podCIDR that misses a pod is not believed"
            reader.send(PODS, "DELETED", pod("stray", "10.9.9.9"))
            await followed.until(lambda info: cidrs(info) == {"10.96.0.0/16", "10.244.0.0/23"})
            more = {"metadata": {"name": "more"}, "spec": {"cidrs": ["10.120.0.0/16"]}}
            reader.send(SERVICE_CIDRS, "ADDED", more)
            await followed.until(lambda info: "10.120.0.0/16" in cidrs(info))
            reader.send(
                SERVICES, "MODIFIED", {"metadata": {"name": "s"}, "spec": {"clusterIP": "10.130.0.9"}}
            )
            await followed.until(lambda info: "10.130.0.0/24" in cidrs(info))

    asyncio.run(scenario())


def test_what_changes_nothing_is_not_told() -> None:
    async def scenario() -> None:
        reader = WatchedReader(dict(FULL))
        async with following(reader) as (followed, _):
            for n in range(50):
                reader.send(PODS, "MODIFIED", pod("web", "10.244.0.7", conditions=[n]))
                reader.send(PODS, "ADDED", pod(f"more-{n}", f"10.244.0.{n + 10}"))
            for event in (7, None, [], {"metadata": 7}):
                reader.send(PODS, "ADDED", event)
            reader.send(PODS, "NONSENSE", pod("x", "10.244.0.9"))
            reader.send(NAMESPACES, "ADDED", {"metadata": {"name": "last"}})
            await followed.until(lambda info: "last" in info.namespaces)
            assert len(followed.told) == 1
            assert len(reader.watches) == 5

    asyncio.run(scenario())


def test_a_watch_that_breaks_begins_again_with_a_list() -> None:
    async def scenario() -> None:
        reader = WatchedReader(dict(FULL))
        async with following(reader) as (followed, _):
            reader.objects[NODES] = {"items": [node("c", "10.244.8.0/24"), node("a", "10.244.0.0/24")]}
            reader.fail(NODES, ApiServerUnavailable("cut"))
            info = await followed.until(lambda info: "10.244.8.0/24" in cidrs(info))
            assert not [line for line in info.notices if "could not" in line], "it was a moment"

    asyncio.run(scenario())


def test_an_api_server_that_goes_away_makes_nothing_forgotten() -> None:
    async def scenario() -> None:
        reader = WatchedReader(dict(FULL))
        async with following(reader) as (followed, first):
            for path in list(FULL):
                reader.objects[path] = ApiServerUnavailable("away")
                reader.fail(path, ApiServerUnavailable("cut"))
            await until(lambda: reader.watches.count(NODES) > 2, "being asked again")
            assert followed.told == []
            reader.objects.update(FULL | {NODES: {"items": [node("b", "10.244.0.0/25")]}})
            info = await followed.until(lambda info: "10.244.0.0/25" in cidrs(info))
            assert info.namespaces == first.namespaces

    asyncio.run(scenario())


def test_an_api_server_that_starts_later_is_asked_again_soon() -> None:
    async def scenario() -> None:
        reader = WatchedReader(dict.fromkeys(FULL, ApiServerUnavailable("starting")))
        async with following(reader) as (followed, first):
            assert first.cidrs == ()
            reader.objects.update(FULL)
            info = await followed.until(lambda info: len(info.cidrs) == 2)
            assert not [line for line in info.notices if "could not all be asked" in line]

    asyncio.run(scenario())


def test_what_may_be_listed_and_not_watched_is_polled() -> None:
    async def scenario() -> None:
        reader = FakeApiReader(dict(FULL))
        async with following(reader) as (followed, _):
            reader.objects[NODES] = {"items": [node("a", "10.244.0.0/24"), node("b", "10.244.1.0/24")]}
            await followed.until(lambda info: "10.244.0.0/23" in cidrs(info))

    asyncio.run(scenario())


def test_what_is_forbidden_is_rarely_asked_again() -> None:
    async def scenario() -> None:
        reader = WatchedReader(dict(sample("namespaced").objects))
        async with following(reader) as (followed, _):
            namespaced = in_namespace(PODS, "shop")
            reader.send(namespaced, "ADDED", pod("new", "10.244.9.7"))
            info = await followed.until(lambda info: "10.244.9.0/24" in cidrs(info))
            assert len([line for line in info.notices if "forbidden" in line]) == 3, "still said"
            assert sorted(reader.watches) == sorted(
                [namespaced, in_namespace(SERVICES, "shop"), NODES, NAMESPACES, SERVICE_CIDRS]
            )
            assert reader.asked.count(NODES) == 2, "the look, and the first try to follow"

    asyncio.run(scenario())


def test_a_right_that_is_given_later_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "RARELY", 0.05)

    async def scenario() -> None:
        reader = WatchedReader(FULL | {NODES: forbidden(NODES)})
        async with following(reader) as (followed, first):
            assert {one.confidence for one in first.cidrs if one.kind == "pods"} == {"guess"}
            reader.objects[NODES] = FULL[NODES]
            info = await followed.until(lambda info: info.is_certain)
            assert "forbidden" not in " ".join(info.notices)

    asyncio.run(scenario())


def test_of_a_long_list_the_beginning_forgets_nothing_and_changes_are_followed() -> None:
    async def scenario() -> None:
        reader = WatchedReader(FULL | {PODS: {"items": [pod("web", "10.244.0.7"), pod("stray", "10.9.9.9")]}})
        async with following(reader) as (followed, first):
            assert "10.9.9.0/24" in cidrs(first)
            reader.objects[PODS] = {"metadata": {"continue": "more"}, "items": [pod("web", "10.244.0.7")]}
            reader.fail(PODS, ClusterError("410 Gone"))
            await until(lambda: reader.watches.count(PODS) == 2, "watching again")
            reader.send(PODS, "ADDED", pod("other", "10.8.8.8"))
            await followed.until(lambda info: {"10.8.8.0/24", "10.9.9.0/24"} <= cidrs(info))
            reader.send(PODS, "DELETED", pod("stray", "10.9.9.9"))
            await followed.until(lambda info: "10.9.9.0/24" not in cidrs(info))

    asyncio.run(scenario())


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "MAX_KEPT", 100)

    async def scenario() -> None:
        reader = WatchedReader(dict(FULL))
        explorer = Explorer(reader, ResolvConf(), "shop")
        await explorer.look()
        for n in range(1000):
            explorer._take_event(
                PODS, {"type": "ADDED", "object": pod(f"p{n}", f"10.{n % 250}.{n // 250}.1")}
            )
        assert len(explorer._lists[PODS]) == 100
        assert len((await explorer.known()).cidrs) <= 66

    asyncio.run(scenario())


@pytest.mark.usefixtures("no_collection")
def test_thousands_of_pods_do_not_hold_up_the_loop() -> None:
    async def scenario() -> None:
        reader = WatchedReader(dict(FULL))
        explorer = Explorer(reader, ResolvConf(), "shop")
        for n in range(discovery.MAX_KEPT):
            explorer._take_event(
                PODS, {"type": "ADDED", "object": pod(f"p{n}", f"10.{n % 250}.{n // 250}.1")}
            )
        concluding = asyncio.create_task(explorer.known())
        longest, last = 0.0, time.thread_time()  # of this thread: the machine is busy with others too
        while not concluding.done():
            await asyncio.sleep(0)
            now = time.thread_time()
            longest, last = max(longest, now - last), now
        assert len((await concluding).cidrs) > 10
        assert longest < STALL

    asyncio.run(scenario())


def test_conclusions_are_drawn_a_small_part_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "SHARE", 1e6)  # so that there is no second time within this test

    async def scenario() -> None:
        reader = WatchedReader(dict(FULL))
        async with following(reader) as (followed, _):
            reader.send(NAMESPACES, "ADDED", {"metadata": {"name": "one"}})
            await followed.until(lambda info: "one" in info.namespaces)
            reader.send(NAMESPACES, "ADDED", {"metadata": {"name": "two"}})
            for _ in range(100):
                await asyncio.sleep(0.001)  # many times the interval of this test
            assert len(followed.told) == 1

    asyncio.run(scenario())


def test_objects_that_hardly_change_are_asked_for_again_if_they_were_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(discovery, "RARELY", 0.05)

    async def scenario() -> None:
        reader = WatchedReader(dict(FULL))
        async with following(reader) as (followed, _):
            reader.objects[KUBE_DNS] = {"spec": {"clusterIP": "10.96.0.53"}}
            await followed.until(lambda info: info.dns_server == "10.96.0.53")
            others = [path for path in PARTICULARS if path != KUBE_DNS]
            assert {reader.asked.count(path) for path in others} == {1}

    asyncio.run(scenario())


def test_the_stand_in_refuses_as_an_api_server_does() -> None:
    async def scenario() -> None:
        reader = FakeApiReader({NODES: CredentialsRefused("403")})
        with pytest.raises(CredentialsRefused):
            await reader.get(NODES)
        with pytest.raises(NotThere) as caught:
            await reader.create("/x", {})
        assert caught.value.slug == "api-not-found"

    asyncio.run(scenario())
