"""Interrupts that come at an awkward moment: before a job has begun, and when all is done but the showing."""

from __future__ import annotations

import _socket
import asyncio
import os
import signal
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from telemagic import live
from telemagic.control_fake import STATUS, FakeLauncher, Script
from telemagic.loop import AsyncForeground, BlockingForeground, Job, LoopThread, ask
from telemagic.target import ConnectOptions

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from telehelper.messages import Status

    from telemagic.session import Session


class InterruptedAtTheEnd(live.Silent):
    """The user presses Stop while the finished card is being made."""

    def connected(self, status: Status, seconds: float, notices: tuple[str, ...]) -> None:
        raise KeyboardInterrupt


def test_an_interrupt_while_the_result_is_shown_ends_the_connection(session: Session, runtime: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        session.connect(ConnectOptions(), viewer=InterruptedAtTheEnd())
    assert session.connection is None
    until = time.monotonic() + 5
    while os.listdir(runtime):
        assert time.monotonic() < until
        time.sleep(0.005)
    assert session.connect(ConnectOptions()).is_open


def test_an_interrupt_then_puts_this_process_s_names_back(
    make_session: Callable[[FakeLauncher], Session],
) -> None:
    status = replace(STATUS, dns="kernel", domains=("cluster.local",))
    session = make_session(FakeLauncher(Script(status=status)))
    before = _socket.getaddrinfo
    with session.connect(ConnectOptions()):
        assert _socket.getaddrinfo is not before
    with pytest.raises(KeyboardInterrupt):
        session.connect(ConnectOptions(), viewer=InterruptedAtTheEnd())
    assert _socket.getaddrinfo is before


def test_a_job_that_was_never_started_ends_at_once() -> None:
    job: Job[None] = Job()
    assert job.end(1.0)
    assert isinstance(job.future.exception(), asyncio.CancelledError)


def test_ending_a_job_waits_for_its_clean_up() -> None:
    said = []
    begun = threading.Event()

    async def work() -> None:
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.01)
            said.append("tidied")

    loop, job = LoopThread(), Job[None]()
    loop.start(job, work())
    assert begun.wait(5.0)
    assert job.end(5.0)
    assert said == ["tidied"]
    assert job.end(0.0)  # again: nothing happens
    loop.close()


def test_what_a_job_returns_or_raises_arrives() -> None:
    async def work(value: int) -> int:
        return 10 // value

    loop = LoopThread()
    for value, result in ((5, 2), (2, 5)):
        job = Job[int]()
        loop.start(job, work(value))
        assert BlockingForeground().run(job) == result
    with pytest.raises(ZeroDivisionError):
        loop.run(work(0))
    loop.close()


def fail() -> str:
    raise ValueError("the terminal has gone")


def test_a_question_that_cannot_be_asked_ends_the_wait() -> None:
    """Without an answer nobody would come back: while a user types, no timeout runs."""
    loop = LoopThread()

    async def awaiting() -> list[str]:
        told: list[str] = []
        here = asyncio.get_running_loop()
        here.set_exception_handler(lambda _, context: told.append(str(context.get("exception"))))
        foreground, job = AsyncForeground(), Job[str]()
        loop.start(job, ask(foreground, fail))
        async with asyncio.timeout(5):
            with pytest.raises(ValueError, match="terminal"):
                await foreground.run(job)
        return told

    assert asyncio.run(awaiting()) == ["the terminal has gone"]
    blocking, job = BlockingForeground(), Job[str]()
    loop.start(job, ask(blocking, fail))
    with pytest.raises(ValueError, match="terminal"):
        blocking.run(job)
    assert isinstance(job.future.exception(5), ValueError)
    loop.close()


def test_whatever_ends_the_waiting_ends_the_work() -> None:
    loop, ended = LoopThread(), threading.Event()

    async def work() -> None:
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    before = signal.signal(signal.SIGALRM, lambda *_: fail())  # as timeouts of tests and scripts do it
    try:
        with pytest.raises(ValueError, match="terminal"):
            loop.run(work())
    finally:
        signal.signal(signal.SIGALRM, before)
    assert ended.wait(5)
    loop.close()
