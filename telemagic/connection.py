"""A connection: what users ask about a cluster that answers here by name."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any, Final, TypeVar

from telehelper import messages, views
from telehelper.errors import HelperLost, NotConnected

from telemagic import cards, live
from telemagic.feed import Feed
from telemagic.results import Status
from telemagic.tables import ANSWER_PATIENCE, Tables

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from telemagic.connecting import Target
    from telemagic.control import ControlClient
    from telemagic.loop import LoopThread
    from telemagic.widgets.dashboard import Dashboard

M = TypeVar("M", bound=messages.Message)

UNDO_PATIENCE: Final = 8.0  # seconds for a disconnect: the data plane's own undo is bounded by 5


class Connection(Tables):
    """A cluster that is connected to this process; ends with :meth:`disconnect` or its `with` block.

    Attributes
    ----------
    context
        Name of the kubeconfig's context.
    lost
        Why the helper has gone, in one line; empty while it is there.
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
        self.shown_in: int | None = None  # number of the cell whose card shows this connection already
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

    def was_asked(self, name: str) -> bool:
        """Whether telemagic's resolver was asked for a name lately."""
        return bool(self._ask(views.GetLookup(name), views.Lookup).source)

    def disconnect(self) -> cards.Card:
        """Leave; when no other notebook uses the data plane, everything is undone when this returns.

        A connection whose helper has gone is simply forgotten. Returns a card that sums it up.
        """
        self._require()
        line = self._summary()
        try:
            if not self.lost:
                self._ask(messages.Disconnect(), messages.Done, UNDO_PATIENCE)
        finally:
            self.leave()
        return cards.farewell(self.context, self.namespace, line)

    def end(self, patience: float) -> None:
        """Leave quietly within `patience` seconds, as at exit; what is not undone by then the helper undoes alone."""
        if self._client is None:
            return
        with contextlib.suppress(HelperLost):
            self._ask(messages.Disconnect(), messages.Done, patience)
        self.leave()

    def forget(self) -> None:
        """Close the socket and use nothing else: for a forked child, which shares the socket but not the thread."""
        if self._client is not None:
            self._client.socket.close()
            self._client = None
            self.feed.forget()

    def leave(self) -> None:
        """Close the control connection, asking nothing."""
        client, self._client = self._client, None
        if client is not None:
            self._loop.run(self._close(client), ANSWER_PATIENCE)
        self.on_end()

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
            self.lost = error.message
            raise
        except TimeoutError as error:
            raise HelperLost(
                f"the helper (pid {client.peer_pid}) has not answered for {patience:g} s"
            ) from error

    def _summary(self) -> str:
        if self.lost:
            return f"the connection was lost before: {self.lost}"
        try:
            now = self._ask(messages.GetStatus(), messages.Status, 1.0)
        except HelperLost as error:
            return error.message
        return (
            f"{now.flows_total} flows, {cards.size(now.bytes_up)} up, {cards.size(now.bytes_down)} down "
            f"in {cards.duration(time.time() - now.connected_at)}"
        )

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._client is not None:
            self.disconnect()

    async def __aenter__(self) -> Connection:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._client is not None:
            await asyncio.to_thread(self.disconnect)

    def __repr__(self) -> str:
        if self._client is None:
            return f"<telemagic connection to {cards.printable(self.context)}: over>"
        return self._card().text

    def _card(self) -> cards.Card:
        if self.lost:
            return cards.farewell(self.context, self.namespace, self.lost)
        said = (*self.notices, self.remark) if self.remark else self.notices
        return cards.connected(self._first, notices=said)

    def _ipython_display_(self) -> None:
        shell = live.current_shell()
        if shell is None or self.shown_in is None or shell.execution_count != self.shown_in:
            raise NotImplementedError  # IPython's way to say: show it as usual

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        if self._client is None:
            return {"text/plain": repr(self)}
        return self._card()._repr_mimebundle_()
