"""From options to a connected data plane: look up the cluster, attach or launch, connect; undo all of it on failure."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from telehelper import messages
from telehelper.errors import ConnectTimeout, HelperLost, SudoDenied
from telehelper.messages import Connect, GetStatus, Message, PhaseChanged

from telemagic import loop
from telemagic.control import ControlClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from telemagic.target import Target

GRACE: Final = 1.0  # seconds that the data plane gets to report its own timeout, which says more than ours
UNDO_PATIENCE: Final = 4.0  # seconds for a data plane to undo and exit; the promise to the user is 5
NOBODY_HINT: Final = (
    "first, in a terminal: {}; notebooks and scripts of yours share that connection, without a password"
)
EXIT_PATIENCE: Final = 1.5  # seconds for a process that has undone everything to exit; Python takes about 0.3
POLL: Final = 0.02  # seconds between looks at a file or lock that gives no event


class Launched(Protocol):
    """What a launcher tells of the processes it started."""

    @property
    def datapath_pid(self) -> int:
        """Process id of the data plane, which this process may signal."""

    @property
    def netd_pid(self) -> int:
        """Process id of netd, or of the sudo that waits for it."""


class Launch(Protocol):
    """Starts the helper, so that a data plane listens on `socket_path` when it returns; `telemagic.launch.start`."""

    async def __call__(
        self,
        socket_path: Path,
        *,
        ask: Callable[[str], Awaitable[str | None]] | None,
        on_phase: Callable[[str, str, str], None],
        elevate: str = "auto",
    ) -> Launched:
        """Start it; being cancelled ends whatever was started."""


class Asker(Protocol):
    """Asks the user for a password, in the waiting thread. ``refusal`` says afterwards why it could not."""

    refusal: str

    def __call__(self, prompt: str) -> str | None:
        """Return the password, or None for cancelled."""


@dataclass(slots=True)
class Attempt:
    """One try to connect: where to, and who is told what. Used up by :meth:`run`."""

    target: Target
    launch: Launch
    foreground: loop.Foreground
    asker: Asker | None
    on_phase: Callable[[PhaseChanged], None]  # in the waiting thread
    on_event: Callable[[Message], None]  # on the background loop
    on_lost: Callable[[str], None]  # on the background loop
    _began: float = 0.0
    _elevated: bool = False
    _netd: tuple[int, ...] = ()  # its pid, if we started it
    _is_over: bool = False  # nobody waits in the foreground any more

    async def run(self) -> tuple[ControlClient, messages.Status]:
        """Connect, or raise with nothing left behind.

        Raises
        ------
        TelemagicError
            Whatever went wrong; ConnectTimeout when it took too long.
        """
        timeout = self.target.options.timeout
        budget = asyncio.timeout(timeout + GRACE)
        try:
            async with budget, _turn(self.target.socket.parent, self._wait):
                return await self._connect(budget)
        except ConnectTimeout as error:
            raise ConnectTimeout(f"not connected within {timeout:g} s: {error.message}") from error
        except TimeoutError as error:
            where = self.target.context
            raise ConnectTimeout(
                f"{where.name} ({where.server}) was not connected within {timeout:g} s; everything begun was undone"
            ) from error
        except SudoDenied as error:
            if self.asker is not None and not self.asker.refusal:
                raise
            why = error.message if self.asker is None else self.asker.refusal
            raise SudoDenied(why, hint=NOBODY_HINT.format(self.target.options.command)) from error
        finally:
            self._is_over = True

    async def _connect(self, budget: asyncio.Timeout) -> tuple[ControlClient, messages.Status]:
        client = await self._attach()
        if client is not None:
            with contextlib.suppress(HelperLost):  # it was about to exit: start another
                return client, await self._bring_up(client, budget)
            await _wait_until_gone(self.target.socket)
        client = await self._start(budget)
        return client, await self._bring_up(client, budget)

    async def _attach(self) -> ControlClient | None:
        socket = self.target.socket
        try:
            return await ControlClient.open(socket, on_event=self._event, on_lost=self.on_lost)
        except FileNotFoundError:
            return None
        except (ConnectionRefusedError, HelperLost):
            await _wait_until_gone(socket)  # left by a killed data plane, or one that is exiting
            return None

    async def _start(self, budget: asyncio.Timeout) -> ControlClient:
        ask = partial(self._ask, budget) if self.asker is not None else None
        self._began = time.monotonic()
        socket = self.target.socket
        started = await self.launch(
            socket, ask=ask, on_phase=self._launch_phase, elevate=self.target.options.elevate
        )
        self._netd = (started.netd_pid,)
        try:
            return await ControlClient.open(socket, on_event=self._event, on_lost=self.on_lost)
        except BaseException as error:
            await _end(socket, started.datapath_pid, *self._netd)
            if isinstance(error, OSError):
                raise HelperLost(f"the helper does not listen: {error.strerror}") from error
            raise

    async def _bring_up(self, client: ControlClient, budget: asyncio.Timeout) -> messages.Status:
        if client.welcome.connected:
            try:
                return await client.request(GetStatus(), messages.Status)
            except BaseException:
                await client.close()
                raise
        try:
            return await client.request(self._request(budget), messages.Status)
        except BaseException:
            await client.close()
            await _end(self.target.socket, client.peer_pid, *self._netd)
            raise

    def _request(self, budget: asyncio.Timeout) -> Connect:
        options = self.target.options
        until = budget.when()
        left = options.timeout if until is None else until - GRACE - asyncio.get_running_loop().time()
        return Connect(
            kubeconfig=self.target.search,
            context=self.target.context.name,
            namespace=self.target.namespace,
            timeout=max(0.1, left),
            also_proxy=options.also_proxy,
            never_proxy=options.never_proxy,
            dns=options.dns,
            carrier=options.carrier,
            cidrs=options.cidrs,
            on_conflict=options.on_conflict,
            via=options.via,
            manager_namespace=options.manager_namespace,
            share=options.share,
            allow_wide=options.allow_wide,
        )

    async def _ask(self, budget: asyncio.Timeout, prompt: str) -> str | None:
        assert self.asker is not None  # noqa: S101  # _start passes this method only then
        now = asyncio.get_running_loop().time
        until, began = budget.when(), now()
        budget.reschedule(None)  # typing a password is not the cluster's fault
        try:
            return await loop.ask(self.foreground, partial(self.asker, prompt))
        finally:
            if until is not None:
                budget.reschedule(until + now() - began)

    def _event(self, event: Message) -> None:
        if isinstance(event, PhaseChanged):
            if event.phase == "elevate" and self._elevated:
                return  # the data plane's view of a phase that the launcher has told better
            if not self._is_over:
                self.foreground.post(partial(self.on_phase, event))
        else:
            self.on_event(event)

    def _launch_phase(self, phase: str, state: str, detail: str) -> None:
        if state == "started":
            self._began = time.monotonic()
        seconds = 0.0 if state == "started" else time.monotonic() - self._began
        self._event(PhaseChanged(phase, state, detail, seconds))
        self._elevated = self._elevated or (phase == "elevate" and state == "done")

    def _wait(self) -> None:
        self._event(
            PhaseChanged("elevate", "started", "waiting for another notebook that is connecting", 0.0)
        )


@contextlib.asynccontextmanager
async def _turn(directory: Path, on_wait: Callable[[], None]) -> AsyncIterator[None]:
    """Let one kernel of this user connect at a time, so that two never start two helpers for one cluster.

    The lock is on the runtime directory itself: it leaves no file, and dies with its holder.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        told = False
        while not _locked(descriptor):
            if not told:
                on_wait()
                told = True
            await asyncio.sleep(POLL)
        yield
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


async def _wait_until_gone(socket: Path) -> bool:
    """Wait for a data plane that is exiting; remove the socket of one that was killed. False: it still listens."""
    until = time.monotonic() + UNDO_PATIENCE
    while True:
        try:
            _, writer = await asyncio.open_unix_connection(socket)
        except ConnectionRefusedError:
            _remove(socket)
            return True
        except FileNotFoundError:
            return True
        writer.close()
        if time.monotonic() > until:
            return False
        await asyncio.sleep(POLL)


def _remove(socket: Path) -> None:
    socket.unlink(missing_ok=True)


async def _end(socket: Path, *pids: int) -> None:
    """Wait until helpers that we left have undone everything and exited; insist if the data plane has not.

    `pids` are the data plane's, first, and netd's if it is known.
    """
    if not await _wait_until_gone(socket):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pids[0], signal.SIGTERM)
        await _wait_until_gone(socket)
    for pid in pids:
        if pid != os.getpid():  # a fake lives in this process
            await _wait_for_exit(pid)


async def _wait_for_exit(pid: int) -> None:
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    over = asyncio.Event()
    running = asyncio.get_running_loop()
    running.add_reader(process, over.set)  # pidfd_open(2): readable once the process has ended
    try:
        async with asyncio.timeout(EXIT_PATIENCE):
            await over.wait()
    except TimeoutError:
        pass  # it has undone everything; its end needs nothing from us
    finally:
        running.remove_reader(process)
        os.close(process)
