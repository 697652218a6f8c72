"""Plays drills in a sandbox, one after the other: `play(names)`; one line of JSON tells what each came to."""

from __future__ import annotations

import json
import os
import traceback
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import SkipTest

from tests.drills import carriers, clocks, faults, kills
from tests.drills.stage import Stage, own_runtime, say
from tests.drills.table import DRILLS

if TYPE_CHECKING:
    from collections.abc import Callable

    from telemagic.demo.client import Demo
    from tests.drills.table import Drill


def body_of(drill: Drill, demo: Demo) -> Callable[[Drill, Stage], None]:
    """Return what plays a drill."""
    if drill.fault in carriers.WITH_DEMO:
        return partial(carriers.WITH_DEMO[drill.fault], demo=demo)
    if drill.group == "carriers" and drill.by_hand:
        return partial(carriers.of_the_demo, demo=demo)
    match drill.group:
        case "kernel":
            return kills.of_the_kernel
        case "data plane" | "netd":
            return kills.of_a_helper
        case "sweeper":
            return kills.of_a_watcher
        case "manager" | "API server":
            return partial(kills.of_the_far_side, demo=demo)
    return {**faults.BODIES, **carriers.BODIES, **clocks.BODIES}[drill.fault]


def mend(demo: Demo) -> None:
    """Leave the cluster to the next drill as that one expects it, after one that has failed somewhere."""
    demo.fault("clear")
    kills.wait_for_the_manager(demo)


def play(names: list[str]) -> None:
    """Play the drills with these names; a failed one does not keep the others from their turn."""
    from telemagic.demo import client

    name = Path(os.environ["KUBECONFIG"]).parent.name.removeprefix("demo-")
    with client.find(name) as demo, own_runtime():
        stage = Stage()
        for drill in (each for each in DRILLS if each.name in names):
            failure = lacking = ""
            stage.begin(drill.within)
            try:
                body_of(drill, demo)(drill, stage)
                assert stage.seconds, "nothing was measured"
            except SkipTest as reason:
                lacking = str(reason)
            except (Exception, KeyboardInterrupt):
                failure = traceback.format_exc()
                stage.close()
                mend(demo)
            row = {"seconds": stage.seconds, "within": drill.within, "failure": failure, "lacking": lacking}
            say(json.dumps({"name": drill.name, **row}))
        stage.close()
