"""What netd gives up; the rest is looked at in the real process, in test_real.py."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

from telehelper.netd.powers import LIMITS, effective_capabilities


def test_the_effective_capabilities_are_the_kernels() -> None:
    status = Path("/proc/self/status").read_text()
    assert f"CapEff:\t{effective_capabilities():016x}" in status


def test_no_core_dump_is_ever_written() -> None:
    assert (resource.RLIMIT_CORE, 0) in LIMITS


def test_signals_are_ours_whatever_the_caller_did_to_them() -> None:
    program = """
import signal
from telehelper.netd.powers import shed
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
shed()
assert signal.getsignal(signal.SIGCHLD) is signal.SIG_DFL
assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())
print("shed")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout == "shed\n", done.stderr
