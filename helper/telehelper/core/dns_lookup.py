"""One question under way in the resolver, with everybody who waits for it."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

from telehelper.core import dns_message as dns
from telehelper.core.dns_actions import Answer

if TYPE_CHECKING:
    from collections.abc import Hashable

    from telehelper.core.dns_actions import Action
    from telehelper.core.dns_message import Name, Query, Record, Response


class Stage(enum.Enum):
    """What a lookup waits for."""

    CLUSTER = enum.auto()
    TUNNEL = enum.auto()
    ADMISSION = enum.auto()
    UPSTREAM = enum.auto()


@dataclass(slots=True)
class Lookup:
    """One question under way."""

    key: bytes
    query: Query
    waiters: dict[tuple[Hashable, int], int]  # to how many bytes each takes
    names: list[Name]  # still to ask the cluster for
    upstream: bool
    started: float = 0.0
    stage: Stage = Stage.CLUSTER
    id: int = -1  # none before the first try
    asked: Name = ()  # the name the cluster is, or was last, asked for
    data: bytes = b""
    stream: bool = False
    remembered: bool = False  # the answer is from memory
    tries: int = 0
    deadline: float = 0.0
    denial: Response | None = None
    answer: Response | None = None  # before admission, or cut short

    @property
    def source(self) -> str:
        """Who has the last word so far, as in :class:`~telehelper.core.dns_names.Origin`."""
        if self.stage is Stage.UPSTREAM:
            return "machine"
        return "cache" if self.remembered else "cluster"

    def renamed(self, response: Response) -> Response:
        """Return the cluster's answer for the name it was asked for as the answer to the query."""
        query, name = self.query, self.asked
        asked = query.question.asked

        def rename(records: tuple[Record, ...]) -> tuple[Record, ...]:
            return tuple(r._replace(owner=asked) if dns.lower(r.owner) == name else r for r in records)

        flags = response.flags & ~(dns.RD | dns.CD) | query.flags & (dns.RD | dns.CD) | dns.RA
        sections = (response.answers, response.authorities, response.additionals)
        return dns.Response(0, flags, query.question, *(rename(records) for records in sections))

    def answers(self, response: Response, whole: bytes = b"") -> list[Action]:
        """Answer everybody who waits, each with as much as it takes; `whole` is the response as it came, if it may go."""
        made: dict[int, bytes] = {}
        for limit in set(self.waiters.values()):
            fits = whole and len(whole) <= limit
            made[limit] = whole if fits else dns.encode_response(response, limit)
        return [
            Answer(client, ident.to_bytes(2, "big") + made[limit][2:])
            for (client, ident), limit in self.waiters.items()
        ]

    def failures(self) -> list[Action]:
        """Answer SERVFAIL to everybody who waits."""
        data = dns.encode_failure(b"\0\0" + self.key, dns.SERVFAIL)
        return [Answer(client, ident.to_bytes(2, "big") + data[2:]) for client, ident in self.waiters]
