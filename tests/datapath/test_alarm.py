"""One timer for whatever is due first."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING

import uvloop
from telehelper.datapath.alarm import Alarm

from tests.datapath.waiting import turns, until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


def run(work: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(10):
            await work()

    uvloop.run(main())


def test_it_goes_off_once_not_before_its_time() -> None:
    async def work() -> None:
        times: list[float] = []
        due = monotonic() + 0.02
        alarm = Alarm(times.append)
        alarm.set(due)
        await until(lambda: bool(times))
        assert times[0] >= due - 0.002
        await turns()
        assert len(times) == 1

    run(work)


def test_the_sooner_wins_in_either_order() -> None:
    async def work() -> None:
        times: list[float] = []
        alarm = Alarm(times.append)
        alarm.set(monotonic() + 60)
        alarm.set(None)
        alarm.set(monotonic())
        await until(lambda: bool(times))
        alarm.set(monotonic() - 5)  # late already: as soon as may be
        alarm.set(monotonic() + 60)
        await until(lambda: len(times) == 2)

    run(work)


def test_going_off_may_set_it_anew() -> None:
    async def work() -> None:
        times: list[float] = []

        def on_due(now: float) -> None:
            times.append(now)
            if len(times) < 3:
                alarm.set(now)

        alarm = Alarm(on_due)
        alarm.set(monotonic())
        await until(lambda: len(times) == 3)

    run(work)


def test_cancelled_it_is_silent_until_it_is_set_again() -> None:
    async def work() -> None:
        times: list[float] = []
        alarm = Alarm(times.append)
        alarm.cancel()
        alarm.set(monotonic())
        alarm.cancel()
        await turns()
        assert times == []
        alarm.set(monotonic())
        await until(lambda: bool(times))

    run(work)
