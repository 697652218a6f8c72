"""notebooks/run.py: what it prints, how it ends, and that it writes nowhere but in its own directory."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

RUN = Path(__file__).parent.parent.parent / "notebooks" / "run.py"


def notebook(folder: Path, *sources: str) -> Path:
    """Write a notebook; a source that begins with "# " is text."""
    cells = [new_markdown_cell(text) if text.startswith("# ") else new_code_cell(text) for text in sources]
    path = folder / "it.ipynb"
    nbformat.write(new_notebook(cells=cells), path)
    return path


# ipykernel's own race: told to shut down, it may flush into a pipe that it has just closed, and logs that.
SHUTDOWN_RACE = re.compile(r"ERROR:tornado.*?ZMQError: Socket operation on non-socket\n", re.DOTALL)


def run(path: Path, *options: str, home: Path) -> subprocess.CompletedProcess[str]:
    env = {
        key: value for key, value in os.environ.items() if not key.startswith(("JUPYTER", "IPYTHON", "XDG"))
    }
    done = subprocess.run(
        [sys.executable, str(RUN), *options, str(path)],
        env=env | {"HOME": str(home), "TMPDIR": tempfile.mkdtemp(dir=home)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    done.stderr = SHUTDOWN_RACE.sub("", done.stderr)
    return done


def test_cells_are_printed_with_their_results(tmp_path: Path) -> None:
    frame = "import pandas as pd\npd.DataFrame({f'a_rather_long_name_{i}': [i] for i in range(9)})"
    path = notebook(tmp_path, "# Title\n\nSome words.", "print('printed')", frame)
    done = run(path, "--save", str(tmp_path / "out.ipynb"), home=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "Title\n=====\n\nSome words.\n" in done.stdout
    assert "In [1]: print('printed')\nprinted\n" in done.stdout
    assert "In [2]: import pandas as pd\n        pd.DataFrame" in done.stdout
    header = next(line for line in done.stdout.splitlines() if "a_rather_long_name_0 " in line)
    assert "a_rather_long_name_8" in header, "the table was folded"
    saved = nbformat.read(tmp_path / "out.ipynb", as_version=4)
    assert saved.cells[1].outputs[0].text == "printed\n"
    assert nbformat.read(path, as_version=4).cells[1].outputs == []


def test_the_first_error_ends_the_run_and_is_shown(tmp_path: Path) -> None:
    done = run(notebook(tmp_path, "1 / 0", "print('never')"), home=tmp_path)
    assert done.returncode == 1
    assert "ZeroDivisionError: division by zero" in done.stdout
    assert "never" not in done.stdout
    assert done.stderr == "a cell failed; its error is above\n"


def test_a_bad_magic_is_an_error_too(tmp_path: Path) -> None:
    done = run(notebook(tmp_path, "%no_such_magic"), home=tmp_path)
    assert done.returncode == 1
    assert "UsageError" in done.stdout


def test_a_kernel_that_dies_is_an_error(tmp_path: Path) -> None:
    done = run(notebook(tmp_path, "import os; os._exit(3)"), home=tmp_path)
    assert done.returncode == 1
    assert "DeadKernelError" in done.stderr


def test_a_missing_notebook_is_named(tmp_path: Path) -> None:
    done = run(tmp_path / "none.ipynb", home=tmp_path)
    assert done.returncode == 2
    assert done.stderr == f"{tmp_path / 'none.ipynb'}: no such notebook\n"


def test_nothing_is_written_to_the_home_directory_and_nothing_stays(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    assert run(notebook(tmp_path, "1"), home=home).returncode == 0
    (temporary,) = home.iterdir()
    assert list(temporary.iterdir()) == []


def test_being_terminated_shuts_the_kernel_down_and_cleans_up(tmp_path: Path) -> None:
    source = (
        f"from pathlib import Path; Path({str(tmp_path / 'running')!r}).touch()\nimport time; time.sleep(100)"
    )
    path = notebook(tmp_path, source)
    process = subprocess.Popen(
        [sys.executable, str(RUN), str(path)],
        env=os.environ | {"TMPDIR": str(tmp_path)},
        stdout=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 30
    while not (tmp_path / "running").exists():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 128 + signal.SIGTERM
    assert list(tmp_path.glob("tele-nb-*")) == []
