"""Which cell runs: told to the data plane, so that the flow table can say which cell caused a flow.

At connect the kernel says who it is. From then on each cell's start and end is a notification, which nobody answers.
A start is written to the socket before the cell's first line runs, so it cannot come after that cell's first packet;
waiting for that is bounded. When nothing is connected a cell costs two comparisons.

Only cells that are numbered count: what front ends run silently, and cells run from within cells, belong to whatever
cell is under way. Plain Python and scripts have no cells; they only say their name.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from telehelper.errors import TelemagicError
from telehelper.observing import CellEnded, CellStarted

from telemagic import live

if TYPE_CHECKING:
    from telemagic.connection import Connection

WRITE_PATIENCE: Final = (
    0.0009  # seconds that a cell's start waits until the data plane can read it; usually 0.0001
)
_REMOTE_SUFFIX: Final = re.compile(r"-jvsc-[0-9a-f-]{36}(?=\.ipynb$)")  # VS Code's, of a session on a server


@dataclass(frozen=True, slots=True, eq=False)
class Running:
    """A cell under way. ``number`` is its execution count, 0 for one that is not numbered."""

    info: object  # IPython's, by which its end is known; None for one that began before we watched
    number: int
    at: float  # monotonic seconds


class Hooks:
    """Watches one shell's cells."""

    def __init__(self, shell: Any) -> None:  # noqa: ANN401  # IPython is untyped
        self.shell = shell
        self._running: list[Running] = []
        shell.events.register("pre_run_cell", self._started)
        shell.events.register("post_run_cell", self._ended)

    def close(self) -> None:
        """Watch no more."""
        self.shell.events.unregister("pre_run_cell", self._started)
        self.shell.events.unregister("post_run_cell", self._ended)

    @property
    def innermost(self) -> Running | None:
        """The cell that runs now, numbered or not; None for a silent one, and between cells."""
        return self._running[-1] if self._running else None

    def numbered(self) -> Running | None:
        """Return the numbered cell that runs now."""
        return next((each for each in reversed(self._running) if each.number), None)

    def take_note(self) -> None:
        """Take note that a cell is under way which began before we watched."""
        if not self._running and (number := self._next_number() - 1) > 0:
            self._running.append(Running(None, number, time.monotonic()))

    def _next_number(self) -> int:
        # The shell's own counter is raised before a cell in IPython 9.16 and after it in 8; this list is longer from
        # when the cell's source is stored, which comes after pre_run_cell in both. Its first entry is a blank.
        history = self.shell.history_manager
        return len(history.input_hist_raw) if history is not None else 0

    def _started(self, info: Any) -> None:  # noqa: ANN401  # IPython is untyped
        number = self._next_number() if info.store_history else 0
        cell = Running(info, number, time.monotonic())
        if number:
            self._running.clear()  # whatever never told its end is over now
            self._tell(CellStarted(number, cell.at), WRITE_PATIENCE)
        self._running.append(cell)

    def _ended(self, result: Any) -> None:  # noqa: ANN401  # as above
        info = result.info if result is not None else None  # None: the cell was cancelled
        # A cell that we did not see begin ends with the first one that ends without having begun.
        ended = next((each for each in self._running if each.info is info), None)
        if ended is None and result is not None and result.info.store_history:
            ended = next((each for each in self._running if each.info is None), None)
        if ended is None and result is None:
            ended = self.numbered()
        if ended is None:
            return
        self._running.remove(ended)
        if ended.number:
            self._tell(CellEnded(ended.number, time.monotonic()), 0.0)

    def _tell(self, message: CellStarted | CellEnded, patience: float) -> None:
        from telemagic.session import session  # late: it needs this file

        connection = session().connection
        if connection is not None:
            connection.tell(message, patience)


_hooks: list[Hooks] = []  # of this process's shell; one at most


def watch(shell: Any) -> Hooks:  # noqa: ANN401  # IPython is untyped
    """Watch the shell's cells, once."""
    if _hooks and _hooks[0].shell is not shell:
        unwatch()
    if not _hooks:
        _hooks.append(Hooks(shell))
    return _hooks[0]


def unwatch() -> None:
    """Watch no more; idempotent."""
    while _hooks:
        _hooks.pop().close()


def connected(connection: Connection) -> None:
    """Tell a new connection who this kernel is, and which cell is under way.

    A data plane that does not care, or that has just gone, is no reason for the connect to fail.
    """
    shell = live.current_shell()
    with contextlib.suppress(TelemagicError):
        connection.introduce(notebook_name(shell))
    if shell is None:
        return
    hooks = watch(shell)
    hooks.take_note()
    if (cell := hooks.numbered()) is not None:
        connection.tell(CellStarted(cell.number, cell.at), WRITE_PATIENCE)


def notebook_name(shell: object) -> str:
    """Return the notebook's file name, as far as its front end tells; else what else people know this process by.

    Jupyter Server gives it in the environment (JPY_SESSION_NAME; what the file was called when the kernel started), VS
    Code in a variable. nbclient, papermill and a bare kernel tell nothing: then it is "kernel" and the process id. A
    terminal has "ipython", a script its file name.
    """
    if live.is_kernel(shell):
        told = (
            getattr(shell, "user_ns", {}).get("__vsc_ipynb_file__"),
            os.environ.get("JPY_SESSION_NAME"),
        )
        names = [_REMOTE_SUFFIX.sub("", Path(each).name) for each in told if isinstance(each, str)]
        return next(filter(None, names), f"kernel {os.getpid()}")
    if shell is not None:
        return "ipython"
    file = getattr(sys.modules.get("__main__"), "__file__", None)
    if not file:
        return "python"
    path = Path(file)
    return path.parent.name if path.name == "__main__.py" else path.name
