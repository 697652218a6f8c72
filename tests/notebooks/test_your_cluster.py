"""notebooks/02-your-cluster.ipynb on the demo cluster: what is in there, by name, and how we got to it."""

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
def test_the_cluster_is_as_described(
    tmp_path: Path, sandboxed: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    cells, printed = execute("02-your-cluster.ipynb", tmp_path / "executed.ipynb", sandboxed)
    said = {name: shown(cell) for name, cell in cells.items() if cell.cell_type == "code"}

    assert "Way in       manager · telemagic/traffic-manager" in said["status"]
    assert said["way"].startswith("('manager', 'telemagic/traffic-manager-")
    assert said["install"].startswith("Dry run, nothing was changed")
    assert "ServiceCIDR kubernetes" in said["routes"]
    assert "postgresql://postgres.shop:5432" in said["services"]
    assert {"kube-system", "shop", "telemagic"} <= set(said["pods"].split())
    assert said["url"] == "'http://catalog.shop:8000/products'"
    short, full = said["getaddrinfo"].strip("()").split(", ")
    assert short == full
    assert short.startswith("'198.18.")
    assert short.strip("'") in said["resolve"]
    assert said["ping"].count("connected") == 4
    assert said["error"].endswith("try: did you mean postgres.shop?")
    assert "DNS path" in said["doctor"]
    assert "Doctor: " in said["doctor"]
    assert "carriers-cut on" in said["fault"] or "carriers-cut: " in said["fault"]
    assert "remains   the connection" in said["fault"]
    assert said["disconnect"].startswith("Disconnected from demo: ")
    assert "postgres.shop:5432  4 flows" in said["disconnect"]
    # The card of the connect was shown by itself, though its value was kept in a variable.
    assert re.search(r"Connected at [\d:]{8} to demo, namespace shop", printed)
