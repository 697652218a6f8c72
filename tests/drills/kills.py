"""Each process killed at each phase, exactly there: the data plane stands still while it is done."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tests.drills.stage import PATIENCE, Stage, kill, one_line
from tests.e2e.inside import wait_until

if TYPE_CHECKING:
    from telemagic.demo.client import Demo
    from tests.drills.table import Drill


def reach(stage: Stage, phase: str, *, hanging: bool = True) -> None:
    """Bring the connection to a phase, so that the data plane stands still at its beginning (or runs, with an open flow)."""
    stage.connect(phase)
    if phase == "run" and hanging:
        stage.kernel.start("hang()")
        assert stage.kernel.line() == "open"
    if phase == "disconnect":
        stage.kernel.start("tele.disconnect()")
        until = time.monotonic() + PATIENCE
        while not stage.is_stopped():
            assert time.monotonic() < until
            time.sleep(0.01)


def of_the_kernel(drill: Drill, stage: Stage) -> None:
    """Everything goes with it."""
    reach(stage, drill.phase)
    with stage.promised():
        kill(drill.fault.removeprefix("kill -9 "), stage)
        stage.go_on()
        stage.clean(drill.within)


def of_a_helper(drill: Drill, stage: Stage) -> None:
    """The user is told, nothing is left, and the next drill's connect shows that it works again."""
    reach(stage, drill.phase)
    with stage.promised():
        kill(drill.fault.removeprefix("kill -9 "), stage)
        stage.go_on()
        answer = stage.kernel.answer(PATIENCE)
        if drill.phase == "run":
            assert answer.value not in (None, "b'x'"), answer
            stage.check_lost()
        elif drill.phase == "disconnect":
            assert answer.error in ("", "HelperLost"), answer
        elif answer.value == "'connected'" and (drill.fault, drill.phase) == ("kill -9 netd", "ready"):
            stage.check_lost()
        else:
            answer.check_error("HelperLost")
        stage.clean(drill.within)


def of_a_watcher(drill: Drill, stage: Stage) -> None:
    """Nobody needs it while all others live."""
    reach(stage, drill.phase, hanging=False)
    with stage.promised():
        kill(drill.fault.removeprefix("kill -9 "), stage)
        stage.go_on()
        if drill.phase == "disconnect":
            assert stage.kernel.answer(PATIENCE).error == ""
        elif drill.phase != "run":
            stage.connected()
        if drill.phase != "disconnect":
            stage.works()
    if drill.phase != "disconnect":
        stage.disconnect()
    stage.clean(drill.within)


def of_the_far_side(drill: Drill, stage: Stage, demo: Demo) -> None:
    """Connecting succeeds all the same, or says why not; a connection comes back; a disconnect needs nobody there."""
    reach(stage, drill.phase)
    with stage.promised():
        if "API" in drill.fault:
            demo.fault("api-stop", seconds=1.0)
        else:
            kill("manager", stage)
        stage.go_on()
        answer = stage.kernel.answer(PATIENCE)
        if drill.phase == "disconnect":
            assert answer.error == "", answer
        elif drill.phase == "run":
            assert answer.value == "'ConnectionResetError'", answer
            stage.works(drill.within)
        elif answer.error:
            one_line(answer)
        else:
            stage.works(drill.within)
    if not answer.error and drill.phase != "disconnect":
        stage.disconnect()
    stage.clean(drill.within)
    if "API" in drill.fault:
        demo.fault("clear")
    wait_for_the_manager(demo)


def wait_for_the_manager(demo: Demo) -> None:
    """Wait until the demo has a ready manager again: what comes next is another drill."""
    from telemagic.demo.client import _status_of

    def is_ready() -> bool:
        pods = (_status_of(demo.directory) or {"pods": {}})["pods"].values()
        return bool(pods) and all(pods)

    assert wait_until(is_ready, PATIENCE)
