"""What netd gives up; the rest is looked at in the real process, in test_real.py."""

from __future__ import annotations

import resource
from pathlib import Path

from telehelper.netd.powers import LIMITS, effective_capabilities


def test_the_effective_capabilities_are_the_kernels() -> None:
    status = Path("/proc/self/status").read_text()
    assert f"CapEff:\t{effective_capabilities():016x}" in status


def test_no_core_dump_is_ever_written() -> None:
    assert (resource.RLIMIT_CORE, 0) in LIMITS
