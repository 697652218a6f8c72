from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from telehelper.messages import Failed
from telehelper.observing import CellEnded, CellStarted, Introduce

import telemagic
from telemagic import attribution
from telemagic.attribution import notebook_name
from telemagic.control_fake import FakeLauncher, Script

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from telemagic.session import Session

HOOK_LIMIT = 0.001  # seconds that a cell may cost; the promise
IDLE_LIMIT = 0.0001  # seconds when nothing is connected


def cell(shell: Any, code: str) -> Any:
    """Run a cell as a front end does."""
    return shell.run_cell(code, store_history=True)


def told(launcher: FakeLauncher, count: int) -> list[tuple[str, int]]:
    """Return the notifications, once there are so many."""
    patience = time.monotonic() + 5
    while len(found := launcher.started[-1].notifications) < count:
        assert time.monotonic() < patience, found
        time.sleep(0.001)
    return [(type(one).__name__, one.cell) for one in found]  # type: ignore[attr-defined]  # only such are sent


def introductions(launcher: FakeLauncher) -> list[str]:
    return [one.notebook for one in launcher.started[-1].requests if isinstance(one, Introduce)]


def test_cells_are_told(session: Session, launcher: FakeLauncher, shell: Any) -> None:
    cell(shell, "1")
    before = time.monotonic()
    cell(shell, "t = %tele connect")  # this very cell is told too
    cell(shell, "1/0")
    cell(shell, "1 +")
    cell(shell, "import asyncio\nawait asyncio.sleep(0)")
    expected = [(what, number) for number in (2, 3, 4, 5) for what in ("CellStarted", "CellEnded")]
    assert told(launcher, 8) == expected
    times = [one.at for one in launcher.started[0].notifications]  # type: ignore[attr-defined]  # as above
    assert times == sorted(times)
    assert before <= times[0] <= times[-1] <= time.monotonic()  # all processes' monotonic clock
    assert introductions(launcher) == ["ipython"]


def test_a_start_is_told_before_the_cell_runs(session: Session, launcher: FakeLauncher, shell: Any) -> None:
    cell(shell, "t = %tele connect")
    shell.user_ns["seen"] = lambda: [one.cell for one in launcher.started[0].notifications]  # type: ignore[attr-defined]
    late = 0
    for _ in range(
        20
    ):  # the fake reads in the thread of the same process that writes, so it may just be late
        number = cell(shell, "import time; time.sleep(0.005); found = seen()").execution_count
        late += number not in shell.user_ns["found"]
    assert late <= 2


def test_cells_within_cells_and_silent_ones_belong_to_the_one_under_way(
    session: Session, launcher: FakeLauncher, shell: Any
) -> None:
    cell(shell, "t = %tele connect")
    cell(shell, "get_ipython().run_cell('1')\nget_ipython().run_cell('2', silent=True)")
    shell.run_cell("a = 1")
    shell.run_cell("a = 1", silent=True)
    cell(shell, "2")
    assert [number for _, number in told(launcher, 6)] == [1, 1, 2, 2, 3, 3]
    hooks = attribution.watch(shell)
    assert hooks.innermost is None


def test_a_cell_that_never_told_its_end_is_over_with_the_next(
    session: Session, launcher: FakeLauncher, shell: Any
) -> None:
    cell(shell, "t = %tele connect")
    hooks = attribution.watch(shell)
    shell.events.trigger("pre_run_cell", SimpleNamespace(store_history=True))
    assert hooks.numbered() is not None
    shell.events.trigger("post_run_cell", None)  # ipykernel's word for a cell that was cancelled
    assert hooks.numbered() is None
    shell.events.trigger("pre_run_cell", SimpleNamespace(store_history=True))
    cell(shell, "1")
    assert hooks.innermost is None


def test_without_the_extension(session: Session, launcher: FakeLauncher, shell: Any) -> None:
    cell(shell, "%unload_ext telemagic")
    assert attribution._hooks == []
    cell(shell, "import telemagic\nt = telemagic.connect()")
    cell(shell, "t.disconnect();")
    assert told(launcher, 3)[:3] == [("CellStarted", 2), ("CellEnded", 2), ("CellStarted", 3)]
    cell(shell, "%load_ext telemagic")
    callbacks = shell.events.callbacks["pre_run_cell"]
    assert sum(getattr(one, "__func__", None) is attribution.Hooks._started for one in callbacks) == 1


def test_nothing_is_told_when_not_connected(session: Session, launcher: FakeLauncher, shell: Any) -> None:
    cell(shell, "t = %tele connect")
    fake = launcher.started[0]
    cell(shell, "%tele disconnect;")
    count = len(fake.notifications)
    cell(shell, "1")
    assert len(fake.notifications) == count


def test_a_lost_helper_disturbs_no_cell(
    session: Session, launcher: FakeLauncher, shell: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    cell(shell, "t = %tele connect")
    session._loop.run(launcher.started[0].close())
    capsys.readouterr()
    for _ in range(3):
        assert cell(shell, "x = 1").success
    assert capsys.readouterr() == ("", "")


def test_a_data_plane_that_does_not_care(make_session: Callable[[FakeLauncher], Session], shell: Any) -> None:
    make_session(
        FakeLauncher(Script(answers={Introduce: Failed("helper-refused", "Introduce is no request")}))
    )
    cell(shell, "t = %tele connect").raise_error()
    assert shell.user_ns["t"].is_open


def cost(hooks: attribution.Hooks) -> float:
    """Median seconds of one cell's start and end."""
    info = SimpleNamespace(store_history=True)
    result = SimpleNamespace(info=info)
    took = []
    for _ in range(200):
        began = time.perf_counter()
        hooks._started(info)
        hooks._ended(result)
        took.append(time.perf_counter() - began)
        time.sleep(0.0005)  # cells do not come in packs; the loop is back at its selector
    return statistics.median(took)


def test_what_a_cell_costs(session: Session, launcher: FakeLauncher, shell: Any) -> None:
    hooks = attribution.watch(shell)
    assert cost(hooks) < IDLE_LIMIT
    cell(shell, "t = %tele connect")
    assert cost(hooks) < HOOK_LIMIT
    assert len(launcher.started[0].notifications) >= 200


def test_messages_are_what_the_data_plane_reads(session: Session, launcher: FakeLauncher, shell: Any) -> None:
    cell(shell, "t = %tele connect")
    told(launcher, 2)
    first, last = launcher.started[0].notifications[:2]
    assert isinstance(first, CellStarted)
    assert isinstance(last, CellEnded)


# --- who we are --------------------------------------------------------------------------------------------------


def kernel(**names: object) -> SimpleNamespace:
    return SimpleNamespace(kernel=object(), user_ns=names)


@pytest.mark.parametrize(
    ("session_name", "names", "expected"),
    [
        ("/home/ada/nb/orders.ipynb", {}, "orders.ipynb"),  # Jupyter Server
        (
            "nb/orders-jvsc-0a1b2c3d-0a1b-0a1b-0a1b-0a1b2c3d4e5f.ipynb",
            {},
            "orders.ipynb",
        ),  # VS Code, remote
        ("", {"__vsc_ipynb_file__": "/home/ada/b.ipynb"}, "b.ipynb"),  # VS Code
        ("console-1-0a1b2c3d", {}, "console-1-0a1b2c3d"),  # a console of Lab
        ("", {}, f"kernel {os.getpid()}"),  # nbclient, papermill
        ("", {"__vsc_ipynb_file__": None}, f"kernel {os.getpid()}"),
    ],
)
def test_names_of_notebooks(
    monkeypatch: pytest.MonkeyPatch, session_name: str, names: dict[str, object], expected: str
) -> None:
    monkeypatch.setenv("JPY_SESSION_NAME", session_name)
    assert notebook_name(kernel(**names)) == expected


def test_names_of_other_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        "JPY_SESSION_NAME", "orders.ipynb"
    )  # inherited: a script started by a notebook is not it
    assert notebook_name(SimpleNamespace(kernel=None)) == "ipython"
    for file, expected in (
        ("/x/load.py", "load.py"),
        ("/x/telemagic/__main__.py", "telemagic"),
        (None, "python"),
    ):
        monkeypatch.setitem(sys.modules, "__main__", SimpleNamespace(__file__=file))
        assert notebook_name(None) == expected


def test_a_script_only_says_its_name(runtime: Path, kubeconfig: Path, tmp_path: Path) -> None:
    script = tmp_path / "load.py"
    script.write_text(
        "import sys, telemagic\n"
        "from telemagic import session, control_fake\n"
        "launcher = control_fake.FakeLauncher()\n"
        "session.use(session.Session(launcher))\n"
        "with telemagic.connect():\n    pass\n"
        "fake = launcher.started[0]\n"
        "print([one.notebook for one in fake.requests if type(one).__name__ == 'Introduce'], fake.notifications)\n"
        "print('IPython' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("['load.py'] []\nFalse\n", "")


def test_a_script_in_this_process(session: Session, launcher: FakeLauncher) -> None:
    with telemagic.connect():
        pass
    assert len(introductions(launcher)) == 1
    assert launcher.started[0].notifications == []
    assert attribution._hooks == []
