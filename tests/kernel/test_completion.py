from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from telehelper import views

from telemagic.completion import MAX_SHOWN, Answer, complete
from telemagic.control_fake import FakeLauncher, Script
from telemagic.parser import COMMANDS, Tree
from telemagic.remembered import WAIT

if TYPE_CHECKING:
    from collections.abc import Callable

    from telemagic.session import Session

TREE = Tree("%tele")
ANSWERS_WITHIN = 0.1  # seconds; the promise


def service(name: str, namespace: str, *ports: tuple[str, int]) -> views.ServiceRow:
    rows = tuple(views.PortRow(port, number, "TCP") for port, number in ports)
    return views.ServiceRow(name, namespace, "ClusterIP", "198.18.0.9", rows, "", "", 1, 1)


SERVICES = (
    service("postgres", "shop", ("sql", 5432)),
    service("catalog", "shop", ("http", 8000), ("", 9000)),
    service("kube-dns", "kube-system", ("dns", 53)),
)


class Fixed:
    def contexts(self, until: float) -> list[str]:
        assert until <= time.monotonic() + WAIT
        return ["demo", "prod-eu", "prod-us"]

    def services(self, until: float) -> tuple[views.ServiceRow, ...]:
        return SERVICES

    def namespaces(self, until: float) -> list[str]:
        return ["kube-system", "shop"]


def texts(line: str) -> list[str] | None:
    answer = complete(TREE, line, Fixed())
    return None if answer is None else [choice.text for choice in answer.choices]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("%tele ", [*COMMANDS]),
        ("%tele fl", ["flows"]),
        ("df = %tele fl", ["flows"]),
        ("df=%tele fl", ["flows"]),
        ("    %tele fl", ["flows"]),
        ("%tele --he", ["--help"]),
        ("%tele flws ", []),
        ("%tele connect --cont", ["--context"]),
        ("%tele connect --context ", ["demo", "prod-eu", "prod-us"]),
        ("%tele connect --context prod", ["prod-eu", "prod-us"]),
        ("%tele connect --context=prod", ["prod-eu", "prod-us"]),
        ("%tele connect --context prod-eu --conte", []),  # it is there already
        ("%tele connect --also-proxy 10.0.0.0/8 --also", ["--also-proxy"]),  # that one is repeatable
        ("%tele connect --also-proxy ", []),  # nobody knows
        ("%tele connect --dns k", ["kernel"]),
        ("%tele connect --dns=k", ["kernel"]),
        ("%tele connect --nonsense=k", []),
        ("%tele connect --nonsense k --dem", ["--demo"]),
        ("%tele connect -n s", ["shop"]),
        ("%tele services --namespace kube", ["kube-system"]),
        ("%tele ping pos", ["postgres.shop"]),
        ("%tele fault data", ["data-plane-killed", "data-plane-frozen"]),
        ("%tele fault data-plane-killed --service pos", ["postgres.shop"]),
        ("%tele ping --count 3 pos", ["postgres.shop"]),
        ("%tele ping catalog.shop:", ["catalog.shop:8000", "catalog.shop:http", "catalog.shop:9000"]),
        ("%tele ping catalog:h", ["catalog:http"]),
        ("%tele resolve kube", ["kube-dns.kube-system"]),
        ("%tele flows --service cat", ["catalog.shop"]),
        ("df = %tele flows --cell 5 --state ", ["open", "closed"]),
        ("%tele flows --cell ", ["last"]),
        ("%tele flows --sort connect_m", ["connect_ms"]),
        ("%tele help con", ["connect"]),
        ("%tele demo u", ["up"]),
        ("%tele demo --name x", []),
        ("%tele demo shell -- ", []),  # the rest is another program's
        ("%%tele --ke", ["--keep"]),
        ("%%tele --cont", ["--context"]),
        ("%%tele --context d", ["demo"]),
        ("%%tele con", []),  # a cell has no subcommands
        ("%tele connect --kubeconfig /e", None),  # files: IPython's own
        ("%tele flows -o d", None),  # variables: IPython's own
        ("x.tele fl", None),
        ("tele fl", None),
        ("%telegraph fl", None),
        ("print('%tele fl", None),
        ("%tele", None),  # the magic's own name is IPython's
    ],
)
def test_what_can_follow(line: str, expected: list[str] | None) -> None:
    assert texts(line) == expected


def test_all_flags_are_offered_where_nothing_else_fits() -> None:
    offered = texts("%tele connect ")
    assert offered is not None
    assert {"--context", "--namespace", "-n", "--demo", "--via", "-o", "--help"} <= set(offered)
    assert texts("%tele connect --demo ") == [flag for flag in offered if flag != "--demo"]
    assert texts("%tele ping postgres.shop ") is not None  # its only argument is there
    assert "--count" in (texts("%tele ping postgres.shop ") or [])


def test_a_choice_replaces_what_it_completes_and_says_what_it_is() -> None:
    answer = complete(TREE, "%tele connect --context=prod-e", Fixed())
    assert isinstance(answer, Answer)
    assert answer.fragment == "prod-e"
    assert [choice.kind for choice in answer.choices] == ["context"]


@pytest.mark.parametrize(
    "name",
    ["{__import__('os').system('id')}", "$HOME", "a b", "a\n!id", "x;!id", "a\x1b[2J", "a'", "a\u202eb"],
)
def test_what_ipython_would_run_or_nobody_would_see_is_not_offered(name: str) -> None:
    class Hostile(Fixed):
        def contexts(self, until: float) -> list[str]:
            return [name, "demo"]

        def services(self, until: float) -> tuple[views.ServiceRow, ...]:
            return (service(name, "shop"), service("postgres", "shop", (name, 5432)))

        def namespaces(self, until: float) -> list[str]:
            return [name, "shop"]

    for line, fine in {
        "connect --context ": ["demo"],
        "services -n ": ["shop"],
        "resolve ": ["postgres.shop"],
        "ping postgres.shop:": ["postgres.shop:5432"],
    }.items():
        answer = complete(TREE, f"%tele {line}", Hostile())
        assert answer is not None
        assert [choice.text for choice in answer.choices] == fine


def test_no_more_than_a_menu_holds() -> None:
    class Many(Fixed):
        def services(self, until: float) -> tuple[views.ServiceRow, ...]:
            return many

    many = tuple(service(f"s{number}", "shop") for number in range(5000))
    took = []
    for line in ["%tele ping s", "%tele ping s4999.shop"] * 5:
        began = time.perf_counter()
        answer = complete(TREE, line, Many())
        took.append(time.perf_counter() - began)
        assert answer is not None
        assert len(answer.choices) == (1 if "4999" in line else MAX_SHOWN)
    assert min(took[1::2]) < ANSWERS_WITHIN  # the slower ones; the machine may be busy, but hardly each time


# --- through IPython ---------------------------------------------------------------------------------------------


def offered(shell: Any, text: str) -> list[tuple[str, str]]:
    """Complete as the notebook does; what would stand there, and its type."""
    from IPython.core.completer import provisionalcompleter

    with provisionalcompleter():
        found = list(shell.Completer.completions(text, len(text)))
    return [(text[: one.start] + one.text, one.type) for one in found]


@pytest.fixture
def connected(make_session: Callable[[FakeLauncher], Session], shell: Any) -> FakeLauncher:
    launcher = FakeLauncher(Script(answers={views.GetServices: views.ServiceTable(SERVICES)}))
    make_session(launcher)
    shell.run_cell("t = %tele connect").raise_error()
    return launcher


def until_offered(shell: Any, text: str) -> list[tuple[str, str]]:
    """Ask as a user does who presses the key again; the first answer may come before the names do."""
    patience = time.monotonic() + 5
    while not (found := offered(shell, text)):
        assert time.monotonic() < patience
        time.sleep(0.01)
    return found


def test_in_a_shell(session: Session, shell: Any) -> None:
    assert offered(shell, "df = %tele fl") == [("df = %tele flows", "subcommand")]
    assert offered(shell, "for i in range(3):\n    %tele fl") == [
        ("for i in range(3):\n    %tele flows", "subcommand")
    ]
    assert until_offered(shell, "%tele connect --context=s") == [
        ("%tele connect --context=staging", "context")
    ]
    assert ("%%tele", "magic") in offered(shell, "%%te")
    assert offered(shell, "%%tele --cont") == [("%%tele --context", "flag")]
    assert not [text for text, kind in offered(shell, "import os\nos.pat") if kind == "subcommand"]


def test_where_nothing_fits_nobody_else_is_asked(
    session: Session, shell: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    shell.user_ns["postgres_of_python"] = 1
    monkeypatch.setattr(type(shell.Completer), "_jedi_matches", lambda *_, **__: asked.append(1) or [])
    for line in ("%tele ping post", "%tele nonsense pri", "%tele connect --timeout pri", "%%tele pri"):
        assert offered(shell, line) == []
    assert asked == []
    offered(shell, "postgres_of")
    assert asked  # so it would have shown


def test_services_of_the_connection(connected: FakeLauncher, shell: Any) -> None:
    assert until_offered(shell, "%tele ping pos") == [("%tele ping postgres.shop", "service")]
    assert offered(shell, "%tele ping postgres.shop:") == [
        ("%tele ping postgres.shop:5432", "port"),
        ("%tele ping postgres.shop:sql", "port"),
    ]
    assert ("%tele services -n kube-system", "namespace") in offered(shell, "%tele services -n ")
    asked = [one for one in connected.started[0].requests if isinstance(one, views.GetServices)]
    assert asked == [views.GetServices(everywhere=True)]  # once, and for all


def test_services_are_asked_for_at_connect(connected: FakeLauncher, shell: Any) -> None:
    patience = time.monotonic() + 5
    while views.GetServices(everywhere=True) not in connected.started[0].requests:
        assert time.monotonic() < patience
        time.sleep(0.001)


def test_a_silent_cluster_does_not_hold_up_the_answer(connected: FakeLauncher, shell: Any) -> None:
    offered(shell, "%tele ping pos")  # imports whatever IPython imports late
    connected.script.mute = True
    shell.run_cell("%reload_ext telemagic").raise_error()  # which forgets
    took = []
    for _ in range(5):
        began = time.perf_counter()
        assert offered(shell, "%tele ping pos") == []
        took.append(time.perf_counter() - began)
    assert min(took) < ANSWERS_WITHIN  # the machine may be busy, but hardly five times
    connected.script.mute = False


def test_unloading_takes_the_matcher_away(session: Session, shell: Any) -> None:
    shell.run_cell("%reload_ext telemagic").raise_error()
    names = [getattr(each, "matcher_identifier", "") for each in shell.Completer.custom_matchers]
    assert names.count("telemagic") == 1
    shell.run_cell("%unload_ext telemagic").raise_error()
    assert "telemagic" not in [
        getattr(each, "matcher_identifier", "") for each in shell.Completer.custom_matchers
    ]
    shell.run_cell("%load_ext telemagic").raise_error()
