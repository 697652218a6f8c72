"""What a rehearsed fault is done with: signals to one's own data plane, and the demo cluster that a connection leads to."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from typing import TYPE_CHECKING, Final

from telehelper.errors import HelperLost

from telemagic.paths import runtime_dir

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from telemagic.connection import Connection
    from telemagic.demo.client import Demo

CONNECTED: Final = "03"  # SS_CONNECTED of linux/net.h, as /proc/net/unix writes it (proc_pid_net(5))
UNIX_SOCKETS: Final = "/proc/net/unix"
# Ends when its standard input does: on purpose, or with the process that has the other end, kill -9 included.
_GUARD: Final = 'read -r _; kill -CONT "$1"'


def is_within_reach(pid: int) -> bool:
    """Whether a data plane is a process of its own in our pid namespace: in others pids are told as 0 (unix(7))."""
    return pid > 0 and pid != os.getpid()


def kill(pid: int) -> None:
    """Kill -9 a process of one's own; one that has gone is as good."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Have a process stand still while the block runs, and not a moment longer than this process lives."""
    with subprocess.Popen(  # noqa: S603  # no word of a user's is in it
        ["/bin/sh", "-c", _GUARD, "guard", str(pid)],
        stdin=subprocess.PIPE,
        start_new_session=True,  # an interrupt of the notebook is not for it
    ):
        try:
            with contextlib.suppress(ProcessLookupError):  # whoever asks it hears that it has gone
                os.kill(pid, signal.SIGSTOP)
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def kernels_at(path: Path, table: str | None = None) -> int:
    """Count the processes connected to a data plane's socket."""
    if table is None:
        with open(UNIX_SOCKETS) as file:
            table = file.read()
    rows = [line.split(maxsplit=7) for line in table.splitlines()[1:]]
    return sum(len(row) == 8 and row[5] == CONNECTED and row[7] == str(path) for row in rows)


def demo_of(connection: Connection) -> Demo | None:
    """Find the demo cluster that a connection leads to; None if it leads to another cluster."""
    if not any(runtime_dir().glob("demo-*")):
        return None  # what a demo needs need not be installed
    from telemagic import demo

    for one in demo.status():
        try:
            found = demo.find(one.name)
        except HelperLost:  # it has just ended
            continue
        if connection.status.server == f"https://127.0.0.1:{found.port}":
            return found
        found.close()
    return None
