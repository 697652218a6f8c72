from __future__ import annotations

import json
import subprocess
import sys

import pytest

import telemagic

HEAVY = ("pandas", "numpy", "grpc", "kubernetes", "pyroute2", "aiohttp", "yaml", "ipywidgets", "uvloop")


def run(code: str) -> dict[str, object]:
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    found: dict[str, object] = json.loads(result.stdout.splitlines()[-1])
    return found


def test_import_is_next_to_nothing() -> None:
    found = run("import sys, json, telemagic; print(json.dumps({'m': sorted(sys.modules)}))")
    modules = found["m"]
    assert isinstance(modules, list)
    assert not {*HEAVY, "asyncio", "argparse", "IPython"} & set(modules)
    assert [name for name in modules if name.startswith("telemagic.")] == []


def test_load_ext_is_light_and_quick() -> None:
    found = run(
        "import sys, json, time\n"
        "from IPython.core.interactiveshell import InteractiveShell\n"
        "from traitlets.config import Config\n"
        "c = Config(); c.HistoryManager.enabled = False\n"
        "shell = InteractiveShell.instance(config=c)\n"
        "began = time.process_time(); shell.run_cell('%load_ext telemagic').raise_error()\n"
        "took = time.process_time() - began\n"
        "shell.run_cell('%tele help', silent=True).raise_error()\n"
        "print(json.dumps({'took': took, 'm': sorted(sys.modules)}))"
    )
    assert not set(HEAVY) & set(found["m"])  # type: ignore[call-overload]  # a list
    took = found["took"]
    assert isinstance(took, float)
    assert took < 0.2


def test_lazy_names() -> None:
    for name in telemagic.__all__:
        assert getattr(telemagic, name) is not None
    assert set(telemagic.__all__) <= set(dir(telemagic))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        telemagic.nonsense  # noqa: B018
