"""What addresses are, read from an index; and how little is asked for to know it."""

from __future__ import annotations

import asyncio
import json
import time
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final

import pytest
from telehelper.datapath import places
from telehelper.datapath.places import Places, place_in
from telehelper.datapath.report import NOWHERE, Place
from telehelper.errors import ApiServerUnavailable, CredentialsRefused

from tests.datapath.agentless.builders import Json, endpoint, endpoint_slice, index_of, pod, service
from tests.datapath.waiting import WAIT, turns, until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from telehelper.core.frames import Address

WEB, DB, POD, NODE, OUTSIDE = map(
    ip_address, ("10.96.0.1", "10.96.0.2", "10.0.0.1", "192.0.2.5", "203.0.113.9")
)
SERVICES, SLICES, PODS = "/api/v1/services", "/apis/discovery.k8s.io/v1/endpointslices", "/api/v1/pods"
STALL: Final = (
    0.05  # seconds of work in one go; on an idle machine it is 5 ms, with a collection of garbage 20
)

# --- reading an index --------------------------------------------------------------------------------------------


def test_a_service_with_one_ready_endpoint_leads_to_its_pod() -> None:
    ready = endpoint("10.0.0.1", "web-0", nodeName="n1")
    other = endpoint("10.0.0.2", "web-1", ready=False, nodeName="n2")
    index = index_of(services=[service("web", str(WEB))], slices=[endpoint_slice("web", ready, other)])
    assert place_in(index, WEB) == Place("web.shop", "shop", "web-0", "n1")


@pytest.mark.parametrize("count", [0, 2])
def test_with_none_or_several_it_is_not_certain_which(count: int) -> None:
    ends = [endpoint(f"10.0.0.{n + 1}", f"web-{n}", nodeName="n1") for n in range(count)]
    index = index_of(services=[service("web", str(WEB))], slices=[endpoint_slice("web", *ends)])
    assert place_in(index, WEB) == Place("web.shop", "shop")


def test_of_a_dual_stack_service_each_family_counts_for_itself() -> None:
    index = index_of(
        services=[service("web", str(WEB), "2001:db8::1")],
        slices=[
            endpoint_slice("web", endpoint("10.0.0.1", "web-0"), name="four"),
            endpoint_slice("web", endpoint("2001:db8::a", "web-0"), name="six", addressType="IPv6"),
        ],
    )
    for address in (WEB, ip_address("2001:db8::1")):
        assert place_in(index, address) == Place("web.shop", "shop", "web-0")


def test_an_endpoint_without_a_pod_has_no_name() -> None:
    index = index_of(
        services=[service("old", str(DB))], slices=[endpoint_slice("old", endpoint("192.0.2.77"))]
    )
    assert place_in(index, DB) == Place("old.shop", "shop")


def test_a_pods_own_address_and_the_one_service_it_is_behind() -> None:
    ends = endpoint_slice("web", endpoint(str(POD), "web-0", nodeName="n1"))
    index = index_of(slices=[ends], pods=[pod("web-0", str(POD), node="n1")])
    assert place_in(index, POD) == Place("web.shop", "shop", "web-0", "n1")


def test_behind_several_services_it_is_of_none_in_particular() -> None:
    slices = [endpoint_slice(name, endpoint(str(POD), "web-0")) for name in ("web", "metrics")]
    index = index_of(slices=slices, pods=[pod("web-0", str(POD), node="n1")])
    assert place_in(index, POD) == Place("", "shop", "web-0", "n1")


def test_what_only_slices_tell_may_be_a_nodes_address_so_the_pod_is_not_certain() -> None:
    index = index_of(slices=[endpoint_slice("agent", endpoint(str(NODE), "agent-x", nodeName="n1"))])
    assert place_in(index, NODE) == Place("agent.shop", "shop", "", "n1")


def test_many_pods_on_a_nodes_network() -> None:
    index = index_of(pods=[pod(f"agent-{n}", str(NODE), host=True, node="n1") for n in range(2)])
    assert place_in(index, NODE) == Place(node="n1")


def test_elsewhere() -> None:
    assert place_in(index_of(), OUTSIDE) == NOWHERE


# --- asking ------------------------------------------------------------------------------------------------------


class Api:
    """An API server of the shop: it pages, it selects, it forbids; notes what it was asked."""

    def __init__(self) -> None:
        self.objects: dict[str, list[Json]] = {SERVICES: [], SLICES: [], PODS: []}
        self.forbidden: set[str] = set()  # namespaces; "" is everywhere
        self.fails = False
        self.hangs = False
        self.asked: list[tuple[str, str, str]] = []  # kind, namespace, selector

    def lists(self, kind: str) -> int:
        return sum(asked == kind for asked, _, _ in self.asked)

    async def get(self, path: str, **params: str) -> Json:
        kind, namespace = self._parse(path)
        selector = params.get("fieldSelector", "")
        self.asked.append((kind, namespace, selector))
        await asyncio.sleep(0)
        if self.hangs:
            await asyncio.Event().wait()
        if self.fails:
            raise ApiServerUnavailable("no answer")
        if namespace in self.forbidden:
            raise CredentialsRefused("forbidden", status="403")
        found = [each for each in self.objects[kind] if self._matches(each, namespace, selector)]
        start, limit = int(params.get("continue", "0")), int(params["limit"])
        page = found[start : start + limit]
        more = {"continue": str(start + limit)} if start + limit < len(found) else {}
        answer: Json = json.loads(json.dumps({"metadata": more, "items": page}))
        return answer

    @staticmethod
    def _parse(path: str) -> tuple[str, str]:
        head, found, tail = path.partition("/namespaces/")
        namespace, _, plural = tail.partition("/")
        return (f"{head}/{plural}", namespace) if found else (path, "")

    @staticmethod
    def _matches(item: Json, namespace: str, selector: str) -> bool:
        address = selector.removeprefix("status.podIP=")
        is_there = namespace in ("", item["metadata"]["namespace"])
        return is_there and (not selector or item["status"]["podIP"] == address)


class Bench:
    """Places of a small shop."""

    def __init__(self) -> None:
        self.api = Api()
        self.api.objects[SERVICES] = [service("web", str(WEB)), service("db", str(DB), namespace="data")]
        self.api.objects[SLICES] = [endpoint_slice("web", endpoint(str(POD), "web-0", nodeName="n1"))]
        self.api.objects[PODS] = [pod("web-0", str(POD), node="n1")]
        self.names: dict[Address, str] = {}
        self.changes = 0
        self.places = Places(self.real, lambda address: self.names.get(address, ""), self._changed)
        self.places.api, self.places.namespace = self.api, "shop"

    def _changed(self) -> None:
        self.changes += 1

    @staticmethod
    def real(address: Address) -> Address:
        return {ip_address("198.19.0.1"): WEB}.get(address, address)

    async def place_of(self, address: Address) -> Place:
        """Ask, wait for the round, and ask again."""
        self.places.place_of(address)
        await self.round()
        return self.places.place_of(address)

    async def round(self) -> None:
        task = self.places._asking
        await until(lambda: task is None or task.done(), "a round")


def run(work: Callable[[Bench], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(WAIT):
            it = Bench()
            try:
                await work(it)
            finally:
                await it.places.close()

    asyncio.run(main())


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "PAUSE", 0.0)


def test_the_first_answer_is_unknown_and_the_next_one_right() -> None:
    async def work(it: Bench) -> None:
        assert it.places.place_of(WEB) == NOWHERE
        await it.round()
        assert it.places.place_of(WEB) == Place("web.shop", "shop", "web-0", "n1")
        assert it.changes == 1
        assert (it.api.lists(SERVICES), it.api.lists(SLICES), it.api.lists(PODS)) == (1, 1, 0)

    run(work)


def test_an_address_that_stands_for_another_is_what_that_is() -> None:
    async def work(it: Bench) -> None:
        assert (await it.place_of(ip_address("198.19.0.1"))).service == "web.shop"

    run(work)


def test_many_addresses_are_one_round() -> None:
    async def work(it: Bench) -> None:
        for address in (WEB, DB, POD, WEB):
            it.places.place_of(address)
        await it.round()
        assert it.places.place_of(DB) == Place("db.data", "data")
        assert it.places.place_of(POD) == Place("web.shop", "shop", "web-0", "n1")
        assert it.api.lists(SERVICES) == 1
        assert it.api.asked[-1] == (PODS, "", f"status.podIP={POD}")
        assert it.changes == 1

    run(work)


def test_another_service_is_known_from_the_last_round_and_not_asked_for() -> None:
    async def work(it: Bench) -> None:
        await it.place_of(WEB)
        asked = len(it.api.asked)
        assert it.places.place_of(DB) == Place("db.data", "data")
        await turns()
        assert len(it.api.asked) == asked

    run(work)


@pytest.mark.usefixtures("at_once")
def test_a_pod_is_known_from_the_last_round_but_for_its_name() -> None:
    async def work(it: Bench) -> None:
        await it.place_of(WEB)
        assert it.places.place_of(POD) == Place("web.shop", "shop", "", "n1")
        await it.round()
        assert it.places.place_of(POD) == Place("web.shop", "shop", "web-0", "n1")

    run(work)


def test_rounds_keep_their_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "PAUSE", 0.3)

    async def work(it: Bench) -> None:
        began = time.monotonic()
        await it.place_of(OUTSIDE)
        await it.place_of(ip_address("203.0.113.10"))
        assert time.monotonic() - began >= 0.3
        assert it.api.lists(SERVICES) == 2

    run(work)


@pytest.mark.usefixtures("at_once")
def test_what_is_nowhere_is_not_asked_for_again_at_once() -> None:
    async def work(it: Bench) -> None:
        assert await it.place_of(OUTSIDE) == NOWHERE
        asked = len(it.api.asked)
        assert it.changes == 0
        assert await it.place_of(OUTSIDE) == NOWHERE
        assert len(it.api.asked) == asked

    run(work)


@pytest.mark.usefixtures("at_once")
def test_what_is_old_is_asked_for_again_and_kept_until_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "FRESH", 0.0)

    async def work(it: Bench) -> None:
        await it.place_of(WEB)
        it.api.objects[SLICES] = [endpoint_slice("web", endpoint("10.0.0.9", "web-1", nodeName="n2"))]
        assert it.places.place_of(WEB).pod == "web-0"
        await it.round()
        assert it.places.place_of(WEB).pod == "web-1"
        assert it.changes == 2

    run(work)


@pytest.mark.usefixtures("at_once")
def test_with_rights_in_namespaces_only_those_of_names_are_read_too() -> None:
    async def work(it: Bench) -> None:
        it.api.forbidden = {""}
        it.names = {DB: "db.data", OUTSIDE: "nodots"}
        it.places.place_of(DB)
        assert (await it.place_of(WEB)).service == "web.shop"
        assert it.places.place_of(DB).service == "db.data"
        assert {namespace for _, namespace, _ in it.api.asked} == {"", "shop", "data"}
        before = sum(not namespace for _, namespace, _ in it.api.asked)
        await it.place_of(OUTSIDE)
        assert (
            sum(not namespace for _, namespace, _ in it.api.asked) == before + 1
        )  # only pods: the first time

    run(work)


@pytest.mark.usefixtures("at_once")
def test_without_any_rights_it_is_silent() -> None:
    async def work(it: Bench) -> None:
        it.api.forbidden = {"", "shop"}
        assert await it.place_of(WEB) == NOWHERE
        asked = len(it.api.asked)
        assert await it.place_of(DB) == NOWHERE
        assert len(it.api.asked) == asked

    run(work)


@pytest.mark.usefixtures("at_once")
def test_an_api_server_without_an_answer_is_asked_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "UNKNOWN_AGAIN", 0.0)

    async def work(it: Bench) -> None:
        it.api.fails = True
        assert await it.place_of(POD) == NOWHERE
        it.api.fails = False
        assert (await it.place_of(POD)).pod == "web-0"

    run(work)


@pytest.mark.usefixtures("at_once")
def test_one_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "ROUND", 0.1)

    async def work(it: Bench) -> None:
        it.api.hangs = True
        assert await it.place_of(WEB) == NOWHERE

    run(work)


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("trouble", ["fails", "hangs"])
@pytest.mark.parametrize("address", [WEB, POD])
def test_an_api_server_that_is_away_takes_nothing_back(
    address: Address, trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "FRESH", 0.0)
    monkeypatch.setattr(places, "UNKNOWN_AGAIN", 0.0)
    monkeypatch.setattr(places, "ROUND", 0.1)

    async def work(it: Bench) -> None:
        known = await it.place_of(address)
        assert known != NOWHERE
        changes = it.changes
        setattr(it.api, trouble, True)
        assert await it.place_of(address) == known
        assert it.changes == changes
        setattr(it.api, trouble, False)
        for kind in (SERVICES, SLICES, PODS):
            it.api.objects[kind] = []
        assert await it.place_of(address) == NOWHERE  # now it has answered

    run(work)


@pytest.mark.usefixtures("at_once")
def test_what_was_listed_before_the_api_server_went_away_is_known_all_the_same() -> None:
    async def work(it: Bench) -> None:
        await it.place_of(WEB)
        it.api.fails = True
        await it.place_of(OUTSIDE)
        asked = len(it.api.asked)
        assert it.places.place_of(DB).service == "db.data"
        assert len(it.api.asked) == asked

    run(work)


def test_an_index_that_is_followed_anyway_is_read_at_once() -> None:
    async def work(it: Bench) -> None:
        index = index_of(services=[service("web", str(WEB))])
        it.places.index = lambda: index
        assert it.places.place_of(WEB) == Place("web.shop", "shop")
        assert it.places.place_of(OUTSIDE) == NOWHERE
        await turns()
        assert it.api.asked == []

    run(work)


def test_before_there_is_an_api_nothing_happens() -> None:
    async def work(it: Bench) -> None:
        it.places.api = None
        assert it.places.place_of(WEB) == NOWHERE
        await turns()
        assert it.api.asked == []

    run(work)


def test_closing_in_the_middle_of_a_round() -> None:
    async def work(it: Bench) -> None:
        it.api.hangs = True
        it.places.place_of(WEB)
        await turns()
        await it.places.close()
        assert it.places.place_of(DB) == NOWHERE

    run(work)


@pytest.mark.usefixtures("at_once")
def test_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("KEPT", 3), ("WANTED", 4), ("PODS", 2)):
        monkeypatch.setattr(places, name, value)

    async def work(it: Bench) -> None:
        addresses = [ip_address(f"203.0.113.{n}") for n in range(1, 7)]
        for address in addresses:
            it.places.place_of(address)
        await it.round()
        asked = [selector for kind, _, selector in it.api.asked if kind == PODS]
        assert asked == [f"status.podIP={address}" for address in addresses[:4]]  # in two rounds
        assert it.api.lists(SERVICES) == 2
        assert len(it.places._known) == 3

    run(work)


@pytest.mark.parametrize(
    "answer", [{}, {"items": 5}, {"items": [5, {}, None]}, {"metadata": {"continue": 7}}]
)
def test_nonsense_is_passed_over(answer: Json) -> None:
    async def work(it: Bench) -> None:
        async def get(_path: str, **_params: str) -> Json:
            return answer

        it.api.get = get  # type: ignore[method-assign]
        assert await it.place_of(WEB) == NOWHERE

    run(work)


def test_a_list_without_an_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "MAX_PAGES", 3)

    async def work(it: Bench) -> None:
        asked: list[Any] = []

        async def get(path: str, **_params: str) -> Json:
            asked.append(path)
            return {"items": [], "metadata": {"continue": "again"}}

        it.api.get = get  # type: ignore[method-assign]
        assert await it.place_of(WEB) == NOWHERE
        assert asked.count(SERVICES) == asked.count(SLICES) == 3

    run(work)


@pytest.mark.usefixtures("no_collection")
def test_ten_thousand_pods_do_not_hold_up_the_loop() -> None:
    async def work(it: Bench) -> None:
        it.api.objects[SERVICES] = [service(f"s{n}", f"10.96.{n // 250}.{n % 250 + 1}") for n in range(1000)]
        it.api.objects[SLICES] = [
            endpoint_slice(
                f"s{n}", *(endpoint(f"10.{i}.{n // 250}.{n % 250 + 1}", f"s{n}-{i}") for i in range(10))
            )
            for n in range(1000)
        ]
        asking = asyncio.create_task(it.place_of(ip_address("10.96.3.7")))
        longest, last = 0.0, time.thread_time()  # of this thread: the machine is busy with others too
        while not asking.done():
            await asyncio.sleep(0)
            now = time.thread_time()
            longest, last = max(longest, now - last), now
        assert (await asking).service == "s756.shop"
        assert longest < STALL

    run(work)
