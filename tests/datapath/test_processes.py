"""Real processes with real sockets, and some that cannot be made, in a /proc of our own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Final

import pytest
from telehelper.datapath import processes
from telehelper.datapath.processes import Process, find_holders, has_neighbours, start_time

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOLD: Final = """
import os, socket, sys
sock = socket.socket()
print(os.fstat(sock.fileno()).st_ino, flush=True)
sys.stdin.read()
"""
# A grandchild holds it; the child between has nothing.
BELOW: Final = """
import subprocess, sys
subprocess.run([sys.executable, "-c", sys.argv[1]])
"""


@contextlib.contextmanager
def holder(*code: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Start a Python that holds a socket, or has one below it; gives the socket's inode."""
    command = [sys.executable, "-c", *code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process, int(process.stdout.readline())
        process.communicate()


def name_of(pid: int) -> str:
    with open(f"/proc/{pid}/comm") as file:
        return file.read().strip()


def test_a_socket_of_ours() -> None:
    with socket.socket() as sock:
        inode = os.fstat(sock.fileno()).st_ino
        expected = {inode: Process(os.getpid(), name_of(os.getpid()), os.getpid())}
        assert find_holders([inode], [os.getpid()]) == expected


def test_a_glance_finds_what_the_known_ones_hold_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as sock:
        inode = os.fstat(sock.fileno()).st_ino
        found = processes.glance(
            inode, {2**22 + 1: 1, os.getpid(): start_time(os.getpid())}
        )  # the first has ended
        assert found is not None
        assert (found.pid, found.ancestor) == (os.getpid(), os.getpid())
        assert processes.glance(inode, {os.getpid(): 1}) is None  # another process by now
        assert processes.glance(inode + 10**9, {os.getpid(): start_time(os.getpid())}) is None
        monkeypatch.setattr(processes, "MAX_GLANCED", 1)
        assert processes.glance(inode, {os.getpid(): start_time(os.getpid())}) is None


def test_a_glance_sees_what_the_known_ones_have_started(monkeypatch: pytest.MonkeyPatch) -> None:
    me = {os.getpid(): start_time(os.getpid())}
    with socket.socket() as sock:
        inode = os.fstat(sock.fileno()).st_ino
        child = subprocess.Popen(
            [sys.executable, "-c", "import sys; sys.stdin.read()"],
            stdin=subprocess.PIPE,
            pass_fds=[sock.fileno()],
        )
    with child:
        found = processes.glance(inode, me)
        assert found is not None
        assert (found.pid, found.ancestor) == (child.pid, os.getpid())
        assert processes.glance(inode, {os.getpid(): 1}) is None
        monkeypatch.setattr(processes, "MAX_FAMILY", 0)
        assert (
            processes.glance(inode, me) is not None
        )  # of the known ones themselves the children are always seen
        child.communicate()
    assert processes.glance(inode, me) is None


def test_without_known_processes_it_is_found_and_descends_from_none() -> None:
    with holder(HOLD) as (process, inode):
        assert find_holders([inode], []) == {inode: Process(process.pid, name_of(process.pid), 0)}


def test_a_grandchilds_socket_belongs_to_the_known_one() -> None:
    with holder(BELOW, HOLD) as (process, inode):
        found = find_holders([inode], [process.pid])[inode]
        assert found.ancestor == process.pid
        assert found.pid != process.pid


def test_the_nearest_of_several_known_ones_counts() -> None:
    with holder(HOLD) as (process, inode):
        assert find_holders([inode], [os.getpid(), process.pid])[inode].ancestor == process.pid
        assert find_holders([inode], [os.getpid()])[inode].ancestor == os.getpid()


def test_several_at_once_and_some_of_nobody() -> None:
    with holder(HOLD) as (one, first), holder(HOLD) as (two, second):
        found = find_holders({first, second, 1}, [os.getpid()])
        assert {inode: holder.pid for inode, holder in found.items()} == {first: one.pid, second: two.pid}


def test_a_process_that_has_ended_is_not_found() -> None:
    with holder(HOLD) as (_, inode):
        pass
    assert find_holders([inode], []) == {}


def test_when_a_process_began_tells_it_from_a_later_one() -> None:
    assert start_time(os.getpid()) == start_time(os.getpid()) > 0
    with holder(HOLD) as (process, _):
        assert start_time(process.pid) > start_time(os.getpid())
        pid = process.pid
    assert start_time(pid) == 0


# --- in a /proc of our own ---------------------------------------------------------------------------------------


class Proc:
    """A /proc."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.looked: list[int] = []

    def add(self, pid: int, parent: int, name: str = "python", *links: str, children: str = "") -> None:
        folder = self.root / str(pid)
        (folder / "fd").mkdir(parents=True)
        rest = " ".join(str(number) for number in range(16))
        (folder / "stat").write_text(f"{pid} ({name}) S {parent} {rest} 0 0 77{pid} 0 0\n")
        for number, link in enumerate(links):
            (folder / "fd" / str(number)).symlink_to(link)
        (folder / "task" / str(pid)).mkdir(parents=True)
        (folder / "task" / str(pid) / "children").write_text(children)

    def find(
        self, *inodes: int, known: tuple[int, ...] = (), first: tuple[int, ...] = ()
    ) -> dict[int, Process]:
        return find_holders(inodes, known, first, str(self.root))


@pytest.fixture
def proc(tmp_path: Path) -> Proc:
    return Proc(tmp_path)


def test_names_with_everything_in_them(proc: Proc) -> None:
    proc.add(5, 1, "a) S 9 (b", "socket:[50]")
    assert proc.find(50) == {50: Process(5, "a) S 9 (b", 0)}


def test_other_descriptors_are_passed_over(proc: Proc) -> None:
    proc.add(5, 1, "x", "/dev/null", "pipe:[50]", "anon_inode:[50]", "socket:[51]")
    assert proc.find(50, 51) == {51: Process(5, "x", 0)}


def test_the_known_ones_and_their_descendants_come_before_all_others(proc: Proc) -> None:
    proc.add(5, 1, "kernel", children="6 7 ")
    proc.add(6, 5, "sh", children="8 ")
    proc.add(7, 5, "other")
    proc.add(8, 6, "psql", "socket:[50]")
    proc.add(900, 1, "younger", "socket:[50]")  # inherited: who is nearer to the notebook has it
    assert proc.find(50, known=(5,)) == {50: Process(8, "psql", 5)}
    assert proc.find(50) == {50: Process(900, "younger", 0)}
    assert proc.find(50, known=(5,), first=(900,)) == {50: Process(900, "younger", 0)}


def test_a_kernel_without_lists_of_children_is_searched_all_the_same(proc: Proc) -> None:
    proc.add(5, 1, "kernel")
    proc.add(8, 5, "psql", "socket:[50]")
    for path in proc.root.glob("*/task"):
        path.rename(path.with_name("no-task"))
    assert proc.find(50, known=(5,)) == {50: Process(8, "psql", 5)}


def test_a_family_that_goes_in_circles_ends(proc: Proc) -> None:
    proc.add(5, 6, "x", "socket:[50]", children="6 ")
    proc.add(6, 5, "y", children="5 ")
    assert proc.find(50) == {50: Process(5, "x", 0)}
    assert proc.find(51, known=(5,)) == {}


@pytest.mark.parametrize("text", ["", "5 (x", "5 (x) S", "5 (x) S 1 2 3"])
def test_a_process_whose_stat_is_cut_off_is_not_found(proc: Proc, text: str) -> None:
    proc.add(5, 1, "x", "socket:[50]")
    (proc.root / "5" / "stat").write_text(text)
    assert proc.find(50) == {}
    assert start_time(5, str(proc.root)) == 0


def test_one_that_ends_while_its_ancestors_are_looked_for_has_none(proc: Proc) -> None:
    proc.add(8, 6, "psql", "socket:[50]")
    proc.add(5, 1, "kernel")
    assert proc.find(50, known=(5,)) == {50: Process(8, "psql", 0)}


def test_without_proc_nobody_is_found(proc: Proc) -> None:
    proc.root = proc.root / "none"
    assert proc.find(50, known=(5,)) == {}


@pytest.mark.parametrize(
    ("uid", "is_person"),
    [
        (0, False),
        (33, False),
        (999, False),
        (1000, False),
        (1001, True),
        (60000, True),
        (61500, False),
        (65534, True),
        (100000, True),
    ],
)
def test_who_counts_as_a_neighbour(
    proc: Proc, uid: int, is_person: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    proc.add(1, 0)
    proc.add(5, 1)
    proc.add(6, 1)
    (proc.root / "self").mkdir()
    real = os.stat

    def stat(path: str) -> os.stat_result:
        found = list(real(path))
        found[4] = uid if path.endswith("/6") else 1000  # st_uid
        return os.stat_result(found)

    monkeypatch.setattr(processes.os, "stat", stat)
    assert has_neighbours(1000, str(proc.root)) is is_person


def test_what_ends_meanwhile_is_no_neighbour_and_without_proc_there_may_be_some(proc: Proc) -> None:
    proc.add(1, 0)
    (proc.root / "7").symlink_to("/nonexistent")
    assert not has_neighbours(os.geteuid(), str(proc.root))
    assert has_neighbours(os.geteuid(), str(proc.root / "none"))


def test_where_others_processes_are_hidden_there_may_be_some(proc: Proc) -> None:
    proc.add(os.getpid(), 1)  # with hidepid only our own are listed, and not the first
    assert has_neighbours(os.geteuid(), str(proc.root))


# --- as a program ------------------------------------------------------------------------------------------------


def test_the_program_answers_line_by_line_and_ignores_ctrl_c() -> None:
    command = [sys.executable, "-I", "-S", processes.__file__]
    with (
        socket.socket() as sock,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        inode, mine = os.fstat(sock.fileno()).st_ino, os.getpid()
        for began, ancestor in ((start_time(mine), mine), (1, 0)):  # the second is another process by now
            process.stdin.write(json.dumps([[inode], {mine: began}, []]) + "\n")
            process.stdin.flush()
            answer = json.loads(process.stdout.readline())
            assert answer == [{str(inode): [mine, name_of(mine), ancestor]}, has_neighbours(os.geteuid())]
            process.send_signal(signal.SIGINT)
        process.stdin.close()
        assert process.wait(10) == 0
