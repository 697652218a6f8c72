"""The guardian restores when netd's end of the pair is closed, by whomever."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest
from telehelper.netd.guardian import Guardian

if TYPE_CHECKING:
    from pathlib import Path


def test_a_guardian_left_alone_restores(tmp_path: Path) -> None:
    guardian = Guardian((tmp_path / "restored").touch)
    assert not list(tmp_path.iterdir())
    guardian._sock.close()  # what the kernel does when netd is killed
    os.waitpid(guardian.pid, 0)
    assert [path.name for path in tmp_path.iterdir()] == ["restored"]


def test_a_dismissed_guardian_restores_what_may_be_left_and_is_reaped(tmp_path: Path) -> None:
    guardian = Guardian((tmp_path / "restored").touch)
    guardian.dismiss()
    assert [path.name for path in tmp_path.iterdir()] == ["restored"]
    with pytest.raises(ChildProcessError):
        os.waitpid(guardian.pid, os.WNOHANG)


def test_a_guardian_that_fails_ends_all_the_same(tmp_path: Path) -> None:
    guardian = Guardian((tmp_path / "no" / "such" / "folder").touch)
    guardian.dismiss()
    with pytest.raises(ChildProcessError):
        os.waitpid(guardian.pid, os.WNOHANG)


def test_a_guardian_that_was_killed_long_ago_is_dismissed_all_the_same(tmp_path: Path) -> None:
    guardian = Guardian((tmp_path / "restored").touch)
    os.kill(guardian.pid, signal.SIGKILL)
    os.waitid(os.P_PID, guardian.pid, os.WEXITED | os.WNOWAIT)
    guardian.dismiss()
    assert not list(tmp_path.iterdir())


def test_a_guardian_has_nothing_else_of_ours(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    guardian = Guardian((tmp_path / "restored").touch)
    held = {os.readlink(f"/proc/{guardian.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{guardian.pid}/fd")}
    assert {name.partition(":")[0] for name in held} == {"socket", os.devnull}
    assert os.getsid(guardian.pid) == guardian.pid
    guardian.dismiss()
    os.close(reading)
    os.close(writing)
