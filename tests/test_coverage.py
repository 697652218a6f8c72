"""Every module of core/ and netd/, and messages.py, has all its branches covered by its own test file alone.

All those files run once, with coverage noting whose test was running. For each module, only what its own file's tests
executed counts, and what ran outside all tests: importing, and what parameters are made of.
"""

from __future__ import annotations

import io
import re
import subprocess
import sys
from pathlib import Path

import pytest
from coverage import Coverage

ROOT = Path(__file__).parent.parent
HELPER = ROOT / "helper" / "telehelper"
MODULES = sorted(
    str(path.relative_to(HELPER))
    for path in [
        HELPER / "codec.py",
        HELPER / "messages.py",
        *(HELPER / "core").glob("*.py"),
        *(HELPER / "netd").glob("*.py"),
    ]
    if not path.name.startswith("__")
)
SETTINGS = """
[run]
branch = true
source = {source}
data_file = {data}
"""


def own_test_of(module: str) -> Path:
    return ROOT / "tests" / Path(module).parent / f"test_{Path(module).name}"


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run all the files; return coverage's data. A failing test is not our business here, but its own."""
    folder = tmp_path_factory.mktemp("coverage")
    settings, data = folder / "settings", folder / "data"
    settings.write_text(SETTINGS.format(source=HELPER, data=data))
    files = [str(path) for path in map(own_test_of, MODULES) if path.exists()]
    pytest_run = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "tests.coverage_contexts", *files]
    command = [sys.executable, "-m", "coverage", "run", f"--rcfile={settings}", *pytest_run]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert data.exists(), done.stdout + done.stderr
    return data


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("module", MODULES)
def test_its_own_tests_take_every_branch(module: str, measured: Path) -> None:
    test = own_test_of(module)
    assert test.exists(), f"{test.relative_to(ROOT)} is missing"
    coverage = Coverage(data_file=measured, config_file=str(ROOT / "pyproject.toml"))
    coverage.load()
    table = io.StringIO()
    mine = ["^$", f"^{re.escape(test.name)}$"]
    covered = coverage.report(include=[str(HELPER / module)], contexts=mine, show_missing=True, file=table)
    coverage.get_data().close()
    if covered < 100:
        pytest.fail(table.getvalue(), pytrace=False)
