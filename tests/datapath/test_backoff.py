"""Delays between tries, and what cuts them short."""

from __future__ import annotations

import asyncio
import itertools
from time import monotonic

import pytest
import uvloop
from telehelper.datapath import backoff
from telehelper.datapath.backoff import FIRST_DELAY, MAX_DELAY, BackOff, delays

from tests.datapath.waiting import WAIT, turns


def test_delays_double_with_jitter_up_to_a_bound() -> None:
    assert (FIRST_DELAY, MAX_DELAY) == (0.2, 5.0)
    found = list(itertools.islice(delays(), 12))
    whole = [0.2, 0.4, 0.8, 1.6, 3.2, *[5.0] * 7]
    for delay, most in zip(found, whole, strict=True):
        assert most / 2 <= delay <= most
    assert sum(found[:4]) < 5  # several tries before anybody starts to wonder


def test_two_do_not_come_in_step() -> None:
    one, two = (list(itertools.islice(delays(), 20)) for _ in range(2))
    assert one != two


@pytest.mark.parametrize(("skip", "most"), [(0, 0.2), (1, 0.4), (4, 3.2), (5, 5.0), (1000, 5.0)])
def test_some_may_be_left_out(skip: int, most: float) -> None:
    assert most / 2 <= next(delays(skip)) <= most


async def waited(back_off: BackOff) -> float:
    began = monotonic()
    async with asyncio.timeout(WAIT):
        await back_off.wait()
    return monotonic() - began


@pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_news_end_the_wait_and_begin_anew(factory: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backoff, "FIRST_DELAY", 0.01)
    monkeypatch.setattr(backoff, "MAX_DELAY", 1000.0)

    async def work() -> None:
        back_off = BackOff(12)  # 20 to 41 s
        waiting = asyncio.create_task(waited(back_off))
        await turns()
        assert not waiting.done()
        back_off.wake()
        assert await waiting < 10
        assert await waited(back_off) < 10  # as after the first failure
        for _ in range(10):
            next(back_off._delays)
        back_off.wake()  # while a try is under way
        back_off.wake()
        assert await waited(back_off) < 10
        for _ in range(12):
            next(back_off._delays)
        back_off.reset()
        assert await waited(back_off) < 10

    with asyncio.Runner(loop_factory=factory) as runner:  # type: ignore[arg-type]  # one of two
        runner.run(work())
