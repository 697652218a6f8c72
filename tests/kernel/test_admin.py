"""Tasks in a child process: what it says arrives, its errors keep their type, and it never outlives us."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from telehelper.errors import HelperLost, KubeconfigError

from telemagic import admin


def child(script: str) -> tuple[str, ...]:
    return (sys.executable, "-c", f"import json, os, sys, time\n{script}")


def test_steps_come_one_by_one_and_then_the_end() -> None:
    script = """
print(json.dumps({"step": sys.argv[1:]}), flush=True)
print(json.dumps({"step": 2}), flush=True)
print(json.dumps({"done": {"yaml": "x"}}), flush=True)
"""
    steps: list[dict[str, Any]] = []
    assert admin.run("install", ["--context", "a"], steps.append, child=child(script)) == {"yaml": "x"}
    assert steps == [{"step": ["install", "--context", "a"]}, {"step": 2}]


def test_an_error_keeps_its_type_and_hint() -> None:
    script = 'print(json.dumps({"error": {"slug": "kubeconfig", "message": "m", "hint": "h", "data": {}}}))'
    with pytest.raises(KubeconfigError, match="m") as caught:
        admin.run("install", [], child=child(script))
    assert caught.value.hint == "h"


def test_a_child_that_dies_is_named_with_its_last_words() -> None:
    script = 'sys.stderr.write("x" * 200_000 + "\\nTraceback\\nValueError: out of luck\\n"); sys.exit(3)'
    with pytest.raises(HelperLost, match="install ended without a result: ValueError: out of luck"):
        admin.run("install", [], child=child(script))
    with pytest.raises(HelperLost, match="it said nothing"):
        admin.run("install", [], child=child(""))


def test_an_interrupt_ends_the_child(tmp_path: Path) -> None:
    script = f"""
open({str(tmp_path / "pid")!r}, "w").write(str(os.getpid()))
print(json.dumps({{"step": 1}}), flush=True)
time.sleep(60)
"""

    def interrupt(_: dict[str, Any]) -> None:
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        admin.run("install", [], interrupt, child=child(script))
    assert time.monotonic() - began < 20
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_what_the_child_has_started_does_not_outlive_it(tmp_path: Path) -> None:
    """A process that holds the child's standard error would keep us for as long as it runs."""
    script = f"""
import subprocess
started = subprocess.Popen(["sleep", "60"], stdout=subprocess.DEVNULL)
open({str(tmp_path / "pid")!r}, "w").write(str(started.pid))
print(json.dumps({{"done": {{}}}}), flush=True)
time.sleep(60)
"""
    began = time.monotonic()
    assert admin.run("install", [], child=child(script)) == {}
    assert time.monotonic() - began < 20
    sleeper = Path(f"/proc/{(tmp_path / 'pid').read_text()}/stat")
    assert (
        not sleeper.exists() or sleeper.read_text().rpartition(")")[2].split()[0] == "Z"
    )  # nobody has reaped it


def test_the_real_child_tells_what_is_wrong_with_a_kubeconfig(tmp_path: Path) -> None:
    with pytest.raises(KubeconfigError, match="missing"):
        admin.run("install", ["--kubeconfig", str(tmp_path / "none"), "--dry-run"])
