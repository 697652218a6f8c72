"""One kernel that watches, and takes what it is told or does not."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from telehelper.core.flows import Totals
from telehelper.datapath.event_log import EventLog
from telehelper.datapath.series import Series
from telehelper.datapath.watcher import MAX_INTERVAL, MAX_UNSENT, Watcher
from telehelper.observing import MIN_INTERVAL, SnapshotChanged

from tests.datapath.test_history import Clock, World
from tests.datapath.waiting import WAIT, until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from telehelper.messages import Message


class Kernel:
    """Takes notes; `unsent` says how far it is behind."""

    def __init__(self) -> None:
        self.unsent = 0
        self.told: list[SnapshotChanged] = []

    def send(self, body: Message, request: int = 0) -> None:
        assert isinstance(body, SnapshotChanged)
        assert request == 0
        self.told.append(body)

    def texts(self) -> list[Any]:
        return [json.loads(each.text) for each in self.told]


class View:
    """A world to look at, and tables that a test writes."""

    def __init__(self) -> None:
        clock = Clock()
        self.world = World(clock)
        self.history = self.world.history
        self.events = EventLog(clock.time)
        self.series = Series()
        self.told_whole = {"cidrs": "[]", "routes": "[]", "latency": "[]"}
        self.refreshes = 0

    async def refresh(self) -> None:
        self.refreshes += 1
        await self.history.refresh()

    def head(self) -> dict[str, object]:
        return {"at": 1.0, "status": {"state": "connected"}}

    def tables(self) -> Mapping[str, str]:
        return dict(self.told_whole)


class Bench:
    def __init__(self) -> None:
        self.view, self.kernel = View(), Kernel()
        self.world = self.view.world
        self.watcher = Watcher(self.kernel, self.view)

    async def told(self, count: int) -> Any:  # JSON
        await until(lambda: len(self.kernel.told) >= count, "a change")
        return self.kernel.texts()[count - 1]


def bench(work: Callable[[Bench], Awaitable[None]]) -> None:
    async def run() -> None:
        async with asyncio.timeout(WAIT):
            it = Bench()
            try:
                await work(it)
            finally:
                it.watcher.close()

    asyncio.run(run())


def test_first_all_there_is_then_what_changes() -> None:
    async def work(it: Bench) -> None:
        it.world.opens(1, 2)
        it.view.events.note("refused", "a:1")
        it.view.series.sample(1.0, None, Totals(0, 0, 0))
        snapshot = await it.watcher.watch(MIN_INTERVAL)
        whole = json.loads(snapshot.text)
        assert list(whole) == ["at", "status", "cidrs", "routes", "latency", "flows", "series", "events"]
        assert [row[0] for row in whole["flows"]] == [1, 2]
        assert (len(whole["series"]), len(whole["events"]), snapshot.number) == (1, 1, 0)
        it.world.counts(2)
        it.view.events.note("refused", "a:1")
        it.view.series.sample(2.0, 0.5, Totals(1, 10, 20))
        it.view.told_whole["latency"] = "[1]"
        change = await it.told(1)
        assert list(change) == ["at", "status", "latency", "flows", "gone", "series", "events"]
        assert [row[0] for row in change["flows"]] == [2]
        assert change["series"] == [[2.0, 0.5, 10, 20]]
        assert [(row[0], row[5]) for row in change["events"]] == [(1, 2)]
        assert (change["gone"], change["latency"]) == ([], [1])
        it.world.counts(1)
        assert [row[0] for row in (await it.told(2))["flows"]] == [1]
        assert [each.number for each in it.kernel.told] == [1, 2]

    bench(work)


def test_nothing_new_is_not_told() -> None:
    async def work(it: Bench) -> None:
        await it.watcher.watch(MIN_INTERVAL)
        before = it.view.refreshes
        await until(lambda: it.view.refreshes > before + 1, "two intervals")
        assert it.kernel.told == []

    bench(work)


def test_a_kernel_that_does_not_read_is_told_all_at_once_later() -> None:
    async def work(it: Bench) -> None:
        it.world.opens(1, 2)
        await it.watcher.watch(MIN_INTERVAL)
        before = it.view.refreshes
        it.kernel.unsent = MAX_UNSENT + 1
        for flow in (1, 2, 2):
            it.world.counts(flow)
            await asyncio.sleep(MIN_INTERVAL)
        assert (it.kernel.told, it.view.refreshes) == ([], before)  # nor was anything computed
        it.kernel.unsent = MAX_UNSENT
        change = await it.told(1)
        assert [row[0] for row in change["flows"]] == [1, 2]
        assert it.kernel.told[0].number == 1

    bench(work)


def test_a_further_watch_tells_first_what_is_due_and_its_snapshot_has_that_number() -> None:
    async def work(it: Bench) -> None:
        it.world.opens(1)
        await it.watcher.watch(MAX_INTERVAL)
        it.world.opens(2)
        again = await it.watcher.watch(MIN_INTERVAL)
        assert [row[0] for row in it.kernel.texts()[0]["flows"]] == [2]
        assert (it.kernel.told[0].number, again.number) == (1, 1)
        assert [row[0] for row in json.loads(again.text)["flows"]] == [1, 2]
        it.world.opens(3)
        assert [row[0] for row in (await it.told(2))["flows"]] == [3]  # by the new interval
        assert it.kernel.told[1].number == 2

    bench(work)


@pytest.mark.parametrize("interval", [-1.0, 0.0, 1e300])
def test_intervals_have_bounds(interval: float) -> None:
    async def work(it: Bench) -> None:
        await it.watcher.watch(interval)
        assert MIN_INTERVAL <= it.watcher._interval <= MAX_INTERVAL

    bench(work)


def test_who_does_not_watch_any_more_is_told_nothing() -> None:
    async def work(it: Bench) -> None:
        await it.watcher.watch(MIN_INTERVAL)
        it.watcher.close()
        before = it.view.refreshes
        it.world.opens(1)
        await asyncio.sleep(2 * MIN_INTERVAL)
        assert (it.kernel.told, it.view.refreshes) == ([], before)

    bench(work)


def test_to_end_watching_while_it_begins() -> None:
    async def work(it: Bench) -> None:
        it.world.opens(*range(1000))
        beginning = asyncio.ensure_future(it.watcher.watch(MIN_INTERVAL))
        await asyncio.sleep(0)
        it.watcher.close()
        assert len(json.loads((await beginning).text)["flows"]) == 1000
        assert it.watcher._task is None

    bench(work)


def test_a_bug_is_told_to_the_log_and_not_kept_until_the_end() -> None:
    async def work(it: Bench) -> None:
        heard: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, said: heard.append(said["exception"]))
        await it.watcher.watch(MIN_INTERVAL)
        it.view.head = lambda: 1 / 0  # type: ignore[method-assign,assignment,return-value]
        it.world.opens(1)
        await until(lambda: heard, "the log")
        assert isinstance(heard[0], ZeroDivisionError)

    bench(work)
