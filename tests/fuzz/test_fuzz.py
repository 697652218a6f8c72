"""Each fuzz target on its corpus and on some hundred new inputs; for longer: python -m tests.fuzz --minutes 60."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.fuzz.running import Outcome, by_hypothesis, property_of, table
from tests.fuzz.targets import CORPUS, TARGETS, Target

if TYPE_CHECKING:
    from pathlib import Path

INPUTS = 250  # for each; a longer run is by hand

targets = pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)


@targets
def test_what_was_found_once_holds(target: Target) -> None:
    for found in target.corpus():
        target.check(found)


@targets
def test_what_is_new_holds(target: Target) -> None:
    property_of(target, target.check, INPUTS)()


@targets
def test_the_invariant_is_a_sentence(target: Target) -> None:
    assert len(target.invariant.splitlines()) == 1
    assert target.invariant.endswith(".")


def test_each_folder_of_the_corpus_is_a_targets_and_small() -> None:
    assert {path.name for path in CORPUS.iterdir()} <= TARGETS.keys()
    assert sum(path.stat().st_size for path in CORPUS.rglob("*.txt")) < 200_000


def test_a_finding_is_noted_made_small_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def check(data: bytes) -> None:
        """No bytes have a 7."""
        assert 7 not in data, "a 7"

    outcome = Outcome(Target("frames", TARGETS["packet"].inputs, check))
    by_hypothesis(outcome, 0.01)
    assert outcome.executions > 0
    assert list(outcome.findings.values()) == [b"\7"]
    assert "| frames |" in table([outcome])
    monkeypatch.setattr("tests.fuzz.targets.CORPUS", tmp_path)
    path = outcome.target.keep({"inf": [1.5, b"\7", "\ud800"]})
    assert path.parent == tmp_path / "frames"
    assert list(outcome.target.corpus()) == [{"inf": [1.5, b"\7", "\ud800"]}]
