"""What netd gives up; the rest is looked at in the real process, in test_real.py."""

from __future__ import annotations

from pathlib import Path

from telehelper.netd.powers import CAP_DAC_OVERRIDE, CAP_NET_ADMIN, KEPT, effective_capabilities


def test_the_effective_capabilities_are_the_kernels() -> None:
    status = Path("/proc/self/status").read_text()
    assert f"CapEff:\t{effective_capabilities():016x}" in status


def test_two_capabilities_are_kept() -> None:
    assert {bit for bit in range(64) if KEPT >> bit & 1} == {CAP_NET_ADMIN, CAP_DAC_OVERRIDE}
