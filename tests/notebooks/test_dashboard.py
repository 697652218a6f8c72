"""notebooks/04-dashboard.ipynb: where the live view was there is always something to read, and the static one tells what was done."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.notebooks.executed import execute, shown

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path


@pytest.mark.netns
@pytest.mark.slow
def test_the_dashboard_leaves_a_summary(
    tmp_path: Path, sandboxed: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    cells, _ = execute("04-dashboard.ipynb", tmp_path / "executed.ipynb", sandboxed)
    (live,) = cells["dashboard"].outputs
    # The summary has taken the view's place when `%tele disconnect` returns, so it is in the file whatever saves it when.
    assert live.data["text/plain"].startswith("Disconnected from demo, namespace shop")
    assert set(live.data) == {"text/plain", "text/html"}
    assert "postgres.shop:5432" in live.data["text/html"]
    static = re.sub(r" {2,}", "  ", shown(cells["static"]))
    assert static.startswith("Connected to demo, namespace shop")
    for service in ("postgres.shop:5432", "catalog.shop:8000"):
        found = re.search(rf"{service}  (\d+)  ", static)
        assert found, static
        assert 1 <= int(found[1]) <= 10, static  # latencies are counted once a second, maybe amid the cell
    assert "[3]" in static  # the cell that worked
    assert "In [3]  " in shown(cells["disconnect"])
