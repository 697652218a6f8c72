"""What is going on as DataFrames: flows, latencies, events and routes; see :mod:`telemagic.schema`."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any, Final

from telehelper.observing import FLOW_COLUMNS

from telemagic.schema import TIME, Column, build, details, milliseconds, of_rows, read, units

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from telehelper.messages import RouteTable
    from telehelper.observing import EventTable, FlowTable, LatencyTable

    from telemagic.schema import Schema


# What people look for comes first: a notebook shows about ten columns without scrolling.
FLOW_SCHEMA: Final = (
    Column("flow", "flow", "Int64", meaning="number of the flow"),
    Column(
        "service",
        "service",
        "str",
        meaning="service.namespace, else the name that was resolved",
        instead="name",
    ),
    Column("dport", "dport", "Int64", meaning="port of the service"),
    Column("state", "state", "category", meaning="of the near side, as in RFC 9293; OPEN for datagrams"),
    Column("cell", "cell", "Int64", meaning="In[n] that ran there then"),
    milliseconds("connect_ms", "connect", "from the SYN until the service has answered"),
    milliseconds("first_byte_ms", "first_byte", "from then to the first byte from the cluster"),
    Column("bytes_up", "bytes_up", "Int64", "bytes", meaning="towards the cluster"),
    Column("bytes_down", "bytes_down", "Int64", "bytes", meaning="from the cluster"),
    Column("process", "process", "category", meaning="name of the process that owns the socket"),
    *details(
        Column(
            "notebook", "notebook", "category", meaning="whose kernel opened it, or a process that it started"
        ),
        Column("protocol", "protocol", "category", meaning="TCP, UDP or ICMP"),
        Column("opened", "opened_at", TIME, meaning="when its first packet came"),
        Column("closed", "closed_at", TIME, meaning="NaT while open"),
        milliseconds("dns_ms", "dns", "the lookup that led here; of the first flow after it"),
        milliseconds("queue_ms", "queue", "until the tunnel took it"),
        milliseconds("tunnel_ms", "tunnel", "to the manager and back"),
        milliseconds("dial_ms", "dial", "connect in the cluster, from the manager to the service"),
        milliseconds(
            "wait_ms", "wait", "of the service alone: from the request to its first byte, at the manager"
        ),
        milliseconds("transfer_ms", "transfer", "from the first byte to the last so far"),
        Column("namespace", "namespace", "category", meaning="of the service or pod"),
        Column("pod", "pod", "str", meaning="where it is certain which"),
        Column("node", "node", "category", meaning="that the pod runs on"),
        Column("pid", "pid", "Int64", meaning="of the process"),
        Column("uid", "uid", "Int64", meaning="owner of the socket"),
        Column("src", "src", "str", meaning="address on this machine"),
        Column("sport", "sport", "Int64", meaning="port on this machine"),
        Column("dst", "dst", "str", meaning="address in the cluster"),
        Column("name", "name", "str", meaning="that was resolved to dst"),
        Column("packets_up", "packets_up", "Int64", "packets", meaning="towards the cluster"),
        Column("packets_down", "packets_down", "Int64", "packets", meaning="from the cluster"),
        Column("reason", "reason", "str", meaning="why it closed"),
    ),
)

LATENCY_SCHEMA: Final = (
    Column(
        "service",
        "service",
        "str",
        meaning="name.namespace:port, else name or address; `tunnel` is the tunnel",
    ),
    Column("flows", "flows", "Int64", "flows", meaning="that the figures are of"),
    Column("failed", "failed", "Int64", "flows", meaning="refused, unreachable, timed out or reset"),
    milliseconds(
        "connect_p50_ms", "connect_p50", "connect_ms of flows(), median; of the tunnel its round trip"
    ),
    milliseconds("connect_p99_ms", "connect_p99", "… of the slowest hundredth the quickest"),
    milliseconds("first_byte_p50_ms", "first_byte_p50", "first_byte_ms of flows(), median"),
    milliseconds("first_byte_p99_ms", "first_byte_p99", "… 99th percentile"),
    *details(
        milliseconds("wait_p50_ms", "wait_p50", "wait_ms of flows(), median"),
        milliseconds("wait_p99_ms", "wait_p99", "… 99th percentile"),
        milliseconds("dial_p50_ms", "dial_p50", "dial_ms of flows(), median"),
        milliseconds("dial_p99_ms", "dial_p99", "… 99th percentile"),
    ),
)

EVENT_SCHEMA: Final = (
    Column("at", "at", TIME, meaning="when it happened last"),
    Column(
        "kind",
        "kind",
        "category",
        meaning="connected, tunnel down, tunnel up, refused, timed out, DNS failed, …",
    ),
    Column("subject", "subject", "str", meaning="what it is about: postgres.shop:5432, a name, a network"),
    Column("detail", "detail", "str", meaning="in one line"),
    Column("count", "count", "Int64", "events", meaning="how often, within ten seconds of each other"),
    *details(Column("number", "number", "Int64", meaning="grows by one")),
)

ROUTE_SCHEMA: Final = (
    Column("cidr", "cidr", "str", meaning="the network, or one address"),
    Column(
        "device", "device", "category", meaning="that it goes to, or whose it is; empty if that is not known"
    ),
    Column("kind", "kind", "category", meaning="pods, services, user, …"),
    Column("source", "source", "str", meaning="where it is from"),
    Column(
        "state",
        "state",
        "category",
        meaning="applied, skipped, conflict, resolved (a name led there) or mapped",
    ),
    Column("detail", "detail", "str", meaning="why"),
)


def flows(table: FlowTable, context: str = "") -> pd.DataFrame:
    """Make the flow table.

    Returns
    -------
    DataFrame
        One row per flow, oldest first; columns as in `FLOW_SCHEMA`. `attrs["telemagic"]` holds `taken_at` (ISO 8601),
        `context`, `drops`, `notices` and the columns' `units`, all of it fit for JSON, as Parquet files want it.
    """
    frame = oldest_first(read(table.rows, FLOW_COLUMNS, FLOW_SCHEMA))
    return with_facts(frame, FLOW_SCHEMA, context, taken_at=iso(table.taken_at), drops=dict(table.drops))


def flows_of(rows: Sequence[Sequence[Any]]) -> pd.DataFrame:
    """Make a flow table of rows in the order of FLOW_COLUMNS, without attributes but the units."""
    frame = oldest_first(of_rows(rows, FLOW_COLUMNS, FLOW_SCHEMA))
    return with_facts(frame, FLOW_SCHEMA, "")


def oldest_first(flows: pd.DataFrame) -> pd.DataFrame:
    """Sort flows by when they were opened; those of one moment by number."""
    if flows["opened"].is_monotonic_increasing and flows["flow"].is_monotonic_increasing:
        return flows
    return flows.sort_values(["opened", "flow"], ignore_index=True)


def latency(table: LatencyTable, context: str = "") -> pd.DataFrame:
    """Make the table of latencies: one row per service, the tunnel first; columns as in `LATENCY_SCHEMA`."""
    return with_facts(
        build(table.rows, LATENCY_SCHEMA), LATENCY_SCHEMA, context, taken_at=iso(table.taken_at)
    )


def events(table: EventTable, context: str = "") -> pd.DataFrame:
    """Make the table of events, oldest first; columns as in `EVENT_SCHEMA`."""
    return with_facts(build(table.rows, EVENT_SCHEMA), EVENT_SCHEMA, context)


def routes(table: RouteTable, context: str = "") -> pd.DataFrame:
    """Make the table of routes: the plan by address, then what names led to; columns as in `ROUTE_SCHEMA`."""
    return with_facts(build(table.rows, ROUTE_SCHEMA), ROUTE_SCHEMA, context)


def with_facts(
    frame: pd.DataFrame,
    schema: Schema,
    context: str,
    notices: Sequence[str] = (),
    **more: Any,  # noqa: ANN401  # whatever JSON can hold
) -> pd.DataFrame:
    """Write what is to be known about a table into its attributes."""
    facts = {
        "context": context,
        "notices": list(notices),
        "units": units(schema),
        "columns": [column.name for column in schema],
        "details": [column.name for column in schema if column.detail],
    }
    frame.attrs["telemagic"] = facts | more
    return frame


def iso(seconds: float) -> str:
    """Return Unix seconds as text that `pandas.Timestamp` and people can read."""
    return datetime.datetime.fromtimestamp(round(seconds, 6), datetime.UTC).isoformat()
