"""Processes that the kernel starts: reaped when they end, with the last words they said."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import threading
from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

TAIL: Final = 8192  # bytes; what is kept of a log for an error message
TAIL_LINES: Final = 50


class Child:
    """One process in a session of its own, so that an Interrupt meant for the kernel does not reach it.

    A daemon thread waits for it, so it is no zombie even when nobody looks and no event loop runs any more.
    Its output goes to a memory file: nothing is left on disk, and it may outlive the kernel.

    Parameters
    ----------
    argv, env
        As for subprocess.
    stdin
        A descriptor for its standard input; /dev/null unless given.
    pass_fds
        Descriptors it inherits under the same numbers.
    stderr
        A descriptor for its standard error; the memory file unless given.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        stdin: int = subprocess.DEVNULL,
        pass_fds: Sequence[int] = (),
        stderr: int | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._log = os.memfd_create("telemagic-log", os.MFD_CLOEXEC)
        self._last_words = ""
        try:
            self._process = subprocess.Popen(  # noqa: S603  # our own commands; no shell, no user text
                argv,
                env=env,
                stdin=stdin,
                stdout=self._log,
                stderr=self._log if stderr is None else stderr,
                pass_fds=pass_fds,
                start_new_session=True,
            )
        except OSError:
            os.close(self._log)
            raise
        self.pid = self._process.pid
        self.exited: asyncio.Future[int] = self._loop.create_future()
        threading.Thread(target=self._reap, name=f"reaper of {self.pid}", daemon=True).start()

    def _reap(self) -> None:
        code = self._process.wait()
        self._last_words = self._read_log()
        os.close(self._log)
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to be told
            self._loop.call_soon_threadsafe(self._tell, code)

    def _tell(self, code: int) -> None:
        if not self.exited.done():
            self.exited.set_result(code)

    def _read_log(self) -> str:
        size = os.fstat(self._log).st_size
        return os.pread(self._log, TAIL, max(0, size - TAIL)).decode(errors="replace")

    def last_line(self) -> str:
        """Return the last line of its output once it has ended, for an error message."""
        lines = self._last_words.strip().splitlines()
        return lines[-1].strip() if lines else ""

    async def wait(self, seconds: float) -> bool:
        """Wait for its end; whether it came in time."""
        await asyncio.wait([self.exited], timeout=seconds)
        return self.exited.done()

    async def end(self, patience: float) -> None:
        """Ask it to end, then make it, then reap it; at once if it has ended."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self.exited.done():
                return
            with contextlib.suppress(PermissionError):  # sudo runs as root; it ends by itself, see launch.py
                self._process.send_signal(number)
            await self.wait(patience)


class LineReader:
    """The reading end of a pipe, line by line; bounded, what is over is forgotten."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._fd, self.writer = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._fd, False)
        self._partial = b""
        self.lines: deque[str] = deque(maxlen=TAIL_LINES)
        self._waiting: dict[str, asyncio.Future[None]] = {}
        self._loop.add_reader(self._fd, self.drain)

    def seen(self, prefix: str) -> asyncio.Future[None]:
        """Return a future that is done when a line with this prefix has come."""
        future = self._waiting.setdefault(prefix, self._loop.create_future())
        if not future.done() and any(line.startswith(prefix) for line in self.lines):
            future.set_result(None)
        return future

    def close_writer(self) -> None:
        """Close our copy of the writing end, after the child has inherited its own."""
        if self.writer >= 0:
            os.close(self.writer)
            self.writer = -1

    def drain(self) -> None:
        """Take what is there."""
        while self._fd >= 0:
            try:
                data = os.read(self._fd, TAIL)
            except BlockingIOError:
                return
            if not data:
                self.close()
                return
            *whole, rest = (self._partial + data).split(b"\n")
            self._partial = rest[-TAIL:]
            for line in whole:
                self._take(line.decode(errors="replace").strip())

    def _take(self, line: str) -> None:
        if not line:
            return
        self.lines.append(line)
        for prefix, future in self._waiting.items():
            if line.startswith(prefix) and not future.done():
                future.set_result(None)

    def close(self) -> None:
        """Stop reading."""
        self.close_writer()
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1
            self._take(self._partial.decode(errors="replace").strip())
