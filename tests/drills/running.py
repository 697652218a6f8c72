"""Runs drills by groups, each in a sandbox of its own, several at once, and gathers what they came to."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tests import sandbox
from tests.demo.clusters import start
from tests.drills.table import DRILLS, GROUPS

if TYPE_CHECKING:
    from telemagic.demo.client import Demo

AT_ONCE: Final = 3  # sandboxes; most of a drill is waiting
TIMEOUT: Final = 900.0  # seconds for a group; on an idle machine the longest takes 40
SHARED: Final = {
    "kernel",
    "data plane",
    "netd",
    "sweeper",
    "faults",
}  # these leave the cluster alone


@dataclass(frozen=True, slots=True)
class Result:
    """What a drill came to; `failure` is a traceback."""

    seconds: float
    failure: str

    @property
    def word(self) -> str:
        """For the table."""
        return "failed" if self.failure else f"kept, {self.seconds:.1f} s"


class Runner:
    """Starts all groups at once, and gives each drill's result when it is there."""

    def __init__(self, cluster: Demo, names: set[str]) -> None:
        self._cluster = cluster
        self._pool = ThreadPoolExecutor(AT_ONCE)
        self._groups: dict[str, Future[dict[str, Result]]] = {}
        for group in sorted(GROUPS, key=lambda group: group in SHARED):  # the long ones first
            wanted = [drill.name for drill in DRILLS if drill.group == group and drill.name in names]
            if wanted:
                self._groups[group] = self._pool.submit(self._play, group, wanted)

    def _play(self, group: str, names: list[str]) -> dict[str, Result]:
        command = [sys.executable, "-c", f"from tests.drills.play import play; play({names!r})"]
        if group in SHARED:
            said = _run(command, self._cluster)
        else:
            with start(owned=True, name=f"drill-{group.split()[0].lower()}") as own:
                said = _run(command, own)
        rows = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
        done = {row["name"]: Result(row["seconds"], row["failure"]) for row in rows}
        return {
            name: done.get(name, Result(0.0, f"not reached; the last words were\n{said[-2000:]}"))
            for name in names
        }

    def of(self, name: str, group: str) -> Result:
        """Wait for a drill."""
        return self._groups[group].result()[name]

    def close(self) -> None:
        """Wait for all."""
        self._pool.shutdown()


def _run(command: list[str], cluster: Demo) -> str:
    try:
        done = sandbox.run(command, timeout=TIMEOUT, cluster=cluster.name)
    except subprocess.TimeoutExpired as late:
        said = [str(each or "") for each in (late.stdout, late.stderr)]  # text, as sandbox asks for it
        return "\n".join([*said, f"not done within {TIMEOUT:g} s"])
    left = "ending leftover process" in done.stderr
    return done.stdout if not (done.returncode or left) else f"{done.stdout}\n{done.stderr}"
