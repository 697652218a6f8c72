"""The drills: what is broken, when, and what is promised then. The tests and docs/drills.md are made from this.

What `%tele fault` can do as well has its promise in telemagic/promises.py. A promise is what a person notices (`sees`), after how many seconds at most (`within`, on a machine that has nothing else to
do), and what is left of ours on the machine (`remains`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from telemagic.promises import BY_NAME

PHASES: Final = ("elevate", "TUN", "tunnel", "CIDRs", "routes", "DNS", "ready", "run", "disconnect")
UP: Final = PHASES[:7]  # while connecting
NOTHING: Final = "nothing"


@dataclass(frozen=True, slots=True)
class Drill:
    """One drill.

    ``covered_by``: it is a test elsewhere, which is named there and not run again here. ``by_hand``: `%tele fault` does it,
    too, by this name.
    """

    fault: str
    phase: str
    sees: str
    within: float
    remains: str = NOTHING
    group: str = "faults"
    covered_by: str = ""
    by_hand: str = ""

    @property
    def name(self) -> str:
        """What it is called in tests."""
        return f"{self.fault} @ {self.phase}"


def _ours(fault: str, name: str, group: str) -> Drill:
    """Make a drill of a promise of the product's own."""
    promise = BY_NAME[name]
    return Drill(fault, "run", promise.sees, promise.within, promise.remains, group, by_hand=name)


# Nothing more is asked of netd then: connecting may be over before its end is noticed.
_LATE: Final = "connect fails with HelperLost, or the next command says HelperLost or NotConnected; connecting works again"


def _kills() -> list[Drill]:
    """Make a drill of each process and each phase."""
    found = []
    for phase in PHASES:
        if phase == "run":
            found += [
                _ours("kill -9 data plane", "data-plane-killed", "data plane"),
                _ours("kill -9 manager", "manager-killed", "manager"),
                _ours("kill API server", "api-stop", "API server"),
            ]
        else:
            found += [
                Drill("kill -9 data plane", phase, _loss(phase), 5.0, group="data plane"),
                Drill(
                    "kill -9 manager", phase, _far_loss(phase, "the pod's new process"), 20.0, group="manager"
                ),
                Drill("kill API server", phase, _far_loss(phase, "the API server"), 20.0, group="API server"),
            ]
        found += [
            Drill("kill -9 kernel", phase, "the kernel is gone", 5.0, group="kernel"),
            Drill("kill -9 netd", phase, _LATE if phase == "ready" else _loss(phase), 5.0, group="netd"),
            Drill("kill -9 sweeper", phase, "no difference", 10.0, group="sweeper"),
        ]
        if phase not in UP or phase == "ready":  # it is there from the resolver's change on
            found.append(Drill("kill -9 guardian", phase, "no difference", 10.0, group="sweeper"))
    return found


def _loss(phase: str) -> str:
    if phase == "run":
        return BY_NAME["data-plane-killed"].sees
    if phase == "disconnect":
        return "disconnect returns, or says HelperLost; connecting works again"
    return "connect fails with HelperLost, in one line with a hint; connecting works again"


def _far_loss(phase: str, what: str) -> str:
    if phase == "disconnect":
        return "no difference"
    return f"connect succeeds by {what}, or fails with one line and a hint; never a hang"


def _elsewhere(fault: str, phase: str, sees: str, within: float, test: str, remains: str = NOTHING) -> Drill:
    return Drill(fault, phase, sees, within, remains, "elsewhere", test)


_LIFE: Final = "tests/e2e/test_lifetime.py::"
_BACK: Final = "tests/e2e/test_reconnect.py::"
_SAID: Final = (
    "state reconnecting, and status says that it is the {}; connected again once there is a new one"
)
_ALONG: Final = "connected; goes on when it has passed"

DRILLS: Final = (
    *_kills(),
    Drill("kill -9 kernel and data plane", "run", "the kernel is gone", 5.0, group="kernel"),
    Drill("kill -9 kernel and netd", "run", "the kernel is gone", 5.0, group="kernel"),
    # --- stopped
    _ours("SIGSTOP data plane", "data-plane-frozen", "faults"),
    _ours("SIGSTOP manager", "manager-frozen", "manager"),
    Drill("SIGSTOP netd", "disconnect", "disconnect returns; netd undoes as soon as it goes on", 25.0),
    Drill("suspended: SIGSTOP of everything of ours", "run", "after SIGCONT the open connection is reset; connected again by itself", 10.0, "the connection", group="carriers"),
    # --- the way to the cluster
    _ours("carriers cut", "carriers-cut", "carriers"),
    _ours("carriers frozen", "carriers-frozen", "carriers"),
    _ours("carriers at 1 KB/s", "carriers-slow", "carriers"),
    _ours("carriers one byte at a time", "carriers-dribble", "carriers"),
    Drill("carriers corrupted", "run", "TLS finds it: the open connection is reset; reconnected by itself", 20.0, "the connection", group="carriers"),
    _ours("carriers corrupted by the API server", "carriers-corrupt", "carriers"),
    _ours("pod of the manager deleted", "pod-deleted", "carriers"),
    _ours("a login portal instead of the API server", "api-html", "carriers"),
    _ours("answers of the API server truncated", "api-truncated", "carriers"),
    _ours("WebSockets refused", "websocket-refused", "carriers"),
    _ours("token expires", "token-expired", "carriers"),
    _ours("right to forward ports taken away", "forbid", "carriers"),
    Drill("token expires, then carriers are cut", "run", _SAID.format("token"), 20.0, "the connection", group="carriers"),
    Drill("API server's certificate expires, then carriers are cut", "run", _SAID.format("certificate"), 20.0, "the connection", group="carriers"),
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
    _elsewhere("kill -9 everything", "run", "the next connect works, and repairs resolv.conf", 5.0,
               f"{_LIFE}test_everything_killed_is_repaired_by_the_next_connect", "resolv.conf, until the next connect"),
    _elsewhere("kill -9 kernel with its demo cluster", "run", "the kernel is gone", 5.0, f"{_LIFE}test_killed_kernel_takes_its_demo_cluster_along"),
    _elsewhere("two connects race", "elevate", "both connect, by one data plane", 10.0, f"{_LIFE}test_two_kernels_connect_at_the_same_moment"),
    _elsewhere("fork in a cell", "run", "the child is not connected; its end disturbs nothing", 5.0, f"{_LIFE}test_a_forked_child_is_not_connected_and_its_end_disturbs_nothing"),
    _elsewhere("Interrupt", "elevate", "KeyboardInterrupt at once; nothing begun is left", 2.0, f"{_LIFE}test_interrupted_while_connecting"),
    _elsewhere("API server restarts", "run", "reset, reconnecting, connected again", 10.0, f"{_BACK}test_the_way_to_the_cluster_breaks_and_heals"),
    _elsewhere("password typed later than sudo's passwd_timeout", "elevate", "connects: sudo waits for whom it asks by a program, and so do we", 10.0, "tests/netd_sudo/test_sudo.py::test_a_password_later_than_sudos_timeout"),
    _elsewhere("sudo's prompt is over before a password is typed", "elevate", "SudoDenied, in one line with a hint", 5.0, "tests/netd_sudo/test_sudo.py::test_a_prompt_that_sudo_gives_up"),
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
        "seconds of a result are those from the fault to what the user sees, with what has to be gone by then; where a fault",
        "ends and all has to work again, the longer of the two. *Late*: it took longer than promised. What is a test of its",
        "own is kept or not, without seconds. *By hand*: the name for `%tele fault` (`telemagic fault`), which does it to your",
        "own connection. A manager that is killed again soon after its start waits longer before the next one, as in a real",
        "cluster.",
        "",
        "| fault | phase | the user sees | within | remains | by hand | result |",
        "|---|---|---|--:|---|---|---|",
    ]
    for drill in DRILLS:
        where = drill.covered_by.rpartition("::")[2]
        result = results.get(drill.name, "not run") + (f", `{where}`" if where else "")
        by_hand = f"`{drill.by_hand}`" if drill.by_hand else ""
        lines.append(
            f"| {drill.fault} | {drill.phase} | {drill.sees} | {drill.within:g} s | {drill.remains} | {by_hand} | {result} |"
        )
    return "\n".join(lines) + "\n"
