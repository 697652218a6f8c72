"""What is promised when something breaks: the faults of `%tele fault`, and what the user sees then; pure.

The drills of the tests (tests/drills) hold each of them to it, among others that need more than a user may do.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from telemagic import schema

if TYPE_CHECKING:
    import pandas as pd

CONNECTION: Final = "the connection"
NOTHING: Final = "nothing"


class Outcome(enum.Enum):
    """How a fault shows itself to a program that uses the connection."""

    LOST = "lost"  # the connection is over; connecting again is the user's
    SILENT = "silent"  # nobody answers, until it is over
    RESET = "reset"  # open flows end; new ones work as soon as it is over, or mended
    GOES_ON = "goes on"  # a request is answered meanwhile


@dataclass(frozen=True, slots=True)
class Promise:
    """One fault and its promise.

    Attributes
    ----------
    fault
        What it is called; those of the demo cluster as in `demo break`.
    happens, sees
        What breaks, and what the user sees then.
    within
        Seconds from the fault until then at most, and as many from its end until all works again; of a machine that has
        nothing else to do.
    remains
        What of ours is left on the machine afterwards.
    of_demo
        Whether it is done to a demo cluster; the others are done to one's own data plane.
    is_lasting
        Whether it lasts until it is ended.
    """

    fault: str
    happens: str
    sees: str
    within: float
    outcome: Outcome
    remains: str = CONNECTION
    of_demo: bool = True
    is_lasting: bool = True


_GOES_ON: Final = "what is connected goes on, new connections work"
_ENDS: Final = "the open connection ends with an error; the next command says HelperLost or NotConnected; connecting works again"
_AFTER: Final = "the open connection is reset, state reconnecting; connected again when it is over"

PROMISES: Final = (
    Promise("data-plane-killed", "this connection's data plane gets SIGKILL, and netd goes with it", _ENDS,
            5.0, Outcome.LOST, NOTHING, of_demo=False, is_lasting=False),
    Promise("data-plane-frozen", "this connection's data plane gets SIGSTOP",
            "a command fails with HelperLost after its patience; after SIGCONT it works", 15.0, Outcome.SILENT, of_demo=False),
    Promise("manager-killed", "the traffic manager gets SIGKILL",
            "the open connection is reset; once the pod's new process is there all works again without a command", 20.0,
            Outcome.RESET, is_lasting=False),
    Promise("pod-deleted", "the traffic manager's pod is deleted, and another takes its place",
            "the open connection is reset; connected again by another pod", 20.0, Outcome.RESET, is_lasting=False),
    Promise("manager-frozen", "the traffic manager gets SIGSTOP",
            "the open connection is reset, state reconnecting; after SIGCONT connected again", 30.0, Outcome.RESET),
    Promise("api-stop", "the API server listens no more, and its connections are cut",
            "the open connection is reset; once the API server is there all works again without a command", 20.0, Outcome.RESET),
    Promise("carriers-cut", "all port-forwards are broken", "the open connection is reset; reconnected by itself", 10.0,
            Outcome.RESET, is_lasting=False),
    Promise("carriers-frozen", "nothing passes through port-forwards, and nobody is told", _AFTER, 10.0, Outcome.RESET),
    Promise("carriers-slow", "1 KB/s passes through each port-forward",
            "answers come, slowly and right; the connection is not given up", 30.0, Outcome.GOES_ON),
    Promise("carriers-corrupt", "bytes are changed on their way",
            "the tunnel finds it: the open connection is reset, state reconnecting; connected again when it is over", 20.0,
            Outcome.RESET),
    Promise("carriers-dribble", "bytes pass one by one", "answers come, right", 15.0, Outcome.GOES_ON),
    Promise("api-html", "the API server answers with a web page, as a login portal does", _GOES_ON, 10.0, Outcome.GOES_ON),
    Promise("api-truncated", "the API server's answers end in their middle", _GOES_ON, 10.0, Outcome.GOES_ON),
    Promise("websocket-refused", "the API server forwards no more ports", _GOES_ON, 10.0, Outcome.GOES_ON),
    Promise("token-expired", "the API server does not know the kubeconfig's token any more", _GOES_ON, 10.0, Outcome.GOES_ON),
    Promise("forbid", "nobody may forward ports any more", _GOES_ON, 10.0, Outcome.GOES_ON),
)  # fmt: skip
BY_NAME: Final = {promise.fault: promise for promise in PROMISES}
# What the demo has to be told besides the name.
OPTIONS: Final[dict[str, dict[str, str]]] = {
    "pod-deleted": {"app": "telemagic-manager"},
    "forbid": {"verb": "*", "resource": "pods/portforward"},
}

_C = schema.Column
SCHEMA: Final = (
    _C("fault", "fault", "str", meaning="what to call it by"),
    _C("happens", "happens", "str", meaning="what breaks"),
    _C("sees", "sees", "str", meaning="what the user sees then: the promise"),
    _C("within", "within", "float64", "s", meaning="from the fault until then, at most"),
    _C("remains", "remains", "str", meaning="what of ours is left on the machine afterwards"),
    _C(
        "possible", "possible", "boolean", meaning="whether it can be done to this connection; NA without one"
    ),
)


def table(possible: frozenset[str] | None) -> pd.DataFrame:
    """Return all of them; `possible` are those that can be done here, None if nothing is connected.

    Returns
    -------
    DataFrame
        One row per fault; index 0…n-1. `attrs["telemagic"]["units"]` has the units.
    """
    names = [column.source for column in SCHEMA]
    rows = [
        (
            one.fault,
            one.happens,
            one.sees,
            one.within,
            one.remains,
            None if possible is None else one.fault in possible,
        )
        for one in PROMISES
    ]
    frame = schema.of_rows(rows, names, SCHEMA)
    frame.attrs["telemagic"] = {"units": schema.units(SCHEMA)}
    return frame
