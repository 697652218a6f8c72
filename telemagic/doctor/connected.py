"""The doctor's checks of a connection: what its data plane says of itself, and what that means."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from telemagic.doctor.checks import Verdict, examine, ok, problem, warning

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from telemagic.connection import Connection
    from telemagic.doctor.diagnosis import Finding
    from telemagic.results import Status

SLOW: Final = 0.25  # seconds; each new connection waits for one round trip, each first lookup for one or two
# Drops that mean something is wrong with this machine; the others are strays of connections that are over.
WORRYING: Final = frozenset({"TUN queue full", "checksum", "flow table full", "no IP packet", "truncated"})


def state(status: Status) -> Verdict:
    """See whether it is up."""
    where = f"{status.context}, namespace {status.namespace}, on {status.device}"
    if status.state == "connected":
        return ok(f"to {where}")
    return problem(f"{status.state} to {where}: {status.last_error or 'no reason known'}", "%tele status")


def round_trip(status: Status) -> Verdict:
    """See how far away the manager is."""
    if status.rtt < 0:
        return warning("not measured yet")
    text = f"{status.rtt * 1e3:.2f} ms to the manager"
    return (
        ok(text)
        if status.rtt < SLOW
        else warning(f"{text}, which is slow", "a network nearer to the cluster")
    )


def carriers(status: Status) -> Verdict:
    """Count the carriers."""
    if status.carriers == 0:
        return problem(
            "none is up: nothing gets through", "wait for the reconnect, or disconnect and connect"
        )
    return ok(f"{status.carriers} up")


def offload(status: Status) -> Verdict:
    """See what the kernel offloads for this very interface."""
    if "TSO4" not in status.offload.upper():
        return warning(f"{status.offload or 'none'}: works, at about a tenth of the speed")
    return ok(status.offload)


def drops(counts: Mapping[str, int]) -> Verdict:
    """See what was ignored, and whether that matters."""
    text = ", ".join(f"{count} {reason}" for reason, count in sorted(counts.items(), key=lambda one: -one[1]))
    if WORRYING & counts.keys():
        return warning(
            f"{text}: packets of this machine got lost; TCP sends them again", "less load, more CPU"
        )
    return ok(text or "none")


def examine_connection(connection: Connection | None) -> Sequence[Finding]:
    """Make all checks of a connection; when it cannot be asked, why is the only finding."""
    if connection is None:
        return [examine("connection", lambda: ok("none"))]
    asked: list[Status] = []

    def first() -> Verdict:
        if connection.lost:
            return problem(connection.lost, "connect again; everything was undone")
        asked.append(connection.status)
        return state(asked[0])

    found = [examine("connection", first)]
    if asked:
        found += [
            examine("round trip", lambda: round_trip(asked[0])),
            examine("carriers", lambda: carriers(asked[0])),
            examine("interface offload", lambda: offload(asked[0])),
            examine("drops", lambda: drops(connection.flows().attrs["telemagic"]["drops"])),
        ]
    return found
