"""Each drill keeps its promise; the table in docs is the code's. All are played before the first test."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from telemagic.promises import BY_NAME
from tests.demo.clusters import private_runtime, start
from tests.drills.conftest import LATE
from tests.drills.running import Runner
from tests.drills.table import DRILLS, GROUPS, PHASES, Drill, markdown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]
TABLE = ROOT / "docs" / "drills.md"
HERE = [drill for drill in DRILLS if not drill.covered_by]


@pytest.fixture(scope="module")
def runner(request: pytest.FixtureRequest) -> Iterator[Runner]:
    wanted = {
        item.callspec.params["drill"].name
        for item in request.session.items
        if hasattr(item, "callspec") and "drill" in item.callspec.params
    }
    with private_runtime(), start(owned=True) as cluster:
        running = Runner(cluster, wanted)
        running.close()  # all at once, and to the end: after each test the guard looks for what is left
        yield running


@pytest.mark.netns
@pytest.mark.slow
@pytest.mark.timeout(1000)  # the first one's setup plays all; a minute or two on an idle machine
@pytest.mark.parametrize("drill", HERE, ids=[drill.name for drill in HERE])
def test_the_promise_is_kept(
    drill: Drill, runner: Runner, record_property: Callable[[str, object], None]
) -> None:
    result = runner.of(drill.name, drill.group)
    if result.lacking:
        pytest.skip(result.lacking)
    if result.is_late:  # this machine has more to do; conftest.py tells
        record_property(LATE, f"{drill.name}: {result.seconds:.1f} s instead of {drill.within:g} s")
    assert not result.failure, f"{drill.sees}, within {drill.within:g} s; but\n{result.failure}"


def columns(text: str) -> list[list[str]]:
    return [line.split(" | ")[:6] for line in text.splitlines() if line.startswith("|")]


def test_the_table_in_docs_is_this_one() -> None:
    assert columns(TABLE.read_text()) == columns(markdown({})), "run: python -m tests.drills --table"


def test_each_process_is_killed_at_each_phase() -> None:
    killed = {(drill.fault, drill.phase) for drill in HERE if drill.fault.startswith("kill")}
    for who in ("-9 kernel", "-9 data plane", "-9 netd", "-9 sweeper", "-9 manager", "API server"):
        assert {phase for fault, phase in killed if fault == f"kill {who}"} == set(PHASES), who


def test_each_promise_of_the_command_is_drilled() -> None:
    by_hand = [drill for drill in HERE if drill.by_hand]
    assert sorted(drill.by_hand for drill in by_hand) == sorted(BY_NAME)
    for drill in by_hand:
        promise = BY_NAME[drill.by_hand]
        assert (drill.phase, drill.sees, drill.within) == ("run", promise.sees, promise.within)


def test_names_are_unique_and_promises_are_whole() -> None:
    assert len({drill.name for drill in DRILLS}) == len(DRILLS)
    for drill in DRILLS:
        assert drill.sees
        assert drill.remains
        assert 0 < drill.within <= 30.0
        assert drill.phase in PHASES
        assert "|" not in drill.fault + drill.sees + drill.remains
    assert len(GROUPS) == len({drill.group for drill in HERE})


@pytest.mark.parametrize(
    "elsewhere", [drill for drill in DRILLS if drill.covered_by], ids=lambda drill: drill.fault
)
def test_what_is_drilled_elsewhere_is_there(elsewhere: Drill) -> None:
    file, _, function = elsewhere.covered_by.partition("::")
    tree = ast.parse((ROOT / file).read_text())
    assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
