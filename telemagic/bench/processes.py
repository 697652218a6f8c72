"""What processes of the tunnel cost: found by module and network namespace, read from /proc."""

from __future__ import annotations

import contextlib
import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from telehelper.errors import HelperError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

PROC: Final = Path("/proc")
_POLL: Final = 0.02  # seconds
_PSS: Final = re.compile(r"^Pss:\s+(\d+) kB", re.MULTILINE)


def find(module: str, network: int) -> list[Path]:
    """Return the /proc directories of the processes that run a module in the network namespace with this inode."""
    found = []
    for entry in PROC.glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended, or is none of ours
            words = (entry / "cmdline").read_bytes().split(b"\0")
            if module.encode() in words and (entry / "ns/net").stat().st_ino == network:
                found.append(entry)
    return found


def wait_until(condition: Callable[[], bool], seconds: float, otherwise: str) -> None:
    """Poll until something is so.

    Raises
    ------
    HelperError
        It is not in time; `otherwise` says what that means.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise HelperError(otherwise)
        time.sleep(_POLL)


def own_network() -> int:
    """Return the inode of the caller's network namespace."""
    return (PROC / "self/ns/net").stat().st_ino


def cpu_seconds(processes: Iterable[Path]) -> float:
    """Return how long they have run so far, in all their threads, to the kernel's clock tick of usually 10 ms."""
    ticks = 0
    for entry in processes:
        # After the command in parentheses, which may hold anything: state is field 3, utime 14, stime 15 of proc(5).
        fields = (entry / "stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def memory(processes: Iterable[Path]) -> int:
    """Return their resident memory in bytes; pages shared with others count in part (Pss)."""
    total = 0
    for entry in processes:
        found = _PSS.search((entry / "smaps_rollup").read_text())
        assert found is not None  # noqa: S101 - the kernel always writes it
        total += int(found[1]) * 1024
    return total
