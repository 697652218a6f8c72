"""The quick start in a real JupyterLab: what a newcomer sees, in the light and in the dark, and when mistyping."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.demo.clusters import private_runtime

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

QUICKSTART = Path(__file__).parent.parent.parent / "notebooks" / "01-quickstart.ipynb"


@pytest.mark.browser
@pytest.mark.netns
@pytest.mark.slow
def test_quickstart(sandboxed_python: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    with private_runtime():
        done = sandboxed_python("from tests.browser import test_lab; test_lab.journey()", timeout=100)
        assert done.returncode == 0, done.stdout + done.stderr


def journey() -> None:
    """Run the notebook, and make mistakes."""
    from tests.browser.lab import lab

    with lab(QUICKSTART) as found:
        found.run_all()
        cells = {cell["id"]: cell for cell in found.cells()}
        check_results(cells)
        wrong = [
            found.run(line)
            for line in ("%tele conect", "%tele status", "%tele connect --kubeconfig /nowhere")
        ]
        check_mistakes(wrong)
        for theme in ("JupyterLab Light", "JupyterLab Dark"):
            found.theme(theme)
            found.picture(theme.rpartition(" ")[2].lower())


def check_results(cells: dict[str, Any]) -> None:
    """All is there that the notebook promises, and it can be seen."""
    for name, cell in cells.items():
        kinds = {output["output_type"] for output in cell["outputs"]}
        assert kinds <= {"display_data", "execute_result"}, (name, cell["outputs"])
        assert "Traceback" not in cell["text"], (name, cell["text"])
    shown = {name: cell["text"] for name, cell in cells.items()}
    # The last cell disconnects, so the first card has turned over; it keeps its facts.
    assert shown["connect"].split()[:3] == ["Disconnected", "from", "demo"], shown["connect"]
    assert all(word in shown["connect"] for word in ("Device", "Names", "198.18.")), shown["connect"]
    assert all(region in shown["query"] for region in ("north", "south", "east", "west", "overseas"))
    assert len(shown["catalog"].splitlines()) > 5
    assert "postgres.shop" in shown["flows"]
    assert "catalog.shop" in shown["flows"]
    assert "ServiceCIDR" in shown["status"]
    assert "198.18." in shown["status"]
    assert shown["disconnect"].split()[1:4] == ["Disconnected", "from", "demo"], shown["disconnect"]
    assert "postgres.shop:5432" in shown["disconnect"]


def check_mistakes(cells: list[dict[str, Any]]) -> None:
    """Each shows what is wrong and what to do, in two lines."""
    said = ("did you mean 'connect'?", "not connected", "no kubeconfig at /nowhere")
    for cell, text in zip(cells, said, strict=True):
        lines = [line for line in cell["text"].splitlines() if line.strip()]
        assert len(lines) == 2, lines
        assert text in lines[0]
        assert lines[1].strip().startswith("try: ")
