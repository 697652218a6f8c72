"""What is in the cluster as DataFrames: services, pods, lookups and connects; schemas as in :mod:`telemagic.frames`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from telemagic import addresses
from telemagic.frames import with_facts
from telemagic.schema import TIME, Column, build, details, milliseconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from telehelper.views import PodTable, Resolved, ServiceTable

    from telemagic.ping import Try

SERVICE_SCHEMA: Final = (
    *details(
        Column("name", "name", "str", meaning="short name, enough in the connected namespace"),
        Column("namespace", "namespace", "category", meaning="where it is"),
    ),
    Column("dns_name", "dns_name", "str", meaning="name that works from everywhere here: name.namespace"),
    Column(
        "url", "url", "str", meaning="a guess by its ports' names and numbers; empty where they say nothing"
    ),
    Column("ports", "ports", "str", meaning="name, number and protocol of each"),
    Column("type", "type", "category", meaning="ClusterIP, NodePort, LoadBalancer, ExternalName or Headless"),
    Column("ready", "ready", "Int64", "endpoints", meaning="that take connections; NA where unknown"),
    *details(
        Column("endpoints", "endpoints", "Int64", "endpoints", meaning="that there are; NA where unknown"),
    ),
    Column("cluster_ip", "cluster_ip", "str", meaning="address; empty without one"),
    *details(
        Column("selector", "selector", "str", meaning="labels of its pods"),
        Column("external_name", "external_name", "str", meaning="of an ExternalName"),
    ),
)

POD_SCHEMA: Final = (
    Column("name", "name", "str", meaning="name of the pod"),
    Column("namespace", "namespace", "category", meaning="where it is"),
    Column("phase", "phase", "category", meaning="Pending, Running, Succeeded, Failed or Unknown"),
    Column("ready", "ready", "str", meaning="containers, such as 1/2"),
    Column("restarts", "restarts", "Int64", "restarts", meaning="of its containers, together"),
    Column("started", "started_at", TIME, meaning="NaT before the start"),
    Column("ip", "ip", "str", meaning="address"),
    *details(
        Column("node", "node", "category", meaning="that it runs on"),
        Column("image", "image", "str", meaning="of its first container"),
        Column("owner", "owner", "str", meaning="such as ReplicaSet/postgres-5d8"),
    ),
)

LOOKUP_SCHEMA: Final = (
    Column("name", "name", "str", meaning="of the record"),
    Column("type", "type", "category", meaning="A, AAAA, CNAME, SRV, …"),
    Column("answer", "answer", "str", meaning="as in a zone file; empty if there is none"),
    Column("ttl_s", "ttl", "Int64", "s", meaning="how long it may be kept"),
    Column(
        "answered_by",
        "answered_by",
        "category",
        meaning="cluster, cache, machine, nobody or this machine only",
    ),
    milliseconds("time_ms", "seconds", "how long the lookup took"),
    Column("system", "system", "boolean", meaning="whether getaddrinfo says so too; NA where it cannot"),
    *details(
        Column("asked", "asked", "str", meaning="the full name that was asked"),
        Column("note", "note", "str", meaning="why there is no answer"),
    ),
)

PING_SCHEMA: Final = (
    *details(
        Column("try", "number", "Int64", meaning="from 1"),
    ),
    Column("address", "address", "str", meaning="that was connected to"),
    *details(
        Column("port", "port", "Int64", meaning="that was connected to"),
    ),
    Column("state", "state", "category", meaning="connected, refused, unreachable, timeout, …"),
    milliseconds("connect_ms", "connect", "how long the connect took"),
    milliseconds("tunnel_ms", "tunnel", "the tunnel's round trip then"),
    milliseconds("cluster_ms", "cluster", "what the connect took longer than that; NaN if it did not"),
    milliseconds("first_byte_ms", "first_byte", "to the first byte, if the server speaks first"),
    Column("reason", "reason", "str", meaning="why not, and what that means"),
)


@dataclass(frozen=True, slots=True)
class _Service:
    name: str
    namespace: str
    dns_name: str
    url: str
    ports: str
    type: str
    ready: int
    endpoints: int
    cluster_ip: str
    selector: str
    external_name: str


@dataclass(frozen=True, slots=True)
class _Pod:
    name: str
    namespace: str
    phase: str
    ready: str
    restarts: int
    started_at: float
    ip: str
    node: str
    image: str
    owner: str


@dataclass(frozen=True, slots=True)
class LookupLine:
    """One answer of a lookup. ``system``: whether this machine's getaddrinfo gives it too, None where it cannot."""

    name: str
    type: str
    answer: str
    ttl: int
    answered_by: str
    seconds: float
    system: bool | None
    asked: str
    note: str = ""


def services(table: ServiceTable, context: str) -> pd.DataFrame:
    """Make the table of services; see :meth:`telemagic.connection.Connection.services`."""
    rows = [
        _Service(
            name=row.name,
            namespace=row.namespace,
            dns_name=f"{row.name}.{row.namespace}",
            url=addresses.url_of(row),
            ports=addresses.describe(row.ports),
            type=row.type,
            ready=row.endpoints_ready,
            endpoints=row.endpoints_total,
            cluster_ip=row.cluster_ip,
            selector=row.selector,
            external_name=row.external_name,
        )
        for row in sorted(table.rows, key=lambda row: (row.namespace, row.name))
    ]
    return with_facts(build(rows, SERVICE_SCHEMA), SERVICE_SCHEMA, context, table.notices)


def pods(table: PodTable, context: str) -> pd.DataFrame:
    """Make the table of pods; see :meth:`telemagic.connection.Connection.pods`."""
    rows = [
        _Pod(
            name=row.name,
            namespace=row.namespace,
            phase=row.phase,
            ready=f"{row.ready}/{row.containers}",
            restarts=row.restarts,
            started_at=row.started_at,
            ip=row.ip,
            node=row.node,
            image=row.image,
            owner=row.owner,
        )
        for row in sorted(table.rows, key=lambda row: (row.namespace, row.name))
    ]
    return with_facts(build(rows, POD_SCHEMA), POD_SCHEMA, context, table.notices)


def lookup(
    lines: Sequence[LookupLine], said: Resolved, system: Sequence[str], agree: bool | None, context: str
) -> pd.DataFrame:
    """Make the table of a lookup; see :meth:`telemagic.connection.Connection.resolve`."""
    notices = list(dict.fromkeys(line.note for line in lines if line.note))
    frame = with_facts(build(lines, LOOKUP_SCHEMA), LOOKUP_SCHEMA, context, notices)
    frame.attrs["telemagic"] |= {
        "rcode": said.rcode,
        "server": said.server,
        "system": list(system),
        "agree": agree,
    }
    return frame


def pings(tries: Sequence[Try], context: str, notices: Sequence[str]) -> pd.DataFrame:
    """Make the table of connects; see :meth:`telemagic.connection.Connection.ping`."""
    return with_facts(build(tries, PING_SCHEMA), PING_SCHEMA, context, notices)
