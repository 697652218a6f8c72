"""Real sockets of this process: their user at once, their process soon after."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from ipaddress import IPv4Address, ip_address
from typing import Any, Final

import pytest
from telehelper.core.flows import FiveTuple
from telehelper.core.frames import Proto
from telehelper.datapath import owners
from telehelper.datapath.allowance import Allowance
from telehelper.datapath.notebooks import Kernel, Notebooks
from telehelper.datapath.owners import Owners
from telehelper.datapath.processes import Process, has_neighbours, start_time
from telehelper.datapath.report import NOBODY, Owner
from telehelper.datapath.sock_diag import SockDiag, Socket

from tests.datapath.waiting import WAIT, until

HERE: Final = IPv4Address("127.0.0.1")
UID, PID = os.geteuid(), os.getpid()
with open("/proc/self/comm") as _file:
    NAME: Final = _file.read().strip()

Work = Callable[["Bench"], Awaitable[None]]


class Bench:
    """Owners who are asked about sockets of this process, which is a kernel."""

    def __init__(self) -> None:
        self.found: list[int] = []
        self.notebooks = Notebooks()
        self.owners = Owners(self.notebooks, self.found.append)
        self.me = Kernel(PID, start_time(PID))
        self._flow = 0

    def open(self, sock: socket.socket, dst: str = "198.18.0.1") -> int:
        """Tell of a flow that this UDP socket opens; return its number."""
        self._flow += 1
        five = FiveTuple(Proto.UDP, HERE, sock.getsockname()[1], ip_address(dst), 53)
        self.owners.flow_opened(self._flow, five)
        return self._flow

    async def knows(self, *flows: int) -> None:
        await until(
            lambda: all(self.owners.owner_of(flow).pid > 0 for flow in flows), "finding the processes"
        )


def run(work: Work) -> None:
    async def main() -> None:
        async with asyncio.timeout(WAIT):
            it = Bench()
            it.owners.start(SockDiag())
            try:
                await work(it)
            finally:
                await it.owners.close()

    asyncio.run(main())


def udp() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    return sock


def test_the_user_at_once_and_the_process_soon() -> None:
    async def work(it: Bench) -> None:
        with udp() as sock:
            flow = it.open(sock)
            assert it.owners.uid_of(flow) == UID
            assert it.owners.owner_of(flow) == Owner(UID)
            await it.knows(flow)
            assert it.owners.owner_of(flow) == Owner(UID, PID, NAME)
            it.owners.forget(flow)
            it.owners.forget(flow)
            assert (it.owners.uid_of(flow), it.owners.owner_of(flow)) == (-1, NOBODY)

    run(work)


def test_a_kernels_own_socket_is_found_at_once_as_long_as_glances_take_little_time() -> None:
    async def work(it: Bench) -> None:
        it.notebooks.greet(it.me)
        with udp() as sock, udp() as other:
            assert it.owners.owner_of(it.open(sock)).pid == PID
            it.owners._glances = Allowance(0.0, 0.0)
            later = it.open(other)
            assert it.owners.owner_of(later) == Owner(UID)
            await it.knows(later)
            assert it.found == [later]

    run(work)


def test_the_notebook_and_the_cell_that_ran_then_even_if_that_is_said_later() -> None:
    async def work(it: Bench) -> None:
        it.notebooks.greet(it.me)
        with udp() as sock:
            before = it.open(sock)
            began = time.monotonic()
            during = it.open(sock)
            ended = time.monotonic()
            await it.knows(before, during)
            it.notebooks.introduce(PID, "a.ipynb")
            it.notebooks.cell_started(PID, 4, began)
            it.notebooks.cell_ended(PID, 4, ended)
            assert it.owners.owner_of(before) == Owner(UID, PID, NAME, "a.ipynb", -1)
            assert it.owners.owner_of(during) == Owner(UID, PID, NAME, "a.ipynb", 4)

    run(work)


def test_a_childs_flow_belongs_to_the_kernel_above_it() -> None:
    async def work(it: Bench) -> None:
        it.notebooks.greet(it.me)
        it.notebooks.introduce(PID, "a.ipynb")
        code = (
            "import socket, sys; s = socket.socket(type=socket.SOCK_DGRAM); s.bind(('127.0.0.1', 0));"
            "print(s.getsockname()[1], flush=True); sys.stdin.read()"
        )
        pipe = asyncio.subprocess.PIPE
        child = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdin=pipe, stdout=pipe)
        assert child.stdout is not None
        port = int(await child.stdout.readline())
        try:
            it.owners.flow_opened(1, FiveTuple(Proto.UDP, HERE, port, HERE, 9))
            await it.knows(1)
            assert it.owners.owner_of(1)[:4] == (UID, child.pid, NAME, "a.ipynb")
        finally:
            await child.communicate(b"")

    run(work)


def test_a_pid_that_is_another_process_by_now_is_no_kernel() -> None:
    async def work(it: Bench) -> None:
        it.notebooks.greet(Kernel(PID, 1))
        it.notebooks.introduce(PID, "gone.ipynb")
        with udp() as sock:
            flow = it.open(sock)
            await it.knows(flow)
            assert it.owners.owner_of(flow) == Owner(UID, PID, NAME)

    run(work)


def test_a_second_flow_of_the_same_socket_is_known_at_once() -> None:
    async def work(it: Bench) -> None:
        with udp() as sock:
            await it.knows(it.open(sock))
            assert it.owners.owner_of(it.open(sock, "198.18.0.2")) == Owner(UID, PID, NAME)

    run(work)


def test_flows_that_open_while_a_search_is_on_are_searched_for_together() -> None:
    async def work(it: Bench) -> None:
        asked = counted(it)
        socks = [udp() for _ in range(50)]
        first = it.open(socks[0])
        await asyncio.sleep(0)
        flows = [it.open(sock) for sock in socks[1:]]
        await it.knows(first, *flows)
        assert len(asked) <= 3
        for sock in socks:
            sock.close()

    run(work)


def counted(it: Bench) -> list[float]:
    """Note when a search begins."""
    asked: list[float] = []
    real = it.owners._searcher.find

    async def find(*what: Any) -> dict[int, Process]:
        asked.append(time.monotonic())
        return await real(*what)

    it.owners._searcher.find = find  # type: ignore[method-assign]
    return asked


def test_beyond_the_burst_searches_take_a_small_part_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owners, "BURST", 0.0)
    monkeypatch.setattr(owners, "SHARE", 0.5)

    async def work(it: Bench) -> None:
        it.owners._saved = 0.0

        async def find(*_: Any) -> dict[int, Process]:
            began.append(time.monotonic())
            await asyncio.sleep(0.05)
            return {}

        began: list[float] = []
        it.owners._searcher.find = find  # type: ignore[method-assign]
        with udp() as one, udp() as two:
            it.open(one)
            await until(lambda: len(began) == 1, "the first search")
            it.open(two)
            await until(lambda: len(began) == 2, "the second search")
        assert began[1] - began[0] >= 0.1  # the search, and as long again

    run(work)


def test_what_nobody_holds_any_more_is_not_searched_for_again() -> None:
    async def work(it: Bench) -> None:
        asked = counted(it)
        sock = udp()
        flow = it.open(sock)
        sock.close()
        await until(lambda: asked and it.owners._searching is not None and it.owners._searching.done(), "it")
        assert it.owners.owner_of(flow)[:1] == (UID,)
        assert len(asked) == 1

    run(work)


def test_another_users_flow_has_a_user_and_is_not_searched_for(monkeypatch: pytest.MonkeyPatch) -> None:
    if UID:
        pytest.skip("only root can give a socket away")

    async def work(it: Bench) -> None:
        asked = counted(it)
        with udp() as sock:
            os.fchown(sock.fileno(), 54321, -1)
            monkeypatch.setattr(os, "geteuid", lambda: 1000)
            flow = it.open(sock)
            await asyncio.sleep(0)
            assert it.owners.owner_of(flow) == Owner(54321)
            assert asked == []

    run(work)


def test_a_flow_without_a_socket_is_nobodys() -> None:
    async def work(it: Bench) -> None:
        sock = udp()
        port = sock.getsockname()[1]
        sock.close()
        five = FiveTuple(Proto.UDP, HERE, port, HERE, 9)
        it.owners.flow_opened(1, five)
        assert it.owners.find_socket(five) is None
        assert (it.owners.uid_of(1), it.owners.owner_of(1)) == (-1, NOBODY)

    run(work)


def test_an_echo_is_looked_for_among_ping_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(it: Bench) -> None:
        asked: list[tuple[object, ...]] = []
        monkeypatch.setattr(owners, "find_ping", lambda *what: asked.append(what))
        it.owners.flow_opened(1, FiveTuple(Proto.ICMP, HERE, 77, ip_address("198.18.0.1"), 0))
        assert asked == [(HERE, 77, (UID, 0))]

    run(work)


def test_tables_of_ping_sockets_take_little_of_the_time_however_many_echoes_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def work(it: Bench) -> None:
        read: list[int] = []

        def slowly(_src: object, ident: int, _mine: object) -> Socket:
            time.sleep(0.005)  # as it is done there
            read.append(ident)
            return Socket(UID, 1)

        monkeypatch.setattr(owners, "find_ping", slowly)
        began = time.monotonic()
        for number in range(2000):
            it.owners.flow_opened(number, FiveTuple(Proto.ICMP, HERE, number, ip_address("198.18.0.1"), 0))
        passed = time.monotonic() - began
        assert 1 <= len(read) <= (owners.TABLES_SAVED + owners.TABLES * passed) / 0.005 + 1
        assert [it.owners.uid_of(number) for number in (read[0], 1999)] == [UID, -1], "the last is not known"
        it.owners._tables._left = owners.TABLES_SAVED  # a while later
        it.owners.flow_opened(3000, FiveTuple(Proto.ICMP, HERE, 9, ip_address("198.18.0.1"), 0))
        assert it.owners.uid_of(3000) == UID

    run(work)


def test_before_the_start_and_after_the_end_flows_are_nobodys() -> None:
    async def main() -> None:
        it = Bench()
        with udp() as sock:
            assert it.owners.owner_of(it.open(sock)) == NOBODY
            it.owners.start(SockDiag())
            await it.owners.close()
            assert it.owners.owner_of(it.open(sock)) == NOBODY
        await it.owners.close()

    asyncio.run(main())


def test_however_many_flows_others_open_ours_stay_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owners, "KEPT", 3)

    async def work(it: Bench) -> None:
        with udp() as sock:
            mine = it.open(sock)
            monkeypatch.setattr(it.owners, "find_socket", lambda _five: Socket(54321, 1))
            theirs = [it.open(sock) for _ in range(10)]
            assert it.owners.uid_of(mine) == UID
            assert [it.owners.uid_of(flow) for flow in theirs[-4:]] == [-1, 54321, 54321, 54321]
            assert it.owners.owner_of(theirs[-1]) == Owner(54321)
            it.owners.forget(theirs[-1])
            assert it.owners.uid_of(theirs[-1]) == -1

    run(work)


def test_without_a_child_flows_still_have_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("telehelper.datapath.searcher.COMMAND", ("/nonexistent/python",))

    async def work(it: Bench) -> None:
        with udp() as sock:
            assert it.owners.owner_of(it.open(sock)) == Owner(UID)

    run(work)


def test_neighbours_are_looked_for_again_when_somebody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owners, "LOOK_AGAIN", 0.0)

    async def work(it: Bench) -> None:
        asked = counted(it)
        it.owners._searcher.has_neighbours = not _has_neighbours()
        assert it.owners.has_neighbours is not _has_neighbours()
        await until(lambda: it.owners._searcher.has_neighbours is _has_neighbours(), "another look")
        assert asked

    run(work)


def _has_neighbours() -> bool:
    return has_neighbours(UID)


def test_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("KEPT", 3), ("REMEMBERED", 2), ("WAITING", 2), ("LATELY", 1)):
        monkeypatch.setattr(owners, name, value)

    async def work(it: Bench) -> None:
        socks = [udp() for _ in range(5)]
        flows = [it.open(sock) for sock in socks]
        assert [it.owners.uid_of(flow) for flow in flows] == [-1, -1, UID, UID, UID]
        await it.knows(*flows[-2:])
        assert sorted(it.found) == flows[-2:]
        assert len(it.owners._holders) == 2
        assert list(it.owners._lately) == [PID]
        for sock in socks:
            sock.close()

    run(work)
