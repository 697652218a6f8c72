"""A child that outlives a killed data plane just long enough to remove its socket files.

What else the data plane has, the kernel takes back by itself; a file it does not. The child holds the reading end of a
pipe. The data plane writes down which file is its own once it listens; the pipe's end means that it has gone.
"""

from __future__ import annotations

import os
import signal
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

# Inode, and time of its last change in ns: inode numbers are used again
_IDENTITY: Final = struct.Struct("=QQ")


def identity(path: Path) -> bytes:
    """Tell a file from a later one with the same name. FileNotFoundError if there is none."""
    found = path.stat()
    return _IDENTITY.pack(found.st_ino, found.st_ctime_ns)


def sweep(path: Path, mine: bytes, others: tuple[Path, ...]) -> None:
    """Remove the socket at `path` and what belongs to it, unless another data plane has taken its place."""
    with suppress(FileNotFoundError):
        if identity(path) != mine:
            return
    for each in (*others, path):
        each.unlink(missing_ok=True)


class Sweeper:
    """The data plane's end. Make it before there is a thread, an event loop or a socket of ours."""

    def __init__(self, path: Path, *others: Path) -> None:
        self._path = path
        reading, self._pipe = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                _be_sweeper(reading, path, others)
            finally:
                os._exit(0)
        os.close(reading)

    def listening(self) -> None:
        """Tell the child that the socket is there, and is ours."""
        os.write(self._pipe, identity(self._path))

    def dismiss(self) -> None:
        """End the child and reap it."""
        os.close(self._pipe)
        os.waitpid(self.pid, 0)


def _be_sweeper(reading: int, path: Path, others: tuple[Path, ...]) -> None:
    """Let go of everything but the pipe: of netd's socket above all, or netd would see no end of it."""
    os.setsid()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.dup2(reading, 3)
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.closerange(4, os.sysconf("SC_OPEN_MAX"))
    mine = os.read(3, _IDENTITY.size)
    if len(mine) == _IDENTITY.size and not os.read(3, 1):
        sweep(path, mine, others)
