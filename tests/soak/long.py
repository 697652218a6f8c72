"""A long soak of one connection: rounds of flows, bulk, names and reconnects, and after each a look at every process.

Run in a sandbox beside a demo cluster of its own: by test_long.py for three minutes, by `python -m tests.soak` for thirty.
What a process has after some rounds it may keep (tables of closed flows fill up, allocators keep arenas), so what counts
is from :data:`WARM` of the time on, always at rest: no flow open.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import statistics
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.e2e.inside import helpers, wait_until
from tests.soak import deeds
from tests.soak.looking import Process, manager, parent

if TYPE_CHECKING:
    from telemagic.connection import Connection
    from telemagic.demo.client import Demo

FLOWS: Final = 200  # of a round
AT_ONCE: Final = 40  # how many of these work while the others wait for their turn
HELD: Final = 160  # flows that are open and idle meanwhile, so that 200 are open at once
BULK: Final = 64 * deeds.MEBIBYTE  # each way, in each round
PAUSE: Final = 1.0  # seconds between rounds, so that what runs beside has its turn
EACH: Final = 4  # rounds from one reconnect to the next
WARM: Final = 0.4  # of the time
GROWTH: Final = (
    24 * deeds.MEBIBYTE
)  # bytes that a process may grow by after warming up: allocators keep arenas
BACK_WITHIN: Final = (
    60.0  # seconds to reconnect on a busy machine; the promise of 10 is tests/e2e/test_reconnect.py's
)


@dataclass(slots=True)
class Looks:
    """One process, over time: (seconds, bytes resident, descriptors, threads), at rest."""

    name: str
    process: Process
    rows: list[tuple[float, int, int, int]] = field(default_factory=list)

    def look(self, at: float) -> None:
        """Take a row."""
        self.rows.append((at, self.process.memory, self.process.fds, self.process.threads))

    def after(self, moment: float) -> list[tuple[float, int, int, int]]:
        """Return the rows from a moment on; two at least."""
        rows = [row for row in self.rows if row[0] >= moment]
        return rows if len(rows) > 1 else self.rows[-2:]

    def problems(self, moment: float) -> list[str]:
        """Say what has grown since a moment: the least of the last third against the least of the first.

        A look may meet a timer's work, and sockets of questions by UDP stay for a while; what leaks is there in every look.
        """
        rows = self.after(moment)
        third = max(1, len(rows) // 3)
        first = [min(row[column] for row in rows[:third]) for column in (1, 2, 3)]
        last = [min(row[column] for row in rows[-third:]) for column in (1, 2, 3)]
        limits = (("memory", GROWTH), ("descriptors", 2), ("threads", 2))
        return [
            f"{self.name}: {what} went from {before:.0f} to {after:.0f}"
            for (what, limit), before, after in zip(limits, first, last, strict=True)
            if after - before > limit
        ]

    def line(self, moment: float) -> str:
        """Write its figures as a row of Markdown."""
        rows = self.after(moment)
        start, (_, memory, fds, threads) = rows[0], rows[-1]
        grown = (memory - start[1]) / deeds.MEBIBYTE
        peak = max(row[1] for row in self.rows) / deeds.MEBIBYTE
        sizes = f"{self.rows[0][1] / deeds.MEBIBYTE:.1f} | {memory / deeds.MEBIBYTE:.1f} | {peak:.1f} | {grown:+.1f}"
        return f"| {self.name} | {sizes} | {self.rows[0][2]} → {fds} | {self.rows[0][3]} → {threads} |"


def watched() -> list[Looks]:
    """Return all processes of the connection: kernel, data plane, netd, the children that watch over them, manager."""
    found = [Looks("kernel", Process(os.getpid())), Looks("manager", Process(manager()))]
    for module, names in (("datapath", ("data plane", "sweeper")), ("netd", ("netd", "guardian"))):
        pids = helpers(f"telehelper.{module}")
        found += [Looks(names[parent(pid) in pids], Process(pid)) for pid in sorted(pids)]
    return found


async def _round(number: int) -> int:
    """Run one round; returns how many flows that were."""
    held = [await deeds.connect("tally") for _ in range(HELD)]
    try:
        await deeds.mixed(FLOWS, at_once=AT_ONCE)
        await asyncio.gather(deeds.upload(BULK + number), deeds.download(BULK + number))
        for sock in held:
            await asyncio.get_running_loop().sock_sendall(sock, b"1")
            sock.shutdown(socket.SHUT_WR)
        for sock in held:
            assert b'"count": 1' in await asyncio.wait_for(deeds.receive_all(sock), 60)
    finally:
        for sock in held:
            sock.close()
    return FLOWS + HELD + 2


async def _reconnect(demo: Demo, tele: Connection) -> float:
    """Cut the connections to the API server under an open flow, which must be told; returns seconds until all is back."""
    with await deeds.connect("tally") as sock:
        began = time.monotonic()
        demo.fault("api-stop", seconds=0.5)
        with contextlib.suppress(ConnectionResetError):
            assert not await asyncio.wait_for(asyncio.get_running_loop().sock_recv(sock, 1), 30)
            raise AssertionError("a flow whose carrier was cut ended in peace")
    while tele.status.state != "connected" or tele.status.to_dict()["carriers"] < 2:
        assert time.monotonic() - began < BACK_WITHIN, tele.status
        await asyncio.sleep(0.05)
    return time.monotonic() - began


def main(seconds: float) -> None:
    """Soak for that long, write the figures to stdout, and raise AssertionError if anything leaked."""
    import telemagic
    from telemagic.demo import client

    began = time.monotonic()
    flows = rounds = 0
    backs: list[float] = []
    with client.find() as demo, telemagic.connect(timeout=60) as tele:
        deeds.resolve()
        looks = watched()
        while time.monotonic() - began < seconds or rounds < EACH:
            flows += asyncio.run(_round(rounds))
            rounds += 1
            if rounds % EACH == 0:
                backs.append(asyncio.run(_reconnect(demo, tele)))
            assert wait_until(lambda: tele.status.to_dict()["flows_open"] == 0, 30), tele.flows()
            for each in looks:
                each.look(time.monotonic() - began)
            time.sleep(PAUSE)
        status = tele.status.to_dict()
    took = time.monotonic() - began
    report = [
        f"{took / 60:.1f} minutes, {rounds} rounds, {flows:,} flows of ours ({status['flows_total']:,} with DNS), "
        f"{status['bytes_up'] / 1e9:.2f} GB up, {status['bytes_down'] / 1e9:.2f} GB down, {len(backs)} reconnects, "
        f"back after {statistics.median(backs):.1f} s (median; longest {max(backs):.1f})",
        "",
        "| process | MiB at first | at last | at most | since warm | descriptors | threads |",
        "|---|--:|--:|--:|--:|--:|--:|",
        *(each.line(took * WARM) for each in looks),
    ]
    sys.stdout.write("\n".join(report) + "\n")
    problems = [line for each in looks for line in each.problems(took * WARM)]
    assert not problems, problems
    log = Path(os.environ.get("TELEMAGIC_SOAK_LOG") or os.devnull)
    log.write_text("\n".join(f"{each.name} {row}" for each in looks for row in each.rows))
