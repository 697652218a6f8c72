"""notebooks/03-flows-as-data.ipynb: its little analysis holds on a real run, and the outputs it is kept with are its own."""

from __future__ import annotations

import importlib.util
import re
from typing import TYPE_CHECKING, Any

import nbformat
import pytest

from tests.notebooks.executed import NOTEBOOKS, execute, shown

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path
    from types import ModuleType

KEPT = "03-flows-as-data.ipynb"
PICTURES = ("where", "bytes", "percentiles")
MACHINE = re.compile(r"/(?:home|root|tmp|Users|usr|var|opt|run|w[o]rk)/|\.venv|site-packages")


def texts(cell: Any) -> str:
    """Return all that a cell's outputs are made of, but pictures."""
    found = [
        text
        for output in cell.get("outputs", [])
        for kind, text in [("text/plain", output.get("text", "")), *output.get("data", {}).items()]
        if not kind.startswith("image/")
    ]
    return "\n".join(found)


@pytest.mark.netns
@pytest.mark.slow
def test_the_analysis_finds_what_was_done(
    tmp_path: Path, sandboxed: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    cells, _ = execute(KEPT, tmp_path / "executed.ipynb", sandboxed)
    said = {name: shown(cell) for name, cell in cells.items() if cell.cell_type == "code"}
    assert said["export"].endswith("(100000, 7)")
    assert "13 HTTP Error 404" in said["catalog"]
    assert "Connection refused" in said["wrong"]
    assert "Connection refused" in said["flows"]
    for cell in PICTURES:
        assert any("image/png" in output.data for output in cells[cell].outputs), cell

    rows = [line.split() for line in said["rate"].splitlines()]
    rate = {int(row[0]): float(row[3]) for row in rows if len(row) == 4 and row[0].isdigit()}
    assert rate[4] > 10 * rate[3]  # In [4] carries, In [3] waits for the database
    late = {int(row[0]): float(row[2]) for row in rows if len(row) == 4 and row[0].isdigit()}
    assert late[3] > 5 * 150  # five queries that sleep
    assert "tunnel" in said["latency"]
    assert "refused  catalog.shop:8080" in re.sub(r" {2,}", "  ", said["events"])
    # Names that telemagic itself asks for, to see who answers, are no failures.
    assert "DNS failed" not in said["events"]
    assert said["parquet"] == "True"
    assert "In [4]  1 flow" in said["disconnect"]
    assert re.search(r"catalog\.shop:8080 +2 flows \(2 failed\)", said["disconnect"])
    assert MACHINE.search("\n".join(map(texts, cells.values()))) is None


@pytest.fixture(scope="module")
def run() -> ModuleType:
    spec = importlib.util.spec_from_file_location("run_notebook", NOTEBOOKS / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_kept_outputs_are_of_the_code_they_stand_under(run: ModuleType) -> None:
    """After a change of a cell: notebooks/run.py --keep in the sandbox, as CONTRIBUTING would say."""
    notebook = nbformat.read(NOTEBOOKS / KEPT, as_version=4)
    assert notebook.metadata["telemagic"]["outputs_of"] == run.fingerprint(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert {output.output_type for cell in code for output in cell.outputs} <= {
        "execute_result",
        "display_data",
        "stream",
    }
    kept = {cell["id"]: cell for cell in code}
    assert all(any("image/png" in output.data for output in kept[name].outputs) for name in PICTURES)
    assert shown(kept["disconnect"]).startswith("Disconnected from demo: ")


def test_kept_outputs_tell_nothing_of_the_machine_they_were_made_on() -> None:
    notebook = nbformat.read(NOTEBOOKS / KEPT, as_version=4)
    assert [cell["id"] for cell in notebook.cells if MACHINE.search(texts(cell))] == []
    assert set(notebook.metadata) == {"kernelspec", "language_info", "telemagic"}
    assert all(cell.metadata == {} for cell in notebook.cells)


def test_a_changed_cell_is_noticed(run: ModuleType) -> None:
    notebook = nbformat.read(NOTEBOOKS / KEPT, as_version=4)
    before = run.fingerprint(notebook)
    prose = next(cell for cell in notebook.cells if cell.cell_type == "markdown")
    prose.source += " More words."
    assert run.fingerprint(notebook) == before
    code = next(cell for cell in notebook.cells if cell.cell_type == "code")
    code.source += "\n1"
    assert run.fingerprint(notebook) != before
