from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
from IPython.core.error import UsageError
from IPython.utils.capture import capture_output
from telehelper.errors import AlreadyConnected, CidrConflict, HelperLost, KubeconfigError, NotConnected

from telemagic.cards import Card
from telemagic.connection import Connection
from telemagic.control_fake import FakeLauncher, Script
from telemagic.results import Status, Text

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from telemagic.session import Session

    MakeSession = Callable[[FakeLauncher], Session]


def run(shell: Any, line: str) -> Any:
    """Run a cell and return its result; raises what it raised."""
    with capture_output():
        result = shell.run_cell(line)
    result.raise_error()
    return result.result


def text_of(shell: Any, line: str) -> tuple[str, str]:
    """Run a cell that fails; what it prints to stdout and stderr, without colours."""
    with capture_output() as captured:
        shell.run_cell(line)
    return tuple(re.sub(r"\x1b\[[0-9;]*m", "", text) for text in (captured.stdout, captured.stderr))  # type: ignore[return-value]


def test_a_whole_session(session: Session, shell: Any) -> None:
    assert isinstance(run(shell, "%tele connect"), Connection)
    assert isinstance(run(shell, "%tele status"), Status)
    assert isinstance(run(shell, "%tele flows"), pd.DataFrame)
    assert isinstance(run(shell, "%tele routes"), pd.DataFrame)
    assert run(shell, "y = %tele flows\nlen(y)") == 0
    assert run(shell, "%tele").text.startswith("connected to demo, namespace shop\n\nusage: %tele COMMAND")
    assert run(shell, "%tele status;") is None
    assert isinstance(run(shell, "%tele disconnect"), Card)
    assert run(shell, "%tele").text.startswith("not connected\n")


def test_lines_are_expanded(session: Session, shell: Any) -> None:
    connection = run(shell, "where = 'staging'\n%tele connect --context {where} -n $where")
    assert (connection.context, connection.namespace) == ("staging", "staging")


@pytest.mark.parametrize(
    ("line", "kind", "message", "hint"),
    [
        ("flws", UsageError, "unknown subcommand 'flws': did you mean 'flows'?", "%tele help"),
        ("connect --contxt a", UsageError, "did you mean '--context'?", "%tele connect --help"),
        ("connect --timeout -1", UsageError, "a timeout of -1 s makes no sense", "--timeout 30"),
        ("connect --also-proxy ten", UsageError, "'ten' is no CIDR", "10.1.0.0/16"),
        ("connect 'a", UsageError, "cannot split the line", "close the quotes"),
        ("demo shell", UsageError, "demo shell needs a terminal", "telemagic demo shell"),
        ("demo up now", UsageError, "demo up takes no argument 'now'", "%tele help demo"),
        ("connect --context demmo", KubeconfigError, "no context 'demmo'", "did you mean 'demo'?"),
        ("connect --kubeconfig /none", KubeconfigError, "no kubeconfig at /none", "--demo"),
        ("connect --kubeconfig /dev", KubeconfigError, "/dev cannot be read: Is a directory", "ls -l"),
        ("status", NotConnected, "not connected", "%tele connect"),
        ("flows", NotConnected, "not connected", "%tele connect"),
        ("routes", NotConnected, "not connected", "%tele connect"),
        ("disconnect", NotConnected, "not connected", "%tele connect"),
    ],
)
def test_bad_input(
    session: Session, shell: Any, line: str, kind: type[Exception], message: str, hint: str
) -> None:
    with pytest.raises(kind) as caught:
        run(shell, f"%tele {line}")
    assert type(caught.value) is kind  # a subclass of IPython's UsageError would show a traceback
    shown = "\n".join(text_of(shell, f"%tele {line}"))
    assert message in shown
    assert hint in shown
    assert "Traceback" not in shown
    assert len(shown.strip().splitlines()) == 2


def test_malformed_kubeconfig(session: Session, shell: Any, kubeconfig: Path) -> None:
    kubeconfig.write_text("a: b\nc: [1,\n  }")
    with pytest.raises(KubeconfigError, match="line 3"):
        run(shell, "%tele connect")


def test_connect_twice(session: Session, shell: Any) -> None:
    first = run(shell, "%tele connect")
    assert run(shell, "%tele connect") is first
    assert "already connected to demo" in repr(first)
    with pytest.raises(AlreadyConnected):
        run(shell, "%tele connect --context staging")


def test_unconnected_shows_exactly_two_lines(session: Session, shell: Any) -> None:
    out, err = text_of(shell, "%tele status")
    assert (out.splitlines(), err) == (["NotConnected: not connected", "  try: %tele connect"], "")


def test_hostile_error_text(make_session: MakeSession, shell: Any) -> None:
    make_session(FakeLauncher(Script(failure=CidrConflict("<b>no</b>", hint="<i>"))))
    with pytest.raises(CidrConflict):
        run(shell, "%tele connect")


def test_lost_helper(session: Session, launcher: FakeLauncher, shell: Any) -> None:
    connection = run(shell, "%tele connect")
    session._loop.run(launcher.started[0].close())
    with pytest.raises(HelperLost):
        run(shell, "%tele flows")
    assert connection.lost
    assert "connection to demo lost" in run(shell, "%tele").text


def test_connect_prints_lines_in_a_terminal(session: Session, shell: Any) -> None:
    with capture_output() as captured:
        shell.run_cell("t = %tele connect")
    lines = captured.stdout.splitlines()
    assert lines[0] == "Connecting to demo"
    assert [line.split()[0] for line in lines[1:]] == [
        "Ask",
        "Network",
        "Tunnel",
        "CIDRs",
        "Routes",
        "Names",
        "Ready",
    ]


def test_help(shell: Any) -> None:
    for line in ("help", "--help", "help connect", "connect --help"):
        assert isinstance(run(shell, f"%tele {line}"), Text)
    doc = shell.find_line_magic("tele").__doc__
    assert "usage: %tele COMMAND" in doc


def test_unload_and_reload(session: Session, shell: Any) -> None:
    connection = run(shell, "%tele connect")
    for _ in range(2):
        shell.run_cell("%reload_ext telemagic").raise_error()
    assert [type(one).__name__ for one in shell.configurables].count("TeleMagics") == 1
    assert session.connection is connection  # it stays
    shell.run_cell("%unload_ext telemagic").raise_error()
    assert shell.find_line_magic("tele") is None
    assert [type(one).__name__ for one in shell.configurables].count("TeleMagics") == 0
    assert connection.is_open
    shell.run_cell("%load_ext telemagic").raise_error()
