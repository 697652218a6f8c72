"""Runs drills that are tests elsewhere, and tells what each came to."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final
from xml.etree import ElementTree

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.drills.table import Drill

ROOT: Final = Path(__file__).parents[2]
TIMEOUT: Final = 900.0  # seconds for all; a minute on an idle machine


def run(drills: list[Drill]) -> Iterator[tuple[str, str, str]]:
    """Yield each drill's name, its result in a word, and why it failed."""
    if not drills:
        return
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        tests = sorted({drill.covered_by for drill in drills})
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            f"--junitxml={report}",
            *tests,
        ]
        # A runtime directory of its own, as every run of tests has
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TELEMAGIC_")}
        done = subprocess.run(
            command, cwd=ROOT, env=environment, timeout=TIMEOUT, capture_output=True, text=True, check=False
        )
        cases = ElementTree.parse(report).getroot().iter("testcase") if report.exists() else ()
        outcomes = [(test_of(case), *outcome_of(case)) for case in cases]
    for drill in drills:
        found = [(word, why) for test, word, why in outcomes if test == drill.covered_by]
        yield (drill.name, *(worst(found) or ("failed", done.stdout + done.stderr)))


def test_of(case: ElementTree.Element) -> str:
    """Return the test that a case of a JUnit report is one of."""
    path = case.get("classname", "").replace(".", "/")
    return f"{path}.py::{case.get('name', '').partition('[')[0]}"


def outcome_of(case: ElementTree.Element) -> tuple[str, str]:
    """Return what a test case of a JUnit report came to, and why."""
    for kind, word in (("failure", "failed"), ("error", "failed"), ("skipped", "not run")):
        if (said := case.find(kind)) is not None:
            return word, f"{said.text or said.get('message', '')}\n"
    return "kept", ""


def worst(found: list[tuple[str, str]]) -> tuple[str, str] | None:
    """Choose among the cases of one test: failed before not run before kept."""
    order = ("failed", "not run", "kept")
    return min(found, key=lambda each: order.index(each[0]), default=None)
