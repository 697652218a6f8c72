"""The vocabulary of the two control sockets, and its codec; sans-IO.

Two sockets speak it: kernel ↔ datapath (a Unix socket in a 0700 directory) and datapath ↔ netd (a socket pair that
is netd's standard input). A message is a frozen dataclass of this module. On the wire it is a 4-byte big-endian
length and that many bytes of JSON: ``{"type": "GetFlows", "id": 3, "body": {…}}``. ``id`` ties a reply to its
request; 0 is an event, which nobody answers.

Decoding is strict, because netd reads this as root: an unknown type, a missing or unknown field, a value of another
type, or a message over the limit raises :class:`~telehelper.errors.ControlError`, and the connection is closed.
Standard library only, for the same reason.
"""

from __future__ import annotations

import json
import struct
import typing
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any, Final

from telehelper.errors import ControlError, TelemagicError, from_wire

PROTOCOL_VERSION: Final = 1  # both sockets; the first message carries it, a mismatch ends the connection
MAX_MESSAGE: Final = 16 * 1024 * 1024  # bytes; a flow table of 10,000 rows is about 4 MiB
MAX_NETD_MESSAGE: Final = 256 * 1024  # bytes; a plan of 1,000 routes is about 60 KiB
_LENGTH: Final = struct.Struct("!I")


@dataclass(frozen=True, slots=True)
class Message:
    """Base of all messages; carries nothing."""


# --- either way --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Done(Message):
    """The request was carried out and has nothing to tell."""


@dataclass(frozen=True, slots=True)
class Failed(Message):
    """The request failed; the other side raises this error again."""

    slug: str
    message: str
    hint: str = ""
    data: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, error: TelemagicError) -> Failed:
        """Put an error into a message."""
        return cls(error.slug, error.message, error.hint, error.data)

    def to_error(self) -> TelemagicError:
        """Take the error out again, as the same type."""
        return from_wire(self.slug, self.message, self.hint, self.data)


# --- kernel → datapath -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Hello(Message):
    """First message of a kernel. Answered with :class:`Welcome`, or :class:`Failed` if the versions differ."""

    version: int
    pid: int


@dataclass(frozen=True, slots=True)
class Welcome(Message):
    """The data plane's answer: who it is. ``connected`` is True when another notebook connected it already."""

    version: int
    pid: int
    connected: bool


@dataclass(frozen=True, slots=True)
class Connect(Message):
    """Bring the tunnel up. Answered with :class:`Status` when ready, :class:`PhaseChanged` events come before.

    ``kubeconfig`` is the value of ``KUBECONFIG`` (paths separated by colons); ``context`` and ``namespace`` empty
    mean the kubeconfig's own. On failure everything begun is undone and the data plane exits.
    """

    kubeconfig: str
    context: str
    namespace: str
    timeout: float
    manager_namespace: str = "telemagic"
    also_proxy: tuple[str, ...] = ()
    never_proxy: tuple[str, ...] = ()
    dns: str = "auto"


@dataclass(frozen=True, slots=True)
class GetStatus(Message):
    """Answered with :class:`Status`."""


@dataclass(frozen=True, slots=True)
class GetFlows(Message):
    """Answered with :class:`FlowTable`."""


@dataclass(frozen=True, slots=True)
class GetRoutes(Message):
    """Answered with :class:`RouteTable`."""


@dataclass(frozen=True, slots=True)
class Disconnect(Message):
    """The kernel leaves. Answered with :class:`Done`; when it was the last one, after everything is undone."""


# --- datapath → kernel -------------------------------------------------------------------------------------------

PHASES: Final = ("elevate", "TUN", "tunnel", "CIDRs", "routes", "DNS", "ready")


@dataclass(frozen=True, slots=True)
class PhaseChanged(Message):
    """Connecting reached the start or the end of a phase. ``state``: started, done or failed."""

    phase: str
    state: str
    detail: str
    seconds: float


@dataclass(frozen=True, slots=True)
class TunnelChanged(Message):
    """The tunnel went up or down while connected; ``reason`` is one line for people."""

    up: bool
    reason: str


@dataclass(frozen=True, slots=True)
class CidrRow(Message):
    """One CIDR of the cluster, and how it was found. ``kind``: pods, services or user."""

    cidr: str
    kind: str
    source: str
    confidence: str  # certain, likely or guess


@dataclass(frozen=True, slots=True)
class RouteRow(Message):
    """One route that we made, or would have made. ``state``: applied, skipped or conflict."""

    cidr: str
    device: str
    kind: str
    source: str
    state: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Status(Message):
    """What is connected to what. Times are Unix seconds; ``rtt`` is seconds, NaN-free: -1 when unknown."""

    state: str  # connecting, connected, reconnecting, closed
    context: str
    namespace: str
    server: str
    via: str  # manager
    manager: str  # namespace/pod
    manager_version: str
    device: str
    address: str
    dns: str
    dns_server: str
    cluster_domain: str
    connected_at: float
    rtt: float
    carriers: int
    flows_open: int
    flows_total: int
    bytes_up: int
    bytes_down: int
    cidrs: tuple[CidrRow, ...] = ()
    phases: tuple[PhaseChanged, ...] = ()
    notices: tuple[str, ...] = ()
    offload: str = ""
    last_error: str = ""


@dataclass(frozen=True, slots=True)
class FlowRow(Message):
    """One flow. Times are Unix seconds or -1 for "not yet"; durations are seconds or -1; ``up`` is towards the cluster."""

    flow: int
    protocol: str
    src: str
    sport: int
    dst: str
    dport: int
    name: str  # the name that was resolved to dst, or empty
    state: str
    opened_at: float
    closed_at: float
    connect: float  # SYN to OPENED: the far dial and one tunnel round trip
    first_byte: float  # OPENED to the first byte from the cluster
    bytes_up: int
    bytes_down: int
    packets_up: int
    packets_down: int
    reason: str  # why it closed, empty while open


@dataclass(frozen=True, slots=True)
class FlowTable(Message):
    """A consistent copy of the flow table, taken at ``taken_at`` (Unix seconds). Closed flows are kept, bounded."""

    taken_at: float
    rows: tuple[FlowRow, ...]
    drops: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RouteTable(Message):
    """All routes of ours."""

    rows: tuple[RouteRow, ...]


# --- datapath → netd ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NetdReady(Message):
    """netd's first message, sent unasked: it is root, nothing is changed yet."""

    version: int
    pid: int


@dataclass(frozen=True, slots=True)
class OpenVif(Message):
    """Make the TUN. Once only. Answered with :class:`VifOpened`, the descriptor rides along (SCM_RIGHTS)."""

    version: int
    mtu: int


@dataclass(frozen=True, slots=True)
class VifOpened(Message):
    """The TUN is there and still down. ``offload``: the TUN_F_* bits the kernel took."""

    name: str
    index: int
    offload: int
    vnet_hdr: int  # bytes before each packet


@dataclass(frozen=True, slots=True)
class RouteSpec(Message):
    """A route to the VIF."""

    cidr: str
    mtu: int = 0


@dataclass(frozen=True, slots=True)
class Configure(Message):
    """The whole wanted configuration; netd makes the difference. Answered with :class:`Done`.

    ``addresses`` are host addresses with a prefix ("198.19.255.1/32").
    """

    addresses: tuple[str, ...]
    routes: tuple[RouteSpec, ...]


@dataclass(frozen=True, slots=True)
class SetDns(Message):
    """Point the host's resolver at us. Once only. Answered with :class:`DnsSet`.

    ``mechanism``: auto, resolvconf or none.
    """

    mechanism: str
    nameserver: str
    search: tuple[str, ...]
    ndots: int = 1


@dataclass(frozen=True, slots=True)
class DnsSet(Message):
    """Which mechanism is in force, and which nameservers the host used before (for names that are not ours)."""

    mechanism: str
    upstreams: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Undo(Message):
    """Take everything back and exit. Answered with :class:`Done`. EOF means the same without an answer."""


# --- codec -------------------------------------------------------------------------------------------------------


def _registry() -> dict[str, type[Message]]:
    return {cls.__name__: cls for cls in Message.__subclasses__()}


@cache
def _hints(cls: type[Message]) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _to_json(value: object) -> object:
    if isinstance(value, Message):
        return {f.name: _to_json(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, tuple):
        return [_to_json(item) for item in value]
    return value


def _from_json(value: object, hint: Any, where: str) -> Any:  # noqa: ANN401  # the hint decides the type
    origin = typing.get_origin(hint)
    if origin is tuple:
        if not isinstance(value, list):
            raise ControlError(f"{where} must be a list")
        item = typing.get_args(hint)[0]
        return tuple(_from_json(v, item, f"{where}[{i}]") for i, v in enumerate(value))
    if origin is dict:
        item = typing.get_args(hint)[1]
        if not isinstance(value, dict):
            raise ControlError(f"{where} must be an object")
        return {k: _from_json(v, item, f"{where}[{k!r:.40}]") for k, v in value.items()}
    if isinstance(hint, type) and issubclass(hint, Message):
        return _build(hint, value, where)
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:  # exact: True is no int here
        raise ControlError(f"{where} must be {hint.__name__}")
    return value


def _build(cls: type[Message], body: object, where: str) -> Message:
    if not isinstance(body, dict):
        raise ControlError(f"{where} must be an object")
    hints = _hints(cls)
    unknown = body.keys() - hints.keys()
    if unknown:
        raise ControlError(f"{where} has unknown field {min(unknown)!r:.40}")
    values = {name: _from_json(value, hints[name], f"{where}.{name}") for name, value in body.items()}
    try:
        return cls(**values)
    except TypeError:
        raise ControlError(f"{where} lacks a field") from None


@dataclass(frozen=True, slots=True)
class Envelope:
    """A message with the number of the request it is or answers; 0 for events."""

    id: int
    body: Message


def encode(body: Message, request: int = 0) -> bytes:
    """Encode one message; `request` is the number of the request it is or answers."""
    doc = {"type": type(body).__name__, "id": request, "body": _to_json(body)}
    data = json.dumps(doc, separators=(",", ":"), allow_nan=False).encode()
    return _LENGTH.pack(len(data)) + data


def _refuse_constant(name: str) -> float:
    raise ControlError(f"{name} is no number here")


def _parse(data: bytes) -> Envelope:
    try:
        doc = json.loads(data, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):  # UnicodeDecodeError is a ValueError
        raise ControlError("a control message is not JSON") from None
    if not isinstance(doc, dict) or doc.keys() != {"type", "id", "body"}:
        raise ControlError("a control message needs exactly type, id and body")
    kind, number = doc["type"], doc["id"]
    if type(number) is not int or not 0 <= number < 2**32:
        raise ControlError("a control message's id must be a 32-bit number")
    cls = _registry().get(kind) if isinstance(kind, str) else None
    if cls is None:
        raise ControlError(f"unknown control message {kind!r:.40}")
    return Envelope(number, _build(cls, doc["body"], cls.__name__))


class Decoder:
    """Cuts a byte stream into messages. After it raised, the stream is broken: close the connection.

    Parameters
    ----------
    limit
        Longest message accepted, in bytes.
    """

    def __init__(self, limit: int = MAX_MESSAGE) -> None:
        self._limit = limit
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Envelope]:
        """Take bytes as they came and return the messages completed by them.

        Raises
        ------
        ControlError
            The bytes are no message, or one longer than the limit.
        """
        self._buffer += data
        out: list[Envelope] = []
        while len(self._buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer)
            if length > self._limit:
                raise ControlError(f"a control message of {length} bytes is over the limit of {self._limit}")
            end = _LENGTH.size + length
            if len(self._buffer) < end:
                break
            out.append(_parse(bytes(self._buffer[_LENGTH.size : end])))
            del self._buffer[:end]
        return out

    def at_boundary(self) -> bool:
        """Whether no message is half received: the only good moment for an EOF."""
        return not self._buffer
