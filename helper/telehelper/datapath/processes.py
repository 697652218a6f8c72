"""Which process holds a socket, and which of the given ones it descends from: a look into /proc (proc(5)).

Only processes that we may look into are found: our own user's, in our pid namespace or below it. Everything here may
end while it is looked at; then it is not found.

A look takes 1 to 20 ms of system calls, so it is not for the event loop, and not for a thread beside it either: each call
is shorter than it takes to wake the loop's thread for the interpreter's lock, so the loop waits for the whole look
(connects then took 4 ms instead of 1); only :func:`glance`, a short one, is for the loop. It runs as a program of its own, `python processes.py`, see
:mod:`telehelper.datapath.searcher`, which needs nothing but the standard library.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

PROC: Final = "/proc"
MAX_DEPTH: Final = (
    64  # generations from a process to its ancestor; more is no family but a loop made by reuse of pids
)
MAX_GLANCED: Final = 500  # descriptors; a link takes 1 to 2 µs
MAX_FAMILY: Final = 16  # processes whose children are glanced at
# Fields of /proc/PID/stat after the name, which is the second of all
_PARENT: Final = 1
_START: Final = 19
# Uids of people (login.defs(5)); those from 61184 on are systemd's for services; the last one strangers are shown with in
# a user namespace, and beyond are containers'
_PEOPLE: Final = range(1000, 60_001)
_STRANGER: Final = 65534
_FIRST: Final = "1"  # the process that every pid namespace has
_LINK: Final = "socket:["  # what the link of a socket's descriptor says, then the inode and a bracket


class Process(NamedTuple):
    """A process; `name` is that of its program, 15 bytes at most."""

    pid: int
    name: str
    ancestor: int = 0  # which of the known ones it is or descends from; 0 for none


class _Stat(NamedTuple):
    """Some of /proc/PID/stat."""

    name: str
    parent: int
    began: int


def find_holders(
    inodes: Collection[int], known: Collection[int], first: Iterable[int] = (), proc: str = PROC
) -> dict[int, Process]:
    """Return the processes that hold these sockets, by inode; those that are not found are missing.

    The known processes and what descends from them come first, because that is often short-lived; then all others, the
    youngest first.

    Parameters
    ----------
    inodes
        Of sockets.
    known
        Pids of the processes that ancestors are looked for among.
    first
        Pids to look at before all others.
    """
    wanted, found = set(inodes), dict[int, Process]()
    for pid in _in_order(known, first, proc):
        if not wanted:
            break
        held = wanted.intersection(_sockets(pid, proc))
        if held and (stat := _read_stat(pid, proc)) is not None:
            process = Process(pid, stat.name, _ancestor(pid, known, proc))
            found.update(dict.fromkeys(held, process))
            wanted -= held
    return found


def glance(inode: int, known: Mapping[int, int], proc: str = PROC) -> Process | None:
    """Return which of the known processes, or of their nearest descendants, holds a socket; None if none is seen to.

    `known` says when each began, in clock ticks since boot: a pid may be another process's by now. Quick enough for the
    event loop: some 0.1 ms for a notebook's kernel, 1 ms at most with what it has started. Processes with too many
    descriptors are passed over.
    """
    link = f"{_LINK}{inode}]"
    for pid in known:
        if _holds(pid, link, proc):
            return _process(pid, pid, known, proc)
    for pid in known:
        family = [pid]
        for one in family:  # it grows as we go
            for child in _children(one, proc):
                if _holds(child, link, proc):
                    return _process(child, pid, known, proc)
                if len(family) < MAX_FAMILY:
                    family.append(child)
    return None


def _holds(pid: int, link: str, proc: str) -> bool:
    folder = f"{proc}/{pid}/fd"
    try:
        names = os.listdir(folder)
        if len(names) > MAX_GLANCED:
            return False
        for name in reversed(names):  # a new socket's number is mostly among the last
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                if os.readlink(f"{folder}/{name}") == link:
                    return True
    except OSError:  # it has ended, or is another user's
        return False
    return False


def _process(pid: int, ancestor: int, known: Mapping[int, int], proc: str) -> Process | None:
    stat = _read_stat(pid, proc)
    if stat is None or start_time(ancestor, proc) != known[ancestor]:
        return None
    return Process(pid, stat.name, ancestor)


def has_neighbours(uid: int, proc: str = PROC) -> bool:
    """Whether a person other than the user `uid` runs anything here; system accounts are no persons.

    True as well where /proc does not show others' processes (proc(5), hidepid), which shows by the first being missing.
    """
    try:
        pids = [name for name in os.listdir(proc) if name.isdigit()]
    except OSError:
        return True
    if _FIRST not in pids:
        return True
    for pid in pids:
        try:
            found = os.stat(f"{proc}/{pid}").st_uid
        except OSError:
            continue
        if found != uid and (found in _PEOPLE or found >= _STRANGER):
            return True
    return False


def start_time(pid: int, proc: str = PROC) -> int:
    """Return when a process began, in clock ticks since boot: with it a pid is never another's. 0 if it has ended."""
    stat = _read_stat(pid, proc)
    return stat.began if stat is not None else 0


def _in_order(known: Collection[int], first: Iterable[int], proc: str) -> Iterator[int]:
    """Yield all pids: those to begin with, the known ones, their descendants, then the others, the youngest first."""
    begun = dict.fromkeys(first)
    yield from begun
    family, seen = list(known), {*known, *begun}
    for pid in family:  # it grows as we go
        if pid not in begun:
            yield pid
        new = [child for child in _children(pid, proc) if child not in seen]
        family += new
        seen.update(new)
    try:
        others = {int(name) for name in os.listdir(proc) if name.isdigit()} - seen
    except OSError:
        return
    yield from sorted(others, reverse=True)


def _children(pid: int, proc: str) -> Iterator[int]:
    """Yield a process's children, of all its threads; none where the kernel does not list them (CONFIG_PROC_CHILDREN)."""
    tasks = f"{proc}/{pid}/task"
    try:
        threads = os.listdir(tasks)
    except OSError:
        return
    for thread in threads:
        yield from map(int, _read(f"{tasks}/{thread}/children").split())


def _sockets(pid: int, proc: str) -> Iterator[int]:
    folder = f"{proc}/{pid}/fd"
    try:
        names = os.listdir(folder)
    except OSError:  # another user's, or it has ended
        return
    for name in names:
        try:
            link = os.readlink(f"{folder}/{name}")
        except OSError:
            continue
        if link.startswith(_LINK):
            yield int(link[len(_LINK) : -1])


def _ancestor(pid: int, known: Collection[int], proc: str) -> int:
    for _ in range(MAX_DEPTH):
        if pid in known:
            return pid
        stat = _read_stat(pid, proc)
        if stat is None or stat.parent <= 1:
            return 0
        pid = stat.parent
    return 0


def _read_stat(pid: int, proc: str) -> _Stat | None:
    # The name is in parentheses and may hold anything, even those.
    head, bracket, tail = _read(f"{proc}/{pid}/stat").rpartition(")")
    fields = tail.split()
    if not bracket or len(fields) <= _START:
        return None
    return _Stat(head.partition("(")[2], int(fields[_PARENT]), int(fields[_START]))


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def main() -> None:
    """Answer questions until there are no more: a line of JSON each.

    ``[inodes, {pid: when it began}, pids to begin with]`` → ``[{inode: [pid, name, ancestor]}, has_neighbours]``.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for whoever asks
    for line in sys.stdin:
        inodes, kernels, first = json.loads(line)
        living = [int(pid) for pid, began in kernels.items() if start_time(int(pid)) == began]
        answer = [find_holders(inodes, living, first), has_neighbours(os.geteuid())]
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
