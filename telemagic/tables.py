"""What can be asked about a connection, as tables: flows, latencies, events, routes, services, pods, names, connects."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, TypeVar

from telehelper import messages, observing, views

from telemagic import attribution, choosing, cluster_frames, frames, live, looking, ping, schema, watching

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    import pandas as pd

    from telemagic.choosing import Since
    from telemagic.feed import Feed
    from telemagic.watching import Change

M = TypeVar("M", bound=messages.Message)

ANSWER_PATIENCE: Final = 10.0  # seconds for a table; a full one takes well under one
LIST_PATIENCE: Final = 35.0  # seconds for what is asked of the API server; the data plane's own limit is 30
LOOKUP_PATIENCE: Final = (
    20.0  # seconds for a name; the data plane's own limit is 12, and a list of services after it
)


class Tables:
    """The questions of a :class:`telemagic.connection.Connection`, which knows how to ask them."""

    context: str
    namespace: str
    feed: Feed
    _cluster_domain: str = ""

    def _ask(self, request: messages.Message, expect: type[M], patience: float = ANSWER_PATIENCE) -> M:
        raise NotImplementedError

    @schema.documents(frames.FLOW_SCHEMA)
    def flows(
        self,
        since: Since | None = None,
        service: str | None = None,
        state: str | None = None,
        cell: int | str | None = None,
        top: int | None = None,
        sort: str | None = None,
    ) -> pd.DataFrame:
        """Return who talked to what: flows that are open, and closed ones as long as they are kept.

        Parameters
        ----------
        since
            Only flows that were there since then, opened before or not: "5m", "90s", a number of seconds or a
            `timedelta` ago; or a `datetime`.
        service
            Only flows to this one: `postgres.shop`, `postgres`, `postgres.shop:5432`, a pod, an address, or a pattern
            such as `*.shop`.
        state
            Only those that are "open" or "closed", or in a state such as "ESTABLISHED".
        cell
            Only those of this cell: its number in In[n], or "last" for the last one that opened any. In a notebook,
            cells are its own; in a script or a shell those of any notebook.
        top
            Only so many: the first in order, or those with the most bytes if no order is given.
        sort
            Column to sort by: largest and latest first, texts from A to Z, unknown last.

        Returns
        -------
        DataFrame
            One row per flow, newest last unless sorted; index 0…n-1. What is not known is NA, NaN, NaT or empty.
            `attrs["telemagic"]` holds `taken_at`, `context`, `units`, `drops` (packets that were ignored, by reason)
            and `notices`.

        Raises
        ------
        UsageError
            A value that cannot be; the message names those that can.
        """
        table = frames.flows(self._ask(observing.GetFlows(), observing.FlowTable), self.context)
        shell = live.current_shell()
        return choosing.flows(
            table,
            since=since,
            service=service,
            state=state,
            cell=cell,
            kernel=os.getpid(),
            notebook=attribution.notebook_name(shell) if shell is not None else "",
            top=top,
            sort=sort,
        )

    @schema.documents(frames.LATENCY_SCHEMA)
    def latency(self) -> pd.DataFrame:
        """Return how long services take to answer, over the flows that are kept.

        Returns
        -------
        DataFrame
            One row per service, the tunnel itself first; index 0…n-1.
        """
        return frames.latency(self._ask(observing.GetLatency(), observing.LatencyTable), self.context)

    @schema.documents(frames.EVENT_SCHEMA)
    def events(self, since: Since | None = None) -> pd.DataFrame:
        """Return what happened: a lost tunnel, refused connects, names that do not exist, and so on.

        Parameters
        ----------
        since
            Only what happened since then, as in :meth:`flows`.

        Returns
        -------
        DataFrame
            One row per event, newest last; index 0…n-1.
        """
        table = frames.events(self._ask(observing.GetEvents(), observing.EventTable), self.context)
        return choosing.events(table, since)

    def watch(self, interval: float = 0.5) -> AsyncGenerator[Change, None]:
        """Return an async iterator over what changes, which ends with the connection.

        ::

            async for change in tele.watch():
                for event in change.events:
                    print(event)
                slow = change.flows.query("connect_ms > 100")
                if len(slow):
                    print(slow[["service", "cell", "connect_ms"]])

        The first change has everything that is there. Runs on whatever event loop iterates it: a notebook's, or that of
        `asyncio.run`. A loop that is slower than the changes misses nothing: what came meanwhile is one change.
        Breaking off or being cancelled ends the watching.

        Parameters
        ----------
        interval
            Seconds between two changes at least.

        Returns
        -------
        async iterator of Change
            `change.flows` is a DataFrame as :meth:`flows` returns it, of the flows that are new or have changed;
            `change.events` are objects with `at`, `kind`, `subject`, `detail`, `count`; `change.status` is the status
            as plain data; `change.gone` are the numbers of flows that are kept no longer; `change.at` is Unix seconds.

        Raises
        ------
        HelperLost, NotConnected
            There is nothing to be watched any more.
        """
        return watching.changes(self.feed, interval)

    @schema.documents(frames.ROUTE_SCHEMA)
    def routes(self, *, conflicts: bool = False) -> pd.DataFrame:
        """Return what is routed to the cluster.

        Parameters
        ----------
        conflicts
            Only networks that this machine has too.

        Returns
        -------
        DataFrame
            One row per route, the plan by address, then what names led to; index 0…n-1.
        """
        table = frames.routes(self._ask(messages.GetRoutes(), messages.RouteTable), self.context)
        return choosing.routes(table, conflicts=conflicts)

    @schema.documents(cluster_frames.SERVICE_SCHEMA)
    def services(self, namespace: str = "", *, everywhere: bool = False) -> pd.DataFrame:
        """Return the services there are, as far as your rights show them.

        Parameters
        ----------
        namespace
            Only this one; the connected one unless given.
        everywhere
            All namespaces; where that is not allowed, the connected one, and a notice says so.

        Returns
        -------
        DataFrame
            One row per service, by namespace and name; index 0…n-1.
            `attrs["telemagic"]["notices"]` says what is missing.
        """
        request = views.GetServices(namespace, everywhere)
        return cluster_frames.services(self._ask(request, views.ServiceTable, LIST_PATIENCE), self.context)

    @schema.documents(cluster_frames.POD_SCHEMA)
    def pods(self, namespace: str = "", *, everywhere: bool = False) -> pd.DataFrame:
        """Return the pods there are, as far as your rights show them; parameters as in :meth:`services`.

        Returns
        -------
        DataFrame
            One row per pod, by namespace and name; index 0…n-1.
            `attrs["telemagic"]["notices"]` says what is missing.
        """
        request = views.GetPods(namespace, everywhere)
        return cluster_frames.pods(self._ask(request, views.PodTable, LIST_PATIENCE), self.context)

    @schema.documents(cluster_frames.LOOKUP_SCHEMA)
    def resolve(self, name: str, rtype: str = "A") -> pd.DataFrame:
        """Look a name up as programs do: by telemagic's resolver, and by this machine's getaddrinfo beside it.

        Returns
        -------
        DataFrame
            One row per answer, at least one; index 0…n-1. `attrs["telemagic"]` holds `rcode`, `server`, `system` and `agree`.
        """
        kind = rtype.upper()
        said = self._ask(views.Resolve(name, kind), views.Resolved, LOOKUP_PATIENCE)
        said = self._directory().explain(said)
        family = looking.family_of(name, kind)
        system = looking.ask_system(name, family) if family is not None else None
        lines, agree = looking.compare(name, kind, said, system)
        found = system.addresses if system is not None else ()
        return cluster_frames.lookup(lines, said, found, agree, self.context)

    @schema.documents(cluster_frames.PING_SCHEMA)
    def ping(self, target: str, *, count: int = 4, timeout: float = 5.0) -> pd.DataFrame:
        """Connect to a service or a pod by TCP, several times, from this machine through the tunnel.

        Parameters
        ----------
        target
            `postgres.shop`, `postgres.shop:5432`, `catalog.shop:http`, a pod's name, or an address with a port.
        count, timeout
            How often, and for how many seconds at most each.

        Returns
        -------
        DataFrame
            One row per try; index 0…n-1.
        """
        ping.check(count, timeout)
        goal = self._directory().goal(target)
        tries = list(ping.ping(goal.address, goal.port, count=count, timeout=timeout, rtt=self._rtt))
        return cluster_frames.pings(tries, self.context, goal.notices)

    def url(self, target: str, port: str | int = "") -> str:
        """Return the address of a service with its port.

        Parameters
        ----------
        target
            `postgres.shop` gives `postgres.shop:5432`; a URL stays one: `http://catalog.shop/products` gives
            `http://catalog.shop:8000/products`, and of several ports its scheme chooses.
        port
            Name or number, where the service has several.

        Raises
        ------
        UsageError
            There is no such service or port, or several to choose from; the hint names them.
        """
        return self._directory().url(target, str(port))

    def _directory(self) -> looking.Directory:
        def services(namespace: str) -> tuple[views.ServiceRow, ...]:
            request = views.GetServices(namespace, everywhere=not namespace)
            return self._ask(request, views.ServiceTable, LIST_PATIENCE).rows

        def pods(namespace: str) -> tuple[views.PodRow, ...]:
            return self._ask(views.GetPods(namespace), views.PodTable, LIST_PATIENCE).rows

        return looking.Directory(services, pods, self.namespace, self._cluster_domain)

    def _rtt(self) -> float:
        return self._ask(messages.GetStatus(), messages.Status).rtt
