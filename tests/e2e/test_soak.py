"""A short soak: many flows at once that end in every way there is, and nothing of them is left."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from tests.e2e.inside import helpers, inside, wait_until
from tests.soak.deeds import MEBIBYTE, answer_times, idle, mixed, resolve, stalled_readers, upload
from tests.soak.looking import Process, manager

if TYPE_CHECKING:
    from collections.abc import Callable

    from telemagic.connection import Connection

# Bytes that either process may grow by: what all flows together hold at the worst moment
GROWTH: Final = 128 * MEBIBYTE


async def _everything(check_idle: Callable[[], None]) -> None:
    await mixed(600, at_once=60)
    stalled = await stalled_readers(20)
    times = await answer_times(50)
    assert times[len(times) // 2] < 0.1, "others are held up by readers that stand still"
    for sock in stalled:
        sock.close()
    check_idle()
    await idle(300)
    for _ in range(200):
        await upload(2)


@inside(timeout=90)
def test_nothing_is_left_of_many_flows() -> None:
    import telemagic

    with telemagic.connect() as tele:
        resolve()
        processes = [Process(pid) for pid in (*helpers("telehelper.datapath"), manager())]

        def check_memory() -> None:
            assert [each.growth // MEBIBYTE for each in processes if each.growth > GROWTH] == []

        asyncio.run(_everything(check_memory))
        _check_nothing_is_left(tele, processes)


def _check_nothing_is_left(tele: Connection, processes: list[Process]) -> None:
    assert wait_until(lambda: tele.status.to_dict()["flows_open"] == 0), tele.flows().query(
        "state != 'CLOSED'"
    )
    status = tele.status.to_dict()
    assert status["flows_total"] > 1_000
    assert (status["state"], status["carriers"], status["last_error"]) == ("connected", 2, "")
    *datapath, far = processes
    for process in processes:
        assert wait_until(lambda process=process: process.fds <= process.fds_before + 2), process.fds
        assert process.growth < GROWTH
    assert [process.log for process in datapath] == [""] * len(datapath)
    assert far.fds_before > 0
