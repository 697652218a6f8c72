from __future__ import annotations

import json
import re
import time
from dataclasses import astuple
from typing import TYPE_CHECKING, Any

import pytest
from IPython.core.error import UsageError
from telehelper.errors import KubeconfigError
from telehelper.observing import FlowRow, FlowTable

from telemagic.cell_report import CellReport
from telemagic.connected_cell import transform
from telemagic.control_fake import FakeLauncher, Script

if TYPE_CHECKING:
    from collections.abc import Callable

    from telemagic.session import Session

CALL = "get_ipython().run_line_magic('_tele_cell', {!r})\n"


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("%%tele\n1\n", [CALL.format(""), "1\n"]),
        ("%%tele  --keep -n 'a b'  \n1", [CALL.format("--keep -n 'a b'"), "1"]),
        (
            "%%tele\n\n%%time\n1\n",
            [CALL.format(""), "\n", "get_ipython().run_cell_magic('time', '', '1\\n')\n"],
        ),
        ("%%tele --help\n1\n", [CALL.format("--help")]),
        ("%%tele -h", [CALL.format("-h")]),
        ("%%tele?\n", None),
        ("%%tele --keep?\n1", None),
        ("%%tele\n", None),  # IPython says that there is no body
        ("%%tele\n  \n", None),
        ("%%telegraph\n1", None),
        ("1\n%%tele\n", None),
        ("", None),
    ],
)
def test_the_first_line_is_rewritten(cell: str, expected: list[str] | None) -> None:
    lines = cell.splitlines(keepends=True)
    assert transform(lines) == (lines if expected is None else expected)
    if expected is not None:
        assert transform(transform(lines)) == expected  # IPython may do it twice


def flow(cell: int, **changes: object) -> FlowRow:
    row = {
        "flow": 1,
        "protocol": "TCP",
        "src": "198.19.240.1",
        "sport": 1,
        "dst": "198.18.0.9",
        "dport": 5432,
    }
    row |= {"name": "postgres.shop", "state": "CLOSED", "opened_at": time.time() + 1, "connect": 0.002}
    row |= {"bytes_down": 2000, "notebook": "ipython", "pid": 7, "cell": cell}
    return FlowRow(**(row | changes))  # type: ignore[arg-type]  # its fields


def table(*rows: FlowRow) -> FlowTable:
    return FlowTable(time.time(), json.dumps([astuple(row) for row in rows]))


def run(shell: Any, code: str) -> Any:
    """Run a cell as a front end does, and raise what it raised."""
    result = shell.run_cell(code, store_history=True)
    result.raise_error()
    return result.result


def report(text: str) -> list[str]:
    """Return the report's lines in what was printed."""
    return text[text.index("Cell [") :].splitlines()


def test_connects_runs_and_disconnects(
    session: Session, launcher: FakeLauncher, shell: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    launcher.script.flows = table(flow(1), flow(2), flow(1, notebook="other.ipynb"))
    code = "%%tele\nfrom telemagic import session\nsession.session().connection.context"
    assert run(shell, code) == "demo"
    shown = capsys.readouterr().out
    assert "Out[1]: 'demo'" in shown  # the last value, before the report
    lines = report(shown)
    assert re.fullmatch(r"Cell \[1\]: 1 flow in \d\.\d\d s, 0 B up, 2.0 kB down", lines[0])
    assert lines[2].split()[:2] == ["postgres.shop:5432", "1"]
    assert lines[-1] == "  note: disconnected again"
    assert session.connection is None
    run(shell, "1")
    assert "Cell [" not in capsys.readouterr().out  # once


def test_uses_a_connection_that_is_there(
    session: Session, launcher: FakeLauncher, shell: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    connection = run(shell, "t = %tele connect\nt")
    for line in ("%%tele", "%%tele --context demo"):
        assert run(shell, f"{line}\n6 * 7") == 42
        assert "disconnected" not in capsys.readouterr().out
    assert session.connection is connection
    with pytest.raises(Exception, match="connected to demo already, not to staging"):
        run(shell, "%%tele --context staging\n1")
    assert session.connection is connection
    assert len(launcher.started) == 1


def test_keep(session: Session, shell: Any) -> None:
    run(shell, "%%tele --keep --context staging\n1")
    assert session.connection is not None
    assert session.connection.context == "staging"


def test_whether_one_is_under_way(session: Session, shell: Any) -> None:
    asked = "from telemagic import connected_cell\nconnected_cell.is_running()"
    assert run(shell, f"%%tele\n{asked}") is True
    assert run(shell, asked) is False
    with pytest.raises(ZeroDivisionError):
        run(shell, "%%tele\n1 / 0")
    assert run(shell, asked) is False


def test_the_report_can_be_kept(session: Session, shell: Any, capsys: pytest.CaptureFixture[str]) -> None:
    run(shell, "%%tele -o report\n1;")
    assert "Cell [" not in capsys.readouterr().out
    kept = shell.user_ns["report"]
    assert isinstance(kept, CellReport)
    assert (kept.cell, kept.rows, kept.note) == (1, (), "disconnected again")


def test_await_magics_and_expressions(
    session: Session, shell: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    code = (
        "where = 'staging'\n",
        "%%tele --context {where} -n $where\nimport asyncio\nawait asyncio.sleep(0.001)\n"
        "t = %tele status\n!echo from the shell\n%time 5\nt.context, t.namespace",
    )
    run(shell, code[0])
    assert run(shell, code[1]) == ("staging", "staging")
    shown = capsys.readouterr().out
    assert "from the shell" in shown
    assert "Wall time" in shown


def test_with_other_cell_magics(session: Session, shell: Any, capsys: pytest.CaptureFixture[str]) -> None:
    for code in ("%%tele\n%%time\nx = 5", "%%time\n%%tele\nx = 5"):
        shell.user_ns.pop("x", None)
        run(shell, code)
        shown = capsys.readouterr().out
        assert shell.user_ns["x"] == 5
        assert "Wall time" in shown
        assert shown.count("Cell [") == 1
        assert session.connection is None


def test_an_exception_is_one_clean_traceback(
    session: Session, shell: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ZeroDivisionError):
        run(shell, "%%tele\ndef f():\n    return 1 / 0\nf()")
    shown = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    assert shown.count("ZeroDivisionError: division by zero") == 1
    assert ".py" not in shown  # no frame of ours, or of IPython
    assert "line 4" in shown  # the line that the user sees
    assert shown.rindex("Cell [1]: no flows") > shown.index("ZeroDivisionError: division")
    assert session.connection is None


def test_a_syntax_error_connects_nothing(session: Session, launcher: FakeLauncher, shell: Any) -> None:
    with pytest.raises(SyntaxError):
        run(shell, "%%tele\n1 +")
    assert launcher.started == []
    run(shell, "1")


def test_interrupt(session: Session, shell: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(shell, "%%tele\nraise KeyboardInterrupt")
    assert "disconnected again" in capsys.readouterr().out
    assert session.connection is None


def test_a_cell_within_does_not_end_it(
    session: Session, shell: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    run(
        shell,
        "%%tele\nget_ipython().run_cell('a = 1')\nfrom telemagic import session\nb = session.session().connection",
    )
    assert shell.user_ns["b"] is not None
    assert capsys.readouterr().out.count("Cell [") == 1


def test_a_cell_that_disconnects_or_loses_the_helper(
    session: Session, launcher: FakeLauncher, shell: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    run(shell, "%%tele\n%tele disconnect\n5")
    assert "note: no flows: the connection to demo is over" in capsys.readouterr().out
    shell.user_ns["lose"] = lambda: session._loop.run(launcher.started[-1].close())
    run(shell, "%%tele\nlose()")
    shown = capsys.readouterr()
    assert re.search("note: no flows: the (helper|connection to the helper) ", shown.out)
    assert shown.err == ""
    assert session.connection is None


def test_a_connect_that_fails_runs_nothing(
    session: Session, shell: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(KubeconfigError):
        run(shell, "%%tele --context zzz\nx = 1")
    assert "x" not in shell.user_ns
    assert len(capsys.readouterr().out.strip().splitlines()) == 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "%%tele --contxt a\n1",
            "%%tele has no flag '--contxt': did you mean '--context'?\n  try: %%tele --help",
        ),
        ("%%tele demo\n1", "%%tele takes no argument 'demo'"),
        ("%%tele -o 5\n1", "'5' is no name of a variable"),
        ("get_ipython().run_cell_magic('tele', '', '1')", "must be the first line of one"),
    ],
)
def test_bad_lines(session: Session, shell: Any, line: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        run(shell, line)
    assert type(caught.value) is UsageError
    assert message in str(caught.value)


def test_help_runs_nothing(session: Session, launcher: FakeLauncher, shell: Any) -> None:
    assert "usage: %%tele [--keep]" in repr(run(shell, "%%tele --help\nx = 1"))
    assert "x" not in shell.user_ns
    assert launcher.started == []


def test_a_silent_cell(session: Session, shell: Any) -> None:
    shell.run_cell("%%tele\nx = 1", silent=True).raise_error()
    assert shell.user_ns["x"] == 1
    assert session.connection is None  # although IPython tells nobody of its end but `post_execute`


def test_by_time_where_owners_are_unknown(
    make_session: Callable[[FakeLauncher], Session], shell: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    make_session(FakeLauncher(Script(flows=table(flow(-1, pid=-1, notebook="")))))
    run(shell, "%%tele\n1")
    assert "1 flow is counted by time alone" in capsys.readouterr().out
