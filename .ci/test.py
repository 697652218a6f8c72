"""Run all tests, in three parts at the same time: most of them wait, for time-outs above all. Arguments go to all.

The output of the second and third comes when all have ended.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import IO

ROOT = Path(__file__).parent.parent
# Whole chains, on the embedded cluster and on real parts of others; they take as long as all the rest.
CHAINS = ("tests/e2e", "tests/farend", "tests/netd_resolved")
# Three minutes of one connection under load, what breaks on purpose, and what people see; with the lowest priority of the
# three, for their limits of time are generous.
ENDURANCE = ("tests/soak", "tests/drills", "tests/skew", "tests/notebooks", "tests/browser")
SOAK_SECONDS = "180"


def main(arguments: list[str]) -> int:
    """Run all; the exit status is 0 if all passed."""
    # Started in the background a shell has us ignore interrupts, and the tests would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    pytest = [sys.executable, "-m", "pytest"]
    rest = [f"--ignore={folder}" for folder in (*CHAINS, *ENDURANCE)]
    aside = ["-p", "no:cacheprovider", *arguments]
    with ExitStack() as stack:
        others = [
            _Beside([*pytest, *CHAINS, *aside], stack),
            _Beside(["nice", *pytest, *ENDURANCE, *aside], stack, TELEMAGIC_SOAK_SECONDS=SOAK_SECONDS),
        ]
        try:
            first = subprocess.run([*pytest, *rest, *arguments], cwd=ROOT, check=False).returncode  # noqa: S603  # our own command
            statuses = [first, *(other.process.wait() for other in others)]
        except BaseException:
            for other in others:
                other.process.send_signal(signal.SIGINT)  # what its tests began is ended by them
            raise
        finally:
            for other in others:
                other.tell()
    return next((status for status in statuses if status), 0)


class _Beside:
    """A run whose output comes at the end."""

    def __init__(self, command: list[str], stack: ExitStack, **environment: str) -> None:
        self.said: IO[bytes] = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115  # the stack closes it
        self.process = stack.enter_context(
            subprocess.Popen(  # noqa: S603  # our own command
                command,
                cwd=ROOT,
                env={**os.environ, **environment},
                stdout=self.said,
                stderr=subprocess.STDOUT,
            )
        )

    def tell(self) -> None:
        """Wait for the end, and print what was said."""
        self.process.wait()
        self.said.seek(0)
        sys.stdout.flush()
        sys.stdout.buffer.write(self.said.read())
        sys.stdout.flush()


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
