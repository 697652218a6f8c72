"""Owners, notebooks and the gate put together; who was kept out is told with a name."""

from __future__ import annotations

import asyncio
import os
import pwd
import socket
import time
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from telehelper.core.flows import FiveTuple
from telehelper.core.frames import Proto
from telehelper.datapath import attribution, sock_diag
from telehelper.datapath.attribution import Attribution
from telehelper.datapath.gate import Gate, Refused
from telehelper.datapath.report import Owner
from telehelper.messages import Done
from telehelper.observing import CellEnded, CellStarted, Introduce

from tests.datapath.waiting import WAIT, turns, until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import pytest
    from telehelper.core.frames import Frame

HERE, HERE6 = ip_address("127.0.0.1"), ip_address("2001:db8::1")
WEB: Final = FiveTuple(Proto.TCP, HERE, 40_000, HERE, 80)
WEB6: Final = FiveTuple(Proto.TCP, HERE6, 40_000, HERE6, 80)
ACCOUNTLESS: Final = 54321
REMEDY: Final = "--share lets everybody on this machine through"


class Tunnel:
    def send(self, frame: Frame) -> None:
        raise NotImplementedError

    def forget(self, flow: int) -> None:
        raise NotImplementedError


class Bench:
    def __init__(self) -> None:
        self.found: list[int] = []
        self.told: list[tuple[str, str]] = []
        self.tunnel = Tunnel()
        self.attribution = Attribution(self.found.append, lambda who, line: self.told.append((who, line)))

    def gate(self) -> object:
        return self.attribution.guard(self.tunnel, lambda _: True, lambda _: None)

    async def refuse(self, *refused: Refused) -> None:
        for each in refused:
            self.attribution._refused(each)
        await until(lambda: len(self.told) >= len(refused), "telling")


def run(work: Callable[[Bench], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(WAIT):
            it = Bench()
            try:
                await work(it)
            finally:
                await it.attribution.close()

    asyncio.run(main())


def test_others_are_kept_out_unless_that_is_shared() -> None:
    async def work(it: Bench) -> None:
        it.attribution.start(0, shares=False)
        assert isinstance(it.gate(), Gate)
        assert it.attribution.notices == ()

    async def sharing(it: Bench) -> None:
        it.attribution.start(0, shares=True)
        assert it.gate() is it.tunnel
        assert it.attribution.notices == (
            "--share: everybody on this machine reaches the cluster through this connection",
        )

    run(work)
    run(sharing)


def test_where_owners_cannot_be_told_nobody_is_kept_out_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sock_diag, "NETLINK_SOCK_DIAG", 31)  # a protocol that no kernel has

    async def work(it: Bench) -> None:
        it.attribution.start(0, shares=False)
        assert it.gate() is it.tunnel
        (line,) = it.attribution.notices
        assert "other users of this machine are not refused" in line

    run(work)


def test_what_kernels_say_reaches_the_flows_of_their_processes() -> None:
    async def work(it: Bench) -> None:
        it.attribution.start(0, shares=False)
        pid = os.getpid()
        it.attribution.greet(pid)
        it.attribution.greet(pid)
        assert it.attribution.answer(Introduce("a.ipynb"), pid) == Done()
        it.attribution.answer(CellStarted(2, 0.0), pid)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(("127.0.0.1", 0))
            five = FiveTuple(Proto.UDP, HERE, sock.getsockname()[1], HERE, 9)
            it.attribution.owners.flow_opened(1, five)
            assert it.attribution.owners.owner_of(1)[3:] == ("a.ipynb", 2)  # a kernel's own: at once
            it.attribution.answer(CellEnded(2, 1.0), pid)
            assert it.attribution.owners.owner_of(1)[3:] == ("a.ipynb", -1)
            it.attribution.leave(pid)
            it.attribution.owners.flow_opened(2, five)
            assert it.attribution.owners.owner_of(2) == Owner(*it.attribution.owners.owner_of(1)[:3])

    run(work)


def test_who_was_kept_out_is_told_by_name_and_counted() -> None:
    me = pwd.getpwuid(os.geteuid())
    mine = f"{me.pw_name} (uid {me.pw_uid})"

    async def work(it: Bench) -> None:
        await it.refuse(
            Refused(me.pw_uid, WEB), Refused(me.pw_uid, WEB6), Refused(ACCOUNTLESS, WEB), Refused(-1, WEB)
        )
        assert sorted(it.told) == sorted(
            [
                (mine, f"a TCP flow to 127.0.0.1:80 was refused, it is {mine}'s; {REMEDY}"),
                (mine, f"a TCP flow to [2001:db8::1]:80 was refused, it is {mine}'s; {REMEDY}"),
                ("uid 54321", f"a TCP flow to 127.0.0.1:80 was refused, it is uid 54321's; {REMEDY}"),
                (
                    "nobody known",
                    "a TCP flow to 127.0.0.1:80 was refused, it came from a container, or its program closed it"
                    f" at once; {REMEDY}",
                ),
            ]
        )
        (line,) = it.attribution.notices
        assert line.startswith(f"flows were refused: 2 of {mine}, 1 of ")
        assert line.endswith(f"; {REMEDY}")

    run(work)


def test_who_has_many_uids_does_not_keep_all_threads_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with uids below one's own (newuidmap), and a directory service that takes its time."""
    asked: list[int] = []

    def slowly(uid: int) -> str:
        asked.append(uid)
        time.sleep(0.2)
        return f"user {uid}"

    monkeypatch.setattr(attribution, "_user_name", slowly)

    async def work(it: Bench) -> None:
        await it.refuse(*(Refused(uid, WEB) for uid in range(100_000, 100_100)))
        assert len(asked) == attribution.LOOKUPS
        assert [who for who, _ in it.told][:2] == ["uid 100002", "uid 100003"], (
            "they did not wait for the others"
        )

    run(work)


def test_names_are_looked_up_once_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attribution, "USERS", 2)
    asked: list[int] = []

    def name(uid: int) -> str:
        asked.append(uid)
        return f"user {uid}"

    monkeypatch.setattr(attribution, "_user_name", name)

    async def work(it: Bench) -> None:
        for uid in (1, 1, 2, 3, 3, 1):
            it.told.clear()
            await it.refuse(Refused(uid, WEB))
        assert asked == [1, 2, 3, 1]
        assert it.attribution.notices == (f"flows were refused: 3 of user 1, 1 of user 2; {REMEDY}",)
        it.told.clear()
        for _ in range(10):  # somebody tries very hard
            it.attribution._refused(Refused(9, WEB))
        await turns()
        assert len(it.told) <= 2

    run(work)
