"""Starting the helper: netd as root, the data plane as the user, and a socket pair between them.

The pair is netd's standard input, because that is what sudo lets through, and one inherited descriptor of the data
plane. Once both have their end, ours are closed: from then on netd ends when the data plane does, and the other way
round. So on failure it is enough to close our ends; netd cannot be signalled by a user anyway.

One sudo call: netd itself is the command. Credentials that sudo caches are tied to its parent process and session,
so asking first and running afterwards would ask twice. `sudo -n` comes first and is silent; only if it refuses, and
there is somebody to ask, `sudo -A`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from telehelper.errors import HelperLost, SudoDenied
from telehelper.messages import NETD_LOG_PREFIX

from telemagic import helper_copy
from telemagic.children import Child, LineReader
from telemagic.elevate import choose
from telemagic.passwords import Passwords

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

# Seconds; netd takes 0.25, but a sudo that asks a directory service may take long
START_TIMEOUT: Final = 30.0
READY_TIMEOUT: Final = 30.0  # seconds for the data plane, which takes about one
END_PATIENCE: Final = 1.5  # seconds between SIGTERM and SIGKILL
# -P: not the notebook's directory first
DATAPATH: Final = (sys.executable, "-P", "-m", "telehelper.datapath")
# -I: root imports nothing from the user's environment
NETD: Final = (sys.executable, "-I", "-m", "telehelper.netd")


@dataclass(frozen=True, slots=True)
class Started:
    """What was started. `netd_pid` is sudo's when sudo was needed; ``how`` says which for people."""

    socket_path: Path
    datapath_pid: int
    netd_pid: int
    how: str


async def start(
    socket_path: Path,
    *,
    ask: Callable[[str], Awaitable[str | None]] | None,
    on_phase: Callable[[str, str, str], None],
    elevate: str = "auto",
    datapath: Sequence[str] = DATAPATH,
) -> Started:
    """Start netd and a data plane that listens on `socket_path`.

    Being cancelled, like any failure, ends what was started and removes what was written.

    Parameters
    ----------
    ask
        Gets sudo's prompt and returns the password; None or "" cancels. None: nobody can be asked.
    on_phase
        Told (phase, state, detail); the phase is always "elevate".
    elevate
        auto, direct or sudo.
    datapath
        The command of the data plane, without its options.

    Raises
    ------
    HelperMissing
        Something that is needed is not on this machine; nothing was started.
    SudoDenied
        The password was refused, nobody typed it, or nobody could be asked.
    HelperRefused
        The root-owned copy of netd is not to be trusted.
    HelperLost
        A process ended before it was ready; the message has its last line.
    """
    on_phase("elevate", "started", "")
    try:
        sudo = choose(elevate)
        launch = _Launch(socket_path, datapath)
        try:
            how = await launch.run(sudo, ask)
            started = launch.started(how)
        except BaseException:
            await launch.abandon()
            raise
        finally:
            launch.close()
    except BaseException as error:
        on_phase("elevate", "failed", str(error))
        raise
    on_phase("elevate", "done", how)
    return started


class _Launch:
    """One attempt and all it has started so far."""

    def __init__(self, socket_path: Path, datapath: Sequence[str]) -> None:
        self._path = socket_path
        self._command = datapath
        self._near, self._far = socket.socketpair()  # near: the data plane's, far: netd's
        self._copy: list[str] | None = None  # how to run the root-owned copy, if it is to be run
        self._netd: Child | None = None
        self._datapath: Child | None = None
        self._said: LineReader | None = None
        self._ready: LineReader | None = None

    async def run(self, sudo: str | None, ask: Callable[[str], Awaitable[str | None]] | None) -> str:
        """Start both; how netd got its rights."""
        self._copy = None if sudo is None else helper_copy.command()
        # Both at once, for the data plane's imports take longest. A refusing sudo says so before they are done.
        self._start_datapath()
        how = await self._start_directly() if sudo is None else await self._start_silently(sudo)
        if not how and sudo is not None:
            await self._end_datapath()  # it would not wait for as long as people type
            how = await self._start_with_password(sudo, ask)
            self._start_datapath()
        await self._datapath_ready()
        return f"{how}, the root-owned copy" if self._copy else how

    def started(self, how: str) -> Started:
        """Say what was started, after :meth:`run`."""
        assert self._netd is not None  # noqa: S101  # run() has set both
        assert self._datapath is not None  # noqa: S101
        return Started(self._path, self._datapath.pid, self._netd.pid, how)

    # --- netd ----------------------------------------------------------------------------------------------------

    def _start_netd(
        self, prefix: Sequence[str], environment: dict[str, str] | None = None
    ) -> tuple[Child, LineReader]:
        self._close_said()
        said = LineReader()
        self._said = said
        env = {**os.environ, **(environment or {})}
        self._netd = Child(
            [*prefix, *(self._copy or NETD)], env=env, stdin=self._far.fileno(), stderr=said.writer
        )
        said.close_writer()
        return self._netd, said

    def _close_said(self) -> None:
        if self._said is not None:
            self._said.close()

    async def _start_directly(self) -> str:
        netd, said = self._start_netd(())
        await _first(said.seen(f"{NETD_LOG_PREFIX}ready"), netd.exited, within=START_TIMEOUT)
        self._check_running(netd, said)
        return "as root"

    async def _start_silently(self, sudo: str) -> str:
        netd, said = self._start_netd((sudo, "-n", "--"))
        ready = said.seen(f"{NETD_LOG_PREFIX}ready")
        await _first(ready, netd.exited, within=START_TIMEOUT)
        said.drain()
        if netd.exited.done() and not any(line.startswith(NETD_LOG_PREFIX) for line in said.lines):
            return ""  # sudo refused, netd never ran
        self._check_running(netd, said)
        return "sudo"

    async def _start_with_password(
        self, sudo: str, ask: Callable[[str], Awaitable[str | None]] | None
    ) -> str:
        if ask is None:
            raise SudoDenied(f"sudo wants a password, and nobody can be asked here ({self._last_line()})")
        async with Passwords.in_directory(self._path.parent) as passwords:
            netd, said = self._start_netd((sudo, "-A", "--"), passwords.environment)
            ready = said.seen(f"{NETD_LOG_PREFIX}ready")
            asked = 0
            while not ready.done():
                question = asyncio.ensure_future(passwords.question())
                try:
                    await _first(ready, netd.exited, question, within=START_TIMEOUT)
                finally:
                    question.cancel()
                if ready.done() or not question.done() or question.cancelled():
                    break
                said.drain()
                # After the first time, what sudo said last is why it asks again ("Sorry, try again.").
                why = f"{said.lines[-1]} " if asked and said.lines else ""
                asked += 1
                answer = await _while_running(netd, ask(f"{why}{question.result()}"))
                await passwords.answer(answer or "")
                if not answer and not netd.exited.done():
                    await netd.wait(END_PATIENCE)
                    raise SudoDenied("cancelled at the password prompt")
            await self._check_admitted(netd, said)
            return "sudo, with a password"

    async def _check_admitted(self, netd: Child, said: LineReader) -> None:
        said.drain()
        if netd.exited.done() and not any(line.startswith(NETD_LOG_PREFIX) for line in said.lines):
            raise SudoDenied(f"sudo refused: {self._last_line()}")
        self._check_running(netd, said)

    def _check_running(self, netd: Child, said: LineReader) -> None:
        said.drain()
        if said.seen(f"{NETD_LOG_PREFIX}ready").done() and not netd.exited.done():
            return
        if not netd.exited.done():
            raise HelperLost(f"netd was not ready within {START_TIMEOUT:.0f} s", hint="try: sudo -v")
        raise HelperLost(
            f"netd ended before it was ready: {self._last_line()}",
            hint="root's Python must be able to import telemagic: install it in a virtual environment, not with --user",
        )

    def _last_line(self) -> str:
        lines = self._said.lines if self._said is not None else ()
        return lines[-1].removeprefix(NETD_LOG_PREFIX) if lines else "it said nothing"

    # --- data plane ----------------------------------------------------------------------------------------------

    def _start_datapath(self) -> None:
        self._ready = LineReader()
        near, ready = self._near.fileno(), self._ready.writer
        options = ("--socket", str(self._path), "--netd-fd", str(near), "--ready-fd", str(ready))
        self._datapath = Child([*self._command, *options], pass_fds=(near, ready))
        self._ready.close_writer()

    async def _datapath_ready(self) -> None:
        assert self._datapath is not None  # noqa: S101  # run() has started both
        assert self._ready is not None  # noqa: S101
        assert self._netd is not None  # noqa: S101
        # From here on each must see the other's end, and not ours.
        self._near.close()
        self._far.close()
        ready = self._ready.seen("ready")
        await _first(ready, self._datapath.exited, self._netd.exited, within=READY_TIMEOUT)
        if ready.done():
            return
        if self._datapath.exited.done():
            raise HelperLost(f"the data plane ended before it was ready: {self._datapath.last_line()}")
        if self._netd.exited.done():
            raise HelperLost(f"netd ended before the data plane was ready: {self._last_line()}")
        raise HelperLost(f"the data plane was not ready within {READY_TIMEOUT:.0f} s")

    async def _end_datapath(self) -> None:
        if self._datapath is not None:
            await self._datapath.end(END_PATIENCE)
        if self._ready is not None:
            self._ready.close()

    # --- the end -------------------------------------------------------------------------------------------------

    async def abandon(self) -> None:
        """End and reap what was started. netd undoes and exits by itself once the other end is closed."""
        self._near.close()
        self._far.close()
        await self._end_datapath()
        if self._netd is not None and not await self._netd.wait(END_PATIENCE):
            await self._netd.end(END_PATIENCE)  # sudo, waiting for something else than us
        with contextlib.suppress(
            OSError
        ):  # mostly it was never made; and a failed start has something else to tell
            self._path.unlink()

    def close(self) -> None:
        """Close what only the start needed; idempotent. netd's log is read on for as long as netd runs."""
        self._near.close()
        self._far.close()
        if self._ready is not None:
            self._ready.close()
        if self._netd is None or self._netd.exited.done():
            self._close_said()


async def _first(*futures: asyncio.Future[Any], within: float) -> None:
    """Wait until one is done or the time is over; none is cancelled."""
    await asyncio.wait(futures, timeout=within, return_when=asyncio.FIRST_COMPLETED)


async def _while_running(netd: Child, answer: Awaitable[str | None]) -> str | None:
    """Await the user's answer, but no longer than sudo waits for it."""
    task = asyncio.ensure_future(answer)
    try:
        either: tuple[asyncio.Future[Any], ...] = (task, netd.exited)
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        task.cancel()
