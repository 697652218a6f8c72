"""Run all tests, in three parts at the same time: most of them wait, for time-outs above all. Arguments go to all.

The output of the second and third comes when all have ended. Promises in seconds are for a machine that has nothing else to
do, and what it had to do here is our choice: so the few tests that failed are run again when all is quiet, and named. One
that fails alone as well has failed.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Final

import pytest

ROOT: Final = Path(__file__).parent.parent
CACHES: Final = ROOT / ".pytest_cache"
# Whole chains on the embedded cluster; they take as long as all the rest.
CHAINS: Final = ("tests/e2e",)
# Three minutes of one connection under load, what breaks on purpose, what people see, and real parts of others; with the
# lowest priority of the three, for their limits of time are generous.
ENDURANCE: Final = (
    *("tests/soak", "tests/drills", "tests/skew", "tests/notebooks", "tests/browser"),
    *("tests/farend", "tests/netd_resolved", "tests/bench"),
)
SOAK: Final = {"TELEMAGIC_SOAK_SECONDS": "180"}
FEW: Final = 5  # failed tests of a part: more are no accident


def main(arguments: list[str]) -> int:
    """Run all; the exit status is 0 if all passed, at last when alone."""
    # Started in the background a shell has us ignore interrupts, and the tests would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    rest = [f"--ignore={folder}" for folder in (*CHAINS, *ENDURANCE)]
    with ExitStack() as stack:
        parts = [
            Part(stack, "rest", [*rest, *arguments], None),
            Part(stack, "chains", [*CHAINS, *arguments], stack.enter_context(tempfile.TemporaryFile())),
            Part(
                stack,
                "endurance",
                [*ENDURANCE, *arguments],
                stack.enter_context(tempfile.TemporaryFile()),
                **SOAK,
            ),
        ]
        try:
            statuses = [part.process.wait() for part in parts]
        except BaseException:
            for part in parts[1:]:
                part.process.send_signal(signal.SIGINT)  # what its tests began is ended by them
            raise
        finally:
            for part in parts:
                part.tell()
        if arguments:  # they may leave nothing of a part
            statuses = [0 if status == pytest.ExitCode.NO_TESTS_COLLECTED else status for status in statuses]
        if any(status not in (0, pytest.ExitCode.TESTS_FAILED) for status in statuses):
            return max(statuses, key=abs)
        return max(part.again() if status else 0 for part, status in zip(parts, statuses, strict=True))


class Part:
    """Some of the tests, in a process of their own; its output goes to a file, if there is one, until it has ended."""

    def __init__(
        self, stack: ExitStack, name: str, arguments: list[str], said: IO[bytes] | None, **environment: str
    ) -> None:
        self._cache = CACHES / name
        self._environment = {**os.environ, **environment}
        self._said = said
        shutil.rmtree(self._cache, ignore_errors=True)  # else what failed yesterday counts
        nice = ["nice"] if name == "endurance" else []
        self._command = [*nice, sys.executable, "-m", "pytest", "-o", f"cache_dir={self._cache}", *arguments]
        self.process = stack.enter_context(
            subprocess.Popen(  # noqa: S603  # our own command
                self._command,
                cwd=ROOT,
                env=self._environment,
                stdout=said,
                stderr=subprocess.STDOUT if said else None,
            )
        )

    def tell(self) -> None:
        """Wait for the end, and print what was said."""
        self.process.wait()
        if self._said is not None:
            self._said.seek(0)
            sys.stdout.flush()
            sys.stdout.buffer.write(self._said.read())
            sys.stdout.flush()

    def again(self) -> int:
        """Run the tests that failed once more; the exit status."""
        remembered = self._cache / "v" / "cache" / "lastfailed"
        failed = sorted(json.loads(remembered.read_text())) if remembered.exists() else []
        if not 0 < len(failed) <= FEW:
            return int(pytest.ExitCode.TESTS_FAILED)
        sys.stdout.write(
            "\n  ".join(["These failed beside the others, and run again alone:", *failed]) + "\n"
        )
        sys.stdout.flush()
        command = [*self._command, "--last-failed"]
        return subprocess.run(command, cwd=ROOT, env=self._environment, check=False).returncode  # noqa: S603


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
