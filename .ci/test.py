"""Run all tests, in two halves at the same time: most of them wait, for time-outs above all. Arguments go to both.

The second half's output comes when both have ended.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
# Whole chains, on the embedded cluster and on real parts of others; they take as long as all the rest.
CHAINS = ("tests/e2e", "tests/farend", "tests/netd_resolved")


def main(arguments: list[str]) -> int:
    """Run both; the exit status is 0 if all passed."""
    # Started in the background a shell has us ignore interrupts, and the tests would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    pytest = [sys.executable, "-m", "pytest"]
    rest = [f"--ignore={folder}" for folder in CHAINS]
    with tempfile.TemporaryFile() as said:
        chains = [*pytest, "-p", "no:cacheprovider", *CHAINS, *arguments]
        with subprocess.Popen(chains, cwd=ROOT, stdout=said, stderr=subprocess.STDOUT) as second:  # noqa: S603  # our own command
            try:
                first = subprocess.run([*pytest, *rest, *arguments], cwd=ROOT, check=False).returncode  # noqa: S603  # our own command
                status = second.wait()
            except BaseException:
                second.send_signal(signal.SIGINT)  # what its tests began is ended by them
                raise
            finally:
                second.wait()
                said.seek(0)
                sys.stdout.flush()
                sys.stdout.buffer.write(said.read())
                sys.stdout.flush()
    return first or status


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
