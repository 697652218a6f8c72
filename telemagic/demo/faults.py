"""What a demo cluster is told to do wrong, and how a request feels it. No I/O; each fault lasts until it is cleared.

==================  =================================================================================================
name                what happens
==================  =================================================================================================
api-stop            the API server listens no more, and its connections are cut
api-html            every request is answered with a web page, as a captive portal does
api-truncated       every JSON answer ends in its middle
websocket-refused   a proxy in the way refuses to upgrade connections
token-expired       the tokens in the kubeconfigs are not known any more
token-renewed       they are replaced by new ones, in the kubeconfigs and in the file `token`
forbid              nobody may do `verb` with `resource` (`*` for all)
manager-killed      the manager's process gets SIGKILL
pod-deleted         the pods of `app` are deleted
manager-frozen      the manager's process gets SIGSTOP, and SIGCONT when it is over
carriers-cut        all port-forwards are broken, those of the control connection and of carriers
carriers-frozen     nothing passes through them any more, new ones included, and nobody is told
carriers-slow       1 KB/s passes through each of them, either way
carriers-corrupt    each byte that passes becomes another one
carriers-dribble    bytes pass one by one
clear               all of it is over
==================  =================================================================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from telemagic.demo.passage import CORRUPT, CUT, DRIBBLE, FROZEN, SLOW, Passage
from telemagic.demo.rbac import refusal
from telemagic.demo.refusals import Refused, forbidden

if TYPE_CHECKING:
    from telemagic.demo.kinds import Target
    from telemagic.demo.rbac import Attributes, User

PASSAGE: Final = (FROZEN, SLOW, CORRUPT, DRIBBLE)
LASTING: Final = (
    *("api-stop", "api-html", "api-truncated", "websocket-refused", "token-expired", "forbid"),
    *("manager-frozen", *PASSAGE),
)
AT_ONCE: Final = ("token-renewed", "manager-killed", "pod-deleted", CUT)
NAMES: Final = (*LASTING, *AT_ONCE, "clear")
PAGE: Final = """\
<!DOCTYPE html>
<html><head><title>Sign in to the network</title></head>
<body><h1>Welcome</h1><p>Please accept the terms of use to continue.</p></body></html>
"""


@dataclass(frozen=True, slots=True)
class Forbidden:
    """What nobody may do."""

    verb: str
    resource: str


class Faults:
    """The faults of one API server.

    Attributes
    ----------
    page, truncated, no_upgrade
        Whether `api-html`, `api-truncated` and `websocket-refused` are on.
    expired
        Tokens that were known and are not any more.
    passage
        The way of port-forwards.
    """

    def __init__(self) -> None:
        self.page = False
        self.truncated = False
        self.no_upgrade = False
        self.expired: set[str] = set()
        self.passage = Passage()
        self._forbidden: set[Forbidden] = set()

    def forbid(self, verb: str, resource: str) -> None:
        """Let nobody do a verb with a resource, written with its subresource; either may be `*`."""
        self._forbidden.add(Forbidden(verb, resource))

    def allow(self, verb: str, resource: str) -> None:
        """Take back what :meth:`forbid` was told."""
        self._forbidden.discard(Forbidden(verb, resource))

    def clear(self) -> None:
        """End all of them."""
        self.page = self.truncated = self.no_upgrade = False
        self.expired.clear()
        self.passage.clear()
        self._forbidden.clear()

    def is_forbidden(self, asked: Attributes) -> bool:
        """Tell whether a request is one that nobody may make."""
        return any(
            Forbidden(verb, resource) in self._forbidden
            for verb in (asked.verb, "*")
            for resource in (asked.combined, "*")
        )

    def check(self, target: Target, asked: Attributes, user: User) -> None:
        """Refuse what nobody may do.

        Raises
        ------
        Refused
            403, as if no role allowed it.
        """
        if self.is_forbidden(asked):
            raise forbidden(target.kind, target.name, refusal(user, asked))

    def check_upgrade(self) -> None:
        """Refuse a WebSocket as a proxy that knows none does.

        Raises
        ------
        Refused
            502.
        """
        if self.no_upgrade:
            raise Refused(502, "BadGateway", "the proxy does not support upgrading connections")

    def shorten(self, body: bytes) -> bytes:
        """Return what of an answer gets through."""
        return body[: len(body) // 2] if self.truncated else body
