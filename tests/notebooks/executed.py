"""What notebooks/run.py makes of a notebook: its cells with their outputs, by id; nothing may go to standard error."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat

if TYPE_CHECKING:
    from collections.abc import Callable

NOTEBOOKS = Path(__file__).parent.parent.parent / "notebooks"


def execute(
    name: str, saved: Path, sandboxed: Callable[..., subprocess.CompletedProcess[str]] | None = None
) -> tuple[dict[str, Any], str]:
    """Run a notebook, in the sandbox or, without one, here; return its cells by id, and what was printed."""
    command = [sys.executable, str(NOTEBOOKS / "run.py"), "--width", "400", "--save", str(saved)]
    command.append(str(NOTEBOOKS / name))
    if sandboxed is not None:
        done = sandboxed(command, timeout=110)
    else:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=110
        )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert done.stderr == ""
    cells = {cell["id"]: cell for cell in nbformat.read(saved, as_version=4).cells}
    code = [cell for cell in cells.values() if cell.cell_type == "code"]
    assert [output for cell in code for output in cell.outputs if output.get("name") == "stderr"] == []
    return cells, done.stdout


def shown(cell: Any) -> str:
    """Return what a cell's outputs say, as text."""
    texts = [
        output.text if output.output_type == "stream" else output.data.get("text/plain", "")
        for output in cell.outputs
        if output.output_type != "error"
    ]
    return "\n".join(texts)
