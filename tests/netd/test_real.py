"""The real netd with a real TUN, real routes and a real resolv.conf, in a sandbox; see scenarios.py."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from tests.netd.scenarios import SCENARIOS

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable


@pytest.mark.netns
@pytest.mark.parametrize("name", [scenario.__name__ for scenario in SCENARIOS])
def test_scenario(name: str, sandboxed: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = sandboxed([sys.executable, "-m", "tests.netd.scenarios", name], timeout=30)
    assert done.returncode == 0, done.stderr
