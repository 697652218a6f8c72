"""The resolver's memory of the cluster's answers: bounded, short, and never longer than the cluster allows."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final, NamedTuple

from telehelper.core import dns_message as dns

if TYPE_CHECKING:
    from telehelper.core.dns_message import Name, Query, Record, Response

MAX_TTL: Final = 10  # seconds; pods move, and Kubernetes itself gives 5 to 30
MAX_NEGATIVE_TTL: Final = 2  # seconds; a service just created should appear
MAX_ANSWERS: Final = 2048  # overflow: the oldest goes

_Key = tuple["Name", int, int, int, bytes]


class _Kept(NamedTuple):
    since: float
    until: float
    response: Response


def _with_ttl(records: tuple[Record, ...], most: int, age: int = 0) -> tuple[Record, ...]:
    # An OPT record has flags where others have their time to live.
    return tuple(r if r.rtype == dns.OPT else r._replace(ttl=max(min(r.ttl, most) - age, 0)) for r in records)


def is_denial(response: Response) -> bool:
    """Whether an answer says that there is no such name, or no such record of it."""
    wanted = response.question.qtype
    return response.rcode == dns.NXDOMAIN or not any(r.rtype == wanted for r in response.answers)


def shortened(response: Response) -> Response:
    """Cut the times to live to what we let anybody remember, the client's own cache too."""
    most = MAX_NEGATIVE_TTL if is_denial(response) else MAX_TTL
    return response._replace(
        answers=_with_ttl(response.answers, most),
        authorities=_with_ttl(response.authorities, most),
        additionals=_with_ttl(response.additionals, most),
    )


def time_to_live(response: Response) -> int:
    """Return for how many seconds an answer may be kept; 0 is not at all."""
    if response.flags & dns.TC:
        return 0
    if not is_denial(response):
        return min(MAX_TTL, *(r.ttl for r in response.answers))
    # A denial lives as long as its SOA says: the less of its own time to live and its last field. RFC 2308 §5.
    for record in response.authorities:
        tail = record.data[-1]
        if record.rtype == dns.SOA and isinstance(tail, bytes) and len(tail) == 20:
            return min(MAX_NEGATIVE_TTL, record.ttl, int.from_bytes(tail[16:], "big"))
    return 0


class AnswerCache:
    """Answers by the name the cluster was asked for, so that short and full forms share them."""

    def __init__(self, limit: int = MAX_ANSWERS) -> None:
        self._limit = limit
        self._kept: OrderedDict[_Key, _Kept] = OrderedDict()

    @staticmethod
    def _key(query: Query, name: Name) -> _Key:
        question = query.question
        return name, question.qtype, question.qclass, query.flags, query.opt

    def keep(self, query: Query, name: Name, response: Response, now: float) -> None:
        """Remember the answer to `query` asked under `name`, if it may be."""
        ttl = time_to_live(response)
        if ttl <= 0:
            return
        key = self._key(query, name)
        self._kept.pop(key, None)
        self._kept[key] = _Kept(now, now + ttl, response)
        if len(self._kept) > self._limit:
            self._kept.popitem(last=False)

    def find(self, query: Query, name: Name, now: float) -> Response | None:
        """Return what is remembered, with its times to live aged."""
        key = self._key(query, name)
        kept = self._kept.get(key)
        if kept is None:
            return None
        if now >= kept.until:
            del self._kept[key]
            return None
        age, response = int(now - kept.since), kept.response
        return response._replace(
            answers=_with_ttl(response.answers, MAX_TTL, age),
            authorities=_with_ttl(response.authorities, MAX_TTL, age),
            additionals=_with_ttl(response.additionals, MAX_TTL, age),
        )

    def clear(self) -> None:
        """Forget everything."""
        self._kept.clear()

    def __len__(self) -> int:
        return len(self._kept)
