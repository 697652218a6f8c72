"""The audit log: one line for each dial, session and carrier."""

from __future__ import annotations

import asyncio
import contextlib
import os


class AuditLog:
    """Writes lines to a descriptor, those of one turn of the event loop with one system call.

    Without a running loop it writes at once. It waits for its reader, as logs do; nobody reads it: no reason to stop
    carrying.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._lines: list[str] = []

    def __call__(self, line: str) -> None:
        """Write one line."""
        self._lines.append(line)
        if len(self._lines) > 1:
            return
        try:
            asyncio.get_running_loop().call_soon(self.flush)
        except RuntimeError:  # before the loop, or after it
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        lines, self._lines = self._lines, []
        if not lines:
            return
        data = ("\n".join(lines) + "\n").encode(errors="backslashreplace")
        with contextlib.suppress(OSError):
            while data:
                data = data[os.write(self._fd, data) :]
