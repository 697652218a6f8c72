"""The audit log: one line for each dial, session and carrier."""

from __future__ import annotations

import asyncio
import contextlib
import os
from time import monotonic
from typing import TYPE_CHECKING, Final

from telehelper.errors import printable

if TYPE_CHECKING:
    from collections.abc import Callable

# Lines per second after a first BURST at once: a client that dials in a loop must not fill the node's disk
RATE: Final = 1000
BURST: Final = 20_000


class AuditLog:
    """Writes lines to a descriptor, those of one turn of the event loop with one system call.

    Without a running loop it writes at once. It waits for its reader, as logs do; nobody reads it: no reason to stop
    carrying. What is over its rate is counted, and the next line that may be written says how much that was.
    """

    def __init__(self, fd: int, clock: Callable[[], float] = monotonic) -> None:
        self._fd = fd
        self._clock = clock
        self._lines: list[str] = []
        self._room, self._counted_at = float(BURST), clock()
        self._left_out = 0

    def __call__(self, line: str) -> None:
        """Write one line, if there have not been too many."""
        now = self._clock()
        self._room = min(BURST, self._room + (now - self._counted_at) * RATE)
        self._counted_at = now
        if self._room < 1:
            self._left_out += 1
            return
        self._room -= 1
        # Reasons may come from elsewhere: none may begin a line of its own, or steer a terminal.
        self._lines.append(printable(line))
        if len(self._lines) > 1:
            return
        try:
            asyncio.get_running_loop().call_soon(self.flush)
        except RuntimeError:  # before the loop, or after it
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        lines, self._lines = self._lines, []
        if self._left_out:
            lines.insert(0, f"{self._left_out} lines were left out: more than {RATE} per second")
            self._left_out = 0
        if not lines:
            return
        data = ("\n".join(lines) + "\n").encode(errors="backslashreplace")
        with contextlib.suppress(OSError):
            while data:
                data = data[os.write(self._fd, data) :]
