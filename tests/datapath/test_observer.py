"""What the observer makes of what it sees, and what it answers."""

from __future__ import annotations

import asyncio
import json
import time
from ipaddress import IPv4Address, ip_network
from typing import TYPE_CHECKING, Any

import pytest
from telehelper.core.dns_actions import Ended
from telehelper.core.flows import FiveTuple, FlowRecord, FlowStats, Totals
from telehelper.core.frames import Proto
from telehelper.core.route_plan import APPLIED, PlannedRoute, RoutePlan
from telehelper.datapath import observer as observer_module
from telehelper.datapath.event_log import KEPT
from telehelper.datapath.observer import ROUTES_TOLD, Observer
from telehelper.datapath.report import NOBODY, NOWHERE, Owner, Place
from telehelper.errors import ControlError
from telehelper.messages import CidrRow, Done, GetStatus, Message, RouteRow, Status
from telehelper.observing import (
    EVENT_COLUMNS,
    FLOW_COLUMNS,
    LATENCY_COLUMNS,
    EventRow,
    EventTable,
    FlowTable,
    GetEvents,
    GetFlows,
    GetLatency,
    LatencyTable,
    Snapshot,
    Unwatch,
    Watch,
)

from tests.datapath.waiting import WAIT, until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from telehelper.core.frames import Address

HERE, THERE = IPv4Address("198.19.240.0"), IPv4Address("198.18.0.9")
ROUTE = RouteRow("198.18.0.0/16", "tele7", "pods", "node podCIDR", "applied")
CIDR = CidrRow("198.18.0.0/16", "pods", "node podCIDR", "certain")


def status() -> Status:
    texts = {"state": "connected", "context": "here"}
    names = ("namespace", "server", "via", "manager", "manager_version", "device", "address", "dns")
    texts |= dict.fromkeys((*names, "dns_server", "cluster_domain"), "")
    numbers = dict.fromkeys(("carriers", "flows_open", "flows_total", "bytes_up", "bytes_down"), 0)
    return Status(**texts, **numbers, connected_at=1.0, rtt=0.001, cidrs=(CIDR,), notices=("one",))  # type: ignore[arg-type]


class Router:
    plan: RoutePlan | None = None
    resolver = IPv4Address("198.19.240.1")
    asked = 0

    def rows(self, _names: object) -> tuple[RouteRow, ...]:
        self.asked += 1
        return (ROUTE,)


class Namer:
    def __init__(self) -> None:
        self.names: dict[Address, str] = {}
        self.ended: Callable[[Ended], None]


class Vif:
    """A near side as far as the observer looks at it."""

    def __init__(self) -> None:
        self.router, self.namer = Router(), Namer()
        self.totals = Totals(0, 0, 0)
        self.drops = {"RST of no flow": 1}
        self.open: list[FlowStats] = []
        self.closed: list[FlowRecord] = []
        self.flow_opened: Callable[[FlowStats], None]

    def live(self) -> list[tuple[FlowStats, str]]:
        return [(stats, "ESTABLISHED") for stats in self.open]

    def take_closed(self) -> list[FlowRecord]:
        taken, self.closed = self.closed, []
        return taken


class Tunnel:
    rtt: float | None = 0.002


class Kernel:
    unsent = 0

    def __init__(self) -> None:
        self.told: list[Message] = []

    def send(self, body: Message, _request: int = 0) -> None:
        self.told.append(body)


class Owners:
    """Knows who opened what from the five-tuple's source port."""

    def __init__(self) -> None:
        self.opened: dict[int, FiveTuple] = {}
        self.forgotten: list[int] = []

    def flow_opened(self, flow: int, five_tuple: FiveTuple) -> None:
        self.opened[flow] = five_tuple

    def owner_of(self, flow: int) -> Owner:
        return Owner(1000, self.opened[flow].sport, "python", "a.ipynb", 3) if flow in self.opened else NOBODY

    def forget(self, flow: int) -> None:
        self.forgotten.append(flow)


class Places:
    def place_of(self, address: Address) -> Place:
        return Place("postgres.shop", "shop", "postgres-0", "node-1") if address == THERE else NOWHERE


class Bench:
    def __init__(self) -> None:
        self.vif, self.tunnel, self.kernel = Vif(), Tunnel(), Kernel()
        self.observer = Observer(self.vif, self.tunnel, status)  # type: ignore[arg-type]  # as far as it looks

    async def ask(self, request: Message) -> Any:  # tests know what they asked for
        return await self.observer.answer(request, self.kernel)  # type: ignore[arg-type]  # as far as it looks

    def opens(self, flow: int, dst: IPv4Address = THERE, sport: int = 40_000) -> FlowStats:
        stats = FlowStats(flow, FiveTuple(Proto.TCP, HERE, sport, dst, 5432), time.monotonic())
        self.vif.open.append(stats)
        self.vif.flow_opened(stats)
        return stats

    def fails(self, flow: int, failure: str, reason: str, dst: IPv4Address = THERE) -> None:
        stats = FlowStats(flow, FiveTuple(Proto.TCP, HERE, 40_000, dst, 5432), time.monotonic())
        stats.failure = failure
        self.vif.closed.append(stats.to_record("CLOSED", time.monotonic(), reason))

    async def flows(self) -> list[dict[str, Any]]:
        table = await self.ask(GetFlows())
        assert isinstance(table, FlowTable)
        return [dict(zip(FLOW_COLUMNS, row, strict=True)) for row in json.loads(table.rows)]

    async def events(self) -> list[tuple[str, str, str, int]]:
        table = await self.ask(GetEvents())
        assert isinstance(table, EventTable)
        return [(row.kind, row.subject, row.detail, row.count) for row in table.rows]


def bench(work: Callable[[Bench], Awaitable[None]]) -> None:
    async def run() -> None:
        async with asyncio.timeout(WAIT):
            it = Bench()
            try:
                await work(it)
            finally:
                it.observer.close()

    asyncio.run(run())


# --- flows


def test_a_flow_is_nobodys_and_leads_nowhere_until_somebody_knows() -> None:
    async def work(it: Bench) -> None:
        it.opens(1)
        (row,) = await it.flows()
        assert (row["pid"], row["cell"], row["service"], row["name"]) == (-1, -1, "", "")
        table = await it.ask(GetFlows())
        assert table.drops == {"RST of no flow": 1}
        assert abs(table.taken_at - time.time()) < WAIT

    bench(work)


def test_who_knows_owners_and_places_is_asked() -> None:
    async def work(it: Bench) -> None:
        owners = it.observer.owners = Owners()
        it.observer.places = Places()
        it.vif.namer.names[THERE] = "postgres.shop"
        it.opens(1, sport=77)
        (row,) = await it.flows()
        assert (row["pid"], row["process"], row["notebook"], row["cell"]) == (77, "python", "a.ipynb", 3)
        assert (row["service"], row["pod"], row["node"]) == ("postgres.shop", "postgres-0", "node-1")
        assert row["name"] == "postgres.shop"
        it.observer.forget(1)
        assert owners.forgotten == [1]

    bench(work)


def test_of_questions_to_the_resolver_nobodys_owner_is_kept() -> None:
    async def work(it: Bench) -> None:
        owners = it.observer.owners = Owners()
        it.opens(1, dst=Router.resolver, sport=77)
        assert owners.owner_of(1) == NOBODY
        it.opens(2, sport=77)
        assert owners.owner_of(2).pid == 77

    bench(work)


def test_what_is_found_out_later_is_seen() -> None:
    async def work(it: Bench) -> None:
        it.opens(1, sport=77)
        await it.flows()
        owners, it.observer.places = Owners(), Places()
        it.observer.owners = owners
        owners.opened[1] = it.vif.open[0].five_tuple
        it.observer.touch(1)
        assert (await it.flows())[0]["pid"] == 77
        it.opens(2)
        it.observer.places = observer_module.Nowhere()
        it.observer.places_changed()
        assert [row["service"] for row in await it.flows()] == ["", ""]

    bench(work)


def test_the_first_flow_after_a_lookup_has_its_time() -> None:
    async def work(it: Bench) -> None:
        it.vif.namer.ended(Ended(time.monotonic() - 0.5, "postgres.shop", (THERE,)))
        it.opens(1)
        it.opens(2)
        first, second = await it.flows()
        assert 0.5 <= first["dns"] < WAIT
        assert second["dns"] == -1

    bench(work)


# --- events


def test_failures_are_events_each_kind_once() -> None:
    async def work(it: Bench) -> None:
        it.observer.places = Places()
        it.vif.namer.names[THERE + 1] = "catalog.shop"
        it.fails(1, "refused", "connection refused")
        it.fails(2, "refused", "connection refused")
        it.fails(3, "timed out", "no answer", THERE + 1)
        it.fails(4, "unreachable", "no route", THERE + 2)
        it.fails(5, "", "closed")
        assert await it.events() == [
            ("refused", "postgres.shop:5432", "connection refused", 2),
            ("timed out", "catalog.shop:5432", "no answer", 1),
            ("unreachable", "198.18.0.11:5432", "no route", 1),
        ]

    bench(work)


def test_a_refusal_that_only_sounds_like_ours_is_a_failure_of_its_service() -> None:
    async def work(it: Bench) -> None:
        it.fails(1, "refused", "not yours: uid 0's")
        assert await it.events() == [
            ("refused", "198.18.0.9:5432", "the other side says: not yours: uid 0's", 1)
        ]

    bench(work)


def test_names_that_do_not_resolve_are_events() -> None:
    async def work(it: Bench) -> None:
        it.vif.namer.ended(Ended(1.0, "nosuch.shop", (), "no such name"))
        it.vif.namer.ended(Ended(1.0, "empty.shop"))
        assert await it.events() == [("DNS failed", "nosuch.shop", "no such name", 1)]

    bench(work)


def plan(*networks: str) -> RoutePlan:
    return RoutePlan(tuple(PlannedRoute(ip_network(each), "pods", "found", APPLIED) for each in networks))


def test_whoever_asks_for_many_names_that_are_not_there_pushes_no_other_event_out() -> None:
    async def work(it: Bench) -> None:
        it.fails(1, "refused", "connection refused")
        assert len(await it.events()) == 1
        for number in range(2 * KEPT):
            it.vif.namer.ended(Ended(1.0, f"nobody-{number}.shop", (), "no such name"))
        events = await it.events()
        assert events[0] == ("refused", "198.18.0.9:5432", "connection refused", 1)
        assert len(events) == 1 + observer_module.FAILED_NAMES_KEPT
        assert events[-1][1] == f"nobody-{2 * KEPT - 1}.shop"

    bench(work)


def test_changes_of_the_routes_are_events() -> None:
    async def work(it: Bench) -> None:
        it.observer.start()
        it.vif.router.plan = plan("198.18.0.0/24", "198.18.1.0/24")
        it.observer._sample()
        it.vif.router.plan = plan("198.18.1.0/24", "198.18.2.0/24")
        it.observer._sample()
        it.observer._sample()
        assert await it.events() == [
            ("connected", "here", "", 1),
            ("routes", "198.18.2.0/24", "routed to the cluster now", 1),
            ("routes", "198.18.0.0/24", "not routed any more", 1),
        ]

    bench(work)


def test_a_flood_of_routes_is_cut_short() -> None:
    async def work(it: Bench) -> None:
        it.vif.router.plan = plan()
        it.observer._sample()
        it.vif.router.plan = plan(*(f"198.18.{number}.0/24" for number in range(ROUTES_TOLD + 5)))
        it.observer._sample()
        assert len(await it.events()) == ROUTES_TOLD

    bench(work)


# --- latencies and samples


def test_latencies_of_flows_and_tunnel() -> None:
    async def work(it: Bench) -> None:
        it.observer.start()
        stats = it.opens(1)
        stats.connected_at = stats.opened_at + 0.25
        stats.dial, stats.wait = 0.125, 0.5
        table = await it.ask(GetLatency())
        assert isinstance(table, LatencyTable)
        tunnel, service = table.rows
        assert (tunnel.service, tunnel.connect_p50, tunnel.flows) == ("tunnel", 0.002, 1)
        assert (service.service, service.dial_p99, service.wait_p50) == ("198.18.0.9:5432", 0.125, 0.5)
        assert service.connect_p50 == pytest.approx(0.25)

    bench(work)


def test_a_sample_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observer_module, "SAMPLE_INTERVAL", 0.01)

    async def work(it: Bench) -> None:
        it.vif.totals = Totals(1, 10, 20)
        it.observer.start()
        await until(lambda: it.observer.series.count > 2, "samples")
        it.observer.close()
        count = it.observer.series.count
        await asyncio.sleep(0.03)
        assert it.observer.series.count == count
        assert it.observer.series.rows()[0][1:] == (0.002, 10, 20)

    bench(work)


# --- watching


def test_a_snapshot_has_all_tables_in_the_columns_that_are_agreed() -> None:
    async def work(it: Bench) -> None:
        it.opens(1)
        it.observer.start()
        snapshot = await it.ask(Watch(0.1))
        assert isinstance(snapshot, Snapshot)
        whole = json.loads(snapshot.text)
        assert set(whole) == {"at", "status", "cidrs", "routes", "flows", "series", "latency", "events"}
        assert (whole["status"]["context"], whole["status"]["notices"]) == ("here", ["one"])
        assert not {"cidrs", "phases"} & set(whole["status"])
        assert whole["cidrs"] == [["198.18.0.0/16", "pods", "node podCIDR", "certain"]]
        assert whole["routes"] == [["198.18.0.0/16", "tele7", "pods", "node podCIDR", "applied", ""]]
        assert [len(row) for row in whole["flows"]] == [len(FLOW_COLUMNS)]
        assert {len(row) for row in whole["latency"]} == {len(LATENCY_COLUMNS)}
        assert [EventRow(*row).kind for row in whole["events"]] == ["connected"]
        assert len(whole["events"][0]) == len(EVENT_COLUMNS)
        assert len(whole["series"]) == 1

    bench(work)


def test_each_kernel_has_one_watch() -> None:
    async def work(it: Bench) -> None:
        await it.ask(Watch(0.1))
        await it.ask(Watch(0.2))
        assert len(it.observer._watchers) == 1
        it.opens(1)
        await until(lambda: it.kernel.told, "a change")
        assert await it.ask(Unwatch()) == Done()
        assert await it.ask(Unwatch()) == Done()
        assert it.observer._watchers == {}
        await it.ask(Watch(0.1))
        it.observer.kernel_left(it.kernel)  # type: ignore[arg-type]  # as far as it looks
        assert it.observer._watchers == {}

    bench(work)


def test_tables_are_made_once_for_all_who_watch() -> None:
    async def work(it: Bench) -> None:
        for _ in range(3):
            it.observer.tables()
        assert it.vif.router.asked == 1

    bench(work)


def test_other_requests_are_not_for_it() -> None:
    async def work(it: Bench) -> None:
        with pytest.raises(ControlError, match="GetStatus"):
            await it.ask(GetStatus())

    bench(work)
