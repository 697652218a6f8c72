"""What each fault does to bytes on their way, and that it ends in the middle of them when it is over."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from telemagic.demo.faults import PASSAGE
from telemagic.demo.passage import CORRUPT, DRIBBLE, FROZEN, RATE, SLOW, Passage

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

DATA = bytes(range(250)) * 2
LONG = 30.0  # seconds; a hang


class Way:
    """A passage, and what came out of it."""

    def __init__(self, *faults: str) -> None:
        self.passage = Passage()
        self.out: list[bytes] = []
        self.came = asyncio.Event()
        for fault in faults:
            self.passage.switch(fault, is_on=True)

    async def send(self, data: memoryview | bytes) -> None:
        self.out.append(bytes(data))
        self.came.set()

    def carry(self, data: bytes = DATA) -> asyncio.Task[None]:
        return asyncio.create_task(self.passage.carry(memoryview(data), self.send))


def play(body: Callable[[], Awaitable[None]]) -> None:
    """Run it, and leave no task behind."""

    async def run() -> None:
        async with asyncio.timeout(LONG):
            await body()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(run())


def test_without_a_fault_bytes_pass_at_once() -> None:
    async def body() -> None:
        way = Way()
        await way.carry()
        assert way.out == [DATA]

    play(body)


def test_one_by_one() -> None:
    async def body() -> None:
        way = Way(DRIBBLE)
        await way.carry()
        assert way.out == [bytes([byte]) for byte in DATA]

    play(body)


def test_each_byte_becomes_another_one() -> None:
    async def body() -> None:
        way = Way(CORRUPT)
        await way.carry()
        (found,) = way.out
        assert len(found) == len(DATA)
        assert not [1 for before, after in zip(DATA, found, strict=True) if before == after]

    play(body)


def test_slow_takes_its_time() -> None:
    async def body() -> None:
        way, loop = Way(SLOW), asyncio.get_running_loop()
        began = loop.time()
        await way.carry()
        assert loop.time() - began > 0.9 * len(DATA) / RATE
        assert b"".join(way.out) == DATA
        assert len(way.out) == 5

    play(body)


def test_several_at_once() -> None:
    async def body() -> None:
        way = Way(CORRUPT, DRIBBLE)
        await way.carry(b"\x00\x01")
        assert way.out == [b"\xff", b"\xfe"]

    play(body)


def test_frozen_until_it_is_over_also_if_others_begin_and_end() -> None:
    async def body() -> None:
        way = Way(FROZEN)
        carrying = way.carry()
        for is_on in (True, False):
            way.passage.switch(DRIBBLE, is_on=is_on)
            for _ in range(3):
                await asyncio.sleep(0)
        assert not carrying.done()
        way.passage.switch(FROZEN, is_on=False)
        await carrying
        assert way.out == [DATA]

    play(body)


@pytest.mark.parametrize("fault", [SLOW, DRIBBLE])
def test_the_rest_passes_at_once_when_it_is_over(fault: str) -> None:
    async def body() -> None:
        way = Way(fault)
        carrying = way.carry(DATA * 1000)  # minutes
        await way.came.wait()
        way.passage.clear()
        await carrying
        assert b"".join(way.out) == DATA * 1000
        assert len(way.out) <= 3

    play(body)


@pytest.mark.parametrize("fault", PASSAGE)
def test_a_port_forward_that_ends_meanwhile_leaves_nothing(fault: str) -> None:
    async def body() -> None:
        way = Way(fault)
        carrying = way.carry(DATA * 1000)
        await asyncio.sleep(0)
        carrying.cancel()
        await asyncio.gather(carrying, return_exceptions=True)

    play(body)


class Transport(asyncio.Transport):
    """One that can be aborted."""

    aborted = 0

    def abort(self) -> None:
        self.aborted += 1


def test_those_in_use_are_cut() -> None:
    passage, one, other = Passage(), Transport(), Transport()
    with passage.using(one), passage.using(None):
        with passage.using(other):
            pass
        assert passage.cut() == 1
    assert passage.cut() == 0
    assert (one.aborted, other.aborted) == (1, 0)


def test_a_connection_that_fails_is_not_in_use_any_more() -> None:
    passage: Any = Passage()
    with pytest.raises(ZeroDivisionError), passage.using(Transport()):
        raise ZeroDivisionError
    assert passage.cut() == 0
