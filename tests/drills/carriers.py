"""A bad way to the cluster: what the demo, told to, or a cable does to connections, tokens and the API server."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from telemagic.promises import BY_NAME, OPTIONS, Outcome
from tests.drills import clocks
from tests.drills.stage import FACTOR, PATIENCE, Stage, eventually
from tests.e2e import cable
from tests.e2e.inside import helpers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from telemagic.demo.client import Demo
    from tests.drills.table import Drill

SUSPENDED: Final = 12.0  # seconds; longer than the tunnel's ten, after which the manager takes us for dead
HEALTH: Final = """
def health():
    import urllib.request
    with urllib.request.urlopen("http://catalog.shop:8000/health", timeout=60) as answer:
        return answer.read()
"""


def of_the_demo(drill: Drill, stage: Stage, demo: Demo) -> None:
    """What `telemagic demo break` does."""
    stage.connect()
    promise = BY_NAME[drill.by_hand]
    options = OPTIONS.get(promise.fault, {})
    try:
        if promise.outcome is Outcome.RESET:
            reset(drill, stage, lambda: demo.fault(promise.fault, **options), is_lasting=promise.is_lasting)
        else:
            with stage.promised():
                demo.fault(promise.fault, **options)
                answers(drill, stage)
    finally:
        demo.fault("clear")
    with stage.promised():
        back(drill, stage)
    stage.disconnect()
    stage.clean(5.0)


def of_a_token(drill: Drill, stage: Stage, demo: Demo) -> None:
    """What is there goes on; what is new is refused, and that is said until there is a new token."""
    stage.connect()
    demo.fault("token-expired")
    try:
        refused(drill, stage, lambda: demo.fault("carriers-cut"), "401")
        with stage.promised():
            demo.renew_token()
            back(drill, stage)
    finally:
        demo.fault("clear")
    stage.disconnect()
    stage.clean(5.0)


def of_a_certificate(drill: Drill, stage: Stage, demo: Demo) -> None:
    """As if the API server's had not been renewed: the clock goes to a time when it has expired, and comes back."""
    with clocks.own_clock(stage) as clock:
        stage.connect()
        clock.jump(100 * 365 * clocks.DAY)
        refused(drill, stage, lambda: demo.fault("carriers-cut"), "certificate")
        with stage.promised():
            clock.jump(0)  # a new one
            back(drill, stage)
        stage.disconnect()
        stage.clean(5.0)


@contextlib.contextmanager
def ended(stage: Stage, fault: Callable[[], None]) -> Iterator[None]:
    """The connection that is open ends; what is promised besides is looked at in the block."""
    stage.kernel.start("hang()")
    assert stage.kernel.line() == "open"
    with stage.promised():
        fault()
        answer = stage.kernel.answer(PATIENCE)
        assert answer.value == "'ConnectionResetError'", answer
        yield


def refused(drill: Drill, stage: Stage, cut: Callable[[], None], word: str) -> None:
    """The connection that is open ends, and its status says why there is no other."""
    with ended(stage, cut):
        eventually(lambda: word in said(stage), drill.within, f"{word} in {said(stage)}")
        assert state(stage) == "'reconnecting'"


def said(stage: Stage) -> str:
    """Return the last error that the status tells."""
    return stage.kernel.run("tele.status.last_error").value or ""


def state(stage: Stage) -> str | None:
    """Return what the status says."""
    return stage.kernel.run("tele.status.state").value


def back(drill: Drill, stage: Stage) -> None:
    """It is connected again, by itself."""
    eventually(lambda: state(stage) == "'connected'", drill.within, "connected again")
    stage.works(drill.within)


def reset(drill: Drill, stage: Stage, fault: Callable[[], None], *, is_lasting: bool) -> None:
    """The connection that is open ends, in time."""
    with ended(stage, fault):
        if is_lasting:
            eventually(lambda: state(stage) == "'reconnecting'", 5.0, "no carrier is left")
        else:
            back(drill, stage)


def answers(drill: Drill, stage: Stage) -> None:
    """It takes its time, and nothing is wrong."""
    answer = stage.kernel.run(HEALTH, "health()", seconds=drill.within * FACTOR)
    assert "ok" in (answer.value or ""), answer
    assert state(stage) == "'connected'"
    assert said(stage) == "''"


def corrupted(drill: Drill, stage: Stage) -> None:
    """As by a network card that is about to die."""
    with tempfile.TemporaryDirectory() as folder:
        laid = cable.to_the_api_server(Path(os.environ["KUBECONFIG"]), Path(folder))
        with laid as (line, kubeconfig):
            stage.connect(options=f"kubeconfig={str(kubeconfig)!r}")
            reset(drill, stage, line.corrupt, is_lasting=False)
            stage.disconnect()
    stage.clean(5.0)


def suspended(drill: Drill, stage: Stage) -> None:
    """As when a laptop is closed: everything of ours stands still, and the cluster does not."""
    stage.connect()
    stage.kernel.start("hang()")
    assert stage.kernel.line() == "open"
    ours = [stage.kernel.pid, *helpers()]
    try:
        for pid in ours:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(SUSPENDED)
    finally:
        for pid in ours:
            os.kill(pid, signal.SIGCONT)
    with stage.promised():
        answer = stage.kernel.answer(PATIENCE)
        assert answer.value == "'ConnectionResetError'", answer
        back(drill, stage)
    stage.disconnect()
    stage.clean(5.0)


BODIES: Final[dict[str, Callable[[Drill, Stage], None]]] = {
    "carriers corrupted": corrupted,
    "suspended: SIGSTOP of everything of ours": suspended,
}
WITH_DEMO: Final[dict[str, Callable[[Drill, Stage, Demo], None]]] = {
    "SIGSTOP manager": of_the_demo,
    "token expires, then carriers are cut": of_a_token,
    "API server's certificate expires, then carriers are cut": of_a_certificate,
}
