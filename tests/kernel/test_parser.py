from __future__ import annotations

import shlex

import pytest
from telehelper.errors import UsageError

import telemagic
from telemagic.parser import COMMANDS, Tree
from telemagic.results import Text
from telemagic.session import Session

TREE = Tree("%tele")


@pytest.mark.parametrize(
    ("line", "message", "hint"),
    [
        ("flws", "unknown subcommand 'flws': did you mean 'flows'?", "%tele help"),
        ("xyzzy", "unknown subcommand 'xyzzy'", "%tele help"),
        ("--contxt", "unknown flag '--contxt'", "%tele help"),
        ("connect --nosuch", "connect has no flag '--nosuch'", "%tele connect --help"),
        (
            "connect --contxt demo",
            "connect has no flag '--contxt': did you mean '--context'?",
            "%tele connect --help",
        ),
        (
            "connect --contxt=demo",
            "connect has no flag '--contxt': did you mean '--context'?",
            "%tele connect --help",
        ),
        (
            "connect --cont demo",
            "connect has no flag '--cont': did you mean '--context'?",
            "%tele connect --help",
        ),
        ("status -- x", "status takes no argument 'x'", "%tele status --help"),
        ("connect demo", "connect takes no argument 'demo'", "%tele connect --help"),
        ("connect --context", "argument --context: expected one argument", "%tele connect --help"),
        ("connect --timeout soon", "argument --timeout: invalid float value: 'soon'", "%tele connect --help"),
        ("connect --dns magic", "argument --dns: invalid choice: 'magic'", "%tele connect --help"),
        ("help flws", "no help on 'flws': did you mean 'flows'?", "%tele help"),
        ("demo pu", "argument up|down|status|shell|break: invalid choice: 'pu'", "%tele demo --help"),
    ],
)
def test_bad_lines(line: str, message: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        TREE.run(Session(), TREE.parse(shlex.split(line)))  # type: ignore[arg-type]  # no Text here
    assert caught.value.message.startswith(message)
    assert ("did you mean" in caught.value.message) == ("did you mean" in message)
    assert caught.value.hint == hint


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_each(name: str) -> None:
    for line in ([name, "--help"], [name, "-h"]):
        found = TREE.parse(line)
        assert isinstance(found, Text)
        assert found.text.startswith(f"usage: %tele {name}")
    assert name in TREE.help().text


@pytest.mark.parametrize("name", COMMANDS)
def test_help_fits_and_tables_stay_tables(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = TREE.help(name).text.splitlines()
    assert max(map(len, lines)) <= 80, name
    first = {
        "flows": "dport",
        "services": "dns_name",
        "helper": "uninstall",
        "demo": "clear",
        "events": "kind",
    }
    if name in first:  # a row begins a line of its own
        assert any(line.split()[:1] == [first[name]] for line in lines)


def test_each_subcommand_stands_beside_its_summary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = TREE.help().text.splitlines()
    for name in COMMANDS:
        assert any(line.startswith(f"  {name} ") for line in lines), name
    assert max(map(len, lines)) <= 80
    assert len(lines) <= 30  # all of it is seen at once


@pytest.mark.parametrize(
    ("line", "meant"),
    [("connect --dns kernal", "kernel"), ("connect --via managr", "manager"), ("demo statsu", "status")],
)
def test_what_was_probably_meant_of_several(line: str, meant: str) -> None:
    with pytest.raises(UsageError, match=rf"choose from .*\): did you mean '{meant}'\?\n"):
        TREE.parse(line.split())


def test_nothing_like_it_is_no_guess() -> None:
    with pytest.raises(UsageError, match=r"choose from .*\)\n"):
        TREE.parse(["connect", "--dns", "xyzzy"])


def test_version() -> None:
    assert repr(TREE.parse(["--version"])) == f"telemagic {telemagic.__version__}"


def test_a_shell_has_no_variables_and_no_cells() -> None:
    tree = Tree("telemagic")
    with pytest.raises(UsageError, match="flows has no flag '-o'"):
        tree.parse(["flows", "-o", "df"])
    assert "%%" not in tree.help().text


def test_the_first_line_of_a_cell() -> None:
    args = TREE.parse_cell(["--context", "a", "-o", "r"])
    assert not isinstance(args, Text)
    assert (args.context, args.output, args.keep) == ("a", "r", False)
    assert not TREE.is_plain(args)
    kept = TREE.parse_cell(["--keep", "-o", "r"])
    assert not isinstance(kept, Text)
    assert TREE.is_plain(kept)
    assert isinstance(TREE.parse_cell(["--help"]), Text)


def test_help_word_after_two_dashes_is_the_command_s() -> None:
    line = TREE.parse(["demo", "shell", "--no-cluster", "--", "ls", "--help", "--", "x"])
    assert not isinstance(line, Text)
    assert (line.args.no_cluster, line.args.argv) == (True, ["ls", "--help", "--", "x"])


def test_connect_line() -> None:
    line = TREE.parse(
        shlex.split("connect --context a -n b --also-proxy 10.0.0.0/8 --also-proxy 1.2.3.4/32 --timeout 5")
    )
    assert not isinstance(line, Text)
    assert (line.command, line.args.context, line.args.namespace, line.args.timeout) == (
        "connect",
        "a",
        "b",
        5.0,
    )
    assert line.args.also_proxy == ["10.0.0.0/8", "1.2.3.4/32"]
    assert line.args.carrier == "portforward"
    again = TREE.parse(["connect"])
    assert not isinstance(again, Text)
    assert again.args.also_proxy == []  # argparse's append must not share its default
