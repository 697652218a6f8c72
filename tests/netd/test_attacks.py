"""Attacks on the real netd, in a sandbox; see attacks.py."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from tests.netd.attacks import ATTACKS

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable


@pytest.mark.netns
@pytest.mark.parametrize("name", [attack.__name__ for attack in ATTACKS])
def test_attack(name: str, sandboxed: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = sandboxed([sys.executable, "-m", "tests.netd.attacks", name], timeout=60)
    assert done.returncode == 0, done.stderr
