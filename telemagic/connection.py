"""A connection: what users ask about a cluster that answers here by name."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any, Final, TypeVar

from telehelper import messages, observing, views
from telehelper.errors import HelperLost, NotConnected

from telemagic import cards, cluster_frames, frames, live, looking, ping
from telemagic.results import Status

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    import pandas as pd

    from telemagic.connecting import Target
    from telemagic.control import ControlClient
    from telemagic.loop import LoopThread

M = TypeVar("M", bound=messages.Message)

ANSWER_PATIENCE: Final = 10.0  # seconds for a table; a full one takes well under one
LIST_PATIENCE: Final = 35.0  # seconds for what is asked of the API server; the data plane's own limit is 30
LOOKUP_PATIENCE: Final = (
    20.0  # seconds for a name; the data plane's own limit is 12, and a list of services after it
)
UNDO_PATIENCE: Final = 8.0  # seconds for a disconnect: the data plane's own undo is bounded by 5


class Connection:
    """A cluster that is connected to this process; ends with :meth:`disconnect` or its `with` block.

    Attributes
    ----------
    context
        Name of the kubeconfig's context.
    lost
        Why the helper has gone, in one line; empty while it is there.
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

    @property
    def is_open(self) -> bool:
        """Whether it can still be asked: neither disconnected nor lost."""
        return self._client is not None and not self.lost

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

    def flows(self) -> pd.DataFrame:
        """Return who talked to what.

        Returns
        -------
        DataFrame
            One row per flow, newest last; index 0…n-1. flow, sport, dport: Int64; protocol, state: category; src,
            dst, service, reason: str; opened, closed: datetime64[ns, UTC]; connect_ms, first_byte_ms: float64 [ms];
            bytes_up, bytes_down: Int64 [bytes]; packets_up, packets_down: Int64. Unknown is NaT or NaN.
        """
        return frames.flows(self._ask(observing.GetFlows(), observing.FlowTable), self.context)

    def routes(self) -> pd.DataFrame:
        """Return what is routed to the cluster.

        Returns
        -------
        DataFrame
            One row per route; index 0…n-1. cidr, source, detail: str; device, kind, state: category.
        """
        return frames.routes(self._ask(messages.GetRoutes(), messages.RouteTable), self.context)

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
            One row per service, by namespace and name; index 0…n-1. name, dns_name, url, ports, cluster_ip, selector,
            external_name: str; namespace, type: category; ready, endpoints: Int64 [endpoints], NA where unknown. `url`
            is a guess by the ports' names and numbers, and empty where they say nothing.
            `attrs["telemagic"]["notices"]` says what is missing.
        """
        request = views.GetServices(namespace, everywhere)
        return cluster_frames.services(self._ask(request, views.ServiceTable, LIST_PATIENCE), self.context)

    def pods(self, namespace: str = "", *, everywhere: bool = False) -> pd.DataFrame:
        """Return the pods there are, as far as your rights show them; parameters as in :meth:`services`.

        Returns
        -------
        DataFrame
            One row per pod, by namespace and name; index 0…n-1. name, ready ("1/2"), ip, image, owner: str; namespace,
            phase, node: category; restarts: Int64; started: datetime64[ns, UTC], NaT before the start.
            `attrs["telemagic"]["notices"]` says what is missing.
        """
        request = views.GetPods(namespace, everywhere)
        return cluster_frames.pods(self._ask(request, views.PodTable, LIST_PATIENCE), self.context)

    def resolve(self, name: str, rtype: str = "A") -> pd.DataFrame:
        """Look a name up as programs do: by telemagic's resolver, and by this machine's getaddrinfo beside it.

        Returns
        -------
        DataFrame
            One row per answer, at least one; index 0…n-1. name, answer, asked, note: str; type, answered_by: category
            (cluster, cache, machine: its own nameservers, nobody, or "this machine only": getaddrinfo alone says so);
            ttl_s: Int64 [s]; time_ms: float64 [ms]; system: boolean, whether getaddrinfo gives the answer too, NA
            where it knows no such records. `asked` is the full name that was asked, `note` says why there is no
            answer. `attrs["telemagic"]` holds `rcode`, `server`, `system` and `agree`.
        """
        kind = rtype.upper()
        said = self._ask(views.Resolve(name, kind), views.Resolved, LOOKUP_PATIENCE)
        said = self._directory().explain(said)
        family = looking.family_of(name, kind)
        system = looking.ask_system(name, family) if family is not None else None
        lines, agree = looking.compare(name, kind, said, system)
        found = system.addresses if system is not None else ()
        return cluster_frames.lookup(lines, said, found, agree, self.context)

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
            One row per try; index 0…n-1. try, port: Int64; address, reason: str; state: category (connected, refused,
            unreachable, timeout, …); connect_ms, tunnel_ms, cluster_ms, first_byte_ms: float64 [ms], NaN where there
            is none. tunnel_ms is the tunnel's round trip, cluster_ms what a connect took longer; first_byte_ms is
            there if the server speaks first.
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

    def leave(self) -> None:
        """Close the control connection, asking nothing."""
        client, self._client = self._client, None
        if client is not None:
            self._loop.run(client.close(), ANSWER_PATIENCE)
        self.on_end()

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

    def _directory(self) -> looking.Directory:
        def services(namespace: str) -> tuple[views.ServiceRow, ...]:
            request = views.GetServices(namespace, everywhere=not namespace)
            return self._ask(request, views.ServiceTable, LIST_PATIENCE).rows

        def pods(namespace: str) -> tuple[views.PodRow, ...]:
            return self._ask(views.GetPods(namespace), views.PodTable, LIST_PATIENCE).rows

        return looking.Directory(services, pods, self.namespace, self._first.cluster_domain)

    def _rtt(self) -> float:
        return self._ask(messages.GetStatus(), messages.Status).rtt

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
