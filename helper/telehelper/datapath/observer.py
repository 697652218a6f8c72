"""What there is to see: flows and whose they are, events, latencies; and the kernels that watch.

Nothing is computed on the way of a packet, and next to nothing while nobody looks: once a second a sample is taken, and
what has closed becomes history. Who caused a flow, and what its address is in the cluster, are the business of two
others (`owners`, `places`), which may be put in any time; until then flows are nobody's and lead nowhere.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import fields
from typing import TYPE_CHECKING, Final, Protocol

from telehelper.core.flows import STRANGERS_KEPT
from telehelper.datapath.event_log import EventLog
from telehelper.datapath.history import History
from telehelper.datapath.host_names import is_ours
from telehelper.datapath.json_text import dump, values_of
from telehelper.datapath.latencies import Latencies
from telehelper.datapath.lookups import Lookups
from telehelper.datapath.report import NOBODY, NOT_YOURS, NOWHERE, reason_of, service_of
from telehelper.datapath.series import Series
from telehelper.datapath.watcher import Watcher
from telehelper.errors import ControlError
from telehelper.messages import Done, Status
from telehelper.observing import (
    EventTable,
    FlowTable,
    GetEvents,
    GetFlows,
    GetLatency,
    LatencyTable,
    Unwatch,
    Watch,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from telehelper.core.dns_actions import Ended
    from telehelper.core.flows import FiveTuple, FlowRecord, FlowStats
    from telehelper.core.frames import Address
    from telehelper.core.route_plan import RoutePlan
    from telehelper.datapath.control_io import Kernel
    from telehelper.datapath.report import Owner, Place
    from telehelper.datapath.tunnel import Tunnel
    from telehelper.datapath.vif import Vif
    from telehelper.messages import Message

REQUESTS: Final = (GetFlows, GetEvents, GetLatency, Watch, Unwatch)
SAMPLE_INTERVAL: Final = 1.0  # seconds
TABLES_KEPT: Final = 1.0  # seconds that the tables that are told whole are not made anew
ROUTES_TOLD: Final = 20  # events of one change of the routes
FAILED_NAMES_KEPT: Final = 300  # events; whoever is on this machine may ask for names
_TABLES: Final = ("cidrs", "phases")  # of Status, which are not told with it

# Kinds of events; those of flows that failed are in core/flows.py
CONNECTED: Final = "connected"
TUNNEL_DOWN: Final = "tunnel down"
TUNNEL_UP: Final = "tunnel up"
DNS_FAILED: Final = "DNS failed"
ROUTES: Final = "routes"
NOTE: Final = "note"


class Owners(Protocol):
    """Who knows whose flows are. Nothing here may block."""

    def flow_opened(self, flow: int, five_tuple: FiveTuple) -> None:
        """Learn of a new flow: its SYN has come, or its first datagram, and its OPEN has not been sent yet.

        Who finds out only later whose it is says so by :meth:`Observer.touch`.
        """

    def owner_of(self, flow: int) -> Owner:
        """Return whose flow it is, as far as is known."""

    def forget(self, flow: int) -> None:
        """Learn that a flow is over and its owner will not be asked for any more."""


class Places(Protocol):
    """Who knows what an address is in the cluster. Nothing here may block."""

    def place_of(self, address: Address) -> Place:
        """Return what an address is, as far as is known. Asked often: a look-up, no search."""


class Nobody:
    """Knows no owners."""

    def flow_opened(self, flow: int, five_tuple: FiveTuple) -> None:
        """See :class:`Owners`."""

    def owner_of(self, _flow: int) -> Owner:
        """See :class:`Owners`."""
        return NOBODY

    def forget(self, flow: int) -> None:
        """See :class:`Owners`."""


class Nowhere:
    """Knows no places."""

    def place_of(self, _address: Address) -> Place:
        """See :class:`Places`."""
        return NOWHERE


class Observer:
    """Sees all that the data plane shows.

    Parameters
    ----------
    vif, tunnel
        Whose flows, names and routes, and whose round trip it shows.
    status
        Describes the connection.

    Attributes
    ----------
    owners, places
        Who knows whose flows are, and where they lead.
    history, events, latencies, series
        What is kept.
    """

    def __init__(self, vif: Vif, tunnel: Tunnel, status: Callable[[], Status]) -> None:
        self.owners: Owners = Nobody()
        self.places: Places = Nowhere()
        self.events = EventLog(few={NOT_YOURS: STRANGERS_KEPT, DNS_FAILED: FAILED_NAMES_KEPT})
        self.latencies = Latencies()
        self.series = Series()
        self.history = History(vif, self, self.latencies, self._closed)
        self._lookups = Lookups()
        self._vif = vif
        self._tunnel = tunnel
        self._status = status
        self._watchers: dict[Kernel, Watcher] = {}
        self._tables: dict[str, str] = {}
        self._tables_at = -TABLES_KEPT
        self._plan: RoutePlan | None = None
        self._sampling: asyncio.TimerHandle | None = None
        vif.flow_opened = self._flow_opened
        vif.namer.ended = self._lookup_ended

    def start(self) -> None:
        """Begin to take samples: the connection is up."""
        self.events.note(CONNECTED, self._status().context)
        self._sample()

    def _sample(self) -> None:
        self._sampling = asyncio.get_running_loop().call_later(SAMPLE_INTERVAL, self._sample)
        self.series.sample(time.time(), self._tunnel.rtt, self._vif.totals)
        self.history.settle()
        self._look_at_routes()

    def close(self) -> None:
        """Take no more samples, tell nobody any more."""
        if self._sampling is not None:
            self._sampling.cancel()
        for watcher in self._watchers.values():
            watcher.close()
        self._watchers.clear()

    # --- what kernels ask

    async def answer(self, request: Message, kernel: Kernel) -> Message:
        """Carry out one of `REQUESTS`."""
        match request:
            case GetFlows():
                await self.refresh()
                return FlowTable(time.time(), self.history.text(), self._vif.drops)
            case GetEvents():
                self.history.take_closed()
                return EventTable(self.events.rows())
            case GetLatency():
                await self.refresh()
                return LatencyTable(time.time(), self.latencies.rows(self.series.rtts))
            case Watch():
                watcher = self._watchers.get(kernel)
                if watcher is None:
                    watcher = self._watchers[kernel] = Watcher(kernel, self)
                return await watcher.watch(request.interval)
            case Unwatch():
                self.kernel_left(kernel)
                return Done()
        raise ControlError(f"{type(request).__name__} is not about what there is to see")

    def kernel_left(self, kernel: Kernel) -> None:
        """Learn that a kernel does not watch any more."""
        watcher = self._watchers.pop(kernel, None)
        if watcher is not None:
            watcher.close()

    # --- what others find out

    def touch(self, flow: int) -> None:
        """Learn that a flow's owner has become known."""
        self.history.touch(flow)

    def places_changed(self) -> None:
        """Learn that addresses have become something else in the cluster."""
        self.history.places_changed()

    def kept_out(self, who: str, line: str) -> None:
        """Learn that a flow was refused because it is another user's."""
        self.events.note(NOT_YOURS, who, line)

    def _flow_opened(self, stats: FlowStats) -> None:
        if stats.five_tuple.dst == self._vif.router.resolver:
            return  # a question to us: of these nothing is kept
        stats.dns = self._lookups.take(stats.five_tuple.dst, stats.opened_at)
        self.owners.flow_opened(stats.flow, stats.five_tuple)
        self.places.place_of(stats.five_tuple.dst)  # so that it is known when it is asked for

    def _lookup_ended(self, ended: Ended) -> None:
        if ended.failure and not is_ours(ended.name):
            self.events.note(DNS_FAILED, ended.name, ended.failure)
        elif ended.addresses:
            now = time.monotonic()
            self._lookups.note(ended.addresses, now - ended.started, now)

    def _closed(self, records: Sequence[FlowRecord]) -> None:
        """Note the failures among flows that have closed; many of a kind at once if the tunnel was lost."""
        failed = Counter(
            (record.failure, record.five_tuple.dst, record.five_tuple.dport, reason_of(record))
            for record in records
            if record.failure and not record.is_strangers
        )
        for (failure, dst, dport, reason), count in failed.items():
            subject = service_of(dst, dport, self.name_of(dst), self.place_of(dst))
            self.events.note(failure, subject, reason, count)

    def _look_at_routes(self) -> None:
        """Note what has changed of the routes; the first plan is no change."""
        before, plan = self._plan, self._vif.router.plan
        self._plan = plan
        if plan is None or before is None or plan is before:
            return
        old, new = set(before.routes), set(plan.routes)
        changes = [(network, "routed to the cluster now") for network in plan.routes if network not in old]
        changes += [(network, "not routed any more") for network in before.routes if network not in new]
        for network, detail in changes[:ROUTES_TOLD]:
            self.events.note(ROUTES, str(network), detail)

    # --- for the history: what others know

    def name_of(self, address: Address) -> str:
        """See :class:`~telehelper.datapath.history.Surroundings`."""
        return self._vif.namer.names.get(address, "")

    def owner_of(self, flow: int) -> Owner:
        """See :class:`~telehelper.datapath.history.Surroundings`."""
        return self.owners.owner_of(flow)

    def place_of(self, address: Address) -> Place:
        """See :class:`~telehelper.datapath.history.Surroundings`."""
        return self.places.place_of(address)

    def forget(self, flow: int) -> None:
        """See :class:`~telehelper.datapath.history.Surroundings`."""
        self.owners.forget(flow)

    # --- for watchers

    async def refresh(self) -> None:
        """See :class:`~telehelper.datapath.watcher.View`."""
        await self.history.refresh()

    def head(self) -> dict[str, object]:
        """See :class:`~telehelper.datapath.watcher.View`."""
        status = self._status()
        told = {name: getattr(status, name) for name in _STATUS}
        return {"at": round(time.time(), 3), "status": told}

    def tables(self) -> Mapping[str, str]:
        """See :class:`~telehelper.datapath.watcher.View`."""
        now = time.monotonic()
        if now - self._tables_at >= TABLES_KEPT:
            self._tables_at = now
            rows = {
                "cidrs": self._status().cidrs,
                "routes": self._vif.router.rows(self._vif.namer.names),
                "latency": self.latencies.rows(self.series.rtts),
            }
            self._tables = {name: dump([values_of(row) for row in table]) for name, table in rows.items()}
        return self._tables


_STATUS: Final = tuple(field.name for field in fields(Status) if field.name not in _TABLES)
