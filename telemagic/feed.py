"""What changes, as it happens: one watch of the data plane for everybody in this process who wants to be told.

The data plane tells each kernel once. Whoever joins later gets a snapshot of his own and from there on the same changes
as all others; the changes are numbered, so that nothing is lost and nothing comes twice.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from telehelper.errors import HelperLost, NotConnected, TelemagicError, UsageError
from telehelper.messages import Done, Message
from telehelper.observing import MIN_INTERVAL, Snapshot, SnapshotChanged, Unwatch, Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from telemagic.control import ControlClient
    from telemagic.loop import LoopThread

SNAPSHOT_PATIENCE: Final = 10.0  # seconds for a snapshot; a full one takes well under one
IDLE_INTERVAL: Final = (
    60.0  # seconds; of a watch that nobody wants, for the moment until its snapshot has come
)


class Subscription:
    """One who is told. Made by :meth:`Feed.subscribe`; ends with :meth:`close`, or when the connection ends."""

    def __init__(
        self,
        feed: Feed,
        interval: float,
        on_text: Callable[[str, bool], None],
        on_lost: Callable[[str], None] | None,
    ) -> None:
        self.interval = interval
        self._feed = feed
        self._on_text = on_text
        self._on_lost = on_lost
        self._is_over = False
        self._since = 0  # number of the last change that is in what was told
        self._held: list[SnapshotChanged] | None = None  # what comes while a snapshot is on its way

    @property
    def is_open(self) -> bool:
        """Whether more is to come."""
        return not self._is_over

    def close(self) -> None:
        """Be told no more; idempotent, from any thread. A call that runs just now in the loop's thread comes to its end."""
        if not self._is_over:
            self._is_over = True
            self._feed.post(self._feed.leave, self)

    def refresh(self) -> None:
        """Have a new snapshot told in its place among the changes, as for a further view; from any thread."""
        if not self._is_over:
            self._feed.post(self._feed.renew, self)

    # --- by the feed, on the loop --------------------------------------------------------------------------------

    def hold(self) -> None:
        """Keep what changes from here until the snapshot is there."""
        if self._held is None:
            self._held = []

    def begin(self, snapshot: Snapshot) -> None:
        """Tell the snapshot, and what has been kept and is not in it."""
        held, self._held = self._held or [], None
        self._since = snapshot.number
        self._soon(snapshot.text, True)
        for change in held:
            self.take(change)

    def take(self, change: SnapshotChanged) -> None:
        """Tell a change that is new, or keep it."""
        if self._held is not None:
            self._held.append(change)
        elif change.number > self._since:
            self._since = change.number
            self._soon(change.text, False)

    def end(self, reason: str) -> None:
        """Say that nothing more will come; once."""
        if self._is_over:
            return
        self._is_over = True
        if self._on_lost is not None:
            # After what is still to be told; a subscriber's fault must not reach the others.
            asyncio.get_running_loop().call_soon(self._on_lost, reason)

    def _soon(self, text: str, is_snapshot: bool) -> None:
        asyncio.get_running_loop().call_soon(self._tell, text, is_snapshot)

    def _tell(self, text: str, is_snapshot: bool) -> None:
        if self._is_over:
            return
        try:
            self._on_text(text, is_snapshot)
        except BaseException:
            self.close()  # once is enough: the next change would only fail again, twice a second
            raise


class Feed:
    """The watch of one connection. All but what says so is called on the background loop."""

    def __init__(self, loop: LoopThread, client: ControlClient) -> None:
        self._loop = loop
        self._client: ControlClient | None = client
        self._over: TelemagicError | None = None
        self._subscriptions: list[Subscription] = []
        self._asked = 0.0  # the interval that the data plane knows; 0: it tells us nothing
        self._tasks: set[asyncio.Task[Any]] = set()
        # One request at a time: numbers begin again with a new watch, so none of the old one's changes may be under way
        # when it begins.
        self._turn = asyncio.Lock()

    # --- from any thread -----------------------------------------------------------------------------------------

    def subscribe(
        self,
        interval: float,
        on_text: Callable[[str, bool], None],
        on_lost: Callable[[str], None] | None = None,
    ) -> Subscription:
        """Be told everything, and then what changes; returns at once, callable from any thread.

        Parameters
        ----------
        interval
            Seconds between two changes at least, as long as nobody else wants them sooner.
        on_text
            Called on the background loop's thread, which it must not block: first with the text of a snapshot and
            True, then with the text of each change and False, in order; see :mod:`telehelper.observing`. If it raises,
            the subscription ends.
        on_lost
            Called there once, with one line for people, when nothing more will come: the helper has gone, this
            notebook has disconnected, or the watch was refused. Not after :meth:`Subscription.close`.

        Raises
        ------
        HelperLost, NotConnected
            There is nothing to be told any more.
        """
        self._require()
        subscription = Subscription(self, _seconds(interval), on_text, on_lost)
        self.post(self._join, subscription)
        return subscription

    def snapshot(self) -> str:
        """Ask for everything once; from any thread but the background loop's."""
        self._require()
        return self._loop.run(self.asnapshot(), SNAPSHOT_PATIENCE)

    def post(self, action: Callable[[Subscription], None], subscription: Subscription) -> None:
        """Have something done on the background loop, unless it is over anyway; from any thread."""
        if self._over is None:
            self._loop.post(lambda: action(subscription))

    def forget(self) -> None:
        """Let go of everything without a word: for a forked child, which has no background thread."""
        self._client, self._over = None, NotConnected("this process was forked from the connected one")
        self._subscriptions.clear()

    # --- on the background loop ----------------------------------------------------------------------------------

    async def asnapshot(self) -> str:
        """Ask for everything once."""
        try:
            async with self._turn:
                client = self._require()
                self._asked = self._interval() or IDLE_INTERVAL
                return (await client.request(Watch(self._asked), Snapshot)).text
        finally:
            self._adjust()

    def dispatch(self, event: Message) -> None:
        """Take what the data plane says unasked."""
        if isinstance(event, SnapshotChanged):
            for subscription in self._subscriptions:
                subscription.take(event)

    def lost(self, reason: str) -> None:
        """Take note that the helper has gone."""
        self._end(HelperLost(reason))

    def close(self, reason: str) -> None:
        """Take note that this kernel leaves."""
        self._end(NotConnected(reason))

    def leave(self, subscription: Subscription) -> None:
        """Tell one no more; with the last one nothing is watched."""
        if subscription in self._subscriptions:
            self._subscriptions.remove(subscription)
            self._adjust()

    def renew(self, subscription: Subscription) -> None:
        """Get a new snapshot for one who is told already."""
        if subscription in self._subscriptions and self._over is None:
            self._join(subscription)

    def _join(self, subscription: Subscription) -> None:
        if self._over is not None:
            subscription.end(self._over.message)
        elif subscription.is_open:
            self._spawn(self._watch_quietly(subscription))

    async def _watch_quietly(self, subscription: Subscription) -> None:
        try:
            await self._watch(subscription)
        except TelemagicError as error:
            subscription.end(error.message)

    async def _watch(self, subscription: Subscription) -> None:
        async with self._turn:
            client = self._require()
            if not subscription.is_open:
                return  # closed meanwhile
            subscription.hold()
            if subscription not in self._subscriptions:
                self._subscriptions.append(subscription)
            self._asked = self._interval()
            try:
                snapshot = await client.request(Watch(self._asked), Snapshot)
            except BaseException:
                self.leave(subscription)
                raise
            subscription.begin(snapshot)

    def _adjust(self) -> None:
        """Watch as often as those who are there want, which may be not at all."""
        if self._over is None and self._interval() != self._asked:
            self._spawn(self._watch_as_wanted())

    async def _watch_as_wanted(self) -> None:
        async with self._turn:
            wanted = self._interval()
            if self._client is None or wanted == self._asked:
                return
            self._asked = wanted
            request, expect = (Watch(wanted), Snapshot) if wanted else (Unwatch(), Done)
            try:
                await self._client.request(request, expect)
            except TelemagicError:
                return  # it has gone, or never knew of watching: whoever wanted something was told

    def _interval(self) -> float:
        return min((one.interval for one in self._subscriptions), default=0.0)

    def _spawn(self, coro: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coro)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _require(self) -> ControlClient:
        if self._over is not None:
            raise type(self._over)(self._over.message)  # each with a traceback of its own
        assert self._client is not None  # noqa: S101  # it goes only with a reason
        return self._client

    def _end(self, why: TelemagicError) -> None:
        if self._over is not None:
            return
        self._over, self._client = why, None
        ending, self._subscriptions = self._subscriptions, []
        for subscription in ending:
            subscription.end(why.message)


def _seconds(interval: float) -> float:
    if not interval > 0:
        raise UsageError(f"an interval of {interval} s is none", hint="seconds, such as 0.5")
    return max(interval, MIN_INTERVAL)
