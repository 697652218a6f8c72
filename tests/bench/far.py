"""A far end on loopback, on free ports, for the tests of the load generator."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from telemagic.bench.ports import Ports

if TYPE_CHECKING:
    from collections.abc import Iterator

LOOPBACK = "127.0.0.1"
WITHIN = 30.0  # seconds; what takes longer, even on a busy machine, hangs


def start(*options: str, host: str = LOOPBACK) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "telemagic.bench.server", "--host", host, "--any-port", *options]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def ready(server: subprocess.Popen[str]) -> Ports:
    assert server.stdout
    word, _, ports = server.stdout.readline().partition(" ")
    assert word == "ready", server.communicate(timeout=WITHIN)
    return Ports.from_json(ports)


def end(server: subprocess.Popen[str]) -> int:
    """Close its input, and return its exit status."""
    _, error = server.communicate(timeout=WITHIN)
    assert error == ""
    return server.returncode


@contextlib.contextmanager
def running(*options: str, host: str = LOOPBACK) -> Iterator[Ports]:
    server = start(*options, host=host)
    try:
        yield ready(server)
    finally:
        assert end(server) == 0


def family(pid: int) -> set[int]:
    """Return a process and all that descend from it."""
    found = {pid}
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        found |= family(int(child))
    return found


def alive(pids: set[int]) -> set[int]:
    """Return those that run; a zombie does not."""
    found = set()
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
                found.add(pid)
    return found


def load(*arguments: str, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "telemagic.bench.load", *arguments]
    return subprocess.Popen(command, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
