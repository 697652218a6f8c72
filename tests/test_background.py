"""Tasks that nobody waits for: a bug in one is told at once, although the task is kept."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from telehelper.background import begin

if TYPE_CHECKING:
    from collections.abc import Coroutine


async def bug() -> None:
    raise ZeroDivisionError("a bug")


async def end() -> None:
    pass


async def last() -> None:
    await asyncio.Event().wait()


def told_of(work: Coroutine[object, None, None], *, cancel: bool = False) -> list[object]:
    """Run it, and return what the loop's handler heard of while the task was there."""

    async def main() -> list[object]:
        told: list[object] = []

        def hear(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
            told.append(context.get("exception"))

        asyncio.get_running_loop().set_exception_handler(hear)
        task = begin(work)
        await asyncio.sleep(0)
        if cancel:
            task.cancel()
        await asyncio.wait([task])
        await asyncio.sleep(0)
        return list(told)

    return asyncio.run(main())


def test_a_bug_is_told_while_the_task_is_kept() -> None:
    (error,) = told_of(bug())
    assert isinstance(error, ZeroDivisionError)


@pytest.mark.parametrize(("work", "cancel"), [(end, False), (last, True)])
def test_an_end_is_nothing_to_tell(work: Any, cancel: bool) -> None:
    assert told_of(work(), cancel=cancel) == []
