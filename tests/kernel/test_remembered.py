from __future__ import annotations

import threading
import time
from itertools import chain, repeat
from typing import TYPE_CHECKING

import pytest
from telehelper.errors import HelperLost

from telemagic.remembered import Names, Remembered

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from telemagic.session import Session


def soon(seconds: float = 5.0) -> float:
    return time.monotonic() + seconds


def until(condition: Callable[[], bool]) -> None:
    patience = soon()
    while not condition():
        assert time.monotonic() < patience
        time.sleep(0.001)


def test_fetched_once_and_remembered() -> None:
    calls: list[str] = []
    thing = Remembered(lambda: calls.append(threading.current_thread().name) or "x", lambda: 1, "")
    assert [thing.get(soon()), thing.get(0.0)] == ["x", "x"]
    assert calls == ["telemagic-names"]  # never in the thread that asks


def test_an_answer_does_not_wait_longer_than_it_may() -> None:
    gate = threading.Event()
    thing = Remembered(lambda: gate.wait(5) and "late", lambda: 1, "nothing")
    began = time.monotonic()
    assert thing.get(soon(0.02)) == "nothing"
    assert time.monotonic() - began < 1.0  # not five
    done = thing.renew()  # the same that is under way
    gate.set()
    assert done.wait(5)
    assert thing.get(0.0) == "late"


def test_what_is_old_is_used_while_it_is_renewed() -> None:
    values = iter(["old", "new"])
    gate = threading.Event()
    gate.set()

    def fetch() -> str:
        gate.wait(5)
        return next(values)

    thing = Remembered(fetch, lambda: 1, "", fresh=0.0)
    assert thing.get(soon()) == "old"
    gate.clear()
    assert thing.get(soon()) == "old"  # at once, although it could wait
    gate.set()
    until(lambda: thing._for(1) is not None and thing._for(1)[1] == "new")  # type: ignore[index]  # just seen


def test_another_key_makes_it_wrong() -> None:
    key = ["a"]
    thing = Remembered(lambda: f"of {key[0]}", lambda: key[0], "")
    assert thing.get(soon()) == "of a"
    key[0] = "b"
    assert thing.get(soon()) == "of b"


def test_an_error_means_nothing_for_a_while() -> None:
    calls = []

    def fetch() -> str:
        calls.append(1)
        raise HelperLost("gone")

    thing = Remembered(fetch, lambda: 1, "nothing", fresh=60)
    assert [thing.get(soon()), thing.get(soon())] == ["nothing", "nothing"]
    assert len(calls) == 1  # and is not asked for again with each key stroke


def test_a_fault_of_ours_does_not_end_the_fetching_for_good(monkeypatch: pytest.MonkeyPatch) -> None:
    faults: list[str] = []
    monkeypatch.setattr(threading, "excepthook", lambda told: faults.append(str(told.exc_value)))
    values = chain([0], repeat(1))
    thing = Remembered(lambda: 1 // next(values), lambda: 1, -1, fresh=0.0)
    assert thing.get(soon()) == -1  # at once, not when its time is over
    until(lambda: faults == ["integer division or modulo by zero"])
    thing.get(0.0)
    until(lambda: thing.get(0.0) == 1)


def test_names_without_a_connection(session: Session, kubeconfig: Path) -> None:
    names = Names()
    assert names.contexts(soon()) == ["broken", "demo", "staging"]
    assert names.services(soon()) == ()
    assert names.namespaces(soon()) == ["shop"]
    kubeconfig.write_text("contexts: [{name: other, context: {namespace: a}}]")
    assert names.contexts(soon()) == ["other"]  # the file has changed
    kubeconfig.unlink()
    assert names.contexts(soon()) == []
    kubeconfig.write_text("[")
    assert names.contexts(soon()) == []


@pytest.mark.usefixtures("kubeconfig")
def test_warming_waits_for_nothing(session: Session) -> None:
    names = Names()
    names.warm()
    until(lambda: names.contexts(0.0) == ["broken", "demo", "staging"])
