"""Every error telemagic raises, as a tree.

::

    TelemagicError                  .hint: one line a user can act on; .slug: stable name for tests and docs
    ├── UsageError                  a bad %tele line
    ├── StateError                  NotConnected, AlreadyConnected
    ├── HelperError                 HelperMissing, SudoDenied, HelperRefused(reason), HelperLost
    ├── NetConfigError              CidrConflict(wanted, existing, device), VifError, ResolverError,
    │                               UndoIncomplete(left)
    ├── ClusterError                KubeconfigError, ApiServerUnavailable, CredentialsRefused,
    │                               ManagerUnavailable, ManagerUntrusted, ManagerTooOld, SessionExpired,
    │                               ConnectTimeout
    └── ProtocolError               never raised itself
        ├── RemoteProtocolError     they broke it: TunnelError, ControlError  (packets don't raise; they Drop)
        └── LocalProtocolError      we broke it: a bug, keep the traceback

Errors cross the control socket as ``(slug, message, hint, data)``; :func:`from_wire` makes the same type again on
the other side, so ``except CidrConflict`` works in a notebook whichever process found the conflict.
"""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, ClassVar, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

# What PyYAML raises for text that is no YAML, besides its own YAMLError: "!!int ''", "2026-13-45", "!!bool maybe"
BAD_YAML: Final = (ValueError, LookupError, AttributeError, TypeError, ArithmeticError, RecursionError)
_CONFLICTS_SHOWN: Final = 3  # in one message; people read no more


def printable(text: str) -> str:
    """Return text for people that cannot steer a terminal, or turn the direction of its line: such characters become visible.

    All text from a cluster goes through this before it is shown, logged, or becomes a value in a notebook.
    """
    return text if text.isprintable() else "".join(map(_visible, text))


def _visible(char: str) -> str:
    return char if char.isprintable() else char.encode("unicode_escape").decode()


class TelemagicError(Exception):
    """Base of all errors a user can meet.

    Parameters
    ----------
    message
        What is wrong and why, in one line; made printable, for much of it may have been said elsewhere.
    hint
        What to do about it, in one line. Empty when the class's own hint says it.
    data
        The facts behind the message, by name; also available as attributes' values in subclasses.
    """

    slug: ClassVar[str] = "error"
    default_hint: ClassVar[str] = ""
    is_bug: ClassVar[bool] = False  # ours: then the traceback matters

    def __init__(self, message: str, *, hint: str = "", **data: str) -> None:
        self.message = printable(message)
        super().__init__(self.message)
        self.hint = printable(hint) or self.default_hint
        self.data = data
        self._notes: list[str] = []

    def __str__(self) -> str:
        return self.message

    def add_note(self, note: str) -> None:
        """Add a line to tracebacks, as to any exception; the first is what to do."""
        self._notes.append(note)

    @property
    def __notes__(self) -> list[str]:  # type: ignore[override]  # made from the hint, which may be added to
        """What Python writes below the message in a script's traceback."""
        return [*([f"  try: {self.hint}"] if self.hint else []), *self._notes]

    def _render_traceback_(self) -> list[str]:
        """Show one or two lines in a notebook instead of a traceback (IPython's hook)."""
        return _look[0].lines(self)

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        """Show an error that is a cell's value (IPython's hook)."""
        return _look[0].bundle(self)

    def _repr_pretty_(self, printer: Printer, cycle: bool) -> None:
        """Show it in a terminal: for exceptions IPython has a text of its own, which this goes before."""
        printer.text(_look[0].bundle(self)["text/plain"])


class Printer(Protocol):
    """What this needs of IPython's pretty printer."""

    def text(self, text: str) -> None:
        """Write text."""


class Look(Protocol):
    """How errors show themselves in a notebook."""

    def lines(self, error: TelemagicError) -> list[str]:
        """Return what a cell shows where the error is raised."""

    def bundle(self, error: TelemagicError) -> dict[str, str]:
        """Return what shows an error that is a value, by MIME type."""


class PlainLook:
    """Plain text, for whoever knows nothing of notebooks."""

    def lines(self, error: TelemagicError) -> list[str]:
        """Return the error with its type and, if there is one, the remedy; of a bug the whole traceback."""
        if error.is_bug:
            return "".join(traceback.format_exception(error)).splitlines()
        name = f"{type(error).__name__}: {error.message}"
        return [name, f"  try: {error.hint}"] if error.hint else [name]

    def bundle(self, error: TelemagicError) -> dict[str, str]:
        """Return the same as one text."""
        return {"text/plain": "\n".join(self.lines(error))}


_look: list[Look] = [PlainLook()]


def use_look(look: Look) -> None:
    """Have errors show themselves in another way from now on."""
    _look[:] = [look]


class UsageError(TelemagicError):
    """The command line cannot be understood."""

    slug = "usage"


class StateError(TelemagicError):
    """The command does not fit the present state; never raised itself."""

    slug = "state"


class NotConnected(StateError):
    """There is no connection to ask."""

    slug = "not-connected"
    default_hint = "%tele connect"


class AlreadyConnected(StateError):
    """A connection to another cluster, or with other options, is there already."""

    slug = "already-connected"
    default_hint = "%tele disconnect first, or use %tele status to see it"


class HelperError(TelemagicError):
    """The helper (netd or datapath) cannot be started or has gone; never raised itself."""

    slug = "helper"


class HelperMissing(HelperError):
    """Something the helper needs is not on this machine: sudo, /dev/net/tun, a namespace."""

    slug = "helper-missing"


class SudoDenied(HelperError):
    """The password was refused or the prompt was cancelled."""

    slug = "sudo-denied"
    default_hint = "run the cell again and type your login password; an empty line cancels"


class HelperRefused(HelperError):
    """netd refused a request that it does not permit."""

    slug = "helper-refused"


class HelperLost(HelperError):
    """A helper process ended by itself or was killed."""

    slug = "helper-lost"
    default_hint = "%tele connect again"


class NetConfigError(TelemagicError):
    """The machine's network cannot be configured as wanted; never raised itself."""

    slug = "netconfig"


class CidrConflict(NetConfigError):
    """A CIDR of the cluster overlaps a route this machine already has. Nothing was changed."""

    slug = "cidr-conflict"

    @classmethod
    def of(cls, wanted: str, existing: str, device: str, *, what: str = "", why: str = "") -> CidrConflict:
        """Build the error from the two prefixes and who has the second.

        Parameters
        ----------
        wanted, existing, device
            The cluster's CIDR, the machine's, and the interface that has it.
        what
            What the interface is, for people: "a VPN".
        why
            Why the cluster cannot have the overlap; empty if it could.
        """
        facts = {"wanted": wanted, "existing": existing, "device": device, "what": what, "why": why}
        error = cls("", **{name: text for name, text in facts.items() if text})
        return cls.joined([error])

    @classmethod
    def joined(cls, conflicts: Sequence[CidrConflict]) -> CidrConflict:
        """Build one error of several: `data` is the first one's, the message has them all."""
        texts = [error.clash for error in conflicts]
        more = f"; and {len(texts) - _CONFLICTS_SHOWN} more" if len(texts) > _CONFLICTS_SHOWN else ""
        clashes = "; ".join(texts[:_CONFLICTS_SHOWN]) + more
        first = conflicts[0].data
        if first["existing"].endswith(("/0", "/1")):  # even the resolver's address would be out of reach
            hint = f"disconnect {first['device']}, or stop it from taking everything (an exit node?)"
        else:
            take = "" if any("why" in error.data for error in conflicts) else "take (the cluster gets it), "
            hint = (
                f"%tele connect --on-conflict map (names get other addresses), {take}or exclude (the overlap stays "
                f"as it is); or --never-proxy {first['existing']}; or disconnect {first['device']}"
            )
        return cls(f"the cluster's {clashes}; nothing was changed", hint=hint, **first)

    @property
    def clash(self) -> str:
        """What overlaps what, without more."""
        data = self.data
        what = f" ({data['what']})" if "what" in data else ""
        why = f", {data['why']}" if "why" in data else ""
        return f"{data['wanted']} overlaps {data['existing']} on {data['device']}{what}{why}"


class VifError(NetConfigError):
    """The TUN interface cannot be made or configured."""

    slug = "vif"


class ResolverError(NetConfigError):
    """The host's resolver cannot be pointed at the tunnel."""

    slug = "resolver"


class UndoIncomplete(NetConfigError):
    """Something of ours could not be taken back; `data["left"]` says what."""

    slug = "undo-incomplete"


class ClusterError(TelemagicError):
    """The cluster cannot be reached or used; never raised itself."""

    slug = "cluster"


class KubeconfigError(ClusterError):
    """The kubeconfig is missing, unreadable, malformed, or lacks the context."""

    slug = "kubeconfig"


class ApiServerUnavailable(ClusterError):
    """The API server does not answer."""

    slug = "api-server-unavailable"
    default_hint = "check VPN and address: kubectl cluster-info"


class CredentialsRefused(ClusterError):
    """The API server answers 401 or 403 to our credentials."""

    slug = "credentials-refused"
    default_hint = "log in again (kubectl get pods must work), or ask for the right named above"


class ManagerUnavailable(ClusterError):
    """There is no traffic manager in the cluster, or none is ready."""

    slug = "manager-unavailable"
    default_hint = (
        "%tele connect again; or look at it: kubectl get pods -A -l app.kubernetes.io/name=telemagic-manager"
    )


class ManagerUntrusted(ClusterError):
    """Who answers where carriers should go is not the traffic manager. It was told nothing, above all not the token."""

    slug = "manager-untrusted"
    default_hint = "something is between you and it (a proxy? a load balancer?): --carrier portforward"

    @classmethod
    def at(cls, host: str, port: int) -> ManagerUntrusted:
        """Build the error from where the wrong certificate was shown."""
        return cls(
            f"{host} port {port} is not the traffic manager: its certificate is not the one the manager named; "
            "nothing was sent to it"
        )


class ManagerTooOld(ClusterError):
    """The traffic manager speaks another version of the protocol, mostly an older one."""

    slug = "manager-too-old"
    default_hint = "%tele install brings the manager to this version; is it the newer one: pip install --upgrade telemagic"


class SessionExpired(ClusterError):
    """The traffic manager no longer knows our session."""

    slug = "session-expired"
    default_hint = "%tele connect again"


class ConnectTimeout(ClusterError, TimeoutError):
    """Connecting took longer than allowed; everything begun was undone."""

    slug = "connect-timeout"
    default_hint = "give it longer: %tele connect --timeout 60"


class ProtocolError(TelemagicError):
    """A rule of one of our protocols was broken; never raised itself."""

    slug = "protocol"


class RemoteProtocolError(ProtocolError):
    """The other side broke it."""

    slug = "remote-protocol"


class TunnelError(RemoteProtocolError):
    """A carrier delivered bytes that are no frames."""

    slug = "tunnel"


class ControlError(RemoteProtocolError):
    """A control socket delivered bytes that are no messages."""

    slug = "control"


class LocalProtocolError(ProtocolError):
    """We broke it: a bug of ours, so the traceback stays."""

    slug = "local-protocol"
    is_bug = True


def _tree(root: type[TelemagicError]) -> dict[str, type[TelemagicError]]:
    found = {root.slug: root}
    for child in root.__subclasses__():
        found |= _tree(child)
    return found


def from_wire(slug: str, message: str, hint: str, data: dict[str, str]) -> TelemagicError:
    """Make the error again that the other process raised.

    An unknown slug (the other side is newer) becomes a plain :class:`TelemagicError` with the same text.
    """
    cls = _tree(TelemagicError).get(slug, TelemagicError)
    return cls(message, hint=hint, **data)
