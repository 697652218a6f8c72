"""The notebooks whose kernels are connected, and when which of their cells ran; no I/O.

A kernel is known by its pid together with when it began, because pids are used again. Times are CLOCK_MONOTONIC, the
same for all processes, so it does not matter that a cell's start is heard of after the packets it caused.

Bounds: KERNELS kernels, CELLS cells of each; the oldest is forgotten.
"""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

KERNELS: Final = 64
CELLS: Final = 1000  # of one kernel; a flow finds its cell within seconds
MAX_NAME: Final = 200  # characters of a notebook's name
NO_CELL: Final = -1


class Kernel(NamedTuple):
    """What a kernel is known by. `began` is in clock ticks since boot, 0 if that is not known."""

    pid: int
    began: int


class _Run:
    """One execution of a cell; it runs until `ended`, in monotonic seconds."""

    __slots__ = ("cell", "ended", "started")

    def __init__(self, cell: int, started: float) -> None:
        self.cell = cell
        self.started = started
        self.ended: float | None = None


class _Notebook:
    def __init__(self) -> None:
        self.name = ""
        self.runs: deque[_Run] = deque(maxlen=CELLS)


class Notebooks:
    """Names of notebooks, and the times of their cells."""

    def __init__(self) -> None:
        self._known: dict[Kernel, _Notebook] = {}
        self._at: dict[int, Kernel] = {}

    @property
    def kernels(self) -> dict[int, int]:
        """When the kernels began, by pid."""
        return {kernel.pid: kernel.began for kernel in self._at.values()}

    def greet(self, kernel: Kernel) -> None:
        """Take note of a kernel; again does no harm. Its pid stands for it from now on."""
        if kernel.pid <= 0:  # in a pid namespace that is not below ours
            return
        self._at[kernel.pid] = kernel
        self._known.setdefault(kernel, _Notebook())
        if len(self._known) > KERNELS:
            oldest = next(iter(self._known))
            del self._known[oldest]
            if self._at.get(oldest.pid) == oldest:
                del self._at[oldest.pid]

    def leave(self, pid: int) -> None:
        """Take note that a kernel has gone; what its flows were caused by is known on."""
        self._at.pop(pid, None)

    def introduce(self, pid: int, name: str) -> None:
        """Take a notebook's name; it may change."""
        if (notebook := self._find(pid)) is not None:
            notebook.name = name[:MAX_NAME]

    def cell_started(self, pid: int, cell: int, at: float) -> None:
        """Take note that a cell began to run at `at`."""
        if (notebook := self._find(pid)) is not None:
            notebook.runs.append(_Run(cell, at))

    def cell_ended(self, pid: int, cell: int, at: float) -> None:
        """Take note that it ended. One that never began is ignored."""
        notebook = self._find(pid)
        for run in reversed(notebook.runs if notebook is not None else ()):
            if run.cell == cell and run.ended is None:
                run.ended = at
                return

    def name_of(self, kernel: Kernel) -> str:
        """Return a kernel's notebook; empty if it has not said."""
        notebook = self._known.get(kernel)
        return notebook.name if notebook is not None else ""

    def cell_at(self, kernel: Kernel, at: float) -> int:
        """Return the cell that ran at that time; of several the one that began last; NO_CELL if there was none."""
        notebook = self._known.get(kernel)
        for run in reversed(notebook.runs if notebook is not None else ()):
            if run.started <= at and (run.ended is None or at <= run.ended):
                return run.cell
        return NO_CELL

    def _find(self, pid: int) -> _Notebook | None:
        kernel = self._at.get(pid)
        return self._known.get(kernel) if kernel is not None else None
