"""The session of a process: at most one connection, and the way to it. What `%tele` and scripts share."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import threading
import time
import weakref
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

from telehelper.errors import AlreadyConnected, NotConnected
from telehelper.messages import Message, PhaseChanged, TunnelChanged

from telemagic import attribution, config, hangup, in_cluster, live, names
from telemagic.connection import Connection
from telemagic.loop import CANCEL_PATIENCE, AsyncForeground, BlockingForeground, Job, LoopThread
from telemagic.plan import Plan, broke_off
from telemagic.progress import Progress
from telemagic.target import Target, resolve

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from telehelper import messages

    from telemagic.cards import Card
    from telemagic.connecting import Launch
    from telemagic.control import ControlClient
    from telemagic.target import ConnectOptions

T = TypeVar("T")

EXIT_PATIENCE: Final = 1.5  # seconds; a front end kills a kernel that takes longer than 2.5 to end

_DOWN: Final = "the tunnel is down: "  # how a notice begins that goes with the next change

_Up = tuple["ControlClient", "messages.Status"]


class Session:
    """Holds the connection of this process.

    `prog` is what the user types before a subcommand.

    Parameters
    ----------
    launch
        How the helper is started; `telemagic.launch.start` unless given.
    """

    prog = "%tele"

    def __init__(self, launch: Launch | None = None) -> None:
        self._launch = launch
        self._loop = LoopThread()
        self._connection: Connection | None = None
        self._demo: Any = None  # the demo cluster's owner, while connected with demo=True
        self._forked = False
        self._turn = threading.Lock()  # held by the connect that is under way
        self._registered = False
        self._progress_after = config.BUILT_IN.progress_after
        _sessions.add(self)

    # --- connect -------------------------------------------------------------------------------------------------

    def connect(
        self, options: ConnectOptions, *, demo: bool = False, viewer: live.Viewer | None = None
    ) -> Connection:
        """Connect, blocking; an interrupt undoes everything begun before it goes on.

        Raises
        ------
        AlreadyConnected
            To another cluster, or with other options; or another connect of this process is under way.
        TelemagicError
            Whatever else went wrong; nothing is left behind then.
        """
        viewer = viewer or self.viewer()
        with self._connecting(viewer) as progress:
            if demo:
                report = self._demo_begins(progress, viewer)
                options = self._own_demo(options)
                report()
            plan = self._plan(options, viewer, progress, demo=demo)
            if isinstance(plan, Connection):
                return plan
            foreground = BlockingForeground(viewer.tick, self._progress_after)
            job: Job[_Up] = Job()
            try:
                self._loop.start(job, plan.start(foreground).run())
                return self._connected(plan, foreground.run(job))
            except BaseException:
                self._discard(job)
                raise

    async def aconnect(
        self, options: ConnectOptions, *, demo: bool = False, viewer: live.Viewer | None = None
    ) -> Connection:
        """Connect, awaiting on the caller's event loop; as :meth:`connect`."""
        viewer = viewer or self.viewer()
        with self._connecting(viewer) as progress:
            if demo:
                report = self._demo_begins(progress, viewer)
                options = await _to_its_end(asyncio.to_thread(self._own_demo, options))
                report()
            plan = self._plan(options, viewer, progress, demo=demo)
            if isinstance(plan, Connection):
                return plan
            foreground = AsyncForeground()
            job: Job[_Up] = Job()
            self._loop.start(job, plan.start(foreground).run())
            tick = asyncio.get_running_loop().call_later(self._progress_after, viewer.tick)
            try:
                return self._connected(plan, await foreground.run(job))
            except BaseException:
                self._discard(job)
                raise
            finally:
                tick.cancel()

    @contextlib.contextmanager
    def _connecting(self, viewer: live.Viewer) -> Iterator[Progress]:
        """Let nobody else connect meanwhile, and say and tidy up where it breaks off."""
        # Nobody may wait here: the other one may be a coroutine of this very thread.
        if not self._turn.acquire(blocking=False):
            raise AlreadyConnected("this process is connecting already", hint="wait until that is done")
        progress = Progress("")
        try:
            yield progress
        except BaseException as error:
            broke_off(progress, viewer, error)
            self._release_demo()
            raise
        finally:
            self._turn.release()

    def viewer(self) -> live.Viewer:
        """Choose how a connect shows itself when nobody says."""
        return live.viewer_for(live.current_shell())

    def _already_inside(self) -> Connection:
        if self._connection is None or not self._connection.is_open:
            self._connection = in_cluster.InCluster()
            self._connection.on_end = self._over
        return self._connection

    def _plan(
        self, options: ConnectOptions, viewer: live.Viewer, progress: Progress, *, demo: bool
    ) -> Plan | Connection:
        """Return what is to be done, or the connection if there is nothing to do."""
        if not demo and in_cluster.applies(options):
            return self._already_inside()
        target = resolve(options)
        self._progress_after = config.current().progress_after
        current = self.connection
        if current is not None and (current.lost or current.target is None):
            self.disconnect()  # there is nothing to leave: it has gone, or stands for no connection at all
            current = None
        if current is not None:
            return self._same(current, target)
        if self._launch is None:
            from telemagic import launch  # late: only a connect needs it

            self._launch = launch.start
        if not self._registered:
            atexit.register(self.close)
            self._registered = True
        self._forked = False
        return Plan(target, viewer, progress, self._launch, self._tunnel_changed, self._lost)

    def _same(self, connection: Connection, target: Target) -> Connection:
        was = connection.target
        assert was is not None  # noqa: S101  # set by _connected
        if was.socket != target.socket or was.context.name != target.context.name:
            raise AlreadyConnected(f"connected to {connection.context} already, not to {target.context.name}")
        differ = [
            name
            for name, old, new in (
                ("namespace", was.namespace, target.namespace),
                ("also-proxy", was.options.also_proxy, target.options.also_proxy),
                ("never-proxy", was.options.never_proxy, target.options.never_proxy),
                ("dns", was.options.dns, target.options.dns),
                ("carrier", was.options.carrier, target.options.carrier),
                ("cidr", was.options.cidrs, target.options.cidrs),
                ("on-conflict", was.options.on_conflict, target.options.on_conflict),
                ("via", was.options.via, target.options.via),
                ("share", was.options.share, target.options.share),
                ("allow-wide", was.options.allow_wide, target.options.allow_wide),
                ("manager-namespace", was.options.manager_namespace, target.options.manager_namespace),
            )
            if old != new
        ]
        if differ:
            raise AlreadyConnected(
                f"connected to {connection.context} already, with another {', '.join(differ)}"
            )
        connection.remark = f"already connected to {connection.context}"
        connection.is_new = False
        return connection

    def _connected(self, plan: Plan, up: _Up) -> Connection:
        client, status = up
        connection = Connection(self._loop, client, status)
        connection.target = plan.target
        if client.welcome.connected:
            connection.notices = ("another notebook's data plane is shared; its options apply",)
        asked, has = plan.target.options.namespace, status.namespace
        if asked and asked != has:
            raise AlreadyConnected(
                f"another notebook is connected to {status.context} with namespace {has}, not {asked}",
                hint=f"use --namespace {has}, or full names like svc.{asked}",
            )
        connection.notices = (*connection.notices, *names.connected(status))
        connection.on_end = self._over
        self._connection = connection
        attribution.connected(connection)
        plan.viewer.connected(status, time.monotonic() - plan.began, connection.notices)
        if plan.viewer.shown:
            connection.shown_in = getattr(live.current_shell(), "execution_count", None)
            connection.standing.add(plan.viewer.display)
        return connection

    def _discard(self, job: Job[_Up]) -> None:
        # The interrupt may come after the last step: then there is a connection, and nobody to have it.
        if job.end(CANCEL_PATIENCE) and job.future.exception() is None:
            connection = Connection(self._loop, *job.future.result())
            connection.on_end = self._over
            connection.end(EXIT_PATIENCE)

    # --- connected -----------------------------------------------------------------------------------------------

    @property
    def connection(self) -> Connection | None:
        """The connection, lost or not, or None."""
        if self._connection is not None and self._connection.is_over:
            self._over()  # an interrupt came before it could say so itself
        return self._connection

    def current(self, context: str = "") -> Connection:
        """Return the connection, which must be to `context` if that is given.

        Raises
        ------
        NotConnected
            There is none.
        """
        found = self.connection
        if found is None:
            what = "this process was forked from the connected one" if self._forked else "not connected"
            raise NotConnected(what)
        if context and found.context != context:
            raise NotConnected(f"connected to {found.context}, not to {context}")
        return found

    def disconnect(self, context: str = "") -> Card:
        """End the connection; returns a card that sums it up.

        Raises
        ------
        NotConnected
            There is none.
        """
        return self.current(context).disconnect()

    def close(self) -> None:
        """End the connection, if any, within two seconds, and stop the background thread; as at exit."""
        if self._connection is not None:
            self._connection.end(EXIT_PATIENCE)
        self._loop.close()
        atexit.unregister(self.close)
        self._registered = False

    def _over(self) -> None:
        self._connection = None
        names.disconnected()
        self._release_demo()

    def _tunnel_changed(self, event: Message) -> None:
        if self._connection is None:
            return
        self._connection.feed.dispatch(event)
        if isinstance(event, TunnelChanged):
            standing = [line for line in self._connection.notices if not line.startswith(_DOWN)]
            self._connection.notices = (*standing, *(() if event.up else (f"{_DOWN}{event.reason}",)))

    def _lost(self, reason: str) -> None:
        if self._connection is not None:
            self._connection.lose(reason)
            self._connection.feed.lost(reason)
            hangup.hang_up(self._connection.addresses)
        names.disconnected()  # the resolver that this process may be pointed at has gone

    def after_fork(self) -> None:
        """Let go of what a forked child must not use: the socket, and a thread that it does not have."""
        if self._connection is not None:
            self._connection.forget()
            self._forked = True
        self._connection = self._demo = None
        self._turn = threading.Lock()
        self._loop.abandon()

    # --- the demo cluster ----------------------------------------------------------------------------------------

    def _demo_begins(self, progress: Progress, viewer: live.Viewer) -> Callable[[], None]:
        """Show that a demo cluster is being started, at once; call the result when it is up."""
        if self._connection is not None and self._connection.lost:
            kept, self._demo = self._demo, None  # still there; ended, it could not be had again at once
            self.disconnect()
            self._demo = kept
        if self._demo is not None:
            return lambda: None
        current = self._connection
        if current is not None and current.target is not None:
            raise AlreadyConnected(f"connected to {current.context} already, not to the demo cluster")
        began = time.monotonic()
        progress.context = "demo"
        viewer.begin(progress)

        def tell(state: str, seconds: float) -> None:
            change = PhaseChanged("demo", state, "", seconds)
            progress.update(change)
            viewer.changed(change)

        tell("started", 0.0)
        viewer.tick()
        return lambda: tell("done", time.monotonic() - began)

    def _own_demo(self, options: ConnectOptions) -> ConnectOptions:
        from telemagic import demo  # late: needs packages that only the demo has

        if self._demo is None:
            self._demo = demo.ensure(owned=True)
            self._demo.attach()
        return replace(
            options,
            context=options.context or self._demo.context,
            namespace=options.namespace or self._demo.namespace,
            kubeconfig=str(self._demo.kubeconfig),
            demo=True,
        )

    def _release_demo(self) -> None:
        if self._connection is None and self._demo is not None:
            owned, self._demo = self._demo, None
            owned.close()


async def _to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """Await what cannot be broken off, such as a thread: being cancelled waits for its end too, so that it can be undone."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


_sessions: weakref.WeakSet[Session] = weakref.WeakSet()
_current: list[Session] = []


def session() -> Session:
    """Return this process's session."""
    if not _current:
        _current.append(Session())
    return _current[0]


def use(other: Session) -> None:
    """Make `other` this process's session, as tests with a launcher of their own do."""
    _current[:] = [other]


def _after_fork() -> None:
    for one in list(_sessions):
        one.after_fork()


os.register_at_fork(after_in_child=_after_fork)
