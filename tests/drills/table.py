"""The drills: what is broken, when, and what is promised then. The tests and docs/drills.md are made from this.

A promise is what a person notices (`sees`), after how many seconds at most (`within`, on a machine that has nothing else to
do), and what is left of ours on the machine (`remains`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

PHASES: Final = ("elevate", "TUN", "tunnel", "CIDRs", "routes", "DNS", "ready", "run", "disconnect")
UP: Final = PHASES[:7]  # while connecting
NOTHING: Final = "nothing"


@dataclass(frozen=True, slots=True)
class Drill:
    """One drill. ``covered_by``: it is a test elsewhere, which is named there and not run again here."""

    fault: str
    phase: str
    sees: str
    within: float
    remains: str = NOTHING
    group: str = "faults"
    covered_by: str = ""

    @property
    def name(self) -> str:
        """What it is called in tests."""
        return f"{self.fault} @ {self.phase}"


# Nothing more is asked of netd then: connecting may be over before its end is noticed.
_LATE: Final = "connect fails with HelperLost, or the next command says HelperLost or NotConnected; connecting works again"


def _kills() -> list[Drill]:
    """Make a drill of each process and each phase."""
    found = []
    for phase in PHASES:
        found += [
            Drill("kill -9 kernel", phase, "the kernel is gone", 5.0, group="kernel"),
            Drill("kill -9 data plane", phase, _loss(phase), 5.0, group="data plane"),
            Drill("kill -9 netd", phase, _LATE if phase == "ready" else _loss(phase), 5.0, group="netd"),
            Drill("kill -9 sweeper", phase, "no difference", 10.0, group="sweeper"),
            Drill("kill -9 manager", phase, _far_loss(phase, "the pod's new process"), 20.0, group="manager"),
            Drill("kill API server", phase, _far_loss(phase, "the API server"), 20.0, group="API server"),
        ]
        if phase not in UP or phase == "ready":  # it is there from the resolver's change on
            found.append(Drill("kill -9 guardian", phase, "no difference", 10.0, group="sweeper"))
    return found


def _loss(phase: str) -> str:
    if phase == "run":
        return "the open connection ends with an error; the next command says HelperLost or NotConnected; connecting works again"
    if phase == "disconnect":
        return "disconnect returns, or says HelperLost; connecting works again"
    return "connect fails with HelperLost, in one line with a hint; connecting works again"


def _far_loss(phase: str, what: str) -> str:
    if phase == "run":
        return f"the open connection is reset; once {what} is there all works again without a command"
    if phase == "disconnect":
        return "no difference"
    return f"connect succeeds by {what}, or fails with one line and a hint; never a hang"


def _elsewhere(fault: str, phase: str, sees: str, within: float, test: str, remains: str = NOTHING) -> Drill:
    return Drill(fault, phase, sees, within, remains, "elsewhere", test)


_LIFE: Final = "tests/e2e/test_lifetime.py::"
_BACK: Final = "tests/e2e/test_reconnect.py::"
_ALONG: Final = "connected; goes on when it has passed"

DRILLS: Final = (
    *_kills(),
    # --- stopped
    Drill("SIGSTOP data plane", "run", "a command fails with HelperLost after its patience; after SIGCONT it works", 15.0),
    Drill("SIGSTOP manager", "run", "the open connection is reset, state reconnecting; after SIGCONT connected again", 30.0, group="manager"),
    Drill("SIGSTOP netd", "disconnect", "disconnect returns; netd undoes as soon as it goes on", 25.0),
    # --- the way to the cluster
    Drill("carriers cut", "run", "the open connection is reset; reconnected by itself", 10.0, group="carriers"),
    Drill("carriers frozen", "run", "the open connection is reset, state reconnecting; connected again when it is over", 10.0, group="carriers"),
    Drill("carriers at 1 KB/s", "run", "answers come, slowly and right; the connection is not given up", 30.0, group="carriers"),
    Drill("carriers one byte at a time", "run", "answers come, right", 15.0, group="carriers"),
    Drill("carriers corrupted", "run", "TLS finds it: the open connection is reset; reconnected by itself", 20.0, group="carriers"),
    Drill("carriers corrupted by the API server", "run", "the tunnel finds it: the open connection is reset, state reconnecting; connected again when it is over", 20.0, group="carriers"),
    # --- the machine
    Drill("TUN deleted by hand", "run", "the next command says that the device failed; connecting works again", 10.0),
    Drill("link set down by hand", "run", "the next command says that the device failed; connecting works again", 10.0),
    Drill("route removed by hand", "run", "it is put back; a notice says so", 10.0, "the connection"),
    Drill("resolv.conf overwritten (DHCP)", "run", "names go on, a notice says so; after disconnect the new file is there, not the old one", 10.0, "the new file"),
    Drill("clock jumps a day ahead and back", "run", _ALONG, 5.0, "the connection"),
    # --- what runs out
    Drill("file descriptors limited to 256", "run", "200 connections at once work; disconnect leaves nothing", 30.0),
    Drill("memory of the data plane limited", "run", "all goes on, or the connection is lost with one line; never a hang", 30.0),
    Drill("runtime directory on a full disk", "elevate", "connects, or one line with a hint", 10.0),
    Drill("runtime directory read-only", "elevate", "one line with a hint", 10.0),
    Drill("HOME read-only and full", "elevate", "connects", 10.0),
    Drill("sudo hangs", "elevate", "connect fails within its timeout, in one line with a hint", 15.0),
    # --- tests of their own
    _elsewhere("kill -9 kernel and data plane", "run", "the kernel is gone", 5.0, f"{_LIFE}test_killed_kernel_and_datapath"),
    _elsewhere("kill -9 kernel and netd", "run", "the kernel is gone", 5.0, f"{_LIFE}test_killed_kernel_and_netd"),
    _elsewhere("kill -9 everything", "run", "the next connect works, and repairs resolv.conf", 5.0,
               f"{_LIFE}test_everything_killed_is_repaired_by_the_next_connect", "resolv.conf, until the next connect"),
    _elsewhere("kill -9 kernel with its demo cluster", "run", "the kernel is gone", 5.0, f"{_LIFE}test_killed_kernel_takes_its_demo_cluster_along"),
    _elsewhere("two connects race", "elevate", "both connect, by one data plane", 10.0, f"{_LIFE}test_two_kernels_connect_at_the_same_moment"),
    _elsewhere("fork in a cell", "run", "the child is not connected; its end disturbs nothing", 5.0, f"{_LIFE}test_a_forked_child_is_not_connected_and_its_end_disturbs_nothing"),
    _elsewhere("Interrupt", "elevate", "KeyboardInterrupt at once; nothing begun is left", 2.0, f"{_LIFE}test_interrupted_while_connecting"),
    _elsewhere("API server restarts", "run", "reset, reconnecting, connected again", 10.0, f"{_BACK}test_the_way_to_the_cluster_breaks_and_heals"),
    _elsewhere("pod of the manager deleted", "run", "reset, connected again by another pod", 10.0, f"{_BACK}test_the_manager_is_killed_and_replaced"),
    _elsewhere("sudo refuses the password, or it is cancelled", "elevate", "SudoDenied, in one line with a hint", 5.0, "tests/netd_sudo/test_sudo.py::test_sudo_with_a_password"),
)  # fmt: skip
GROUPS: Final = tuple(dict.fromkeys(drill.group for drill in DRILLS if not drill.covered_by))


def markdown(results: dict[str, str]) -> str:
    """Write the table; `results` by drill's name, those that are missing were not run."""
    lines = [
        "# Fault drills",
        "",
        "Made by `python -m tests.drills` from `tests/drills/table.py`: what is broken and when, what is promised, and what",
        "the last run of all of them came to. *Within* is for a machine that has nothing else to do. *Remains*: what of",
        "ours is left on the machine when it is over (links, addresses, routes, rules, resolv.conf, processes, files). The",
        "seconds of a result are those of the whole drill, with connecting before and looking at the machine after. To try",
        "by hand: `telemagic demo break carriers-frozen`, and `clear`; `telemagic help demo` has all names.",
        "",
        "| fault | phase | the user sees | within | remains | result |",
        "|---|---|---|--:|---|---|",
    ]
    for drill in DRILLS:
        where = drill.covered_by.rpartition("::")[2]
        result = f"`{where}`" if where else results.get(drill.name, "not run")
        lines.append(
            f"| {drill.fault} | {drill.phase} | {drill.sees} | {drill.within:g} s | {drill.remains} | {result} |"
        )
    return "\n".join(lines) + "\n"
