"""Flows become rows: what is shown, what has changed for whom, and what is kept."""

from __future__ import annotations

import asyncio
import json
import random
import time
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

import pytest
from telehelper.core.flows import STRANGERS_KEPT, FiveTuple, FlowRecord, FlowStats
from telehelper.core.frames import Address, Proto
from telehelper.datapath import history as history_module
from telehelper.datapath.history import SETTLED_AT_ONCE, SETTLING, SLICE, Cursor, History
from telehelper.datapath.latencies import Latencies
from telehelper.datapath.report import NOBODY, NOWHERE, Owner, Place
from telehelper.observing import FlowRow

if TYPE_CHECKING:
    from collections.abc import Coroutine

HERE, THERE = IPv4Address("198.19.240.0"), IPv4Address("198.18.0.9")
SHOP, ME = Place("postgres.shop", "shop", "postgres-0", "node-1"), Owner(1000, 77, "python", "a.ipynb", 3)
UNIX, MONOTONIC = 1_750_000_000.0, 5000.0


class Clock:
    """Both clocks, put forward by hand."""

    def __init__(self) -> None:
        self.passed = self.step = 0.0

    def monotonic(self) -> float:
        return MONOTONIC + self.passed

    def time(self) -> float:
        return UNIX + self.passed + self.step


class World:
    """A stack's flows, and what others know of their ends."""

    def __init__(self, clock: Clock, kept: int = 10_000) -> None:
        self.clock = clock
        self.open: dict[int, tuple[FlowStats, str]] = {}
        self.closed: list[FlowRecord] = []
        self.names: dict[Address, str] = {}
        self.owners: dict[int, Owner] = {}
        self.places: dict[Address, Place] = {}
        self.forgotten: list[int] = []
        self.told: list[int] = []  # closed, as they were told
        self.latencies = Latencies()
        self.history = History(self, self, self.latencies, self._closed, kept)

    def live(self) -> list[tuple[FlowStats, str]]:
        return list(self.open.values())

    def take_closed(self) -> list[FlowRecord]:
        taken, self.closed = self.closed, []
        return taken

    def name_of(self, address: Address) -> str:
        return self.names.get(address, "")

    def owner_of(self, flow: int) -> Owner:
        return self.owners.get(flow, NOBODY)

    def place_of(self, address: Address) -> Place:
        return self.places.get(address, NOWHERE)

    def forget(self, flow: int) -> None:
        self.forgotten.append(flow)

    def _closed(self, records: list[FlowRecord]) -> None:
        self.told += [record.flow for record in records]

    # --- what happens

    def opens(self, *flows: int, dst: IPv4Address = THERE) -> None:
        for flow in flows:
            five = FiveTuple(Proto.TCP, HERE, 40_000, dst, 5432)
            self.open[flow] = FlowStats(flow, five, self.clock.monotonic()), "ESTABLISHED"

    def counts(self, flow: int) -> None:
        self.open[flow][0].bytes_up += 1

    def is_tried(self, *flows: int) -> None:
        """Strangers' flows, kept out at once."""
        self.opens(*flows)
        for flow in flows:
            self.open[flow][0].is_strangers = True
        self.closes(*flows)

    def closes(self, *flows: int) -> None:
        for flow in flows:
            stats, _ = self.open.pop(flow)
            self.closed.append(stats.to_record("CLOSED", self.clock.monotonic(), "closed"))

    # --- what is seen

    async def rows(self) -> list[FlowRow]:
        await self.history.refresh()
        return [FlowRow(*values) for values in json.loads(self.history.text())]

    async def flows(self) -> list[int]:
        return [row.flow for row in await self.rows()]

    async def changes(self, cursor: Cursor) -> tuple[list[int], list[int]]:
        await self.history.refresh()
        text, gone = self.history.changes(cursor)
        return [values[0] for values in json.loads(text)], gone


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(history_module, "time", clock)
    return clock


@pytest.fixture
def world(clock: Clock) -> World:
    return World(clock)


def run(work: Coroutine[None, None, None]) -> None:
    asyncio.run(work)


# --- what is shown


def test_closed_flows_come_first_in_the_order_of_closing(world: World) -> None:
    async def work() -> None:
        world.opens(1, 2, 3, 4)
        assert await world.flows() == [1, 2, 3, 4]
        world.closes(3, 1)
        assert await world.flows() == [3, 1, 2, 4]
        assert [row.state for row in await world.rows()] == ["CLOSED"] * 2 + ["ESTABLISHED"] * 2
        assert len(world.history) == 4
        assert world.told == [3, 1]

    run(work())


def test_a_row_is_made_anew_only_if_something_was_counted(world: World) -> None:
    async def work() -> None:
        world.opens(1)
        assert (await world.rows())[0].bytes_up == 0
        world.names[THERE] = "postgres.shop"
        assert (await world.rows())[0].name == ""
        world.counts(1)
        assert [(row.bytes_up, row.name) for row in await world.rows()] == [(1, "postgres.shop")]

    run(work())


def test_a_new_state_is_seen_though_nothing_was_counted(world: World) -> None:
    async def work() -> None:
        world.opens(1)
        await world.rows()
        world.open[1] = world.open[1][0], "FIN_WAIT_2"
        assert (await world.rows())[0].state == "FIN_WAIT_2"

    run(work())


def test_an_owner_found_out_later_is_seen_if_that_is_said(world: World) -> None:
    async def work() -> None:
        world.opens(1)
        await world.rows()
        world.owners[1] = ME
        assert (await world.rows())[0].pid == -1
        world.history.touch(1)
        world.history.touch(99)  # of no flow
        assert (await world.rows())[0].pid == ME.pid

    run(work())


def test_places_that_change_are_seen_if_that_is_said(world: World) -> None:
    async def work() -> None:
        world.opens(1)
        world.opens(2, dst=THERE + 1)
        await world.rows()
        cursor = world.history.cursor()
        world.places[THERE] = SHOP
        world.history.places_changed()
        assert await world.changes(cursor) == ([1], [])
        assert [row.pod for row in await world.rows()] == ["postgres-0", ""]
        services = {row.service for row in world.latencies.rows([])[1:]}
        assert services == {"postgres.shop:5432", "198.18.0.10:5432"}

    run(work())


def test_a_closed_flow_may_gain_a_name_and_an_owner_for_a_while(world: World, clock: Clock) -> None:
    async def work() -> None:
        world.opens(1)
        world.closes(1)
        await world.rows()
        cursor = world.history.cursor()
        world.names[THERE], world.owners[1] = "postgres.shop", ME
        clock.passed += SETTLING
        assert await world.changes(cursor) == ([1], [])
        assert [(row.name, row.notebook) for row in await world.rows()] == [("postgres.shop", "a.ipynb")]
        assert world.forgotten == [1]
        world.names[THERE] = "other.shop"
        clock.passed += SETTLING
        assert (await world.rows())[0].name == "postgres.shop"
        assert await world.changes(cursor) == ([], [])

    run(work())


def test_times_follow_steps_of_the_clock_and_do_not_shake(world: World, clock: Clock) -> None:
    async def work() -> None:
        world.opens(1)
        first = (await world.rows())[0].opened_at
        assert first == UNIX
        clock.step = 0.009  # the clock is being slewed
        world.counts(1)
        assert (await world.rows())[0].opened_at == first
        clock.step = 3600.0
        world.counts(1)
        assert (await world.rows())[0].opened_at == first + 3600.0

    run(work())


# --- once a second


def test_though_nobody_looks_what_closed_becomes_final_some_at_a_time(world: World, clock: Clock) -> None:
    async def work() -> None:
        count = SETTLED_AT_ONCE + 1
        world.opens(*range(count))
        world.closes(*range(count))
        world.history.settle()
        assert (len(world.history), len(world.told)) == (0, count)  # told at once
        clock.passed += SETTLING
        world.history.settle()
        assert len(world.history) == len(world.forgotten) == SETTLED_AT_ONCE
        world.history.settle()
        assert len(world.history) == count
        assert await world.flows() == list(range(count))

    run(work())


def test_who_was_shown_as_open_is_shown_as_closed(world: World, clock: Clock) -> None:
    async def work() -> None:
        world.opens(1)
        await world.rows()
        world.closes(1)
        clock.passed += 60
        world.history.settle()
        assert [(row.flow, row.state) for row in await world.rows()] == [(1, "CLOSED")]

    run(work())


# --- what is kept


def test_the_oldest_is_forgotten(clock: Clock) -> None:
    world = World(clock, kept=3)

    async def work() -> None:
        world.opens(*range(1, 8))
        cursor = world.history.cursor()
        world.closes(1, 2)
        assert await world.changes(cursor) == ([1, 2, 3, 4, 5, 6, 7], [])
        world.closes(3, 4)
        assert await world.changes(cursor) == ([3, 4], [1])
        world.closes(5)
        clock.passed += SETTLING
        assert await world.changes(cursor) == ([5], [2])
        assert await world.flows() == [3, 4, 5, 6, 7]
        assert world.latencies.rows([])[0].flows == 5

    run(work())


def test_more_closed_at_once_than_are_kept(clock: Clock) -> None:
    world = World(clock, kept=3)

    async def work() -> None:
        world.opens(*range(1, 9))
        await world.rows()
        cursor = world.history.cursor()
        world.closes(*range(1, 8))
        changed, gone = await world.changes(cursor)
        assert (changed, sorted(gone)) == ([5, 6, 7], [1, 2, 3, 4])
        assert await world.flows() == [5, 6, 7, 8]
        assert sorted(world.forgotten) == [1, 2, 3, 4]
        clock.passed += SETTLING
        assert await world.flows() == [5, 6, 7, 8]

    run(work())


def test_strangers_push_none_of_ours_out_and_a_few_of_theirs_are_seen(clock: Clock) -> None:
    world = World(clock, kept=3)

    async def work() -> None:
        world.opens(1, 2, 3)
        world.closes(1, 2)  # settling yet
        cursor = world.history.cursor()
        for number in range(10):
            world.is_tried(*range(1000 + number * STRANGERS_KEPT, 1000 + (number + 1) * STRANGERS_KEPT))
            world.history.take_closed()
        theirs = list(range(1000 + 9 * STRANGERS_KEPT, 1000 + 10 * STRANGERS_KEPT))
        assert await world.flows() == [*theirs, 1, 2, 3]
        assert len(world.history) == STRANGERS_KEPT + 3
        assert len(world.forgotten) == 10 * STRANGERS_KEPT, "their owners are not asked for again"
        clock.passed += SETTLING
        world.is_tried(7)
        changed, gone = await world.changes(cursor)
        assert changed == [*theirs[1:], 7, 1, 2, 3]
        assert gone == [], "it was never told of those"
        world.is_tried(8)
        assert await world.changes(cursor) == ([8], [theirs[1]])

    run(work())


def test_a_stranger_who_was_shown_while_it_was_refused_is_one_row(world: World) -> None:
    async def work() -> None:
        world.opens(1)
        assert await world.flows() == [1]
        world.open[1][0].is_strangers = True
        world.closes(1)
        (row,) = await world.rows()
        assert (row.flow, row.state, row.opened_at > 0, row.closed_at > 0) == (1, "CLOSED", True, True)

    run(work())


def test_flows_that_were_lost_sight_of_are_gone(world: World) -> None:
    async def work() -> None:
        world.opens(1, 2)
        await world.rows()
        cursor = world.history.cursor()
        world.closes(1)
        world.closed.clear()  # the stack keeps no more than so many
        assert await world.changes(cursor) == ([], [1])
        assert await world.flows() == [2]

    run(work())


# --- what has changed, for whom


def test_each_cursor_is_told_what_it_has_not_seen(world: World) -> None:
    async def work() -> None:
        world.opens(1, 2)
        early = world.history.cursor()
        assert await world.changes(early) == ([1, 2], [])
        late = world.history.cursor()
        world.counts(2)
        world.opens(3)
        assert await world.changes(early) == ([2, 3], [])
        world.closes(1)
        assert await world.changes(early) == ([1], [])
        assert await world.changes(late) == ([1, 2, 3], [])
        assert await world.changes(late) == ([], [])

    run(work())


def test_nobody_is_told_that_what_it_never_saw_is_gone(clock: Clock) -> None:
    world = World(clock, kept=1)

    async def work() -> None:
        world.opens(1, 2, 3)
        cursor, dropped = world.history.cursor(), world.history.cursor()
        world.history.drop_cursor(dropped)
        world.closes(1)
        await world.history.refresh()
        world.closes(2)
        assert await world.changes(cursor) == ([2, 3], [])
        world.closes(3)
        assert await world.changes(cursor) == ([3], [2])
        assert dropped.gone == []

    run(work())


@pytest.mark.parametrize("seed", range(5))
def test_changes_add_up_to_the_whole(clock: Clock, seed: int) -> None:
    """Whatever happens, and however seldom somebody asks: applying the changes gives the table."""
    world, chance = World(clock, kept=6), random.Random(seed)

    async def work() -> None:
        cursors = {world.history.cursor(): dict[int, object]() for _ in range(2)}
        number = 0
        for _ in range(150):
            clock.passed += chance.random()
            for _ in range(chance.randrange(4)):
                number += 1
                world.opens(number)
            for flow in [flow for flow in world.open if chance.random() < 0.3]:
                world.counts(flow) if chance.random() < 0.5 else world.closes(flow)
            if chance.random() < 0.5:
                world.history.settle()
            for cursor, table in cursors.items():
                if chance.random() < 0.4:
                    await world.history.refresh()
                    text, gone = world.history.changes(cursor)
                    for flow in gone:
                        del table[flow]
                    table.update({values[0]: values for values in json.loads(text)})
                    whole = {values[0]: values for values in json.loads(world.history.text())}
                    assert table == whole
        assert {row.state for row in await world.rows()} == {"CLOSED", "ESTABLISHED"}

    run(work())


# --- the loop goes on


def test_many_rows_are_made_in_slices(world: World) -> None:
    async def work() -> None:
        world.opens(*range(2 * SLICE))
        world.closes(*range(SLICE))
        turns = 0
        refreshing = asyncio.ensure_future(world.history.refresh())
        while not refreshing.done():
            await asyncio.sleep(0)
            turns += 1
        assert turns >= 2
        assert len(world.history) == 2 * SLICE

    run(work())


def test_what_closes_between_two_slices_is_not_shown_twice(world: World, clock: Clock) -> None:
    async def work() -> None:
        world.opens(*range(2 * SLICE))
        refreshing = asyncio.ensure_future(world.history.refresh())
        await asyncio.sleep(0)  # the first slice is made
        last = 2 * SLICE - 1
        world.closes(0, last)
        world.history.take_closed()
        clock.passed += SETTLING
        world.history.settle()
        await refreshing
        flows = await world.flows()
        assert len(flows) == len(set(flows)) == 2 * SLICE
        assert flows[:2] == [0, last]

    run(work())


def test_two_who_look_at_once_see_the_same(world: World) -> None:
    async def work() -> None:
        world.opens(*range(2 * SLICE))
        await asyncio.gather(world.history.refresh(), world.history.refresh())
        assert len(await world.flows()) == 2 * SLICE

    run(work())


def test_the_figures() -> None:
    """10,000 closed flows: told again in a few ms, and no slice of making them holds the loop for 20 ms."""
    clock = Clock()
    clock.monotonic, clock.time = time.monotonic, time.time  # type: ignore[method-assign]
    world = World(clock)
    longest = 0.0

    async def watch() -> None:
        nonlocal longest
        while True:
            began = time.thread_time()  # not the time that other processes take
            await asyncio.sleep(0)
            longest = max(longest, time.thread_time() - began)

    async def work() -> None:
        world.opens(*range(10_000))
        world.closes(*range(10_000))
        watching = asyncio.ensure_future(watch())
        await asyncio.sleep(0)
        await world.history.refresh()
        watching.cancel()
        began = time.thread_time()
        await world.history.refresh()
        text = world.history.text()
        again = time.thread_time() - began
        assert len(json.loads(text)) == 10_000
        assert len(text) < 4_000_000
        assert longest < 0.05
        assert again < 0.05

    run(work())
