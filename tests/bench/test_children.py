"""Programs of a run: heard to their end, never longer than they may, and never left running."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import pytest
from telehelper.errors import HelperError

from telemagic.bench import children
from telemagic.bench.children import first_line, in_network, lines, running

if TYPE_CHECKING:
    import subprocess

WITHIN = 30.0  # seconds; what takes longer, even on a busy machine, hangs


def python(code: str) -> list[str]:
    return [sys.executable, "-c", f"import os, sys, time\n{code}"]


def test_the_first_line_and_then_its_end() -> None:
    with running(python("print('ready 42', flush=True); sys.stdin.read()")) as process:
        assert first_line(process, "ready ", WITHIN) == "42"
        assert process.poll() is None
    assert process.returncode == 0


@pytest.mark.parametrize(("code", "said"), [("print('no')", "no"), ("", "it said nothing")])
def test_another_first_line(code: str, said: str) -> None:
    with running(python(code)) as process, pytest.raises(HelperError, match=f"did not start: {said}"):
        first_line(process, "ready", WITHIN)


def test_lines_come_whole_however_they_are_written() -> None:
    code = "for piece in (b'a', b'bc\\nd', b'e\\n\\nf'):\n    os.write(1, piece)\n    time.sleep(0.02)"
    with running(python(code)) as process:
        assert list(lines(process, WITHIN)) == ["abc", "de", ""]


def test_a_line_comes_before_the_program_s_end() -> None:
    code = "print('one', flush=True); sys.stdin.readline(); print('two', flush=True)"
    with running(python(code)) as process:
        found = lines(process, WITHIN)
        assert next(found) == "one"
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
        assert list(found) == ["two"]


def test_what_takes_too_long() -> None:
    with running(python("print('one', flush=True); sys.stdin.read()")) as process:
        found = lines(process, 0.5)
        with pytest.raises(HelperError, match=r"python\S* was not done within"):
            list(found)


def test_ours_are_named_by_their_module() -> None:
    late = pytest.raises(HelperError, match=r"^telemagic\.bench\.load was not done")
    with running([*python("sys.stdin.read()"), "telemagic.bench.load"]) as process, late:
        list(lines(process, 0.0))


def test_who_does_not_end_with_its_input_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "_END_PATIENCE", 0.1)
    began = time.monotonic()
    with running(python("print('deaf', flush=True); time.sleep(60)")) as process:
        first_line(process, "deaf", WITHIN)
    assert process.returncode == -9
    assert time.monotonic() - began < WITHIN


def test_who_has_gone_already_is_no_trouble() -> None:
    with running(python("")) as process:
        process.wait(WITHIN)
        assert process.stdin
        process.stdin.write("lost")  # stays in the buffer until the end, where nobody reads any more
    assert process.returncode == 0


def test_an_error_inside_ends_it_as_well() -> None:
    found: list[subprocess.Popen[str]] = []

    def broken() -> None:
        with running(python("sys.stdin.read()")) as process:
            found.append(process)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        broken()
    assert found[0].returncode == 0


def test_the_command_line_into_another_network() -> None:
    command = in_network(7, ["true"])
    assert command[-3:] == ("--network", "7", "true")
