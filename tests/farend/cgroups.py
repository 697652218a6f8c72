"""Control groups of pods: the one thing that outlives a node's namespaces, because nobody's file system holds them."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_ROOT: Final = Path("/sys/fs/cgroup")
_PREFIX: Final = "telemagic-farend-"
_EMPTY_WITHIN: Final = 2.0  # seconds; the kernel takes a moment to see that a killed process has left


def name() -> str:
    """Return the name of this process' pods' parent, the same in every hierarchy."""
    return f"{_PREFIX}{os.getpid()}"


def left(wanted: str) -> list[Path]:
    """Return what there is of that name."""
    return [path for path in _found() if path.name == wanted]


def remove(wanted: str) -> None:
    """Remove them and what is in them; OSError if a process still is."""
    deadline = time.monotonic() + _EMPTY_WITHIN
    for top in left(wanted):
        while True:
            try:
                _remove_tree(top)
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
            else:
                break


def _remove_tree(top: Path) -> None:
    for folder, _, _ in os.walk(top, topdown=False):
        Path(folder).rmdir()


def sweep() -> None:
    """Remove those of earlier runs that were killed before they could clean up."""
    for path in _found():
        pid = path.name.removeprefix(_PREFIX)
        if not Path("/proc", pid).exists():
            with contextlib.suppress(OSError):  # its last process may be dying yet; the next run removes it
                _remove_tree(path)


def _found() -> Iterator[Path]:
    # Version 2 is the root itself, version 1 and hybrids have one directory per hierarchy.
    for root in (_ROOT, *(each for each in _ROOT.iterdir() if each.is_dir())):
        yield from root.glob(f"{_PREFIX}*")
