"""watch(): across threads and loops, with slow readers, and leaving nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import time
from dataclasses import astuple
from typing import TYPE_CHECKING, Any

import pytest
from telehelper.errors import HelperLost, NotConnected, UsageError
from telehelper.messages import Failed
from telehelper.observing import EventRow, Unwatch, Watch

import telemagic
from telemagic import frames, watching
from telemagic.shell import ShellSession
from tests.kernel.flow_rows import NOON, flow
from tests.kernel.test_feed import Place, wait_for

if TYPE_CHECKING:
    from collections.abc import Sequence

    from telehelper.observing import FlowRow

    from telemagic.control_fake import FakeLauncher
    from telemagic.session import Session
    from telemagic.watching import Change


def text(
    *rows: FlowRow, at: float = NOON, events: Sequence[EventRow] = (), gone: Sequence[int] = (), **status: Any
) -> str:
    return json.dumps(
        {
            "at": at,
            "status": {"state": "connected", "rtt": 0.002} | status,
            "flows": [astuple(row) for row in rows],
            "events": [astuple(event) for event in events],
            "gone": list(gone),
            "series": [],
        }
    )


@pytest.fixture
def place(session: Session, launcher: FakeLauncher) -> Place:
    made = Place(session, launcher)
    made.script.snapshot = text(flow(1), flow(2))
    return made


def event(number: int, count: int = 1) -> EventRow:
    return EventRow(number, NOON + number, "refused", "postgres.shop:1", "nothing listens there", count)


def test_changes_reach_the_users_own_loop_until_the_connection_ends(place: Place) -> None:
    async def main() -> list[Change]:
        seen = []
        async for change in place.connection.watch(0.5):
            seen.append(change)
            if len(seen) == 1:
                await asyncio.to_thread(
                    place.change, text(flow(2, state="CLOSED"), events=[event(1)], gone=[1])
                )
            else:
                await asyncio.to_thread(place.connection.disconnect)
        return seen

    first, second = asyncio.run(main())
    assert first.is_first
    assert first.flows["flow"].tolist() == [1, 2]
    assert first.flows.columns.tolist() == [column.name for column in frames.FLOW_SCHEMA]
    assert first.flows.attrs["telemagic"]["units"]["connect_ms"] == "ms"
    assert first.status["rtt"] == 0.002
    assert not second.is_first
    assert second.flows["state"].tolist() == ["CLOSED"]
    assert second.flows is second.flows  # made once
    assert second.gone == (1,)
    (said,) = second.events
    assert (said.kind, said.at, said.number) == ("refused", NOON + 1, 1)
    assert str(said) == "refused: postgres.shop:1: nothing listens there"
    assert repr(second).endswith(": 1 flows, 1 events>")
    assert place.watches() == [Watch(0.5)]


def test_it_ends_when_the_helper_goes_but_not_before_the_last_change(place: Place) -> None:
    async def main() -> list[Change]:
        seen = []
        async for change in place.connection.watch():
            seen.append(change)
            if len(seen) == 1:

                def at_once() -> None:
                    place.change(text(flow(3)))
                    place.run(place.fake.close())
                    wait_for(lambda: place.connection.lost)

                await asyncio.to_thread(at_once)
        return seen

    assert [change.flows["flow"].tolist() for change in asyncio.run(main())] == [[1, 2], [3]]

    async def again() -> Change:
        return await anext(place.connection.watch())

    with pytest.raises(HelperLost, match="has ended"):
        asyncio.run(again())


def test_a_slow_reader_gets_what_came_meanwhile_as_one_change(place: Place) -> None:
    """Of each flow its last state, of each event its last count, and all that are gone."""
    many = 5 * watching.MAX_WAITING
    changes = [
        text(flow(1, bytes_up=n), at=NOON + n, events=[event(7, count=n), event(1000 + n)], gone=[5000 + n])
        for n in range(1, many + 1)
    ]

    async def main() -> tuple[Change, Change]:
        async with contextlib.aclosing(place.connection.watch()) as watch:
            first = await anext(watch)
            await asyncio.to_thread(place.change, *changes)
            assert place.connection.status.state == "connected"  # answered after them: all have come
            return first, await anext(watch)

    first, merged = asyncio.run(main())
    assert merged.at == NOON + many
    assert merged.flows["bytes_up"].tolist() == [many]
    assert len(merged.gone) == many
    assert [one.number for one in merged.events][-2:] == [7, 1000 + many]
    assert [one.count for one in merged.events if one.number == 7] == [many]
    assert first.is_first
    assert not merged.is_first


def test_memory_is_bounded_while_nobody_reads(place: Place) -> None:
    async def main() -> None:
        inbox = watching._Inbox()
        for n in range(3 * watching.MAX_EVENTS):
            inbox.put(text(flow(n % 50), events=[event(n)]), False)
            assert len(inbox._texts) <= watching.MAX_WAITING
        batch = await inbox.take()
        assert batch is not None
        change = batch.change(is_first=False)
        assert len(change.rows) == 50
        assert len(change.events) == watching.MAX_EVENTS
        assert change.events[-1].number == 3 * watching.MAX_EVENTS - 1  # the oldest went

    asyncio.run(main())


def test_breaking_off_ends_the_watching(place: Place) -> None:
    async def main() -> None:
        async for _ in place.connection.watch():
            break
        assert await asyncio.to_thread(wait_for, lambda: place.watches() == [Watch(0.5), Unwatch()]) is None

    asyncio.run(main())
    assert place.connection.is_open


def test_being_cancelled_leaves_nothing(place: Place) -> None:
    async def follow() -> None:
        async for _ in place.connection.watch():
            pass

    async def main() -> None:
        task = asyncio.create_task(follow())
        await asyncio.to_thread(wait_for, place.watches)
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())
    wait_for(lambda: place.watches() == [Watch(0.5), Unwatch()])
    assert place.feed._subscriptions == []


def test_a_loop_that_is_closed_ends_it_too(place: Place) -> None:
    """As when a script's loop is dropped in the middle: the background loop must not mind."""
    loop = asyncio.new_event_loop()
    watch = place.connection.watch()
    loop.run_until_complete(anext(watch))
    loop.close()
    place.change(text(flow(3)))
    wait_for(lambda: place.watches() == [Watch(0.5), Unwatch()])
    with contextlib.suppress(StopIteration):
        watch.aclose().send(None)
    assert place.connection.status.state == "connected"


def test_two_who_watch(place: Place) -> None:
    async def follow(count: int) -> int:
        seen = 0
        async for change in place.connection.watch():
            seen += len(change.rows)
            if seen >= count:
                break
        return seen

    async def main() -> list[int]:
        tasks = [asyncio.create_task(follow(4)) for _ in range(2)]
        await asyncio.to_thread(wait_for, lambda: len(place.watches()) == 2)
        await asyncio.to_thread(place.change, text(flow(3)), text(flow(4)))
        return await asyncio.gather(*tasks)

    assert asyncio.run(main()) == [4, 4]


def test_a_connection_of_another_process(place: Place) -> None:
    """The command line asks data planes that notebooks started; what it attaches to can be watched as well."""
    shell = ShellSession()
    try:
        attached = shell.current()

        async def main() -> list[bool]:
            seen = []
            async for change in attached.watch():
                seen.append(change.is_first)
                action = place.change if len(seen) == 1 else lambda _: place.run(place.fake.close())
                await asyncio.to_thread(action, text(flow(3)))
            return seen

        assert asyncio.run(main()) == [True, False]
        assert attached.lost.endswith("has ended")
    finally:
        shell.close()


def test_what_cannot_be_watched(place: Place) -> None:
    async def first() -> Change:
        return await anext(place.connection.watch())

    place.script.answers[Watch] = Failed("helper-refused", "Watch is no request")
    with pytest.raises(HelperLost, match="Watch is no request"):
        asyncio.run(first())

    async def hasty() -> Change:
        return await anext(place.connection.watch(0))

    with pytest.raises(UsageError, match="is none"):
        asyncio.run(hasty())
    place.connection.disconnect()
    with pytest.raises(NotConnected):
        asyncio.run(first())


def test_the_example_of_the_documentation_runs(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    text_of_it = (
        inspect.getdoc(telemagic.Connection.watch) or ""
    )  # Python 3.13 strips the margin, earlier ones do not
    body = text_of_it.split("::\n")[1].split("The first change")[0]
    place.script.snapshot = text(flow(1, connect=0.5), flow(2), events=[event(1)])
    names: dict[str, Any] = {"tele": place.connection}
    exec(f"async def main():\n{body}", names)  # our own documentation

    async def main() -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.4):
                await names["main"]()

    asyncio.run(main())
    shown = capsys.readouterr().out
    assert "refused: postgres.shop:1: nothing listens there" in shown
    assert "500.0" in shown
    assert len([line for line in shown.splitlines() if "postgres.shop " in line]) == 1


def test_the_loop_is_not_held_up(place: Place) -> None:
    """Five thousand flows in the first change, and one change after the other: the longest turn of the user's loop."""
    place.script.snapshot = text(*(flow(n) for n in range(5000)))
    assert len(place.script.snapshot) > watching.QUICK
    gaps = []

    async def tick() -> None:
        while True:
            began = time.thread_time()
            await asyncio.sleep(0)
            gaps.append(time.thread_time() - began)

    async def main() -> None:
        ticking = asyncio.create_task(tick())
        seen = 0
        async for _ in place.connection.watch():
            seen += 1
            if seen == 20:
                break
            await asyncio.to_thread(place.change, text(*(flow(n) for n in range(100))))
        ticking.cancel()

    asyncio.run(main())
    assert max(gaps) < 0.020  # of processor time; the clock would tell of others on this machine, too
