"""How results are judged and told, without playing anything."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.drills import __main__ as command
from tests.drills import conftest, elsewhere
from tests.drills.running import Result
from tests.drills.stage import FACTOR, Stage
from tests.drills.table import DRILLS, markdown


@pytest.mark.parametrize(
    ("result", "word", "is_late"),
    [
        (Result(0.123, 5.0), "kept, 0.12 s", False),
        (Result(5.0, 5.0), "kept, 5.0 s", False),
        (Result(5.04, 5.0), "late, 5.0 s", True),
        (Result(12.34, 5.0), "late, 12.3 s", True),
        (Result(12.34, 5.0, "Traceback"), "failed", False),
        (Result(0.0, 5.0, lacking="no clock"), "not run", False),
    ],
)
def test_what_a_drill_came_to_in_a_word(result: Result, word: str, is_late: bool) -> None:
    assert (result.word, result.is_late) == (word, is_late)


def test_the_longest_part_of_a_promise_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([10.0, 10.5, 20.0, 20.2, 30.0, 30.0 + FACTOR + 0.1])
    monkeypatch.setattr("tests.drills.stage.Untouched", lambda: None)
    monkeypatch.setattr("tests.drills.stage.time.monotonic", lambda: next(now))
    stage = Stage()
    stage.begin(1.0)
    for _ in range(2):
        with stage.promised():
            pass
    assert stage.seconds == pytest.approx(0.5)
    with pytest.raises(AssertionError, match="instead of 1 s"), stage.promised():
        pass
    stage.begin(1.0)
    assert stage.seconds == 0.0


def test_what_took_longer_is_told_at_the_end_of_the_tests(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(Path(conftest.__file__).read_text())
    (tmp_path / "test_it.py").write_text(
        f"def test_late(record_property):\n    record_property({conftest.LATE!r}, 'a drill: 6.0 s instead of 5 s')\n"
        "def test_in_time():\n    pass\n"
    )

    def said(*words: str) -> str:
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path).stdout

    assert "LATER THAN PROMISED" in said()
    assert said().count("a drill: 6.0 s instead of 5 s") == 1
    assert "LATER" not in said("-k", "in_time")


def test_the_table_is_read_as_it_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = tmp_path / "drills.md"
    monkeypatch.setattr(command, "TABLE", table)
    assert command.known() == {}
    words = ("kept, 0.12 s", "late, 31.0 s", "failed", "not run")
    results = {drill.name: words[number % len(words)] for number, drill in enumerate(DRILLS)}
    table.write_text(markdown(results))
    assert {name: word for name, word in command.known().items() if name in results} == results


def test_what_tests_elsewhere_came_to() -> None:
    def case(inner: str) -> ElementTree.Element:
        return ElementTree.fromstring(
            f'<testcase classname="tests.e2e.test_x" name="test_y[z]">{inner}</testcase>'
        )

    assert elsewhere.outcome_of(case("")) == ("kept", "")
    assert elsewhere.outcome_of(case('<failure message="m">why</failure>')) == ("failed", "why\n")
    assert elsewhere.outcome_of(case('<error message="m"/>')) == ("failed", "m\n")
    assert elsewhere.outcome_of(case('<skipped message="no sudo"/>')) == ("not run", "no sudo\n")
    assert elsewhere.test_of(case("")) == "tests/e2e/test_x.py::test_y"
    assert elsewhere.worst([("kept", ""), ("not run", "a"), ("failed", "b")]) == ("failed", "b")
    assert elsewhere.worst([("kept", ""), ("not run", "a")]) == ("not run", "a")
    assert elsewhere.worst([]) is None
    assert list(elsewhere.run([])) == []
