"""The guardian restores if, and only if, netd died without having done so."""

from __future__ import annotations

import os
import signal
import socket
from typing import TYPE_CHECKING

import pytest
from telehelper.netd.guardian import IN_PLACE, Guardian, keep_watch

if TYPE_CHECKING:
    from pathlib import Path


def watched(word: bytes) -> list[str]:
    netd, guardian = socket.socketpair()
    netd.sendall(word)
    netd.shutdown(socket.SHUT_WR)
    done: list[str] = []
    keep_watch(guardian, lambda: done.append("restored"))
    assert netd.recv(1) == IN_PLACE
    netd.close()
    guardian.close()
    return done


def test_eof_means_that_netd_was_killed() -> None:
    assert watched(b"") == ["restored"]


def test_a_word_means_that_it_was_not() -> None:
    assert watched(b".") == []


@pytest.mark.parametrize("killed", [False, True])
def test_a_dismissed_guardian_is_reaped_and_does_nothing(tmp_path: Path, killed: bool) -> None:
    guardian = Guardian((tmp_path / "restored").touch)
    if killed:
        os.kill(guardian.pid, signal.SIGKILL)
    guardian.dismiss()
    with pytest.raises(ChildProcessError):
        os.waitpid(guardian.pid, os.WNOHANG)
    assert not list(tmp_path.iterdir())


def test_a_guardian_left_alone_restores(tmp_path: Path) -> None:
    guardian = Guardian((tmp_path / "restored").touch)
    guardian._sock.close()  # what the kernel does when netd is killed
    os.waitpid(guardian.pid, 0)
    assert [path.name for path in tmp_path.iterdir()] == ["restored"]


def test_a_guardian_that_was_killed_long_ago_is_dismissed_all_the_same(tmp_path: Path) -> None:
    guardian = Guardian((tmp_path / "restored").touch)
    os.kill(guardian.pid, signal.SIGKILL)
    os.waitid(os.P_PID, guardian.pid, os.WEXITED | os.WNOWAIT)
    guardian.dismiss()
