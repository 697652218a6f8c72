"""The process that measures, from outside: its progress, its result, its failures, its end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from telehelper.errors import HelperLost, HelperMissing

from telemagic.bench import child
from telemagic.bench.bar import Bar
from telemagic.bench.report import Report
from tests.bench.schema import machine

if TYPE_CHECKING:
    from collections.abc import Sequence

REPORT = Report.of(machine(), {("raw", "rr_p50"): 1e-4})


class Seen(Bar):
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, int, str]] = []
        self.is_over = False

    def show(self, at: int, of: int, doing: str) -> None:
        self.steps.append((at, of, doing))

    def __exit__(self, *_: object) -> None:
        self.is_over = True


def python(code: str) -> Sequence[str]:
    return [sys.executable, "-c", f"import json, os, sys, time\n{code}"]


def saying(*events: object) -> str:
    return "\n".join(f"print({json.dumps(event)!r}, flush=True)" for event in events)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_a_run_to_its_end() -> None:
    before = descriptors()
    events = [
        {"at": 0, "of": 2, "doing": "raw"},
        {"at": 1, "of": 2, "doing": "tcp"},
        {"report": REPORT.to_dict()},
    ]
    bar = Seen()
    assert child.run([], bar, python(saying(*events))) == REPORT
    assert bar.steps == [(0, 2, "raw"), (1, 2, "tcp")]
    assert bar.is_over
    assert descriptors() == before


def test_the_options_are_passed_on() -> None:
    code = f"report = {REPORT.to_dict()!r}\nreport['machine']['notes'] = sys.argv[1:]\nprint(json.dumps({{'report': report}}))"
    assert child.run(["--quick", "--paths", "raw"], Bar(), python(code)).machine["notes"] == [
        "--quick",
        "--paths",
        "raw",
    ]


def test_a_failure_keeps_its_type_and_words() -> None:
    failed = {"slug": HelperMissing.slug, "message": "no namespaces", "hint": "ask for them"}
    bar = Seen()
    with pytest.raises(HelperMissing) as caught:
        child.run([], bar, python(saying({"failed": failed})))
    assert (caught.value.message, caught.value.hint) == ("no namespaces", "ask for them")
    assert bar.is_over


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("sys.exit('first\\nit burns')", "it burns"),
        ("pass", "it said nothing"),
        ("os.kill(os.getpid(), 9)", "nothing"),
    ],
)
def test_an_end_without_a_result(code: str, said: str) -> None:
    before = descriptors()
    with pytest.raises(HelperLost, match=said):
        child.run([], Bar(), python(code))
    assert descriptors() == before


def test_a_run_that_does_not_want_to_end_is_made_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "_END_PATIENCE", 0.1)
    code = saying({"report": REPORT.to_dict()}) + "\nos.close(1)\ntime.sleep(60)"
    began = time.monotonic()
    assert child.run([], Bar(), python(code)) == REPORT
    assert time.monotonic() - began < 30


INTERRUPTED = """
import os, signal, sys
from telemagic.bench import child
from telemagic.bench.bar import Bar

class Interrupting(Bar):
    def show(self, at, of, doing):
        print(doing, flush=True)
        os.killpg(0, signal.SIGINT)

try:
    child.run([], Interrupting(), sys.argv[1:])
except KeyboardInterrupt:
    print("interrupted")
"""


def test_an_interrupt_ends_it() -> None:
    """A terminal's goes to a whole process group; the run sees the end of its input instead, and ends in order."""
    run = python(
        "print(json.dumps({'at': 0, 'of': 1, 'doing': str(os.getpid())}), flush=True)\nsys.stdin.read()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, *run],
        capture_output=True,
        text=True,
        start_new_session=True,  # or the interrupt would be for us as well
        timeout=60,
        check=False,
    )
    pid, word = done.stdout.split()
    assert word == "interrupted", done.stderr
    assert not Path(f"/proc/{pid}").exists()
    assert "Traceback" not in done.stderr
