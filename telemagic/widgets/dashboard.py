"""The dashboard: hands on to the browser what the feed tells, unread, and leaves a summary when it is over.

`view/` holds the JavaScript, one noun per file, joined here in the order of `SCRIPTS`: no build step, nothing from the
network. The state is in what the feed tells; the traits are only what a view needs to know before that.
"""

from __future__ import annotations

import time
import uuid
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anywidget
import traitlets
from telehelper.errors import HelperLost, NotConnected
from telehelper.messages import CidrRow, RouteRow
from telehelper.observing import EVENT_COLUMNS, FLOW_COLUMNS, LATENCY_COLUMNS

from telemagic import live, production
from telemagic.widgets.attention import Attention
from telemagic.widgets.record import Record
from telemagic.widgets.summary import summary

if TYPE_CHECKING:
    from telemagic.cards import Card
    from telemagic.connection import Connection
    from telemagic.feed import Subscription

UNSEEN_INTERVAL: Final = 60.0  # seconds between changes while nobody looks
_VIEW: Final = Path(__file__).with_name("view")
SCRIPTS: Final = (
    "format.js",
    "dom.js",
    "percentiles.js",
    "store.js",
    "filter.js",
    "header.js",
    "chips.js",
    "charts.js",
    "latency.js",
    "map.js",
    "services.js",
    "table.js",
    "detail.js",
    "events.js",
    "main.js",
)
COLUMNS: Final = {
    "flows": FLOW_COLUMNS,
    "events": EVENT_COLUMNS,
    "latency": LATENCY_COLUMNS,
    "cidrs": tuple(each.name for each in fields(CidrRow)),
    "routes": tuple(each.name for each in fields(RouteRow)),
}


def _read(*names: str) -> str:
    return "\n".join((_VIEW / name).read_text(encoding="utf-8") for name in names)


class Dashboard(anywidget.AnyWidget):
    """A live view of a connection; made by :meth:`telemagic.Connection.dashboard`.

    Any number of views show the same one; each asks for a snapshot when it appears. Where there are no widgets it shows
    a summary instead, and when the connection ends, one takes its place in the notebook.
    """

    _esm = _read(*SCRIPTS)
    _css = _read("dashboard.css")
    columns = traitlets.Dict().tag(sync=True)
    production = traitlets.Unicode().tag(sync=True)  # the pattern that the context's name matches
    rows = traitlets.Int(5000).tag(sync=True)
    height = traitlets.Int(320).tag(sync=True)
    over = traitlets.Dict().tag(sync=True)

    def __init__(self, connection: Connection, *, hz: float, rows: int, height: int) -> None:
        super().__init__(
            columns={name: list(columns) for name, columns in COLUMNS.items()},
            production=production.pattern_of(connection.context),
            rows=rows,
            height=height,
        )
        self._connection = connection
        self._interval = 1 / hz
        self._record = Record()
        self._attention = Attention(time.monotonic())
        self._display_id = uuid.uuid4().hex
        self._displayed = False
        self._subscription: Subscription | None = None
        self._sending = False  # else nobody looks, and only the end is waited for
        self._record.take(connection.feed.snapshot(), True)  # for the summary in the notebook's file
        self._shell = live.current_shell()
        self._listen_to_cells("register")
        self.on_msg(self._said)
        self._subscribe(sending=True)

    # --- the feed: in the background loop's thread ---------------------------------------------------------------

    def _subscribe(self, *, sending: bool) -> None:
        before, feed = self._subscription, self._connection.feed
        self._sending = sending
        self._subscription = feed.subscribe(
            self._interval if sending else UNSEEN_INTERVAL, self._told, self._ended
        )
        if before is not None:
            before.close()

    def _told(self, text: str, is_snapshot: bool) -> None:
        self._record.take(text, is_snapshot)
        subscription = self._subscription
        if subscription is None or not self._sending:
            return
        now = time.monotonic()
        if not self._attention.is_paid(now):
            self._subscribe(sending=False)
            return
        self.send({"kind": "snapshot" if is_snapshot else "change"}, [text.encode()])
        if self._record.is_full or self._attention.is_due(now):
            subscription.refresh()

    def _ended(self, reason: str) -> None:
        self._subscription = None
        self._listen_to_cells("unregister")
        if self._connection.lost:
            self.over = {"state": "lost", "reason": reason}
            return
        self.over = {"state": "closed", "reason": ""}

    # --- the views: in the kernel's main thread ------------------------------------------------------------------

    def _said(self, _widget: object, content: dict[str, Any], _buffers: object) -> None:
        kind = content.get("kind", "")
        self._attention.hear(kind, time.monotonic())
        if kind == "gone" or self.over:
            return
        with suppress(HelperLost, NotConnected):  # it ends just now, and `_ended` says so
            if not self._sending:
                self._subscribe(sending=True)
            elif kind == "ready" and self._subscription is not None:
                self._subscription.refresh()

    def _listen_to_cells(self, what: str) -> None:
        events = getattr(self._shell, "events", None)
        if events is not None:
            with suppress(ValueError):  # unregistered already
                getattr(events, what)("pre_run_cell", self._cell_started)
                getattr(events, what)("post_run_cell", self._cell_ended)

    def _cell_started(self, _info: object = None) -> None:
        self._attention.cell_started()

    def _cell_ended(self, _result: object = None) -> None:
        self._attention.cell_ended(time.monotonic())

    # --- the end on purpose: in the thread that disconnects, for to sum up takes too long for a loop ---------------

    def update(self, _card: Card) -> None:
        """Leave a summary in the place of the live view; the connection's `standing` calls it when it ends."""
        if not self._connection.lost:  # then the view stays, and says so
            from IPython.display import display

            bundle = self.summary("closed")._repr_mimebundle_()
            display(bundle, raw=True, display_id=self._display_id, update=True)

    # --- showing it ----------------------------------------------------------------------------------------------

    def summary(self, over: str = "") -> Card:
        """Return what was told last as a card that needs nothing live; `over` as if it had ended so."""
        state = over or self.over.get("state", "")
        return summary(self._record.read(), over=state, reason=self.over.get("reason", ""))

    def close(self) -> None:
        """End it: no view is told anything any more."""
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            subscription.close()
        self._listen_to_cells("unregister")
        super().close()

    def __repr__(self) -> str:
        return f"<telemagic dashboard of {self._connection.context}>"

    def _repr_mimebundle_(self, **_kwargs: object) -> tuple[dict[str, Any], dict[str, Any]]:
        card = self.summary()._repr_mimebundle_()
        if self.over:
            return card, {}
        live_view = super()._repr_mimebundle_()
        return {**(live_view[0] if live_view else {}), **card}, {}

    def _ipython_display_(self) -> None:
        from IPython.display import display

        data, _metadata = self._repr_mimebundle_()
        if not self._displayed and not self.over:
            self._connection.standing.add(self)
        self._displayed = True
        if getattr(self._shell, "events", None) is not None:  # they tell when the cell is over
            self._attention.shown(time.monotonic())
        display(data, raw=True, display_id=self._display_id)
