"""A bad way to the cluster: what the demo, told to, or a cable does to the connections that go through it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.drills.stage import FACTOR, PATIENCE, Stage, eventually, timed
from tests.e2e import cable

if TYPE_CHECKING:
    from collections.abc import Callable

    from telemagic.demo.client import Demo
    from tests.drills.table import Drill

RESET: Final = {
    "carriers cut": "carriers-cut",
    "carriers frozen": "carriers-frozen",
    "carriers corrupted by the API server": "carriers-corrupt",
    "SIGSTOP manager": "manager-frozen",
}
ANSWERS: Final = {
    "carriers at 1 KB/s": "carriers-slow",
    "carriers one byte at a time": "carriers-dribble",
}
FAULTS: Final = {**RESET, **ANSWERS}
HEALTH: Final = """
def health():
    import urllib.request
    with urllib.request.urlopen("http://catalog.shop:8000/health", timeout=60) as answer:
        return answer.read()
"""


def of_the_demo(drill: Drill, stage: Stage, demo: Demo) -> None:
    """What `telemagic demo break` does."""
    stage.connect()
    try:
        if drill.fault in RESET:
            reset(drill, stage, lambda: demo.fault(FAULTS[drill.fault]))
        else:
            demo.fault(FAULTS[drill.fault])
            answers(drill, stage)
    finally:
        demo.fault("clear")
    eventually(lambda: state(stage) == "'connected'", drill.within, "connected again")
    stage.works(drill.within * FACTOR)
    stage.disconnect()
    stage.clean(5.0)


def state(stage: Stage) -> str | None:
    """Return what the status says."""
    return stage.kernel.run("tele.status.state").value


def reset(drill: Drill, stage: Stage, fault: Callable[[], None]) -> None:
    """The connection that is open ends, in time."""
    stage.kernel.start("hang()")
    assert stage.kernel.line() == "open"
    with timed(drill.within):
        fault()
        answer = stage.kernel.answer(PATIENCE)
    assert answer.value == "'ConnectionResetError'", answer
    if drill.fault not in ("carriers cut", "carriers corrupted"):  # those may be back already
        eventually(lambda: state(stage) == "'reconnecting'", 5.0, "no carrier is left")


def answers(drill: Drill, stage: Stage) -> None:
    """It takes its time, and nothing is wrong."""
    with timed(drill.within):
        answer = stage.kernel.run(HEALTH, "health()", seconds=drill.within * FACTOR)
    assert "ok" in (answer.value or ""), answer
    answer = stage.kernel.run("tele.status.to_dict()")
    assert "'state': 'connected'" in (answer.value or ""), answer
    assert "'last_error': ''" in (answer.value or ""), answer


def corrupted(drill: Drill, stage: Stage) -> None:
    """As by a network card that is about to die."""
    with tempfile.TemporaryDirectory() as folder:
        laid = cable.to_the_api_server(Path(os.environ["KUBECONFIG"]), Path(folder))
        with laid as (line, kubeconfig):
            stage.connect(options=f"kubeconfig={str(kubeconfig)!r}")
            reset(drill, stage, line.corrupt)
            stage.works(drill.within * FACTOR)
            stage.disconnect()
    stage.clean(5.0)


BODIES: Final[dict[str, Callable[[Drill, Stage], None]]] = {"carriers corrupted": corrupted}
