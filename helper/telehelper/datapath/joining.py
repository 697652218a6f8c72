"""Joining what several know of the cluster's networks, and not forgetting at once what one of them no longer says; pure."""

from __future__ import annotations

from ipaddress import ip_network
from typing import TYPE_CHECKING, Final

from telehelper.core.cidr import NetworkSet
from telehelper.discovery.claims import GUESS, PODS, RANK, SERVICES
from telehelper.discovery.conclusions import DNS, NAMESPACE
from telehelper.rpc.manager_pb2 import Cidr, ClusterInfo

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from telehelper.core.cidr import Network
    from telehelper.discovery.discovery import Discovered

LINGER: Final = (
    300.0  # seconds that a CIDR is kept after nobody says it any more: a rollout, a manager that starts
)
WORST: Final = len(RANK)  # of nothing, or of a confidence that is none
CERTAIN_RANK: Final = 0


def network_of(row: Cidr) -> Network | None:
    """Read a row's CIDR; None if it is none."""
    try:
        return ip_network(row.cidr, strict=False)
    except ValueError:
        return None


def is_certain(info: ClusterInfo) -> bool:
    """Whether nothing more can be found out: pods and services are known, and all of it surely."""
    kinds = {row.kind for row in info.cidrs}
    return kinds >= {PODS, SERVICES} and all(RANK.get(row.confidence) == CERTAIN_RANK for row in info.cidrs)


def join(told: ClusterInfo, own: Discovered | None) -> ClusterInfo:
    """Join what the uplink says with what the user's own rights show.

    For pods and services, each family for itself, whoever is surer is believed; of two guesses both are taken.

    Parameters
    ----------
    told
        The uplink's word. Its names count before ours: a traffic manager has a pod's resolver.
    own
        Ours; None if we did not look.
    """
    if own is None:
        return told
    ours = [Cidr(cidr=c.cidr, kind=c.kind, source=c.source, confidence=c.confidence) for c in own.cidrs]
    rows: list[Cidr] = []
    won: set[str] = set()  # kinds of which we know more
    lost: set[str] = set()  # kinds of which the uplink does
    for kind in (SERVICES, PODS):
        for version in (4, 6):
            theirs, mine = _of(told.cidrs, kind, version), _of(ours, kind, version)
            their_rank, my_rank = _rank(theirs), _rank(mine)
            if my_rank < their_rank:
                won.add(kind)
                rows += mine
            elif my_rank == their_rank == RANK[GUESS]:
                rows += _united(theirs, mine)
            else:
                lost |= {kind} if their_rank < my_rank else set()
                rows += theirs
    rows += [row for row in told.cidrs if row.kind not in (SERVICES, PODS)]
    lost |= {DNS} if told.dns_server else set()
    lost |= {NAMESPACE} if len(told.namespaces) >= len(own.namespaces) else set()
    lines = [notice.text for notice in own.lacks if notice.topic not in lost]
    return ClusterInfo(
        cidrs=rows,
        dns_server=told.dns_server or own.dns_server,
        cluster_domain=told.cluster_domain or own.cluster_domain,
        namespaces=sorted({*told.namespaces, *own.namespaces}),
        # What the uplink lacks is no lack where we found more.
        notices=list(dict.fromkeys([*(() if won else told.notices), *lines])),
    )


def _of(rows: Iterable[Cidr], kind: str, version: int) -> list[Cidr]:
    return [
        row
        for row in rows
        if row.kind == kind and (network := network_of(row)) is not None and network.version == version
    ]


def _rank(rows: Sequence[Cidr]) -> int:
    return min((RANK.get(row.confidence, WORST) for row in rows), default=WORST)


def _united(theirs: Sequence[Cidr], mine: Sequence[Cidr]) -> list[Cidr]:
    """Return both, without those that are in another."""
    outer = _by_kind(theirs)
    return [*theirs, *(row for row in mine if not _is_inside(row, outer))]


def _by_kind(rows: Iterable[Cidr]) -> dict[str, NetworkSet]:
    """Gather the networks of each kind. A manager may say thousands, so no row is compared with every other."""
    networks: dict[str, list[Network]] = {}
    for row in rows:
        if (network := network_of(row)) is not None:
            networks.setdefault(row.kind, []).append(network)
    return {kind: NetworkSet(some) for kind, some in networks.items()}


def _is_inside(row: Cidr, outer: Mapping[str, NetworkSet]) -> bool:
    """Whether networks of the row's kind have all of it, alone or together; what is no CIDR is in none."""
    network, wide = network_of(row), outer.get(row.kind)
    return network is not None and wide is not None and wide.covers(network)


class Lingering:
    """Keeps CIDRs for a while after they were withdrawn, so that a pod's end or a manager's start moves no route."""

    def __init__(self, seconds: float = LINGER) -> None:
        self._seconds = seconds
        self._rows: dict[tuple[str, str], Cidr] = {}
        self._gone: dict[tuple[str, str], float] = {}

    def update(self, rows: Iterable[Cidr], now: float) -> list[Cidr]:
        """Take what is said now, at `now` (monotonic seconds); return it with what is kept.

        What present CIDRs of the same kind contain is not kept, and a present guess inside of kept ones is not shown
        besides them: both would route the same.
        """
        present = {(row.kind, row.cidr): row for row in rows}
        for name in self._rows.keys() - present.keys():
            self._gone.setdefault(name, now)
        wide = _by_kind(present.values())
        kept: dict[tuple[str, str], Cidr] = {}
        for name, since in self._gone.items():
            row = self._rows[name]
            is_needed = network_of(row) is not None and not _is_inside(row, wide)
            if name not in present and is_needed and now - since < self._seconds:
                kept[name] = row
        self._gone = {name: since for name, since in self._gone.items() if name in kept}
        self._rows = {**present, **kept}
        outer = _by_kind(kept.values())
        shown = [row for row in present.values() if row.confidence != GUESS or not _is_inside(row, outer)]
        return [*shown, *kept.values()]

    def next_timer(self) -> float | None:
        """Return when `update()` should be called again, in monotonic seconds; None if nothing is kept."""
        return min((since + self._seconds for since in self._gone.values()), default=None)
