"""The data plane as a process: what makes it end, and that it leaves no file."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from telehelper.errors import HelperLost
from telehelper.messages import (
    PROTOCOL_VERSION,
    Connect,
    Disconnect,
    Done,
    Failed,
    GetStatus,
    Hello,
    NetdReady,
    Status,
    Undo,
    Welcome,
)

from tests.datapath.test_control_io import Client
from tests.datapath.test_netd_client import ScriptedNetd
from tests.datapath.waiting import WAIT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path


class Process:
    """A data plane, and our end of its socket to netd."""

    def __init__(self, path: Path, process: asyncio.subprocess.Process, netd: ScriptedNetd) -> None:
        self.path = path
        self.process = process
        self.netd = netd

    async def kernel(self) -> Client:
        client = await Client.dial(self.path)
        assert await client.ask(Hello(PROTOCOL_VERSION, os.getpid()), 1) == Welcome(
            PROTOCOL_VERSION, self.process.pid, False
        )
        return client

    async def ends(self) -> int:
        """Wait for the end; neither the process nor its sweeper leaves a file."""
        status = await self.process.wait()
        assert os.listdir(self.path.parent) == []
        return status

    async def undone(self) -> None:
        """Answer the request to undo, which is netd's last."""
        while not isinstance(await self.netd.answer(Done()), Undo):
            pass


@contextlib.asynccontextmanager
async def started(path: Path) -> AsyncIterator[Process]:
    netd = ScriptedNetd()
    reading, writing = os.pipe()
    fds = (netd.theirs.fileno(), writing)
    options = ["--socket", str(path), "--netd-fd", str(fds[0]), "--ready-fd", str(writing)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "telehelper.datapath", *options, pass_fds=fds, stderr=subprocess.PIPE
    )
    netd.theirs.close()
    os.close(writing)
    try:
        assert await asyncio.to_thread(os.read, reading, 100) == b"ready\n"
        yield Process(path, process, netd)
        assert process.stderr is not None
        assert await process.stderr.read() == b""
    finally:
        os.close(reading)
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        netd.ours.close()


def run(path: Path, work: Callable[[Process], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(WAIT), started(path) as process:
            await work(process)

    path.parent.mkdir(mode=0o700)
    asyncio.run(main())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "a.sock"


def test_it_ends_when_the_last_kernel_leaves(path: Path) -> None:
    async def work(it: Process) -> None:
        one, two = await it.kernel(), await it.kernel()
        status = await one.ask(GetStatus())
        assert isinstance(status, Status)
        assert status.state == "idle"
        await one.close()
        assert isinstance(await two.ask(GetStatus()), Status)
        await two.close()
        await it.undone()
        assert await it.ends() == 0

    run(path, work)


def test_disconnect_is_answered_before_it_ends(path: Path) -> None:
    async def work(it: Process) -> None:
        kernel = await it.kernel()
        kernel.send(Disconnect(), 2)
        await it.undone()
        assert (await kernel.next()).body == Done()
        assert await kernel.is_hung_up()
        assert await it.ends() == 0
        await kernel.close()

    run(path, work)


def test_a_failed_connect_is_answered_before_it_ends(path: Path) -> None:
    async def work(it: Process) -> None:
        kernel = await it.kernel()
        it.netd.say(NetdReady(PROTOCOL_VERSION + 1, 1))
        kernel.send(Connect("/nowhere/config", "", "", 10.0), 2)
        await it.undone()
        answers = []
        while not isinstance(body := (await kernel.next()).body, Failed):
            answers.append(body)
        assert isinstance(body.to_error(), HelperLost)
        assert await it.ends() == 0
        await kernel.close()

    run(path, work)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_undoes_and_ends_it(path: Path, number: signal.Signals) -> None:
    async def work(it: Process) -> None:
        kernel = await it.kernel()
        it.process.send_signal(number)
        await it.undone()
        assert await kernel.is_hung_up()
        assert await it.ends() == 0
        await kernel.close()

    run(path, work)


def test_it_ends_when_netd_ends(path: Path) -> None:
    async def work(it: Process) -> None:
        kernel = await it.kernel()
        it.netd.ours.shutdown(socket.SHUT_RDWR)
        assert await it.ends() == 0
        await kernel.close()

    run(path, work)


def test_a_killed_one_lets_netd_know_and_its_files_are_swept(path: Path) -> None:
    async def work(it: Process) -> None:
        kernel = await it.kernel()
        it.process.kill()
        assert await it.netd.is_hung_up()
        await it.process.wait()
        while os.listdir(it.path.parent):  # noqa: ASYNC110  # the sweeper is no child of ours
            await asyncio.sleep(0.01)
        assert await kernel.is_hung_up()
        await kernel.close()

    run(path, work)


def test_it_does_not_listen_where_others_could(path: Path) -> None:
    path.parent.mkdir(mode=0o755)
    netd = ScriptedNetd()
    with netd.ours, netd.theirs:
        options = ["--socket", str(path), "--netd-fd", str(netd.theirs.fileno())]
        done = subprocess.run(
            [sys.executable, "-m", "telehelper.datapath", *options],
            pass_fds=(netd.theirs.fileno(),),
            capture_output=True,
            text=True,
            timeout=WAIT,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == f"telemagic: {path.parent} is open to other users (mode 0755)\n"
    assert os.listdir(path.parent) == []
