"""The tests' own rules: what CI does with a skip, and what counts as left behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.machine import Snapshot

ROOT = Path(__file__).parent.parent
CONFTEST = "from tests.conftest import *\nfrom tests.conftest import _nothing_left, _nothing_left_at_all\n"


def run_pytest(folder: Path, source: str, *, ci: str) -> str:
    """Run one test file under our conftest.py and return what pytest printed."""
    guarded = folder / "netns"
    guarded.mkdir()
    (folder / "conftest.py").write_text(CONFTEST)
    (guarded / "test_it.py").write_text(source)
    config = ["-c", str(ROOT / "pyproject.toml"), "--rootdir", str(folder), "-p", "no:cacheprovider"]
    env = os.environ | {"CI": ci, "PYTHONPATH": str(ROOT), "TELEMAGIC_TEST_GRACE": "0.3"}
    command = [sys.executable, "-m", "pytest", *config, str(guarded)]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False).stdout


@pytest.mark.parametrize(
    "source",
    [
        "import pytest\ndef test_a(): pytest.skip('no such thing here')\n",
        "import pytest\n@pytest.mark.skip('no such thing here')\ndef test_a(): pass\n",
        "import pytest\npytest.skip('no such thing here', allow_module_level=True)\n",
    ],
)
def test_a_skip_is_named_at_the_end_and_fails_under_ci(tmp_path: Path, source: str) -> None:
    by_hand, in_ci = tmp_path / "by-hand", tmp_path / "in-ci"
    by_hand.mkdir()
    in_ci.mkdir()
    out = run_pytest(by_hand, source, ci="")
    assert "NOT TESTED on this machine" in out
    assert "1 skipped" in out.splitlines()[-1]
    out = run_pytest(in_ci, source, ci="true")
    assert "CI=true forbids" in out
    assert "skipped in" not in out.splitlines()[-1]
    assert "1 error" in out.splitlines()[-1] or "1 failed" in out.splitlines()[-1]


def test_a_process_and_a_file_left_behind_fail_the_test_that_left_them(tmp_path: Path) -> None:
    source = """
import os, subprocess
from pathlib import Path
def test_leaves_things():
    Path(os.environ["TELEMAGIC_RUNTIME_DIR"], "forgotten.sock").touch()
    child = subprocess.Popen(["sleep", "3"])
    child.returncode = 0  # so that Popen does not complain of what the guard is to find
def test_is_tidy():
    pass
"""
    out = run_pytest(tmp_path, source, ci="")
    assert "left behind" in out
    assert "forgotten.sock" in out
    assert "sleep 3" in out
    assert "2 passed, 2 errors" in out.splitlines()[-1]  # the test's own guard, and the one over all tests


def test_a_difference_names_what_is_new_and_what_is_gone() -> None:
    before = Snapshot(frozenset({"link 1 lo", "route a", "process 7: old", "file /x"}))
    after = Snapshot(frozenset({"link 1 lo", "link 2 tele0", "process 8: new"}))
    assert before.difference(after) == "+ link 2 tele0\n+ process 8: new\n- route a"
    assert before.difference(before) == ""
