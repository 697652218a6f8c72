"""One fault made to happen to a connection, and what came of its promise: `%tele fault NAME`.

What is broken is this user's own data plane, or a demo cluster; nothing that anybody else uses. Whatever happens here, an
interrupt too, what was broken for a while is mended at the end.
"""

from __future__ import annotations

import contextlib
import socket
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from telehelper.errors import HelperLost, NotConnected, TelemagicError, UsageError

from telemagic import connected_cell, production, surgery
from telemagic.outcome import Rehearsal
from telemagic.promises import BY_NAME, CONNECTION, NOTHING, OPTIONS, PROMISES, Outcome, Promise

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from telemagic.connection import Connection
    from telemagic.demo.client import Demo

PATIENCE: Final = 3.0  # times what is promised; then it was not kept
POLL: Final = 0.05  # seconds between two looks
SETTLING: Final = 0.5  # seconds in which a data plane that goes on finds out what it has missed
IDLE: Final = (
    "tally.shop",
    7000,
)  # of the demo cluster: says nothing until it is told that nothing more comes
HEALTH: Final = ("catalog.shop", 8000)


class Missed(Exception):
    """Something that was promised did not come, even when waited for longer."""


class _Address(NamedTuple):
    host: str
    port: int


def possible(connection: Connection) -> frozenset[str]:
    """Return the faults that can be made to happen to a connection."""
    found: set[str] = set()
    if surgery.is_within_reach(connection.datapath_pid):
        found |= {one.fault for one in PROMISES if not one.of_demo}
    if connection.status.via == "manager" and (demo := surgery.demo_of(connection)) is not None:
        demo.close()
        found |= {one.fault for one in PROMISES if one.of_demo}
    return frozenset(found)


def warnings(connection: Connection) -> list[str]:
    """Say who else uses the connection, and will notice."""
    found = []
    if (others := surgery.kernels_at(connection.socket_path) - 1) > 0:
        found.append(
            f"shared with {others} other kernel{'s' if others > 1 else ''}, whose flows feel it, too"
        )
    if connected_cell.is_running():
        found.append("a %%tele cell is under way, whose flows feel it, too")
    return found


def rehearse(
    connection: Connection,
    name: str,
    service: tuple[str, int] | None = None,
    *,
    force: bool = False,
    say: Callable[[list[str]], object] = lambda _: None,
) -> Rehearsal:
    """Make a fault happen, wait for what is promised, and mend it.

    Parameters
    ----------
    name
        Of the fault.
    service
        Address and port of a service to which a connection is opened before, to see how it ends. A demo cluster has its
        own.
    force
        Also to a cluster that is production.
    say
        Told in lines what is about to happen, and who else will notice.

    Raises
    ------
    UsageError
        There is no such fault, not for this connection, or not without `force`.
    NotConnected, HelperLost
        There is nothing to break any more.
    """
    if name not in BY_NAME:
        raise UsageError(f"there is no fault {name!r}", hint="one of: " + ", ".join(BY_NAME))
    promise = BY_NAME[name]
    if (pattern := production.pattern_of(connection.context)) and not force:
        raise UsageError(
            f"{connection.context} matches {pattern}, so it is production, and {name} would break it for {promise.within:g} s or so",
            hint="--force if you mean it",
        )
    if name not in possible(connection):
        raise _impossible(promise, connection)
    report = Rehearsal(promise, connection.context, warnings(connection))
    with contextlib.ExitStack() as stack:
        demo = surgery.demo_of(connection)
        if demo is not None:
            stack.enter_context(demo)
        place = service or (IDLE if demo is not None else None)
        flow = None
        # Of a data plane that was killed only the flows of the kernel that is connected are ended (hangup.py).
        is_ours = promise.outcome is Outcome.LOST and connection.target is not None
        if place is not None and (is_ours or promise.outcome is Outcome.RESET):
            flow = stack.enter_context(_open(_Address(*place)))
        say(
            [
                f"{promise.fault}: {promise.happens}; within {promise.within:g} s {promise.sees}",
                *report.notices,
            ]
        )
        _Play(connection, report, flow, demo).run()
    return report


def _impossible(promise: Promise, connection: Connection) -> UsageError:
    if promise.of_demo:
        return UsageError(
            f"{promise.fault} breaks a demo cluster, and {connection.context} is none with a traffic manager",
            hint="%tele connect --demo, or data-plane-killed and data-plane-frozen, which break what is yours",
        )
    return UsageError(
        f"the data plane (pid {connection.datapath_pid}) is no process that can be signalled from here",
        hint="run this where the kernel that has connected runs, not in another container",
    )


def _open(address: _Address) -> socket.socket:
    try:
        return socket.create_connection(address, timeout=10.0)
    except OSError as error:
        raise UsageError(
            f"{address.host}:{address.port} cannot be connected to before anything is broken: {error}",
            hint="%tele status",
        ) from error


class _Play:
    """One rehearsal under way."""

    def __init__(
        self, connection: Connection, report: Rehearsal, flow: socket.socket | None, demo: Demo | None
    ) -> None:
        self._connection = connection
        self._report = report
        self._flow = flow
        self._demo = demo
        self._device = connection.status.device
        self._since = time.monotonic()

    @property
    def _promise(self) -> Promise:
        return self._report.promise

    def run(self) -> None:
        """Play it; what does not come is in the report."""
        plays = {
            Outcome.LOST: self._lost,
            Outcome.SILENT: self._silent,
            Outcome.RESET: self._reset,
            Outcome.GOES_ON: self._goes_on,
        }
        try:
            plays[self._promise.outcome]()
        except Missed as missed:
            self._report.missed = str(missed)
        self._report.remains = self._left()

    # --- what happens --------------------------------------------------------------------------------------------

    def _lost(self) -> None:
        pid = self._connection.datapath_pid
        self._begin()
        surgery.kill(pid)
        self._note(f"SIGKILL to the data plane (pid {pid})")
        self._wait(self._says_lost, "the next command says so")
        self._flow_ended()
        self._wait(lambda: not self._traces(), "device, routes and socket are gone")
        self._kept()

    def _silent(self) -> None:
        with surgery.stopped(self._connection.datapath_pid):
            self._begin()
            self._note(f"SIGSTOP to the data plane (pid {self._connection.datapath_pid})")
            self._wait(self._says_lost, "a command says so")
            self._kept()
        self._begin()
        self._note("SIGCONT")
        time.sleep(SETTLING)
        self._back()

    def _reset(self) -> None:
        with self._broken():
            self._flow_ended()
            if not self._promise.is_lasting:
                self._back()
                return
            self._kept()
        self._begin()
        self._note("it is over")
        self._back()

    def _goes_on(self) -> None:
        with self._broken():
            self._wait(self._answers, "a request to catalog.shop is answered")
            self._wait(lambda: self._state() == "connected", "the connection stands")
            self._kept()
        self._begin()
        self._note("it is over")
        self._back()

    # --- what is looked at ---------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _broken(self) -> Iterator[None]:
        """Have the demo cluster broken meanwhile."""
        assert self._demo is not None  # noqa: S101  # rehearse has looked
        fault = self._promise.fault
        self._begin()
        try:
            self._demo.fault(fault, **OPTIONS.get(fault, {}))
            self._note(self._promise.happens)
            yield
        finally:
            self._demo.fault("clear")

    def _begin(self) -> None:
        self._since = time.monotonic()

    def _note(self, text: str) -> None:
        self._report.steps.append((time.monotonic() - self._since, text))

    def _kept(self) -> None:
        self._report.seconds = max(self._report.seconds, time.monotonic() - self._since)

    def _wait(self, condition: Callable[[], object], what: str) -> None:
        """Wait until it is true; Missed after a multiple of what is promised."""
        limit = self._since + self._promise.within * PATIENCE
        while not condition():
            if time.monotonic() > limit:
                raise Missed(f"not within {self._promise.within * PATIENCE:g} s: {what}")
            time.sleep(POLL)
        self._note(what)

    def _back(self) -> None:
        self._wait(lambda: self._state() == "connected", "connected")
        if self._demo is not None:
            self._wait(self._answers, "a new connection to catalog.shop works")
        self._kept()

    def _flow_ended(self) -> None:
        """Wait until the open flow has ended, with whatever error."""
        if self._flow is None:
            return
        self._flow.settimeout(self._promise.within * PATIENCE)
        try:
            how = "its end" if not self._flow.recv(1) else "data"
        except TimeoutError:
            raise Missed(
                f"the open connection did not end within {self._promise.within * PATIENCE:g} s"
            ) from None
        except OSError as error:
            how = type(error).__name__
        self._note(f"the open connection ended: {how}")

    def _says_lost(self) -> bool:
        try:
            _ = self._connection.status
        except (HelperLost, NotConnected):
            return True
        return False

    def _state(self) -> str:
        try:
            return str(self._connection.status.state)
        except TelemagicError:
            return ""

    def _answers(self) -> bool:
        try:
            with socket.create_connection(HEALTH, timeout=self._promise.within * PATIENCE) as sock:
                sock.sendall(b"GET /health HTTP/1.0\r\n\r\n")
                return b" 200 " in sock.makefile("rb").read()
        except OSError:
            return False

    def _traces(self) -> list[str]:
        """Return what of the connection is left on this machine."""
        devices = [name for _, name in socket.if_nameindex() if name == self._device]
        return [
            *devices,
            *([str(self._connection.socket_path)] if self._connection.socket_path.exists() else []),
        ]

    def _left(self) -> str:
        if self._state():
            return CONNECTION
        return ", ".join(self._traces()) or NOTHING
