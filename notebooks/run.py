"""Runs a notebook in a kernel of its own and prints every cell with its result; ``make demo`` is this.

Nothing is written outside a temporary directory: no kernelspec, no IPython history, no connection file. Exit status:
0 all cells ran, 1 a cell failed (its error is printed last), 2 there is no such notebook.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import signal
import sys
import tempfile
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from traitlets import default
from traitlets.config import Config

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nbformat import NotebookNode

CELL_TIMEOUT = (
    180  # seconds; connecting to a demo cluster that has to be made first takes about ten on a slow machine
)
WIDTH = 240  # columns, where there is no terminal to ask; the flow table then folds once at most
GRACE = 5  # seconds; what the helpers promise to need after their kernel is gone
RULES = {"#": "=", "##": "-"}  # below a heading
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
# matplotlib says on standard error that it makes its list of fonts, which takes a second or two.
_STARTUP = """\
import logging
import pandas as pd
logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
pd.set_option("display.width", {width}, "display.max_columns", 40, "display.max_colwidth", 60)
"""


class _PrivateKernel(AsyncKernelManager):  # type: ignore[misc,unused-ignore]  # traitlets' metaclass is untyped
    """The interpreter that runs us, whatever kernelspecs are installed, over Unix sockets instead of ports."""

    @default("kernel_spec_manager")  # type: ignore[untyped-decorator,unused-ignore]  # traitlets is partly untyped
    def _own_interpreter(self) -> KernelSpecManager:
        return KernelSpecManager(kernel_dirs=[])


def use_private_directories(base: Path, width: int) -> None:
    """Point Jupyter, IPython and telemagic, here and in the kernel, at directories below `base`.

    telemagic's own default is by uid, and in a user namespace everybody's is 0.

    Parameters
    ----------
    base
        An empty directory; its path must be short, since Unix sockets are made in it.
    width
        Columns that a DataFrame's text may take.
    """
    for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
        os.environ[name] = str(base / name.lower())
    os.environ["TELEMAGIC_RUNTIME_DIR"] = str(base / "run")
    os.environ["MPLCONFIGDIR"] = str(base / "matplotlib")
    os.environ["JUPYTER_PATH"] = os.environ["JUPYTER_CONFIG_PATH"] = ""
    os.environ["JUPYTER_PLATFORM_DIRS"] = "1"  # else jupyter_core warns about its coming default
    startup = base / "ipythondir" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "00-display.py").write_text(_STARTUP.format(width=width))


def text_of(output: NotebookNode) -> str:
    """Return what one output of a cell looks like in a terminal, without colours; empty for pictures alone."""
    match output.output_type:
        case "stream":
            text = output.text
        case "error":
            text = "\n".join(output.traceback) or f"{output.ename}: {output.evalue}"
        case _:
            text = output.data.get("text/plain", "")
    return _ANSI.sub("", str(text)).rstrip("\n")


def print_markdown(source: str, width: int) -> None:
    """Print a text cell, folded; a heading is underlined."""
    for paragraph in source.split("\n\n"):
        marks, _, title = paragraph.partition(" ")
        if marks in RULES:
            print(f"{title}\n{RULES[marks] * len(title)}")
        else:
            print(textwrap.fill(paragraph, min(width, 100)))
        print()


def print_code(source: str, number: int) -> None:
    """Print a code cell's source with its prompt."""
    prompt = f"In [{number}]: "
    print(textwrap.indent(source, " " * len(prompt)).replace(" " * len(prompt), prompt, 1))


def print_outputs(outputs: Iterable[NotebookNode]) -> None:
    """Print a cell's results, each as a block."""
    for text in filter(None, map(text_of, outputs)):
        print(text)
    print(flush=True)


def run(notebook: NotebookNode, base: Path, width: int) -> bool:
    """Execute all cells in order, printing each when it is done.

    Parameters
    ----------
    notebook
        A parsed notebook (nbformat 4); its outputs are filled in.
    base
        Where the kernel's sockets go.
    width
        Columns of the terminal.

    Returns
    -------
    bool
        Whether every cell ran without an error. The first error ends the run.
    """
    config = Config({"KernelManager": {"transport": "ipc", "ip": str(base / "kernel")}})
    client = NotebookClient(
        notebook,
        timeout=CELL_TIMEOUT,
        kernel_name="python3",
        kernel_manager_class=_PrivateKernel,
        config=config,
    )
    number = 0
    with client.setup_kernel():
        for index, cell in enumerate(notebook.cells):
            if cell.cell_type != "code":
                print_markdown(cell.source, width)
                continue
            number += 1
            print_code(cell.source, number)
            try:
                client.execute_cell(cell, index, execution_count=number)
            except (CellExecutionError, DeadKernelError, TimeoutError) as error:
                print_outputs(cell.outputs)
                if not cell.outputs:
                    print(f"{type(error).__name__}: {error}", file=sys.stderr)
                return False
            print_outputs(cell.outputs)
    return True


def fingerprint(notebook: NotebookNode) -> str:
    """Return the SHA-256 of a notebook's code: outputs that are kept say by it what they are the outputs of."""
    code = "\0".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    return hashlib.sha256(code.encode()).hexdigest()


def keep(notebook: NotebookNode) -> None:
    """Make an executed notebook fit for keeping: what it is made of is noted, how long cells took is not."""
    notebook.metadata["telemagic"] = {"outputs_of": fingerprint(notebook)}
    notebook.metadata["language_info"] = {"name": "python"}
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)


def _wait_until_empty(directory: Path) -> None:
    """Let the helpers, which end when the kernel has ended, take their sockets away themselves."""
    deadline = time.monotonic() + GRACE
    while directory.exists() and any(directory.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.02)


def _end(signum: int, _frame: object) -> NoReturn:
    raise SystemExit(128 + signum)


def main(argv: list[str] | None = None) -> int:
    """Run the notebook named on the command line; return the exit status."""
    parser = argparse.ArgumentParser(description="Run a notebook and print every cell with its result.")
    parser.add_argument("notebook", type=Path)
    parser.add_argument("--save", type=Path, help="write the notebook with its outputs to this file")
    parser.add_argument(
        "--keep",
        action="store_true",
        help="write the outputs into the notebook itself, for readers on the web",
    )
    parser.add_argument("--width", type=int, default=0, help="columns for tables (default: the terminal's)")
    options = parser.parse_args(argv)
    if not options.notebook.is_file():
        print(f"{options.notebook}: no such notebook", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, _end)  # so that the kernel is shut down and the directory removed
    notebook = nbformat.reads(options.notebook.read_text(), as_version=4)  # type: ignore[no-untyped-call]  # nbformat is partly typed
    width = options.width or shutil.get_terminal_size((WIDTH, 24)).columns
    with tempfile.TemporaryDirectory(prefix="tele-nb-", ignore_cleanup_errors=True) as base:
        use_private_directories(Path(base), width)
        os.environ["JPY_SESSION_NAME"] = (
            options.notebook.name
        )  # as Jupyter does: flows are told by it whose they are
        try:
            ok = run(notebook, Path(base), width)
        finally:
            _wait_until_empty(Path(base) / "run")
    if options.keep and ok:
        keep(notebook)
        options.save = options.notebook
    if options.save:
        options.save.write_text(nbformat.writes(notebook))  # type: ignore[no-untyped-call]  # as above
    if not ok:
        print("a cell failed; its error is above", file=sys.stderr)
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
