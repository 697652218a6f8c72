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

AT_ONCE: Final = 3  # sandboxes, unless told otherwise; most of a drill is waiting
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
    """What a drill came to.

    `seconds` is how long the promise took, and `within` how long it may; `failure` is a traceback; `lacking` is what this
    machine lacks for it.
    """

    seconds: float
    within: float
    failure: str = ""
    lacking: str = ""

    @property
    def is_late(self) -> bool:
        """Whether it was kept, and took longer than promised."""
        return not self.failure and self.seconds > self.within

    @property
    def word(self) -> str:
        """For the table."""
        if self.failure or self.lacking:
            return "failed" if self.failure else "not run"
        return f"{'late' if self.is_late else 'kept'}, {_digits(self.seconds)} s"


def _digits(seconds: float) -> str:
    return f"{seconds:.1f}" if seconds >= 1 else f"{seconds:.2f}"


class Runner:
    """Starts all groups, so many at once, and gives each drill's result when it is there."""

    def __init__(self, cluster: Demo, names: set[str], at_once: int = AT_ONCE) -> None:
        self._cluster = cluster
        self._pool = ThreadPoolExecutor(at_once)
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
        done = {row.pop("name"): Result(**row) for row in rows}
        missing = Result(0.0, 0.0, f"not reached; the last words were\n{said[-2000:]}")
        return {name: done.get(name, missing) for name in names}

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
