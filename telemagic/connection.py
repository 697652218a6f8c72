"""A connection: what users ask about a cluster that answers here by name."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from typing import TYPE_CHECKING, Any, Final, TypeVar

from telehelper import messages, observing, views
from telehelper.errors import HelperLost, NotConnected, TelemagicError

from telemagic import cards, failures, farewell, live
from telemagic.control import silence
from telemagic.feed import Feed
from telemagic.loop import Job
from telemagic.results import Status
from telemagic.tables import ANSWER_PATIENCE, LIST_PATIENCE, Tables

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from telemagic.control import ControlClient
    from telemagic.loop import LoopThread
    from telemagic.outcome import Rehearsal
    from telemagic.target import Target
    from telemagic.widgets.dashboard import Dashboard

M = TypeVar("M", bound=messages.Message)

TELL_PATIENCE: Final = 1.0  # seconds for what is answered from memory
UNDO_PATIENCE: Final = 8.0  # seconds for a disconnect: the data plane's own undo is bounded by 5


class Connection(Tables):
    """A cluster that is connected to this process; ends with :meth:`disconnect` or its `with` block.

    DataFrames: :meth:`flows`, :meth:`latency`, :meth:`events`, :meth:`routes`, :meth:`services`, :meth:`pods`,
    :meth:`resolve`, :meth:`ping`. Further :attr:`status`, :meth:`url`, :meth:`dashboard`, :meth:`watch`. Whatever asks
    raises `NotConnected` when this connection is over, and `HelperLost` when its helper has gone.

    Attributes
    ----------
    context
        Name of the kubeconfig's context.
    lost
        Why the helper has gone, in one line; empty while it is there.
    last_error
        What the helper last answered instead of what was asked, or how it was lost; None if all went well.
    feed
        What changes, as it happens: for a dashboard, and whatever else wants the texts.
    """

    def __init__(self, loop: LoopThread, client: ControlClient, status: messages.Status) -> None:
        self.socket_path = client.path
        self.context = status.context
        self.namespace = status.namespace
        self.lost = ""
        self.target: Target | None = None
        self.notices: tuple[str, ...] = ()
        self.remark = ""  # about the last connect, not about the connection
        self.is_new = True  # no `with` has begun it, nor was it up already when it was last asked for
        self._begun: list[bool] = []  # by each `with` that is under way: only what it has begun ends with it
        self.last_error: TelemagicError | None = None
        self.shown_in: int | None = None  # number of the cell whose card shows this connection already
        self.standing = live.Standing()
        self.on_end: Callable[[], None] = lambda: None
        self._loop = loop
        self._client: ControlClient | None = client
        self._first = status
        self._cluster_domain = status.cluster_domain
        self.feed = Feed(loop, client)

    @property
    def is_open(self) -> bool:
        """Whether it can still be asked: neither disconnected nor lost."""
        return self._client is not None and not self.lost

    @property
    def is_over(self) -> bool:
        """Whether it was left: disconnected, or ended with the process."""
        return self._client is None

    @property
    def addresses(self) -> frozenset[str]:
        """The machine's own on the interface: where connections into the cluster come from."""
        return frozenset({self._first.address, self._first.address_v6} - {""})

    @property
    def datapath_pid(self) -> int:
        """Process id of the data plane; 0 when disconnected."""
        return self._client.peer_pid if self._client is not None else 0

    @property
    def status(self) -> Status:
        """What is connected to what, now.

        Raises
        ------
        HelperLost
            The helper has gone.
        NotConnected
            This connection is over.
        """
        return Status(self._ask(messages.GetStatus(), messages.Status), self.notices)

    def dashboard(
        self,
        *,
        hz: float = 2.0,
        rows: int = 5000,
        height: int = 290,
        static: bool = False,
    ) -> Dashboard | cards.Card:
        """Return a live view of this connection; a card that sums it up where there are no widgets.

        Parameters
        ----------
        hz, rows, height
            How often a second it changes, how many flows it keeps, and how many pixels the flow table is high.
        static
            Only the card.

        Raises
        ------
        UsageError
            A number is out of range.
        """
        from telemagic.widgets import show  # late: json and cards only; widgets when there is a kernel

        return show.dashboard(self, hz=hz, rows=rows, height=height, static=static)

    def faults(self) -> frozenset[str]:
        """Return the names of what :meth:`fault` can break here."""
        from telemagic import rehearsal  # late: rarely needed

        return rehearsal.possible(self)

    def fault(
        self,
        name: str,
        *,
        service: str = "",
        force: bool = False,
        say: Callable[[list[str]], object] = lambda _: None,
    ) -> Rehearsal:
        """Break something on purpose, mend it, and return what came of what is promised then.

        Parameters
        ----------
        name
            What: `telemagic.promises` has the table, :meth:`faults` what is possible here.
        service
            One to which a connection is opened before, to see how it ends; `postgres.shop:5432`.
        force
            Also where it is production.
        say
            Told before what is about to happen.

        Raises
        ------
        UsageError
            There is no such fault or service, not here, or not without `force`.
        """
        from telemagic import rehearsal  # late, as above

        goal = self._directory().goal(service) if service else None
        place = (str(goal.address), goal.port) if goal is not None else None
        return rehearsal.rehearse(self, name, place, force=force, say=say)

    def was_asked(self, name: str) -> bool:
        """Whether telemagic's resolver was asked for a name lately."""
        return bool(self._ask(views.GetLookup(name), views.Lookup).source)

    def flow_rows(self) -> list[observing.FlowRow]:
        """Return what :meth:`flows` makes a table of, as rows."""
        return farewell.rows_of(self._ask(observing.GetFlows(), observing.FlowTable))

    def catalog(self) -> tuple[views.ServiceRow, ...]:
        """Return all services that the user's rights show, as rows; from any thread."""
        request = views.GetServices(everywhere=True)
        return self._ask(request, views.ServiceTable, LIST_PATIENCE).rows

    def introduce(self, notebook: str) -> None:
        """Tell the data plane who this kernel is, for its flow table."""
        self._ask(observing.Introduce(notebook), messages.Done, TELL_PATIENCE)

    def tell(self, body: messages.Message, patience: float = 0.0) -> None:
        """Tell the data plane something that nobody answers; from any thread.

        Waits up to `patience` seconds until it is written to the socket, and says nothing if the data plane has gone.
        """
        client = self._client
        if client is None or self.lost:
            return
        written = threading.Event()

        def write() -> None:
            client.notify(body)
            written.set()

        self._loop.post(write)
        if patience:
            written.wait(patience)

    def disconnect(self) -> cards.Card:
        """Leave; when no other notebook uses the data plane, everything is undone when this returns.

        A connection whose helper has gone is simply forgotten. Returns a card that sums it up.
        """
        client = self._require()
        told = None if self.lost else self._loop.run(farewell.ask(client))
        line = (
            f"the connection was lost before: {self.lost}" if self.lost else "the helper did not say any more"
        )
        self._part()
        try:
            if not self.lost:
                self._ask(messages.Disconnect(), messages.Done, UNDO_PATIENCE)
        finally:
            self.leave()
        if told is None:
            return cards.farewell(self.context, self.namespace, line)
        return farewell.card(farewell.sum_up(*told))

    def _part(self) -> None:
        """Tell cards and listeners that it ends on purpose, before the helper goes: its end would look like a loss."""
        self._turn_cards("")
        self._loop.post(lambda: self.feed.close(f"the connection to {self.context} is over"))

    def end(self, patience: float) -> None:
        """Leave quietly within `patience` seconds, as at exit; what is not undone by then the helper undoes alone."""
        if self._client is None:
            return
        self._part()
        try:
            with contextlib.suppress(TelemagicError):
                self._ask(messages.Disconnect(), messages.Done, patience)
        finally:
            self.leave()

    def forget(self) -> None:
        """Close the socket and use nothing else: for a forked child, which shares the socket but not the thread."""
        if self._client is not None:
            self._client.socket.close()
            self._client = None
            self.feed.forget()

    def leave(self) -> None:
        """Close the control connection, asking nothing."""
        closing: Job[None] = Job()
        try:
            client, self._client = self._client, None
            self._turn_cards("")
            if client is not None:
                self._loop.start(closing, self._close(client))
                closing.future.result(ANSWER_PATIENCE)  # an interrupt ends the waiting, not the closing
        except TimeoutError:
            pass  # the loop is busy; it closes when it gets to it
        finally:
            self.on_end()  # nobody may take this for a connection any more

    def lose(self, reason: str) -> None:
        """Take note that the helper has gone; from any thread."""
        if not self.lost:
            self.lost = reason
            self.last_error = HelperLost(reason)
            # In a turn of its own: a front end that has gone itself must not keep others from being told.
            self._loop.post(lambda: self._turn_cards(reason))

    def _turn_cards(self, lost: str) -> None:
        # Before the data plane is told: where we are the last, it closes its socket, which would look like a loss.
        self.standing.turn_into(cards.over(self._first, time.time(), lost))

    async def _close(self, client: ControlClient) -> None:
        self.feed.close(f"the connection to {self.context} is over")
        await client.close()

    def _require(self) -> ControlClient:
        if self._client is None:
            raise NotConnected(f"the connection to {self.context} is over")
        return self._client

    def _ask(self, request: messages.Message, expect: type[M], patience: float = ANSWER_PATIENCE) -> M:
        client = self._require()
        if self.lost:
            raise HelperLost(self.lost)
        try:
            return self._loop.run(client.request(request, expect), patience)
        except HelperLost as error:
            self._require()  # we have left meanwhile: that is no loss
            self.lose(error.message)
            raise
        except TelemagicError as error:
            self.last_error = error
            raise
        except TimeoutError as error:
            self.last_error = silence(client, patience)
            raise self.last_error from error

    def __enter__(self) -> Connection:
        self._begun.append(self.is_new)
        self.is_new = False
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._leave() and self._client is not None:
            self.disconnect()

    def _leave(self) -> bool:
        """Leave a `with`; whether it has begun the connection."""
        has_begun = self._begun.pop()
        self.is_new = not any(self._begun)  # whoever made it may still write `with` about it
        return has_begun

    async def __aenter__(self) -> Connection:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._leave() and self._client is not None:
            await asyncio.to_thread(self.disconnect)

    def __repr__(self) -> str:
        if self._client is None:
            return f"<telemagic connection to {cards.printable(self.context)}: over>"
        return self._card().text

    def _card(self) -> cards.Card:
        if self.lost:
            return failures.card(HelperLost(self.lost))
        said = (*self.notices, self.remark) if self.remark else self.notices
        return cards.connected(self._first, notices=said)

    def _ipython_display_(self) -> None:
        shell = live.current_shell()
        if shell is not None and self.shown_in is not None and shell.execution_count == self.shown_in:
            return  # the card of the connect is above
        if not self.is_open or not live.is_kernel(shell):
            raise NotImplementedError  # IPython's way to say: show it as usual
        self.standing.show(self._card())

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        if self._client is None:
            return {"text/plain": repr(self)}
        return self._card()._repr_mimebundle_()
