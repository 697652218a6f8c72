"""The child that searches: a real one."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from typing import TYPE_CHECKING

import pytest
from telehelper.datapath import searcher
from telehelper.datapath.processes import has_neighbours, start_time
from telehelper.datapath.searcher import Searcher

from tests.datapath.waiting import WAIT

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


def run(work: Callable[[Searcher, int], Awaitable[None]]) -> None:
    """Run with a searcher and the inode of a socket of ours."""

    async def main() -> None:
        async with asyncio.timeout(WAIT):
            it = Searcher()
            with socket.socket() as sock:
                try:
                    await work(it, os.fstat(sock.fileno()).st_ino)
                finally:
                    await it.close()
            assert it.pid == 0

    asyncio.run(main())


async def holder_of(it: Searcher, inode: int) -> int:
    found = await it.find([inode], {os.getpid(): start_time(os.getpid())}, [])
    return found[inode].pid if inode in found else 0


def test_one_child_answers_many_questions() -> None:
    async def work(it: Searcher, inode: int) -> None:
        assert it.pid == 0
        await it.find([], {}, [])
        pid = it.pid
        assert pid > 0
        for _ in range(3):
            assert await holder_of(it, inode) == os.getpid()
        assert await holder_of(it, 1) == 0
        assert it.pid == pid
        assert it.has_neighbours is has_neighbours(os.geteuid())

    run(work)


def test_questions_at_once_get_their_own_answers() -> None:
    async def work(it: Searcher, inode: int) -> None:
        found = await asyncio.gather(*(holder_of(it, number) for number in (inode, 1, inode, 2)))
        assert found == [os.getpid(), 0, os.getpid(), 0]

    run(work)


def test_many_sockets_in_one_question() -> None:
    async def work(it: Searcher, inode: int) -> None:
        found = await it.find([inode, *range(1, 5000)], {}, [])
        assert list(found) == [inode]

    run(work)


async def started(it: Searcher) -> int:
    """Start the child; returns its process id, never 0, which to `kill` means us and our whole process group."""
    await it.find([], {}, [])
    assert it.pid > 0
    return it.pid


def test_when_the_child_is_killed_nobody_is_found_once_and_then_another_searches() -> None:
    async def work(it: Searcher, inode: int) -> None:
        before = await started(it)
        os.kill(before, signal.SIGKILL)
        assert await holder_of(it, inode) == 0
        assert await holder_of(it, inode) == os.getpid()
        assert it.pid != before

    run(work)


def test_a_child_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(it: Searcher, inode: int) -> None:
        before = await started(it)
        monkeypatch.setattr(searcher, "PATIENCE", 0.2)
        os.kill(before, signal.SIGSTOP)
        assert await holder_of(it, inode) == 0
        with pytest.raises(ProcessLookupError):
            os.kill(before, 0)

    run(work)


def test_one_that_cannot_be_started_finds_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searcher, "COMMAND", ("/nonexistent/python",))

    async def work(it: Searcher, inode: int) -> None:
        assert await holder_of(it, inode) == 0
        assert it.has_neighbours  # as far as is known

    run(work)


def test_a_question_that_is_given_up_does_not_leave_its_answer_to_the_next() -> None:
    async def work(it: Searcher, inode: int) -> None:
        os.kill(await started(it), signal.SIGSTOP)
        asking = asyncio.create_task(holder_of(it, 1))
        await asyncio.sleep(0)
        asking.cancel()
        await asyncio.wait([asking])
        assert await holder_of(it, inode) == os.getpid()

    run(work)
