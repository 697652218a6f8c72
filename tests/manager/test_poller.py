"""The poller on real sockets."""

from __future__ import annotations

import asyncio
import socket
from select import EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLRDHUP
from typing import TYPE_CHECKING

import uvloop
from telehelper.manager.poller import MAX_EVENTS, ODD, Poller

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

WAIT = 10.0


class Owner:
    """Remembers what it was told."""

    def __init__(self, error: Exception | None = None) -> None:
        self.events: list[int] = []
        self.error = error

    def ready(self, events: int) -> None:
        self.events.append(events)
        if self.error is not None:
            raise self.error


async def turns(n: int = 5) -> None:
    """Let the loop turn: what is ready is told in the first."""
    for _ in range(n):
        await asyncio.sleep(0)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT):
        while not condition():  # noqa: ASYNC110  # conditions of all kinds
            await asyncio.sleep(0.002)


def run(scenario: Callable[[Poller], Awaitable[None]]) -> None:
    async def main() -> None:
        poller = Poller()
        try:
            await scenario(poller)
        finally:
            poller.close()
            poller.close()  # harmless

    uvloop.run(main())


def pair() -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    return ours, theirs


def test_each_change_is_told_once() -> None:
    async def scenario(poller: Poller) -> None:
        ours, theirs = pair()
        owner = Owner()
        with ours, theirs:
            poller.watch(ours.fileno(), owner)
            assert len(poller) == 1
            await until(lambda: owner.events == [EPOLLOUT])
            theirs.send(b"x")
            await until(lambda: len(owner.events) == 2)
            assert owner.events[1] & EPOLLIN
            assert not owner.events[1] & ODD
            await turns(20)  # nothing was read, and nothing is told again
            assert len(owner.events) == 2
            theirs.send(b"y")
            await until(lambda: len(owner.events) == 3)
            theirs.close()
            await until(lambda: len(owner.events) == 4)
            assert owner.events[3] & EPOLLRDHUP
            assert owner.events[3] & EPOLLHUP
            await turns(20)
            assert len(owner.events) == 4
            poller.forget(ours.fileno())
            assert len(poller) == 0

    run(scenario)


def test_what_is_left_is_told_in_the_next_turn_on_request() -> None:
    async def scenario(poller: Poller) -> None:
        ours, theirs = pair()
        owner = Owner()
        with ours, theirs:
            poller.watch(ours.fileno(), owner)
            await until(lambda: bool(owner.events))
            poller.again(ours.fileno())
            poller.again(ours.fileno())
            assert len(owner.events) == 1
            await turns()
            assert owner.events[1:] == [EPOLLIN]
            poller.again(ours.fileno())
            poller.forget(ours.fileno())
            await turns()
            assert len(owner.events) == 2

    run(scenario)


def test_number_that_is_used_again_belongs_to_the_new_owner() -> None:
    async def scenario(poller: Poller) -> None:
        one, other = Owner(), Owner()
        ours, theirs = pair()
        fd = ours.fileno()
        poller.watch(fd, one)
        await until(lambda: bool(one.events))
        poller.forget(fd)
        ours.close()
        theirs.close()
        ours, theirs = pair()
        assert ours.fileno() == fd  # the kernel gives the lowest
        with ours, theirs:
            poller.watch(fd, other)
            theirs.send(b"x")
            await until(lambda: bool(other.events) and bool(other.events[-1] & EPOLLIN))
            assert len(one.events) == 1

    run(scenario)


def test_more_than_fit_in_a_turn() -> None:
    async def scenario(poller: Poller) -> None:
        pairs = [pair() for _ in range(MAX_EVENTS + 50)]
        owners = [Owner() for _ in pairs]
        for (ours, theirs), owner in zip(pairs, owners, strict=True):
            poller.watch(ours.fileno(), owner)
            theirs.send(b"x")
        await until(lambda: all(owner.events for owner in owners))
        for ours, theirs in pairs:
            poller.forget(ours.fileno())
            ours.close()
            theirs.close()

    run(scenario)


def test_owner_that_fails_takes_nothing_from_the_others() -> None:
    async def scenario(poller: Poller) -> None:
        told: list[dict[str, object]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        pairs = [pair() for _ in range(10)]
        owners = [Owner(ZeroDivisionError() if i % 2 else None) for i in range(10)]
        for (ours, _), owner in zip(pairs, owners, strict=True):
            poller.watch(ours.fileno(), owner)
        await until(lambda: all(owner.events for owner in owners))
        assert [type(context["exception"]) for context in told] == [ZeroDivisionError] * 5
        for ours, theirs in pairs:
            ours.close()
            theirs.close()

    run(scenario)
