"""The feed over the real control socket; the data plane behind it is the fake, which a real test accompanies in e2e."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from telehelper.errors import HelperLost, HelperRefused, NotConnected, UsageError
from telehelper.messages import Failed, Message
from telehelper.observing import MIN_INTERVAL, CellStarted, SnapshotChanged, Unwatch, Watch

import telemagic
from telemagic import feed

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from telemagic.connection import Connection
    from telemagic.control_fake import FakeDatapath, FakeLauncher
    from telemagic.session import Session


class Told:
    """A subscriber that writes down what it is told, and in which thread."""

    def __init__(self) -> None:
        self.texts: list[tuple[str, bool]] = []
        self.lost: list[str] = []
        self.threads: set[str] = set()

    def on_text(self, text: str, is_snapshot: bool) -> None:
        self.texts.append((text, is_snapshot))
        self.threads.add(threading.current_thread().name)


class Place:
    """A connection, the fake behind it, and the loop on which both live."""

    def __init__(self, session: Session, launcher: FakeLauncher) -> None:
        self.session = session
        self.connection: Connection = telemagic.connect()
        self.feed = self.connection.feed
        self.fake: FakeDatapath = launcher.started[0]
        self.script = self.fake.script

    def run(self, coro: Coroutine[Any, Any, Any]) -> Any:  # whatever it returns
        return self.session._loop.run(coro, 5)

    def change(self, *texts: str) -> None:
        async def say() -> None:
            for text in texts:
                await self.fake.change(text)

        self.run(say())

    def watches(self) -> list[Message]:
        return [one for one in self.fake.requests if isinstance(one, Watch | Unwatch)]


@pytest.fixture
def place(session: Session, launcher: FakeLauncher) -> Place:
    return Place(session, launcher)


def wait_for(condition: Callable[[], object]) -> None:
    until = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.002)


def test_a_snapshot_then_each_change_in_order_on_the_loops_thread(place: Place) -> None:
    place.script.snapshot = "all"
    told = Told()
    subscription = place.feed.subscribe(0.5, told.on_text)
    wait_for(lambda: told.texts)
    place.change("one", "two", "three")
    wait_for(lambda: len(told.texts) == 4)
    assert told.texts == [("all", True), ("one", False), ("two", False), ("three", False)]
    assert told.threads == {"telemagic"}
    assert place.watches() == [Watch(0.5)]
    assert subscription.is_open
    subscription.close()
    subscription.close()
    wait_for(lambda: place.watches() == [Watch(0.5), Unwatch()])
    assert not subscription.is_open
    assert place.fake.intervals == []


def test_what_changes_while_the_snapshot_is_made_comes_once(place: Place) -> None:
    """The data plane tells what had changed before; a snapshot has that already, and a first watch never saw it."""

    async def meanwhile() -> None:
        await place.fake.change("in it")
        place.script.snapshot = f"up to {place.fake.changes}"

    place.script.before_snapshot = meanwhile
    early, late = Told(), Told()
    place.feed.subscribe(0.5, early.on_text)
    wait_for(lambda: early.texts)
    place.feed.subscribe(0.5, late.on_text)
    wait_for(lambda: late.texts)
    place.change("after")
    wait_for(lambda: len(late.texts) == 2)
    assert late.texts == [("up to 2", True), ("after", False)]
    assert early.texts == [("up to 1", True), ("in it", False), ("after", False)]


def test_changes_that_come_in_one_piece_with_the_snapshot_come_after_it(place: Place) -> None:
    """The reader dispatches them before the coroutine that awaits the snapshot resumes."""
    told = Told()
    subscription = place.feed.subscribe(0.5, told.on_text)
    wait_for(lambda: told.texts)
    told.texts.clear()

    async def race() -> None:
        place.feed.renew(subscription)
        await asyncio.sleep(0)  # the request is on its way
        place.feed.dispatch(SnapshotChanged(1, "before"))
        place.feed.dispatch(SnapshotChanged(2, "between"))

    place.fake.changes = 1
    place.script.snapshot = "has 1"
    place.run(race())
    wait_for(lambda: len(told.texts) == 2)
    assert told.texts == [("has 1", True), ("between", False)]


def test_changes_of_an_old_watch_are_not_taken_for_those_of_a_new_one(place: Place) -> None:
    """Their numbers begin again: one that was under way when the last subscriber left would hide all that follow."""
    old, new = Told(), Told()
    last = place.feed.subscribe(0.5, old.on_text)
    wait_for(lambda: old.texts)
    place.change("one", "two", "three")

    async def race() -> None:
        place.feed.leave(last)
        await asyncio.sleep(0)  # the data plane is told, and has told a change before it heard
        place.feed.subscribe(0.5, new.on_text)
        await asyncio.sleep(0)
        place.feed.dispatch(SnapshotChanged(4, "four"))

    place.run(race())
    wait_for(lambda: new.texts)
    place.change("of the new one")
    wait_for(lambda: len(new.texts) == 2)
    assert [text for text, _ in new.texts][1:] == ["of the new one"]
    assert place.watches() == [Watch(0.5), Unwatch(), Watch(0.5)]


def test_one_who_leaves_before_his_turn_is_told_nothing(place: Place) -> None:
    told = Told()

    async def main() -> None:
        async with place.feed._turn:
            subscription = place.feed.subscribe(0.5, told.on_text)
            await asyncio.sleep(0.01)
            subscription.close()
            await asyncio.sleep(0.01)

    place.run(main())
    assert place.feed.snapshot()
    assert told.texts == []
    assert place.feed._subscriptions == []


def test_a_further_view_gets_a_snapshot_in_its_place(place: Place) -> None:
    told = Told()
    subscription = place.feed.subscribe(0.5, told.on_text)
    wait_for(lambda: told.texts)
    place.change("one")
    wait_for(lambda: len(told.texts) == 2)  # else it may be told within the snapshot alone
    place.script.snapshot = "with one"
    subscription.refresh()
    wait_for(lambda: len(told.texts) == 3)
    place.change("two")
    wait_for(lambda: len(told.texts) == 4)
    assert [text for text, _ in told.texts[1:]] == ["one", "with one", "two"]
    subscription.close()
    subscription.refresh()  # nothing any more
    wait_for(lambda: place.watches()[-1] == Unwatch())


def test_the_smallest_interval_is_what_is_asked_for(place: Place) -> None:
    slow, quick, third = Told(), Told(), Told()
    place.feed.subscribe(2.0, slow.on_text)
    wait_for(lambda: slow.texts)
    fast = place.feed.subscribe(0.001, quick.on_text)
    wait_for(lambda: quick.texts)
    place.feed.subscribe(1.0, third.on_text)
    wait_for(lambda: third.texts)
    fast.close()
    wait_for(lambda: place.fake.intervals == [1.0])
    assert place.watches() == [Watch(2.0), Watch(MIN_INTERVAL), Watch(MIN_INTERVAL), Watch(1.0)]
    assert len(slow.texts) == 1  # the snapshots of others are not for him


@pytest.mark.parametrize("interval", [0.0, -1.0, float("nan")])
def test_an_interval_that_is_none(place: Place, interval: float) -> None:
    with pytest.raises(UsageError, match="is none"):
        place.feed.subscribe(interval, print)


def test_a_data_plane_that_does_not_answer_is_told_in_one_line(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "SNAPSHOT_PATIENCE", 0.1)
    place.script.before_snapshot = asyncio.Event().wait
    with pytest.raises(HelperLost, match=r"\(pid \d+\) has not answered for 0.1 s"):
        place.feed.snapshot()
    place.script.before_snapshot = None
    assert place.feed.snapshot()  # it is frozen no longer: no turn is held


def test_a_snapshot_alone_watches_no_longer_than_it_takes(place: Place) -> None:
    place.script.snapshot = "all"
    assert place.feed.snapshot() == "all"
    wait_for(lambda: place.fake.intervals == [])
    told = Told()
    place.feed.subscribe(0.5, told.on_text)
    wait_for(lambda: told.texts)
    assert place.feed.snapshot() == "all"
    assert place.fake.intervals == [0.5]
    assert len(told.texts) == 1


def test_from_the_loop_itself(place: Place) -> None:
    told = Told()

    async def main() -> None:
        place.feed.subscribe(0.5, told.on_text)
        assert await place.feed.asnapshot() == place.script.snapshot

    place.run(main())
    wait_for(lambda: told.texts)
    assert place.fake.intervals == [0.5]


def test_one_who_raises_is_told_no_more_and_nobody_else_notices(place: Place) -> None:
    complaints: list[str] = []
    calls = []

    def broken(text: str, is_snapshot: bool) -> None:
        calls.append(text)
        raise ZeroDivisionError(text)

    async def listen() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: complaints.append(repr(context["exception"])))

    place.run(listen())
    told = Told()
    bad = place.feed.subscribe(0.5, broken)
    place.feed.subscribe(0.5, told.on_text)
    wait_for(lambda: told.texts and calls)
    place.change("one", "two")
    wait_for(lambda: len(told.texts) == 3)
    assert len(calls) == 1
    assert not bad.is_open
    assert complaints == [f"ZeroDivisionError({calls[0]!r})"]


def test_everybody_hears_once_that_the_helper_has_gone(place: Place) -> None:
    one, two = Told(), Told()
    place.feed.subscribe(0.5, one.on_text, one.lost.append)
    gone = place.feed.subscribe(0.5, two.on_text, two.lost.append)
    wait_for(lambda: one.texts and two.texts)
    gone.close()
    place.run(place.fake.close())
    wait_for(lambda: one.lost)
    assert one.lost == [f"the helper (pid {os.getpid()}) has ended"]
    assert two.lost == []
    with pytest.raises(HelperLost, match="has ended"):
        place.feed.subscribe(0.5, print)
    with pytest.raises(HelperLost, match="has ended"):
        place.feed.snapshot()
    place.connection.disconnect()
    assert len(one.lost) == 1


def test_a_disconnect_ends_it_too(place: Place) -> None:
    told = Told()
    subscription = place.feed.subscribe(0.5, told.on_text, told.lost.append)
    wait_for(lambda: told.texts)
    place.connection.disconnect()
    wait_for(lambda: told.lost)
    assert told.lost == ["the connection to demo is over"]
    assert not subscription.is_open
    subscription.close()
    with pytest.raises(NotConnected, match="is over"):
        place.feed.subscribe(0.5, print)


def test_a_data_plane_that_cannot_be_watched(place: Place) -> None:
    place.script.answers[Watch] = Failed("helper-refused", "Watch is no request")
    told = Told()
    subscription = place.feed.subscribe(0.5, told.on_text, told.lost.append)
    wait_for(lambda: told.lost)
    assert told.lost == ["Watch is no request"]
    assert not subscription.is_open
    with pytest.raises(HelperRefused):
        place.feed.snapshot()


def test_a_forked_child_has_nobody_to_tell(place: Place) -> None:
    told = Told()
    subscription = place.feed.subscribe(0.5, told.on_text, told.lost.append)
    wait_for(lambda: told.texts)
    place.session.after_fork()
    subscription.close()
    with pytest.raises(NotConnected, match="forked"):
        place.feed.subscribe(0.5, print)
    assert told.lost == []


def test_notifications_are_not_answered(place: Place) -> None:
    async def tell() -> None:
        client = place.connection._client
        assert client is not None
        client.notify(CellStarted(3, 1.5))

    place.run(tell())
    assert place.connection.status.state == "connected"  # asked after it, answered after it
    assert place.fake.notifications == [CellStarted(3, 1.5)]
    place.run(place.fake.close())
    wait_for(lambda: place.connection.lost)
    place.run(tell())  # to nobody
