"""What a run does with paths that cannot be measured, how it counts its steps, and what it says of the machine."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any, cast

import pytest
from telehelper.errors import HelperError, HelperMissing, ManagerUnavailable, UsageError

from telemagic.bench import runner
from telemagic.bench.metrics import METRICS
from telemagic.bench.report import Report
from telemagic.bench.runner import FULL, QUICK, Run, Steps
from telemagic.commands import bench
from telemagic.parser import Parser
from tests.bench.schema import check

if TYPE_CHECKING:
    from collections.abc import Callable

    from telemagic.bench.topology import Topology


class Told:
    """What the outside hears."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def __call__(self, **event: Any) -> None:
        self.events.append(event)


def a_run(told: Told, *wanted: str, over: Callable[[str], None]) -> Run:
    made = Run(cast("Topology", None), wanted, Steps(["raw", "tcp"], wanted, told), quick=True)
    made._over = over  # type: ignore[method-assign]
    return made


def failing(error: Exception) -> Callable[[str], None]:
    def over(_: str) -> None:
        raise error

    return over


def test_steps_are_counted_once_and_end_at_the_total() -> None:
    told = Told()
    steps = Steps(["raw", "tcp"], ["rr_p50", "rr_p99"], told)
    steps.done("", "demo cluster")
    steps.done("raw", "rr_p50")
    steps.done("raw", "rr_p50", "rr_p99")
    steps.done("raw")
    steps.done("tcp")
    assert [event["at"] for event in told.events] == [1, 2, 3, 3, 5]
    assert {event["of"] for event in told.events} == {5}
    assert told.events[-1]["doing"] == "tcp"


@pytest.mark.parametrize(
    "error", [ManagerUnavailable("no manager"), HelperError("no"), ConnectionResetError("no")]
)
def test_a_path_that_fails_has_rows_without_values_and_a_note(error: Exception) -> None:
    told = Told()
    made = a_run(told, "rr_p50", "idle_cpu", over=failing(error))
    made.measure("tcp")
    assert made.values == {("tcp", "rr_p50"): None, ("tcp", "idle_cpu"): None}
    assert made.notes == [f"tcp: not measured: {error}"]
    assert told.events[-1]["at"] == 2


def test_what_was_measured_before_a_failure_is_kept() -> None:
    def over(path: str) -> None:
        made._put(path, "idle_cpu", 0.01)
        raise HelperError("the load generator fell asleep")

    made = a_run(Told(), "rr_p50", "idle_cpu", over=over)
    made.measure("tcp")
    assert made.values == {("tcp", "rr_p50"): None, ("tcp", "idle_cpu"): 0.01}


def test_a_peer_that_is_not_installed_has_no_rows() -> None:
    made = a_run(Told(), "rr_p50", over=failing(HelperMissing("sshuttle is not installed")))
    made.values["raw", "rr_p50"] = 1.0
    made.measure("sshuttle")
    assert made.values == {("raw", "rr_p50"): 1.0}
    assert made.notes == ["sshuttle: not measured: sshuttle is not installed"]


def test_what_our_own_paths_need_must_be_there() -> None:
    with pytest.raises(HelperMissing):
        a_run(Told(), "rr_p50", over=failing(HelperMissing("/dev/net/tun is missing"))).measure("tcp")


def test_the_machine_makes_a_valid_report() -> None:
    about = runner.machine() | {"sender": "own", "notes": []}
    check(Report.of(about, {}).to_dict())
    assert about["cores"] == len(os.sched_getaffinity(0))
    assert about["cpu"]


def test_a_full_run_is_more_thorough_than_a_quick_one() -> None:
    assert (FULL.seconds, FULL.idle, FULL.flows) > (QUICK.seconds, QUICK.idle, QUICK.flows)
    assert (FULL.flows, FULL.idle) == (10_000, 5.0)  # as the issue wants them


def test_only_events_go_to_standard_output() -> None:
    code = (
        "from telemagic.bench.runner import _own_output\n"
        "with _own_output() as tell:\n"
        "    print('chatter', flush=True)\n"
        "    tell(at=1)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ('{"at": 1}\n', "chatter\n")


# --- the command's line


def chosen(line: str) -> list[str]:
    parser = Parser(prog="bench")
    bench.add_arguments(parser)
    return bench.options(parser.parse_args(line.split()))


def test_all_is_measured_unless_something_is_named() -> None:
    assert chosen("") == ["--paths", *bench.PATHS, "--metrics", *METRICS]
    assert chosen("--quick")[-1] == "--quick"


def test_names_come_in_our_order() -> None:
    line = "--paths rtt20,raw --metrics rr_p99,bulk_up_1"
    assert chosen(line) == ["--paths", "raw", "rtt20", "--metrics", "bulk_up_1", "rr_p99"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--paths tpc", "there is no path 'tpc': did you mean 'tcp'?"),
        ("--metrics bulk_up", "there is no metric 'bulk_up': did you mean 'bulk_up_4'?"),
        ("--paths raw,,xyzzy", "there is no path 'xyzzy'"),
    ],
)
def test_names_that_there_are_not(line: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        chosen(line)
    assert caught.value.message == message
    assert caught.value.hint.startswith("one of: ")
