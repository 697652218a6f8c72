"""Real processes of another version: each pair keeps its rule, says it in one line with the remedy, and leaves nothing."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Final

from telehelper import messages
from telehelper.messages import Failed, Hello, NetdReady, Welcome

from tests.e2e.inside import Untouched, inside
from tests.e2e.kernels import Kernel
from tests.e2e.test_lifetime import check_works, pid_of
from tests.skew import doctored
from tests.skew.rules import RULES, markdown

if TYPE_CHECKING:
    from telehelper.messages import Message

    from tests.e2e.kernels import Answer

ROOT: Final = Path(__file__).parents[2]
# The first messages, which parts of all versions must be able to read: never change these.
FIRST: Final[dict[type[Message], tuple[str, ...]]] = {
    Hello: ("version", "pid"),
    Welcome: ("version", "pid", "connected"),
    Failed: ("slug", "message", "hint", "data"),
    NetdReady: ("version", "pid"),
}
OWN: Final = "from tests.skew import doctored; doctored.doctor('protocol=99')"
SKEWED: Final = f"""
import os, sys
import telemagic.launch as launch
def skew(changes, *modules):
    os.environ["TELEMAGIC_SKEW"] = changes
    command = lambda module, flag: (sys.executable, flag, {doctored.__file__!r}, module)
    if "datapath" in modules:
        launch.start.__kwdefaults__["datapath"] = command("telehelper.datapath", "-P")
    if "netd" in modules:
        launch.NETD = command("telehelper.netd", "-I")
"""


def check(answer: Answer, rule: str, *words: str) -> None:
    """It is what the rule says, with the remedy and both versions."""
    answer.check_error(RULES[rule].error)
    assert answer.hint == RULES[rule].remedy
    assert all(word in answer.message for word in words), answer


def attempt(changes: str, *modules: str) -> Answer:
    """Connect with some parts of another version; nothing may be left."""
    untouched = Untouched()
    with Kernel() as kernel:
        answer = kernel.run(
            SKEWED, f"skew({changes!r}, *{modules!r})", "import telemagic", "telemagic.connect() and 'up'"
        )
    untouched.check()
    return answer


@inside(timeout=120)
def test_a_part_of_another_version() -> None:
    ours = str(messages.PROTOCOL_VERSION)
    check(attempt("protocol=99", "datapath"), "kernel", "99", ours)
    check(attempt("protocol=99", "netd"), "netd", "99", ours)
    check(attempt("mux=99", "datapath"), "manager", "not 99")
    assert attempt("version=9.9.9", "datapath", "netd").value == "'up'"


@inside(timeout=90)
def test_a_running_data_plane_of_another_version_is_left_to_its_notebooks() -> None:
    untouched = Untouched()
    with Kernel() as newer, Kernel() as ours:
        assert newer.run(OWN, SKEWED, "skew('protocol=99', 'datapath', 'netd')").error == ""
        newer.connect()
        pid = pid_of("datapath")
        check(
            ours.run("import telemagic", "telemagic.connect()"),
            "kernel",
            "99",
            str(messages.PROTOCOL_VERSION),
        )
        check_works(newer)
        assert pid_of("datapath") == pid
        assert newer.run("tele.disconnect()").error == ""  # the remedy
        ours.connect()
        check_works(ours)
        assert ours.run("tele.disconnect()").error == ""
    untouched.check()


def test_the_first_messages_never_change() -> None:
    assert {kind: tuple(field.name for field in fields(kind)) for kind in FIRST} == FIRST


def test_the_rules_in_docs_and_docstring_are_these() -> None:
    assert (ROOT / "docs" / "versions.md").read_text() == markdown(), "run: python -m tests.skew.rules"
    told = " ".join((messages.__doc__ or "").split())
    for rule in RULES.values():
        assert rule.parts in told
        assert rule.error in told
