"""Plays drills in a sandbox, one after the other: `play(names)`; one line of JSON tells what each came to."""

from __future__ import annotations

import json
import os
import signal
import time
import traceback
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tests.drills import carriers, faults, kills
from tests.drills.stage import PATIENCE, Stage, eventually, own_runtime, say, timed
from tests.drills.table import DRILLS
from tests.soak.looking import manager

if TYPE_CHECKING:
    from collections.abc import Callable

    from telemagic.demo.client import Demo
    from tests.drills.table import Drill


def stopped_manager(drill: Drill, stage: Stage) -> None:
    """Its pod lives, and says nothing."""
    stage.connect()
    stage.kernel.start("hang()")
    assert stage.kernel.line() == "open"
    pid = manager()
    os.kill(pid, signal.SIGSTOP)
    try:
        with timed(drill.within):
            answer = stage.kernel.answer(PATIENCE)
        assert answer.value == "'ConnectionResetError'", answer
        assert stage.kernel.run("tele.status.state").value == "'reconnecting'"
    finally:
        os.kill(pid, signal.SIGCONT)
    eventually(
        lambda: stage.kernel.run("tele.status.state").value == "'connected'", drill.within, "connected again"
    )
    stage.works(drill.within)
    stage.disconnect()
    stage.clean(5.0)


def body_of(drill: Drill, demo: Demo) -> Callable[[Drill, Stage], None]:
    """Return what plays a drill."""
    match drill.group:
        case "kernel":
            return kills.of_the_kernel
        case "data plane" | "netd":
            return kills.of_a_helper
        case "sweeper":
            return kills.of_a_watcher
        case "manager" | "API server" if drill.fault != "SIGSTOP manager":
            return partial(kills.of_the_far_side, demo=demo)
        case "manager":
            return stopped_manager
    return {**faults.BODIES, **carriers.BODIES}[drill.fault]


def play(names: list[str]) -> None:
    """Play the drills with these names; a failed one does not keep the others from their turn."""
    from telemagic.demo import client

    name = Path(os.environ["KUBECONFIG"]).parent.name.removeprefix("demo-")
    with client.find(name) as demo, own_runtime():
        stage = Stage()
        for drill in (each for each in DRILLS if each.name in names):
            began, failure = time.monotonic(), ""
            try:
                body_of(drill, demo)(drill, stage)
            except (Exception, KeyboardInterrupt):
                failure = traceback.format_exc()
                stage.close()
            say(json.dumps({"name": drill.name, "seconds": time.monotonic() - began, "failure": failure}))
        stage.close()
