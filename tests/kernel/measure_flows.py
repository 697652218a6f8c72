"""How long `flows()` of 10,000 flows takes, from a data plane in a process of its own: `python -m tests.kernel.measure_flows`.

The rows are real ones, and so are the socket and the codec; what the data plane does beside that is to join the rows.
CPU seconds of both processes are told too: on a machine that others use they are the figures to compare.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from telehelper.datapath.report import flow_text
from telehelper.observing import FlowTable, GetFlows

from telemagic.connection import Connection
from telemagic.control import ControlClient
from telemagic.control_fake import STATUS, FakeDatapath
from telemagic.loop import LoopThread
from tests.kernel.flow_rows import flow

if TYPE_CHECKING:
    from telehelper.messages import Message

FLOWS: Final = 10_000
TIMES: Final = 50
SERVICES: Final = ("postgres.shop", "catalog.shop", "redis.shop", "")


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


class Plane(FakeDatapath):
    """Keeps each flow's row as text, as the real one does, and joins them when asked."""

    rows: tuple[str, ...]

    async def _reply(self, request: Message, writer: asyncio.StreamWriter) -> Message | None:
        if isinstance(request, GetFlows):
            return FlowTable(time.time(), f"[{','.join(self.rows)}]")
        return await super()._reply(request, writer)


def row(number: int) -> str:
    part = (number * 7919 % FLOWS) / FLOWS  # any digits, the same in each run
    service = SERVICES[number % len(SERVICES)]
    values = flow(
        number,
        sport=30_000 + number % 30_000,
        dst=f"198.18.0.{number % 20}",
        service=service,
        name=service and f"{service}.svc.cluster.local",
        state="CLOSED",
        reason="finished",
        opened_at=1_750_000_000 + number / 7,
        closed_at=1_750_000_001 + number / 7 + part,
        dns=part / 1e3,
        queue=part / 1e4,
        connect=part / 1e3,
        dial=part / 2e3,
        tunnel=part / 3e3,
        first_byte=part / 1e2,
        wait=part / 2e2,
        transfer=part,
        bytes_up=number,
        bytes_down=number * 37,
        packets_up=number % 50,
        packets_down=number % 500,
        pod=service and f"postgres-{number % 3}",
        node=f"node-{number % 2}",
        uid=1000,
        cell=number % 40,
    )
    return flow_text(tuple(getattr(values, name) for name in values.__slots__))


async def serve(path: Path) -> None:
    plane = Plane(path)
    plane.rows = tuple(map(row, range(1, FLOWS + 1)))
    await plane.start()
    say("ready")
    await plane.over.wait()


def cpu_of(pid: int) -> float:
    """Return the CPU seconds that a process has used (proc_pid_stat(5): utime and stime)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(path: Path, pid: int) -> None:
    loop = LoopThread()
    client = loop.run(ControlClient.open(path, on_event=lambda _: None, on_lost=say))
    connection = Connection(loop, client, STATUS)
    began = time.perf_counter()
    connection.flows()
    say(f"the first, which imports pandas: {1e3 * (time.perf_counter() - began):.0f} ms")
    plane, took, used = cpu_of(pid), [], []
    for _ in range(TIMES):
        began, before = time.perf_counter(), time.process_time()
        assert len(connection.flows()) == FLOWS
        took.append(1e3 * (time.perf_counter() - began))
        used.append(1e3 * (time.process_time() - before))
    theirs = 1e3 * (cpu_of(pid) - plane) / TIMES
    say(f"flows(): {min(took):.1f} ms at best, {sorted(took)[TIMES // 2]:.1f} ms in the middle")
    say(f"CPU: {sorted(used)[TIMES // 2]:.1f} ms in the kernel, {theirs:.1f} ms in the data plane")
    connection.leave()
    loop.close()


def main() -> None:
    if len(sys.argv) > 1:
        asyncio.run(serve(Path(sys.argv[1])))
        return
    with tempfile.TemporaryDirectory(prefix="tele-m-") as directory:
        path = Path(directory, "s")
        command = [sys.executable, "-m", "tests.kernel.measure_flows", str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as plane:
            assert plane.stdout is not None
            plane.stdout.readline()
            measure(path, plane.pid)


if __name__ == "__main__":
    main()
