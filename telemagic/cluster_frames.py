"""What is in the cluster as DataFrames: services, pods, lookups and connects; schemas as in :mod:`telemagic.frames`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from telemagic import addresses
from telemagic.frames import TIME, Column, build

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from telehelper.views import PodTable, Resolved, ServiceTable

    from telemagic.ping import Try

SERVICE_SCHEMA: Final = (
    Column("name", "name", "str"),
    Column("namespace", "namespace", "category"),
    Column("dns_name", "dns_name", "str"),
    Column("url", "url", "str"),
    Column("ports", "ports", "str"),
    Column("type", "type", "category"),
    Column("ready", "ready", "Int64", "endpoints"),
    Column("endpoints", "endpoints", "Int64", "endpoints"),
    Column("cluster_ip", "cluster_ip", "str"),
    Column("selector", "selector", "str"),
    Column("external_name", "external_name", "str"),
)

POD_SCHEMA: Final = (
    Column("name", "name", "str"),
    Column("namespace", "namespace", "category"),
    Column("phase", "phase", "category"),
    Column("ready", "ready", "str"),
    Column("restarts", "restarts", "Int64", "restarts"),
    Column("started", "started_at", TIME),
    Column("ip", "ip", "str"),
    Column("node", "node", "category"),
    Column("image", "image", "str"),
    Column("owner", "owner", "str"),
)

LOOKUP_SCHEMA: Final = (
    Column("name", "name", "str"),
    Column("type", "type", "category"),
    Column("answer", "answer", "str"),
    Column("ttl_s", "ttl", "Int64", "s"),
    Column("answered_by", "answered_by", "category"),
    Column("time_ms", "seconds", "float64", "ms", 1e3),
    Column("system", "system", "boolean"),
    Column("asked", "asked", "str"),
    Column("note", "note", "str"),
)

PING_SCHEMA: Final = (
    Column("try", "number", "Int64"),
    Column("address", "address", "str"),
    Column("port", "port", "Int64"),
    Column("state", "state", "category"),
    Column("connect_ms", "connect", "float64", "ms", 1e3),
    Column("tunnel_ms", "tunnel", "float64", "ms", 1e3),
    Column("cluster_ms", "cluster", "float64", "ms", 1e3),
    Column("first_byte_ms", "first_byte", "float64", "ms", 1e3),
    Column("reason", "reason", "str"),
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
    return _with_attributes(build(rows, SERVICE_SCHEMA), SERVICE_SCHEMA, context, table.notices)


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
    return _with_attributes(build(rows, POD_SCHEMA), POD_SCHEMA, context, table.notices)


def lookup(
    lines: Sequence[LookupLine], said: Resolved, system: Sequence[str], agree: bool | None, context: str
) -> pd.DataFrame:
    """Make the table of a lookup; see :meth:`telemagic.connection.Connection.resolve`."""
    notices = list(dict.fromkeys(line.note for line in lines if line.note))
    frame = _with_attributes(build(lines, LOOKUP_SCHEMA), LOOKUP_SCHEMA, context, notices)
    frame.attrs["telemagic"] |= {
        "rcode": said.rcode,
        "server": said.server,
        "system": list(system),
        "agree": agree,
    }
    return frame


def pings(tries: Sequence[Try], context: str, notices: Sequence[str]) -> pd.DataFrame:
    """Make the table of connects; see :meth:`telemagic.connection.Connection.ping`."""
    return _with_attributes(build(tries, PING_SCHEMA), PING_SCHEMA, context, notices)


def _with_attributes(
    frame: pd.DataFrame, schema: tuple[Column, ...], context: str, notices: Sequence[str]
) -> pd.DataFrame:
    frame.attrs["telemagic"] = {
        "context": context,
        "notices": list(notices),
        "units": {column.name: column.unit for column in schema if column.unit},
    }
    return frame
