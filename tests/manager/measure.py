"""The manager's own cost, measured with nothing else of the product in the way.

A real manager process, a real echo and source service, and a near side of bare frames, all on the loopback. Run it in
namespaces of its own, and with nothing else to do for the machine::

    unshare -Urn .venv/bin/python -m tests.manager.measure connects|idle|latency [--set manager.tcp_flow.READS=2 …]

Prints one JSON object. The manager's share is the CPU time of its process; the near side and the services take theirs
from the same cores.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import resource
import subprocess
import sys
from ipaddress import ip_address
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Final

import grpc
import uvloop
from telehelper.carrier import Carrier
from telehelper.core.frames import (
    VERSION,
    Frame,
    FrameType,
    Open,
    Proto,
    encode_coded,
    encode_open,
    encode_u32,
)
from telehelper.core.mux import Mux
from telehelper.rpc import manager_pb2 as pb
from telehelper.rpc import manager_pb2_grpc
from telehelper.tcp_stream import connect_tcp

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

OURS: Final = ip_address("10.0.0.1")
LOOPBACK: Final = ip_address("127.0.0.1")
ECHO, SOURCE = 7007, 7019
MESSAGE: Final = b"0123456789"
_MANAGER: Final = """
import importlib, sys
for setting in filter(None, sys.argv.pop(1).split()):
    name, value = setting.split("=")
    module, constant = name.rsplit(".", 1)
    setattr(importlib.import_module("telehelper." + module), constant, int(value))
from telehelper.manager.main import main
sys.exit(main())
"""


# --- the services -------------------------------------------------------------------------------------------------


class Echo(asyncio.Protocol):
    """Sends back what comes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class Source(Echo):
    """Sends for ever."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.resume_writing()

    def resume_writing(self) -> None:
        while self.transport.get_write_buffer_size() < 256 * 1024:
            self.transport.write(bytes(128 * 1024))


async def services() -> None:
    loop = asyncio.get_running_loop()
    await loop.create_server(Echo, "127.0.0.1", ECHO, backlog=4096)
    await loop.create_server(Source, "127.0.0.1", SOURCE, backlog=4096)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


# --- what a process costs -----------------------------------------------------------------------------------------


def cpu(pid: int) -> float:
    """Seconds of CPU of all the process's threads, to the nanosecond."""
    return (
        sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9
    )


def pss(pid: int) -> int:
    """Bytes of memory that the process has for itself."""
    line = next(
        line for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines() if line.startswith("Pss:")
    )
    return int(line.split()[1]) * 1024


@contextlib.contextmanager
def process(*command: str):  # type: ignore[no-untyped-def]  # noqa: ANN201
    with (
        subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as log,
        subprocess.Popen(
            [sys.executable, *command], stdout=subprocess.PIPE, stderr=log.stdin, text=True
        ) as running,
    ):
        try:
            assert running.stdout is not None
            yield running, running.stdout.readline().split()
        finally:
            running.terminate()
            running.wait(20)
            assert log.stdin is not None
            log.stdin.close()


# --- the near side ------------------------------------------------------------------------------------------------


class Near:
    """One carrier; `on_frame` of each flow gets its frames."""

    def __init__(self) -> None:
        self.flows: dict[int, Callable[[Frame], None]] = {}
        self.number = 0

    async def connect(self, port: int, token: str) -> None:
        self.carrier = Carrier(
            await connect_tcp("127.0.0.1", port),
            Mux(monotonic()),
            on_frames=self.received,
            on_lost=lambda *_: None,
        )
        self.task = asyncio.ensure_future(self.carrier.run())
        self.carrier.send(encode_coded(FrameType.HELLO, 0, VERSION, token))

    def received(self, _carrier: Carrier, frames: list[Frame]) -> None:
        for frame in frames:
            if frame.flow in self.flows:
                self.flows[frame.flow](frame)

    def open(self, dport: int, on_frame: Callable[[Frame], None], credit: int = 256 * 1024) -> int:
        self.number += 1
        self.flows[self.number] = on_frame
        what = Open(Proto.TCP, OURS, 40_000, LOOPBACK, dport, 10.0, credit)
        self.carrier.send(encode_open(self.number, what))
        return self.number

    def download(self, window: int) -> list[int]:
        """Begin a bulk flow; return a list whose one element is the bytes received so far."""
        got, ungranted = [0], 0

        def on_frame(frame: Frame) -> None:
            nonlocal ungranted
            if frame.type is FrameType.DATA:
                got[0] += len(frame.payload)
                ungranted += len(frame.payload)
                if ungranted * 4 >= window:
                    self.carrier.send(encode_u32(FrameType.CREDIT, flow, ungranted))
                    ungranted = 0

        flow = self.open(SOURCE, on_frame, credit=window)
        return got


@contextlib.asynccontextmanager
async def near_side(ports: list[str], carriers: int = 1) -> AsyncIterator[list[Near]]:
    grpc_port, carrier_port = (int(port.split("=")[1]) for port in ports[1:])
    async with grpc.aio.insecure_channel(f"127.0.0.1:{grpc_port}") as channel:
        stub: manager_pb2_grpc.ManagerAsyncStub = manager_pb2_grpc.ManagerStub(channel)  # type: ignore[assignment,no-untyped-call]
        request = pb.OpenSessionRequest(protocol=VERSION, client_version="1", client_name="measure")
        token = (await stub.OpenSession(request)).token
        nears = [Near() for _ in range(carriers)]
        for near in nears:
            await near.connect(carrier_port, token)
        yield nears
        for near in nears:
            await near.carrier.close("over")
            await near.task


class Short:
    """A short connection after the other, until `left` has run out: open, ten bytes there and back, closed."""

    def __init__(self, near: Near, left: list[int], times: list[float], done: asyncio.Event) -> None:
        self.near, self.left, self.times, self.done = near, left, times, done
        self.again()

    def again(self) -> None:
        if not self.left[0]:
            self.done.set()
            return
        self.left[0] -= 1
        self.started = monotonic()
        self.flow = self.near.open(ECHO, self.on_frame)
        self.state = 0

    def on_frame(self, frame: Frame) -> None:
        if frame.type is FrameType.OPENED:
            self.near.carrier.send(Frame(FrameType.DATA, self.flow, MESSAGE))
        elif frame.type is FrameType.DATA:
            self.times.append(monotonic() - self.started)
            self.near.carrier.send(Frame(FrameType.FIN, self.flow))
        elif frame.type is FrameType.FIN:
            del self.near.flows[self.flow]
            self.again()
        else:
            assert frame.type is FrameType.CREDIT, frame


async def connects(manager: int, ports: list[str], count: int, at_once: int) -> dict[str, float]:
    async with near_side(ports, 2) as nears:
        results = {}
        for n in (200, count):  # the first is for warming up
            left, times = [n], []
            done = [asyncio.Event() for _ in range(at_once)]
            before, started = cpu(manager), monotonic()
            for i, event in enumerate(done):
                Short(nears[i % 2], left, times, event)
            for event in done:
                await event.wait()
            times.sort()
            results = {
                "connects_per_s": n / (monotonic() - started),
                "manager_us": (cpu(manager) - before) / n * 1e6,
                "p50_us": times[n // 2] * 1e6,
                "p99_us": times[n * 99 // 100] * 1e6,
            }
        return results


async def idle(manager: int, ports: list[str], count: int) -> dict[str, float]:
    async with near_side(ports, 2) as nears:
        opened = 0
        done = asyncio.Event()

        def on_frame(frame: Frame) -> None:
            nonlocal opened
            assert frame.type is FrameType.OPENED, frame
            opened += 1
            if opened == wanted:
                done.set()

        async def open_to(n: int) -> None:
            nonlocal wanted
            while wanted < n:
                wanted = min(wanted + 500, n)
                done.clear()
                for i in range(wanted - opened):
                    nears[i % 2].open(ECHO, on_frame)
                await done.wait()

        wanted = 0
        await open_to(100)
        before = pss(manager)
        await open_to(100 + count)
        await asyncio.sleep(0.5)
        grown = pss(manager) - before
        at = cpu(manager)
        await asyncio.sleep(3)
        return {"bytes_per_flow": grown / count, "idle_cpu": (cpu(manager) - at) / 3}


async def latency(manager: int, ports: list[str], seconds: float, bulk: int, window: int) -> dict[str, float]:
    """Request/response beside `bulk` downloads on the same carrier."""
    async with near_side(ports) as (near,):
        got = [near.download(window) for _ in range(bulk)]
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def on_frame(frame: Frame) -> None:
            if frame.type in (FrameType.DATA, FrameType.OPENED):
                answer.set_result(None)

        flow = near.open(ECHO, on_frame)
        await answer
        if bulk:
            await asyncio.sleep(0.3)
        times, cpu_before, started, bytes_before = [], cpu(manager), monotonic(), sum(n for (n,) in got)
        while monotonic() - started < seconds:
            answer = asyncio.get_running_loop().create_future()
            asked = monotonic()
            near.carrier.send(Frame(FrameType.DATA, flow, MESSAGE))
            await answer
            times.append(monotonic() - asked)
        took = monotonic() - started
        used = cpu(manager) - cpu_before
        times.sort()
        return {
            "gbit_s": (sum(n for (n,) in got) - bytes_before) * 8e-9 / took,
            "rr_p50_us": times[len(times) // 2] * 1e6,
            "rr_p99_us": times[len(times) * 99 // 100] * 1e6,
            "rr_per_s": len(times) / took,
            "manager_cpu": used / took,
            "manager_us_per_rr": used / len(times) * 1e6,
        }


def main() -> None:
    if sys.argv[1:] == ["services"]:
        uvloop.run(services())
        return
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["connects", "idle", "latency"])
    parser.add_argument("--set", action="append", default=[], metavar="MODULE.NAME=NUMBER")
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--at-once", type=int, default=32)
    parser.add_argument("--bulk", type=int, default=1)
    parser.add_argument("--window", type=int, default=1 << 20, help="bytes of credit for a bulk flow")
    parser.add_argument("--seconds", type=float, default=4.0)
    args = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    subprocess.run(["ip", "link", "set", "lo", "up"], check=False, stderr=subprocess.DEVNULL)
    options = [
        "--allow-loopback",
        "--grpc-port=0",
        "--carrier-port=0",
        "--service-account=/nonexistent",
        "--grace=0",
    ]
    with (
        process("-m", __spec__.name, "services"),
        process("-c", _MANAGER, " ".join(args.set), *options) as (manager, ports),
    ):
        work = {
            "connects": lambda: connects(manager.pid, ports, args.count, args.at_once),
            "idle": lambda: idle(manager.pid, ports, args.count - 100),
            "latency": lambda: latency(manager.pid, ports, args.seconds, args.bulk, args.window),
        }[args.what]
        figures = uvloop.run(work())
    print(json.dumps({name: round(value, 4 if value < 10 else 1) for name, value in figures.items()}))  # noqa: T201


if __name__ == "__main__":
    main()
