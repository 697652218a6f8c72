"""The part of the control vocabulary that looks into the cluster: services, pods, and names.

Apart from :mod:`telehelper.messages` because netd, which is root, need not know it. Whoever imports this module can
decode it.
"""

from __future__ import annotations

from dataclasses import dataclass

from telehelper.messages import Message

# --- kernel → datapath -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class GetServices(Message):
    """Answered with :class:`ServiceTable`. ``namespace`` empty: the connected one; ``everywhere``: all namespaces."""

    namespace: str = ""
    everywhere: bool = False


@dataclass(frozen=True, slots=True)
class GetPods(Message):
    """Answered with :class:`PodTable`. Fields as in :class:`GetServices`."""

    namespace: str = ""
    everywhere: bool = False


@dataclass(frozen=True, slots=True)
class Resolve(Message):
    """Ask our own resolver, with ``rtype`` such as A or SRV, as a program's libc would. Answered with :class:`Resolved`."""

    name: str
    rtype: str = "A"


@dataclass(frozen=True, slots=True)
class GetLookup(Message):
    """Whether our resolver was asked for a name lately. Answered with :class:`Lookup`."""

    name: str


# --- datapath → kernel -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PortRow(Message):
    """One port of a service. ``target``: the pods' port, by number or name; empty if unknown."""

    name: str
    number: int
    protocol: str
    target: str = ""


@dataclass(frozen=True, slots=True)
class ServiceRow(Message):
    """One service. Endpoint counts are -1 where endpoint slices may not be read."""

    name: str
    namespace: str
    type: str  # ClusterIP, NodePort, LoadBalancer, ExternalName or Headless
    cluster_ip: str  # empty for a headless service and an external name
    ports: tuple[PortRow, ...]
    selector: str
    external_name: str
    endpoints_ready: int
    endpoints_total: int


@dataclass(frozen=True, slots=True)
class ServiceTable(Message):
    """Services that the user's rights show; ``notices`` say what they do not."""

    rows: tuple[ServiceRow, ...]
    notices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PodRow(Message):
    """One pod. ``started_at`` is Unix seconds, -1 for "not yet"."""

    name: str
    namespace: str
    ip: str
    node: str
    phase: str
    ready: int  # containers
    containers: int
    restarts: int
    started_at: float
    image: str
    owner: str
    ports: tuple[PortRow, ...] = ()


@dataclass(frozen=True, slots=True)
class PodTable(Message):
    """Pods that the user's rights show; ``notices`` say what they do not."""

    rows: tuple[PodRow, ...]
    notices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RecordRow(Message):
    """One DNS record of an answer. ``ttl`` in seconds; ``data`` as in a zone file."""

    name: str
    rtype: str
    ttl: int
    data: str


@dataclass(frozen=True, slots=True)
class Lookup(Message):
    """How our resolver last came to an answer for a name.

    ``source``: cluster, machine (its own nameservers), cache, nobody (nobody answered), or empty if it was not asked.
    ``asked`` is the full name that was asked.
    """

    source: str
    asked: str = ""


@dataclass(frozen=True, slots=True)
class Resolved(Message):
    """What our resolver said. ``rcode``: NOERROR, NXDOMAIN, SERVFAIL, …; ``seconds``: how long it took."""

    rcode: str
    records: tuple[RecordRow, ...]
    lookup: Lookup
    seconds: float
    server: str  # address of our resolver
    explanation: str = ""  # why there is no answer, for people
