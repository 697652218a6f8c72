"""Running targets for some time: by Hypothesis, or by atheris, which is guided by coverage (where it is installed)."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from hypothesis import HealthCheck, Phase, given, settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.fuzz.targets import Target

BATCH: Final = 2_000  # inputs in one go of Hypothesis
_DONE: Final = re.compile(rb"Done (\d+) (?:runs )?in \d+ second")


@dataclass(slots=True)
class Outcome:
    """What came of a target so far."""

    target: Target
    executions: int = 0
    seconds: float = 0.0
    findings: dict[str, Any] = field(default_factory=dict)  # one line of the error → the smallest input found


def property_of(target: Target, check: Callable[[Any], None], inputs: int, *, shrink: bool = True) -> Any:
    """Make the target a Hypothesis test of so many inputs."""
    phases = [Phase.generate, Phase.target, *([Phase.shrink] if shrink else [])]
    options = settings(
        max_examples=inputs,
        deadline=None,  # the machine may be busy
        database=None,  # the corpus is ours, in git
        phases=phases,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    return options(given(target.inputs)(check))


def by_hypothesis(outcome: Outcome, seconds: float) -> None:
    """Run a target for that long, and note what was found."""
    target, last = outcome.target, None

    def check(value: Any) -> None:
        nonlocal last
        outcome.executions += 1
        last = value
        target.check(value)

    began = time.monotonic()
    while time.monotonic() - began < seconds:
        try:
            property_of(target, check, BATCH)()
        except Exception as error:  # noqa: BLE001, RUF100  # whatever it is, it is the finding
            outcome.findings[
                f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            ] = last
    outcome.seconds += time.monotonic() - began


def by_atheris(outcome: Outcome, seconds: float) -> None:
    """Have a child run it for that long under atheris; what it finds it prints as it dies."""
    command = [sys.executable, "-m", "tests.fuzz.guided", outcome.target.name, str(int(seconds))]
    began = time.monotonic()
    done = subprocess.run(command, capture_output=True, timeout=seconds + 600, check=False)
    outcome.seconds += time.monotonic() - began
    outcome.executions += sum(map(int, _DONE.findall(done.stderr)))
    if done.returncode:
        outcome.findings[done.stderr.decode(errors="replace")[-2000:]] = None


def table(outcomes: list[Outcome]) -> str:
    """Write the figures as a Markdown table."""
    lines = ["| target | executions | seconds | findings |", "|---|--:|--:|--:|"]
    lines += [
        f"| {each.target.name} | {each.executions:,} | {each.seconds:.0f} | {len(each.findings)} |"
        for each in outcomes
    ]
    total = sum(each.executions for each in outcomes)
    seconds = sum(each.seconds for each in outcomes)
    return "\n".join(
        [*lines, f"| all | {total:,} | {seconds:.0f} | {sum(len(each.findings) for each in outcomes)} |"]
    )
