"""Tasks that talk to an API server without a connection: run in a child process, because a kernel stays light.

The child is `python -m telehelper.admin TASK …`, as the user; it says each step as a line of JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from typing import IO, TYPE_CHECKING, Any, Final

from telehelper.errors import HelperLost, from_wire

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# -P: not the notebook's directory first
CHILD: Final = (sys.executable, "-P", "-m", "telehelper.admin")
END_PATIENCE: Final = 2.0  # seconds between SIGTERM and SIGKILL
_LAST_WORDS: Final = 4096  # bytes of standard error that are kept


def run(
    task: str,
    arguments: Sequence[str],
    on_step: Callable[[dict[str, Any]], None] = lambda _: None,
    *,
    child: Sequence[str] = CHILD,
) -> dict[str, Any]:
    """Run a task to its end; an interrupt ends the child too.

    Parameters
    ----------
    on_step
        Hears of each step, in this thread.

    Returns
    -------
    dict
        What the task says when it is done.

    Raises
    ------
    TelemagicError
        The task failed, with its error; HelperLost if it ended without a word.
    """
    # In a session of its own: an interrupt of the kernel's whole process group is ours to pass on.
    with subprocess.Popen(  # noqa: S603  # our own module
        [*child, task, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None  # noqa: S101  # both are pipes
        assert process.stderr is not None  # noqa: S101
        words = _LastWords(process.stderr)
        try:
            for line in process.stdout:
                said = json.loads(line)
                if "done" in said:
                    done: dict[str, Any] = said["done"]
                    return done
                if "error" in said:
                    raise from_wire(**said["error"])
                on_step(said)
        finally:
            _end(process)
    raise HelperLost(f"{task} ended without a result: {words.last_line()}", hint="try again")


class _LastWords:
    """Reads standard error to its end, in a thread, so that the child never waits for us; keeps the end of it."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._tail = b""
        self._stream = stream
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        for line in self._stream:
            self._tail = (self._tail + line)[-_LAST_WORDS:]

    def last_line(self) -> str:
        self._thread.join(END_PATIENCE)
        lines = self._tail.decode(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")


def _end(process: subprocess.Popen[bytes]) -> None:
    # What it has started goes with it: that may have inherited the pipe which is read to its end above.
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(END_PATIENCE)
            return
