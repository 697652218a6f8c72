"""A run, inside the place: `python -m telemagic.bench.runner`; only :mod:`telemagic.bench.child` starts it.

Tells on standard output what it does, one JSON object a line: ``{"at": steps, "of": steps, "doing": path}``, and in
the end ``{"report": …}`` or ``{"failed": …}``. Ends when its standard input does.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import datetime
import json
import os
import platform
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from telehelper import __version__
from telehelper.errors import HelperMissing, TelemagicError

from telemagic.bench import metrics, place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from telemagic.bench.topology import Topology
    from telemagic.bench.ways import Way


@dataclass(frozen=True, slots=True)
class Scale:
    """How thoroughly a run measures."""

    seconds: float
    idle: float
    flows: int


FULL: Final = Scale(seconds=3.0, idle=5.0, flows=10_000)
QUICK: Final = Scale(seconds=0.4, idle=1.0, flows=1_000)
_PATIENCE: Final = 15.0  # seconds for the load generator per metric, beside its measuring


class Steps:
    """How far a run is: a step per path and metric, and one for the topology."""

    def __init__(self, paths: Sequence[str], wanted: Sequence[str], tell: Callable[..., None]) -> None:
        self._wanted = wanted
        self._total = 1 + len(paths) * len(wanted)
        self._done: set[tuple[str, str]] = set()
        self._tell = tell

    def doing(self, what: str) -> None:
        """Say what comes now."""
        self._tell(at=len(self._done), of=self._total, doing=what)

    def done(self, path: str, *found: str) -> None:
        """Take note that some metrics of a path are through; all that are wanted if none is named."""
        self._done |= {(path, metric) for metric in found or self._wanted}
        self.doing(path)


class Run:
    """One run; `values`, `notes` and `sender` fill up as it goes."""

    def __init__(self, topology: Topology, wanted: Sequence[str], steps: Steps, *, quick: bool) -> None:
        self.values: dict[tuple[str, str], float | None] = {}
        self.notes: list[str] = []
        self.sender = "own"
        self._topology = topology
        self._wanted = wanted
        self._quick = quick
        self._scale = QUICK if quick else FULL
        self._steps = steps
        self._manager_is_new = True

    def measure(self, path: str) -> None:
        """Measure all that is wanted on one path; what cannot be is null, and a note says why.

        A peer that is not installed has no rows.
        """
        self._steps.doing(path)
        rows = {(path, metric): None for metric in self._wanted}
        try:
            self.values |= rows
            self._over(path)
        except HelperMissing as error:
            if path not in metrics.PEERS:
                raise
            for row in rows:
                del self.values[row]
            self.notes.append(f"{path}: not measured: {error.message}")
        except (TelemagicError, OSError) as error:
            self.notes.append(f"{path}: not measured: {error}")
        self._steps.done(path)

    def _over(self, path: str) -> None:
        from telemagic.bench import topology, ways

        possible = self._possible(path)
        if "bytes_per_idle_flow" in possible and not self._manager_is_new:
            topology.renew_manager(self._topology)
        pending = set(possible)
        if pending - {"recovery_s"}:
            with ways.opened(path, self._topology) as way:
                if path in metrics.OURS:
                    self._manager_is_new = False
                    self._footprint(path, way, possible)
                self._load(path, way, [one for one in possible if one not in metrics.RUNNERS])
                if way.cut is not None and "recovery_s" in pending:
                    self._recovery(path, way)
                    pending.remove("recovery_s")
        if "recovery_s" in pending:
            with ways.relayed(path, self._topology) as way:
                self._recovery(path, way)

    def _possible(self, path: str) -> list[str]:
        possible = [metric for metric in self._wanted if metrics.is_possible(path, metric)]
        if self._quick and not self._manager_is_new:
            # They depend on the carrier hardly at all, and take long.
            possible = [metric for metric in possible if metric not in metrics.FOOTPRINT]
        return possible

    def _put(self, path: str, metric: str, value: float | None) -> None:
        self.values[path, metric] = value
        self._steps.done(path, metric)

    def _footprint(self, path: str, way: Way, possible: Sequence[str]) -> None:
        from telemagic.bench import footprint

        tunnel = footprint.Tunnel.find(self._topology.manager_network)
        if "idle_cpu" in possible:
            idle = footprint.idle(tunnel, self._scale.idle)
            self.notes.append(f"{path}: idle_cpu: beside it, the manager takes {idle.far:.3f} of a core")
            self._put(path, "idle_cpu", idle.near)
        if "bytes_per_idle_flow" in possible:
            count = self._scale.flows
            near, far = footprint.bytes_per_flow(
                tunnel, lambda flows: self._generator(way, "--hold", str(flows)), count
            )
            self.notes.append(
                f"{path}: bytes_per_idle_flow: at {count:,} flows; data plane {near:.0f}, manager {far:.0f}"
            )
            self._put(path, "bytes_per_idle_flow", near + far)

    def _recovery(self, path: str, way: Way) -> None:
        from telemagic.bench import recovery

        assert way.cut is not None  # noqa: S101 - ways.relayed() gives it; for mypy
        found = asyncio.run(recovery.measure(way.host, self._topology.ports.echo, way.cut))
        if found is None:
            self.notes.append(f"{path}: recovery_s: no answer within {recovery.LONGEST:.0f} s of the cut")
        self._put(path, "recovery_s", found)

    def _load(self, path: str, way: Way, wanted: Sequence[str]) -> None:
        from telemagic.bench.children import lines, running
        from telemagic.bench.load import GROUPS

        if not wanted:
            return
        options = ["--metrics", ",".join(wanted), "--seconds", str(self._scale.seconds)]
        options += ["--quick", "--sender", "own"] if self._quick else []
        options += ["--no-udp"] if path in metrics.PEERS else []
        patience = (self._scale.seconds + _PATIENCE) * len(wanted)
        with running(self._generator(way, *options)) as process:
            for line in lines(process, patience):
                said = json.loads(line)
                if "done" in said:
                    self._steps.done(path, *(metric for metric in GROUPS[said["done"]] if metric in wanted))
                else:
                    self.values |= {(path, metric): said["results"][metric] for metric in wanted}
                    self.notes += [f"{path}: {note}" for note in said["notes"]]
                    self.sender = said["sender"]

    def _generator(self, way: Way, *options: str) -> list[str]:
        from telemagic.bench.children import PYTHON

        ports = self._topology.ports.to_json()
        return [*PYTHON, "telemagic.bench.load", "--host", way.host, "--ports", ports, *options]


def machine() -> dict[str, Any]:
    """Say where and when this is."""
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "telemagic": __version__,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _cpu() -> str:
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def run(options: argparse.Namespace, tell: Callable[..., None]) -> dict[str, Any]:
    """Build the topology, measure, and return the report as plain data."""
    from telemagic.bench import topology
    from telemagic.bench.report import Report

    steps = Steps(options.paths, options.metrics, tell)
    steps.doing("demo cluster")
    about = machine()
    with contextlib.ExitStack() as stack:
        built = topology.build(stack)
        steps.done("", "demo cluster")
        found = Run(built, options.metrics, steps, quick=options.quick)
        for path in options.paths:
            found.measure(path)
    about |= {"sender": found.sender, "quick": options.quick, "notes": found.notes}
    return Report.of(about, found.values).to_dict()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line, in a place of its own."""
    parser = argparse.ArgumentParser(prog="python -m telemagic.bench.runner", description=__doc__)
    parser.add_argument("--paths", nargs="+", choices=metrics.PATHS, default=metrics.PATHS)
    parser.add_argument("--metrics", nargs="+", choices=metrics.METRICS, default=metrics.METRICS)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args(arguments)
    with _own_output() as tell:
        try:
            place.enter()
            tell(report=run(options, tell))
        except TelemagicError as error:
            tell(failed={"slug": error.slug, "message": error.message, "hint": error.hint})


@contextlib.contextmanager
def _own_output() -> Iterator[Callable[..., None]]:
    """Keep standard output to ourselves: what others print goes to standard error."""
    with open(os.dup(1), "w", encoding="utf-8") as out:
        os.dup2(2, 1)

        def tell(**event: Any) -> None:  # noqa: ANN401 - JSON
            out.write(json.dumps(event) + "\n")
            out.flush()

        yield tell


if __name__ == "__main__":
    main()
    sys.stdout.flush()
