"""The part of the control vocabulary that shows what is happening: flows, where their time went, events, latencies.

Apart from :mod:`telehelper.messages` because netd, which is root, need not know it. Whoever imports this module can
decode it.

Tables may have ten thousand rows, and a dashboard gets changes twice a second; so rows travel as JSON text, which a
kernel can hand on to a browser without reading it. A row is a list with the values of a message below, in the order of
its fields: `FLOW_COLUMNS`, `EVENT_COLUMNS`, `LATENCY_COLUMNS`. Unknown numbers are -1, unknown texts empty.

The text of :class:`Snapshot` is one object::

    {"at": 1750000001.5,                      Unix seconds
     "status": {...},                         fields of messages.Status, without the tables in it
     "cidrs": [[...]], "routes": [[...]],     fields of messages.CidrRow and messages.RouteRow
     "flows": [[...]],                        FLOW_COLUMNS; all that are kept, oldest first
     "series": [[at, rtt, up, down]],         one a second: RTT in seconds or -1, bytes in that second
     "latency": [[...]],                      LATENCY_COLUMNS
     "events": [[...]]}                       EVENT_COLUMNS, oldest first

That of :class:`SnapshotChanged` is of the same shape. ``at`` and ``status`` are always there; ``flows`` has the rows that
are new or have changed, ``gone`` the numbers of flows that are kept no longer, ``series`` and ``events`` what is new;
``cidrs``, ``routes`` and ``latency`` are there, whole, when something in them has changed.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Final

from telehelper.messages import APART, Message

MIN_INTERVAL: Final = 0.1  # seconds between two changes; a screen shows no more to anybody

# --- kernel → datapath -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Introduce(Message):
    """Who this kernel is, for the flow table: the notebook's file name, or what else people know it by. Answered with Done."""

    notebook: str


@dataclass(frozen=True, slots=True)
class CellStarted(Message):
    """A cell began to run; a notification, which nobody answers. ``at``: CLOCK_MONOTONIC seconds, the same for all processes."""

    cell: int  # execution count
    at: float


@dataclass(frozen=True, slots=True)
class CellEnded(Message):
    """A cell ended; a notification. Fields as in :class:`CellStarted`."""

    cell: int
    at: float


@dataclass(frozen=True, slots=True)
class GetFlows(Message):
    """Answered with :class:`FlowTable`."""


@dataclass(frozen=True, slots=True)
class GetEvents(Message):
    """Answered with :class:`EventTable`."""


@dataclass(frozen=True, slots=True)
class GetLatency(Message):
    """Answered with :class:`LatencyTable`."""


@dataclass(frozen=True, slots=True)
class Watch(Message):
    """Be told what changes, at most every ``interval`` seconds. Answered with :class:`Snapshot`; events follow.

    One for each kernel: a further one changes the interval and is answered with a snapshot too; what had changed until
    then is told before. What a kernel is too slow to take is merged into the next change.
    """

    interval: float


@dataclass(frozen=True, slots=True)
class Unwatch(Message):
    """Be told no more. Answered with Done."""


# --- datapath → kernel -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FlowRow(Message):
    """One flow. Times are Unix seconds or -1 for "not yet"; durations are seconds or -1; ``up`` is towards the cluster.

    Where its time went, in order: ``dns``, ``queue``, ``tunnel`` and ``dial`` (together ``connect``), ``first_byte``
    (of which the service itself took ``wait``), ``transfer``.
    """

    flow: int
    protocol: str
    src: str
    sport: int
    dst: str
    dport: int
    name: str  # the name that was resolved to dst, or empty
    state: str
    opened_at: float
    closed_at: float = -1.0
    dns: float = -1.0  # the lookup that led here, at our resolver; only of the first flow after it
    queue: float = -1.0  # SYN to OPEN leaving on a carrier: waiting for the tunnel
    connect: float = -1.0  # SYN to OPENED: queue, one tunnel round trip, and the dial
    dial: float = -1.0  # the manager's connect to the service: one round trip between those two
    tunnel: float = (
        -1.0
    )  # this machine to the manager and back: the rest of connect; the last round trip if dial is not known
    first_byte: float = -1.0  # OPENED to the first byte from the cluster
    wait: float = -1.0  # at the manager: from the request's last byte or its end before it (or the connect) to the service's first byte
    transfer: float = -1.0  # first byte from the cluster to the last byte either way, so far
    bytes_up: int = 0
    bytes_down: int = 0
    packets_up: int = 0
    packets_down: int = 0
    reason: str = ""  # why it closed, empty while open
    service: str = ""  # of the cluster, as name.namespace, empty if dst is none's
    namespace: str = ""
    pod: str = ""  # only where it is certain which
    node: str = ""
    uid: int = -1  # owner of the local socket
    pid: int = -1
    process: str = ""  # its name
    notebook: str = ""  # of the kernel that is this process or its ancestor
    cell: int = -1  # execution count of the cell that ran there when the flow was opened


@dataclass(frozen=True, slots=True)
class EventRow(Message):
    """Something worth telling. ``number`` grows by one; ``at`` is Unix seconds.

    ``kind``: connected, tunnel down, tunnel up, refused, unreachable, timed out, reset, DNS failed, not yours, routes,
    note. ``subject`` is what it is about (postgres.shop:5432, a name, a CIDR), ``detail`` one line for people. The same
    about the same within ten seconds is one row with a greater ``count``, which is sent again.
    """

    number: int
    at: float
    kind: str
    subject: str
    detail: str
    count: int


@dataclass(frozen=True, slots=True)
class LatencyRow(Message):
    """Latencies of one service over the flows that are kept; seconds or -1.

    The tunnel itself has the service "tunnel": its round trips of the last quarter of an hour as connect, all flows, and all
    that failed. Then come the 200 services with most flows.
    """

    service: str  # name.namespace, else the name or address, with the port: postgres.shop:5432
    flows: int
    failed: int  # refused, unreachable, timed out or reset
    connect_p50: float
    connect_p99: float
    dial_p50: float
    dial_p99: float
    first_byte_p50: float
    first_byte_p99: float
    wait_p50: float
    wait_p99: float


@dataclass(frozen=True, slots=True)
class FlowTable(Message):
    """A consistent copy of the flow table, taken at ``taken_at`` (Unix seconds), oldest first. Closed flows are kept, bounded.

    ``rows``: JSON text, a list of rows in FLOW_COLUMNS. ``drops``: what was ignored without belonging to a flow.
    """

    taken_at: float
    rows: str = field(metadata=APART)
    drops: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EventTable(Message):
    """Events that are kept, oldest first."""

    rows: tuple[EventRow, ...]


@dataclass(frozen=True, slots=True)
class LatencyTable(Message):
    """Latencies by service, the tunnel first."""

    taken_at: float
    rows: tuple[LatencyRow, ...]


@dataclass(frozen=True, slots=True)
class Snapshot(Message):
    """All there is to show, as JSON text; see the module. A change counts from here if its ``number`` is greater."""

    number: int
    text: str = field(metadata=APART)


@dataclass(frozen=True, slots=True)
class SnapshotChanged(Message):
    """What has changed since the last of these, or since the snapshot, as JSON text; see the module. ``number`` grows by one."""

    number: int
    text: str = field(metadata=APART)


FLOW_COLUMNS: Final = tuple(each.name for each in fields(FlowRow))
EVENT_COLUMNS: Final = tuple(each.name for each in fields(EventRow))
LATENCY_COLUMNS: Final = tuple(each.name for each in fields(LatencyRow))
