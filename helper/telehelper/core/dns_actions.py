"""What the resolver decides: the actions that :mod:`telehelper.core.dns_resolver` returns and a shell performs."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Hashable

    from telehelper.core.cidr import Address


class AskCluster(NamedTuple):
    """Send this query to the cluster's DNS server; over TCP if ``stream``, since its answer by UDP was cut short."""

    id: int
    data: bytes
    stream: bool = False


class AskUpstream(NamedTuple):
    """Send this query to the machine's former nameserver number ``server``; keep its answer apart by ``id``."""

    id: int
    data: bytes
    server: int


class Admit(NamedTuple):
    """Make these addresses of a cluster's answer reachable, and tell by `receive_admission` what became of them."""

    id: int
    addresses: tuple[Address, ...]


class Forget(NamedTuple):
    """The upstream query, or the admission, with this id is over: free what it holds."""

    id: int


class Answer(NamedTuple):
    """Send this answer to the client."""

    client: Hashable
    data: bytes


class Ended(NamedTuple):
    """A lookup is over. Not an action but news, see :meth:`~telehelper.core.dns_resolver.Resolver.take_ended`."""

    started: float  # in the clock that the resolver is given
    name: str  # as people know it
    addresses: tuple[Address, ...] = ()  # of the cluster, as told to programs
    failure: str = ""  # why there is no answer from the cluster for a name of the cluster's


class Drop(NamedTuple):
    """Something was ignored; count it."""

    reason: str


Action = AskCluster | AskUpstream | Admit | Forget | Answer | Drop
