from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
from IPython.core.error import UsageError
from IPython.utils.capture import capture_output
from telehelper import views
from telehelper.errors import (
    AlreadyConnected,
    CidrConflict,
    HelperLost,
    KubeconfigError,
    NotConnected,
    TelemagicError,
)

import telemagic
from telemagic.cards import Card
from telemagic.connection import Connection
from telemagic.control_fake import FakeLauncher, Script
from telemagic.results import Status, Text

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from telehelper.messages import Message

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
        ("connect --cidr 10.0.0.1/8", UsageError, "host bits", "10.0.0.0/8"),
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


@pytest.mark.parametrize("command", ["status", "flows", "routes", "connect", "help connect"])
def test_output_goes_to_a_variable(session: Session, shell: Any, command: str) -> None:
    run(shell, "t = %tele connect")
    if command.startswith("help"):  # nothing to keep
        with pytest.raises(UsageError, match="has no flag '-o'"):
            run(shell, f"%tele {command} -o kept")
        return
    with capture_output() as captured:
        assert shell.run_cell(f"%tele {command} -o kept").result is None
    assert captured.stdout == ""
    assert type(shell.user_ns["kept"]) is type(run(shell, f"%tele {command}"))


def test_output_needs_a_name(session: Session, shell: Any) -> None:
    run(shell, "t = %tele connect")
    for name in ("5", "a.b", "class"):
        with pytest.raises(UsageError, match="is no name of a variable"):
            run(shell, f"%tele status -o {name}")
    run(shell, "where = 'kept'\n%tele status -o {where};")
    assert isinstance(shell.user_ns["kept"], Status)


def test_what_the_cluster_has_not_is_no_usage_error(make_session: MakeSession, shell: Any) -> None:
    # IPython's own class leaves no error in a notebook's outputs, and runners of notebooks go on.
    row = views.ServiceRow("postgres", "shop", "ClusterIP", "198.18.0.9", (), "", "", 1, 1)
    answers: dict[type[Message], Message] = {
        views.GetServices: views.ServiceTable((row,)),
        views.GetPods: views.PodTable(()),
    }
    make_session(FakeLauncher(Script(answers=answers)))
    run(shell, "t = %tele connect")
    with pytest.raises(TelemagicError) as caught:
        run(shell, "%tele ping postgrs:5432")
    assert not isinstance(caught.value, UsageError)
    out, err = text_of(shell, "%tele ping postgrs:5432")
    assert (len(out.splitlines()), err) == (2, "")


def test_short_errors_can_be_switched_off(session: Session, shell: Any) -> None:
    assert len(text_of(shell, "%tele status")[0].splitlines()) == 2
    run(shell, "%config TeleMagics.short_errors = False")
    (magics,) = [one for one in shell.configurables if type(one).__name__ == "TeleMagics"]
    assert magics.short_errors is False  # what errors look at
    assert magics.settings().short_errors is False


def test_help(shell: Any) -> None:
    for line in ("help", "--help", "help connect", "connect --help"):
        assert isinstance(run(shell, f"%tele {line}"), Text)
    assert "usage: %tele COMMAND" in shell.find_line_magic("tele").__doc__
    assert "usage: %%tele [--keep]" in shell.find_cell_magic("tele").__doc__
    assert "%%tele --help" in run(shell, "%tele help").text
    for line, text in (("%tele?", "usage: %tele COMMAND"), ("%%tele?", "usage: %%tele [--keep]")):
        assert text in text_of(shell, line)[0]


def traces(shell: Any) -> list[str]:
    """Whatever of ours is registered in a shell."""
    found = [
        type(one).__name__ for one in shell.configurables if type(one).__module__.startswith("telemagic")
    ]
    found += [name for kind in shell.magics_manager.magics.values() for name in kind if "tele" in name]
    found += [name for name in shell.magics_manager.registry if "Tele" in name]
    for where, those in (
        ("transformer", shell.input_transformers_cleanup),
        ("matcher", shell.Completer.custom_matchers),
        *((name, callbacks) for name, callbacks in shell.events.callbacks.items()),
    ):
        found += [where for one in those if getattr(one, "__module__", "").startswith("telemagic")]
    return sorted(found)


def test_unload_and_reload(session: Session, shell: Any) -> None:
    loaded = traces(shell)
    assert loaded == [
        "TeleMagics",
        "TeleMagics",
        "_tele_cell",
        "matcher",
        "post_run_cell",
        "pre_run_cell",
        "tele",
        "tele",
        "transformer",
    ]
    connection = run(shell, "%tele connect")
    for _ in range(2):
        shell.run_cell("%reload_ext telemagic").raise_error()
    assert traces(shell) == loaded
    assert session.connection is connection  # it stays
    shell.run_cell("%unload_ext telemagic").raise_error()
    assert traces(shell) == []
    assert shell.find_line_magic("tele") is None
    assert connection.is_open
    shell.run_cell("%load_ext telemagic").raise_error()


def test_loading_twice_is_nothing(session: Session, shell: Any) -> None:
    loaded = traces(shell)
    with capture_output() as captured:
        shell.run_cell("%load_ext telemagic").raise_error()
    assert "already loaded" in captured.stdout  # IPython's own notice
    telemagic.load_ipython_extension(shell)  # even if it is asked for behind IPython's back
    assert traces(shell) == loaded


def test_one_exit_handler_however_often_loaded(session: Session, shell: Any) -> None:
    registered = []
    patched = pytest.MonkeyPatch()
    patched.setattr("atexit.register", lambda function: registered.append(function))
    try:
        run(shell, "t = %tele connect")
        for _ in range(2):
            shell.run_cell("%reload_ext telemagic").raise_error()
            run(shell, "%tele connect;")
    finally:
        patched.undo()
    assert [each for each in registered if getattr(each, "__self__", None) is session] == [session.close]
