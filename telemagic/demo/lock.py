"""One lock for all demos of a runtime directory: starting and removing them happens one at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextlib.contextmanager
def held(runtime: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold the lock, which is on the directory itself, so no file stays behind.

    Yields False at once if another process has it and `wait` is False.
    """
    fd = os.open(runtime, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(fd)


def remove(directory: Path, inode: int) -> None:
    """Remove a demo's directory, if it is still that demo's and not a successor's of the same name."""
    with contextlib.suppress(FileNotFoundError), held(directory.parent):
        if directory.stat().st_ino == inode:
            shutil.rmtree(directory, ignore_errors=True)
