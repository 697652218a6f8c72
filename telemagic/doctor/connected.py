"""The doctor's checks of a connection: what its data plane says of itself, and what that means."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final

from telemagic import looking, names
from telemagic.doctor.checks import Verdict, examine, ok, problem, warning

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from telemagic.connection import Connection
    from telemagic.doctor.diagnosis import Finding
    from telemagic.results import Status

SLOW: Final = 0.25  # seconds; each new connection waits for one round trip, each first lookup for one or two
SLOW_NAME: Final = 1.0  # seconds for a name that is not there; a resolver that does not answer costs five
# Drops that mean something is wrong with this machine; the others are strays of connections that are over.
WORRYING: Final = frozenset({"TUN queue full", "checksum", "flow table full", "no IP packet", "truncated"})


def state(status: Status) -> Verdict:
    """See whether it is up."""
    where = f"{status.context}, namespace {status.namespace}, on {status.device}"
    if status.state == "connected":
        return ok(f"to {where}")
    return problem(f"{status.state} to {where}: {status.last_error or 'no reason known'}", "%tele status")


def round_trip(status: Status) -> Verdict:
    """See how far away the tunnel's other end is."""
    if status.rtt < 0:
        return warning("not measured yet")
    text = f"{status.rtt * 1e3:.2f} ms to the {'manager' if status.manager else 'API server'}"
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


def lookups(connection: Connection, status: Status) -> Verdict:
    """See whether this machine's programs really ask our resolver: look up a name that nobody can know."""
    if status.dns == "none":
        return warning("left as they are (--dns none): the cluster's names are none on this machine")
    name = f"tele-doctor-{secrets.token_hex(4)}.{status.namespace}.svc"
    answer = looking.ask_system(name)
    took = f"{answer.seconds * 1e3:.0f} ms"
    if answer.addresses:
        return problem(
            f"this machine answers {name}, which does not exist, with {answer.addresses[0]}",
            "a resolver that makes up names goes before telemagic's: see hosts: in /etc/nsswitch.conf",
        )
    if not any(connection.was_asked(asked) for asked in (name, f"{name}.{status.cluster_domain}")):
        if status.dns == "kernel":
            return warning(
                "the cluster's names are for the notebook that connected only (--dns kernel), not for this process"
            )
        return problem(
            f"programs do not ask telemagic's resolver ({status.dns}, {status.dns_server}): {answer.error}, {took}",
            "disconnect and connect; if it stays, connect --dns resolvconf",
        )
    if answer.seconds > SLOW_NAME:
        return warning(
            f"programs ask telemagic's resolver, and wait {took}", "another nameserver goes before?"
        )
    return ok(f"programs ask telemagic's resolver ({status.dns}), {took}")


def libraries() -> Verdict:
    """See which libraries of this process look names up by themselves, and what was done about each."""
    found = names.bypasses()
    if bad := [one for one in found if one.remedy]:
        said = "; ".join(f"{one.library}: {one.detail}" for one in bad)
        return warning(said, "; ".join(dict.fromkeys(one.remedy for one in bad)))
    fixed = "; ".join(f"{one.library}: {one.detail}" for one in found)
    return ok(fixed or "all in this process ask the machine's resolver")


def routes(connection: Connection) -> Verdict:
    """See whether everything of the cluster is routed."""
    frame = connection.routes()
    left = frame[frame.state != "applied"]
    conflicts = left[left.state == "conflict"]
    if len(conflicts):
        row = conflicts.iloc[0]
        return problem(
            f"{row.cidr}: {row.detail}", "%tele routes; connect --on-conflict take, exclude or map"
        )
    if len(left):
        shown = ", ".join(f"{row.cidr} {row.state} ({row.detail})" for row in left.head(3).itertuples())
        return ok(f"{len(frame) - len(left)} applied; {shown}")
    return ok(f"{len(frame)} applied")


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
            examine("DNS path", lambda: lookups(connection, asked[0])),
            examine("libraries", libraries),
            examine("routes", lambda: routes(connection)),
            examine("drops", lambda: drops(connection.flows().attrs["telemagic"]["drops"])),
        ]
    return found
