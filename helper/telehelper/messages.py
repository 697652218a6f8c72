"""The vocabulary of the two control sockets: a message is a frozen dataclass of this module.

Two sockets speak it: kernel ↔ datapath (a Unix socket in a 0700 directory) and datapath ↔ netd (a socket pair that
is netd's standard input). :mod:`telehelper.codec` puts messages on the wire.

*Versions.* Parts of different versions say so before anything is changed; the first messages of each socket keep their
fields for ever, so that they can. (docs/versions.md has the remedies.)

===========================  =====================================  ================================================
parts                        what they compare                      if it differs
===========================  =====================================  ================================================
kernel, data plane           PROTOCOL_VERSION, in Hello, Welcome    ControlError; other notebooks are not disturbed
data plane, netd             PROTOCOL_VERSION, in NetdReady,        HelperLost
                             OpenVif
data plane, traffic manager  core.frames' version, in OpenSession   ManagerTooOld, unless both know an older one
                             and HELLO
any two                      the distribution's, but only to show   none: they go on
===========================  =====================================  ================================================
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from telehelper.errors import TelemagicError, from_wire

PROTOCOL_VERSION: Final = 5  # both sockets; the first message carries it, a mismatch ends the connection
# A field's metadata: its text, of some MiB, travels beside the JSON (see telehelper.codec). One such field in a message.
APART: Final = {"apart": True}
# Of each line on netd's stderr: by it one knows that netd ran, not only sudo
NETD_LOG_PREFIX: Final = "telemagic-netd: "

# Domains that no namespace's name may take away from the machine: the largest public ones, those of private networks
# (RFC 6762 appendix G, and the `internal` of cloud metadata), and RFC 6761's special ones with all reverse names.
NOT_OURS: Final = frozenset(
    """
    arpa com corp edu gov home in-addr.arpa int internal intranet ip6.arpa lan local localhost mil net org private
    """.split()  # noqa: SIM905  # a list of quoted words is unreadable
)


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
    mean the kubeconfig's own. ``cidrs``: the cluster's networks, instead of those that are found. ``on_conflict``:
    refuse, take, exclude or map. ``carrier``: portforward, or the URL of a manager's listener. ``via``: auto, manager
    or agentless. ``share``: other users of this machine may use the connection too. ``allow_wide``: ``cidrs`` and
    ``also_proxy`` may be wider than /8 (IPv4) and /16 (IPv6). On failure everything begun is undone and the data plane
    exits.
    """

    kubeconfig: str
    context: str
    namespace: str
    timeout: float
    manager_namespace: str = "telemagic"
    also_proxy: tuple[str, ...] = ()
    never_proxy: tuple[str, ...] = ()
    dns: str = "auto"
    carrier: str = "portforward"
    cidrs: tuple[str, ...] = ()
    on_conflict: str = "refuse"
    via: str = "auto"
    share: bool = False
    allow_wide: bool = False


# Fields of Connect that are the data plane's, and so the same for all notebooks that share it
SHARED_OPTIONS: Final = (
    "also_proxy",
    "never_proxy",
    "cidrs",
    "on_conflict",
    "carrier",
    "via",
    "share",
    "allow_wide",
)


@dataclass(frozen=True, slots=True)
class GetStatus(Message):
    """Answered with :class:`Status`."""


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
    """One route that we made, or would have made; or an address that a name led to.

    ``state``: applied; skipped or conflict (not routed, ``detail`` says why, ``device`` is whose it is then); resolved
    (an address routed because a name led there); mapped (names get another address, that row's or the next ones').
    """

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
    via: str  # manager or agentless
    manager: str  # namespace/pod, empty without one
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
    carrier: str = ""  # how carriers are opened: as in Connect
    address_v6: str = ""  # empty where the cluster, or this machine, has no IPv6
    domains: tuple[
        str, ...
    ] = ()  # names under these are the cluster's, and those without a dot; as in SetDns


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
    wide: bool = False  # the user's --allow-wide


@dataclass(frozen=True, slots=True)
class VifOpened(Message):
    """The TUN is there and still down. ``offload``: the TUN_F_* bits the kernel took."""

    name: str
    index: int
    offload: int
    vnet_hdr: int  # bytes before each packet
    origin: str = ""  # the directory that netd's code is in


@dataclass(frozen=True, slots=True)
class Configure(Message):
    """The whole wanted configuration; netd makes the difference. Answered with :class:`Done`.

    ``addresses`` are host addresses with a prefix ("198.19.255.1/32"), ``routes`` CIDRs that go to the VIF.
    """

    addresses: tuple[str, ...]
    routes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SetDns(Message):
    """Point the host's resolver at us. Answered with :class:`DnsSet`.

    ``mechanism``: auto, resolved, resolvconf or none. ``search``: all names for resolv.conf, the machine's own too; at
    most 6. ``domains``: what systemd-resolved sends to the link: search domains, and with ``~`` before them routing
    domains only.
    """

    mechanism: str
    nameserver: str
    search: tuple[str, ...]
    ndots: int = 1
    domains: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DnsSet(Message):
    """Which mechanism is in force: resolved, resolvconf or none."""

    mechanism: str


@dataclass(frozen=True, slots=True)
class Undo(Message):
    """Take everything back and exit. Answered with :class:`Done`. EOF means the same without an answer."""
