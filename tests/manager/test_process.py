"""The manager as a process under pressure: drained with flows open, and out of file descriptors."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import uvloop
from telehelper.core.frames import FrameType, decode_coded
from telehelper.tcp_stream import connect_tcp

from tests.streams import Listener

from .near_side import NearFlow, NearSide
from .test_manager import echo, service

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

WAIT = 60.0


class ManagerProcess(NearSide):
    """A client of a manager in a process of its own."""

    def __init__(self, process: subprocess.Popen[str], grpc_port: int, carrier_port: int) -> None:
        super().__init__(SimpleNamespace(grpc_port=grpc_port, carrier_port=carrier_port), [])  # type: ignore[arg-type]
        self.process = process

    async def ended(self) -> str:
        """Wait for the process; return what it logged."""
        _, log = await asyncio.to_thread(self.process.communicate)
        assert self.process.returncode == 0
        return log

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def cpu(self) -> float:
        """Seconds of CPU used so far, all threads."""
        tasks = Path(f"/proc/{self.process.pid}/task").glob("*/schedstat")
        return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9


@contextlib.asynccontextmanager
async def manager_process(*options: str, descriptors: int | None = None) -> AsyncIterator[ManagerProcess]:
    command = [
        sys.executable,
        "-m",
        "telehelper.manager",
        "--grpc-port=0",
        "--carrier-port=0",
        "--allow-loopback",
    ]
    if descriptors is not None:  # by a shell: what runs between fork and exec beside gRPC's threads may crash
        command = ["sh", "-c", f'ulimit -n {descriptors} && exec "$@"', "sh", *command]
    with subprocess.Popen(  # noqa: ASYNC220  # short, and nothing else runs yet
        [*command, "--service-account=/nonexistent", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            line = await asyncio.to_thread(process.stdout.readline)
            ready = re.match(r"ready grpc=(\d+) carrier=(\d+)", line)
            assert ready, line
            near = ManagerProcess(process, *map(int, ready.groups()))
            yield near
            for carrier in near.carriers:
                await carrier.close()
            await near.channel.close()
        finally:
            process.kill()


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(WAIT):
            await scenario()

    uvloop.run(main())


async def heard(reader: asyncio.StreamReader, outcome: asyncio.Queue[str]) -> None:
    try:
        await reader.read(-1)
        outcome.put_nowait("end")
    except ConnectionResetError:
        outcome.put_nowait("reset")


def test_sigterm_lets_flows_end_within_the_grace() -> None:
    async def scenario() -> None:
        async with service(echo) as port, manager_process("--grace=30") as near:
            carrier = await near.carrier()
            flow = await carrier.open(port).opened()
            near.process.send_signal(signal.SIGTERM)
            frame = await carrier.next_control()
            assert (frame.type, decode_coded(frame)[0]) == (FrameType.GOAWAY, errno.ESHUTDOWN)
            rejected = await carrier.open(port).next()
            assert rejected.type is FrameType.REJECTED
            assert decode_coded(rejected) == (errno.ESHUTDOWN, "the manager is shutting down")
            for _ in range(10):
                await flow.write(b"still here")
                assert await flow.read(10) == b"still here"
            flow.fin()
            assert (await flow.next()).type is FrameType.FIN
            assert await carrier.lost == "the far side closed the carrier"
            log = await near.ended()  # long before the grace is over
            assert "draining" in log
            assert re.search(
                r"dial session=\w+ flow=2 tcp 127.0.0.1:\d+ ESHUTDOWN the manager is shutting down", log
            )

    run(scenario)


def test_flows_that_outlive_the_grace_are_reset() -> None:
    async def scenario() -> None:
        outcome: asyncio.Queue[str] = asyncio.Queue()
        async with (
            service(lambda reader, _: heard(reader, outcome)) as port,
            manager_process("--grace=0.3") as near,
        ):
            carrier = await near.carrier()
            flow = await carrier.open(port).opened()
            await flow.write(b"a query that takes its time")
            near.process.send_signal(signal.SIGTERM)
            assert (await carrier.next_control()).type is FrameType.GOAWAY
            assert await outcome.get() == "reset"
            assert await carrier.lost == "the far side closed the carrier"
            await near.ended()

    run(scenario)


def test_out_of_descriptors_flows_are_rejected_and_carriers_still_come_in() -> None:
    async def scenario() -> None:
        async with service(echo) as port, manager_process(descriptors=160) as near:
            carrier = await near.carrier()
            flows: list[NearFlow] = []
            while True:
                flow = carrier.open(port)
                frame = await flow.next()
                if frame.type is FrameType.REJECTED:
                    break
                flows.append(flow)
            code, reason = decode_coded(frame)
            assert code == errno.EMFILE
            assert "no file descriptor left" in reason
            assert len(flows) > 80
            second = await near.carrier()  # one in eight is kept for those
            for one in (carrier, second):
                assert await one.open(port).coded() == (FrameType.REJECTED, errno.EMFILE)
            await flows[0].write(b"unharmed")
            assert await flows[0].read(8) == b"unharmed"
            flows[0].fin()
            assert (await flows[0].next()).type is FrameType.FIN
            again = await second.open(port).opened()
            await again.write(b"and free again")
            assert await again.read(14) == b"and free again"

    run(scenario)


def test_connections_beyond_the_descriptors_neither_stop_nor_spin_it() -> None:
    async def scenario() -> None:
        async with service(echo) as port, manager_process(descriptors=64) as near:
            carrier = await near.carrier()
            flow = await carrier.open(port).opened()
            streams = []
            for _ in range(200):
                with contextlib.suppress(OSError):
                    streams.append(await connect_tcp("127.0.0.1", near.manager.carrier_port))
            listeners = [Listener(stream) for stream in streams]
            await flow.write(b"still here")
            assert await flow.read(10) == b"still here"
            assert near.descriptors() >= 60  # of 64
            used = near.cpu()
            await asyncio.sleep(1)
            assert near.cpu() - used < 0.3  # a loop that spins takes what it can get
            assert any(listener.ends for listener in listeners)  # those beyond are closed, not left hanging
            for stream in streams:
                stream.abort()
            while True:
                with contextlib.suppress(OSError, TimeoutError):
                    async with asyncio.timeout(2):
                        late = await near.carrier()
                        break
            assert await (await late.open(port).opened()).read(0) == b""

    run(scenario)
