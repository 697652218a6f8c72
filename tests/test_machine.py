"""What the tests take for a process of theirs: by its mark, and where that is lost, by who started it."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Final

import pytest

from tests.machine import MARK, Snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Called like sudo that runs netd; says its pid, and ends with its standard input
PROGRAM: Final = "import os, sys; print(os.getpid(), flush=True); sys.stdin.read()"
ARGUMENTS: Final = ("-A", "--", "python", "-I", "-m", "telehelper.netd")


@pytest.fixture
def orphan() -> Iterator[Orphan]:
    """Start processes whose parent has ended; they end with the test."""
    made = Orphan()
    yield made
    made.end()


class Orphan:
    """A process whose parent is process 1."""

    def __init__(self) -> None:
        self._shells: list[subprocess.Popen[str]] = []

    def start(self, name: str, environment: dict[str, str]) -> int:
        """Start one under the name that it has in its command line; return its pid."""
        shell = subprocess.Popen(
            [
                "bash",
                "-c",
                'exec 3<&0; (exec -a "$0" "$@" <&3) & disown',
                name,
                sys.executable,
                "-c",
                PROGRAM,
                *ARGUMENTS,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self._shells.append(shell)
        shell.wait(timeout=10)
        assert shell.stdout is not None
        return int(shell.stdout.readline())

    def end(self) -> None:
        """Close their standard inputs, and wait until they have ended."""
        for shell in self._shells:
            shell.communicate(timeout=10)


def is_seen(pid: int, runtime: Path) -> bool:
    return any(line.startswith(f"process {pid}:") for line in Snapshot.take(runtime).lines)


def test_a_marked_process_is_ours_if_the_mark_is(orphan: Orphan, tmp_path: Path) -> None:
    name, equals, _ = MARK.decode().partition("=")
    assert equals
    ours = orphan.start("/usr/bin/sudo", {name: str(tmp_path)})
    theirs = orphan.start("/usr/bin/sudo", {name: "/run/another"})
    assert is_seen(ours, tmp_path)
    assert not is_seen(theirs, tmp_path)


def test_netd_without_a_mark_whose_parent_has_gone_is_ours(orphan: Orphan, tmp_path: Path) -> None:
    assert is_seen(orphan.start("/usr/bin/python", {"PATH": "/usr/bin"}), tmp_path)


def test_sudo_without_a_mark_is_somebody_elses(orphan: Orphan, tmp_path: Path) -> None:
    """It keeps its environment, so a test's would have the mark: somebody tries a connection by hand beside the tests."""
    assert not is_seen(orphan.start("/usr/bin/sudo", {"PATH": "/usr/bin"}), tmp_path)
