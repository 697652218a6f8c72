"""The resolver: queries of this machine in, questions to the cluster and to the machine's own DNS out; sans-IO.

Theory of operation
-------------------
A *lookup* is one question under way, with everybody who waits for it. It walks the names that
:class:`~telehelper.core.dns_policy.DnsPolicy` gives for it: each is asked of the cluster, NXDOMAIN leads to the next
name and, where the policy allows, to the machine's own DNS; any other answer ends the walk. The cluster's answer for
a longer name is given back under the name that was asked, without a CNAME in between.

- *Outage is SERVFAIL, never NXDOMAIN*, because programs (and glibc's search list) take NXDOMAIN as the truth. A dead
  tunnel answers SERVFAIL at once, silence of the cluster's DNS after two tries. Neither is remembered.
- *Memory.* The cluster's answers are kept for a few seconds (:mod:`telehelper.core.dns_cache`). Answers of the
  machine's own DNS pass through untouched. The addresses in the cluster's answers are remembered in `names` for the
  flow table. What of an answer is `reachable` is decided when it is given, since routes may change meanwhile.
- *Bounds.* MAX_LOOKUPS under way (a further query is dropped: the client asks again), MAX_WAITERS on each,
  MAX_NAMES remembered (the oldest goes).
- *Forgery.* Ids are random, each try at a server has its own; an answer must carry the id and the very question.
  What does not is dropped and the lookup goes on waiting. The shell adds a random source port.
- *Timers.* One per lookup: when to ask again, the next server, or give up.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from ipaddress import ip_address
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

from telehelper.core import dns_cache
from telehelper.core import dns_message as dns
from telehelper.core.dns_cache import AnswerCache
from telehelper.core.dns_message import MessageError, Name, Query, Record, Response

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    from telehelper.core.cidr import Address
    from telehelper.core.dns_policy import DnsPolicy

CLUSTER_TIMEOUT: Final = 2.0  # seconds for one try; a tunnel round trip is well below one
CLUSTER_TRIES: Final = 2
UPSTREAM_TIMEOUT: Final = 2.0  # seconds for one try; glibc's own is 5 s for all
UPSTREAM_TRIES: Final = 3  # at least one for each server, as glibc's attempts:2 over one to three servers
MAX_LOOKUPS: Final = 1024  # under way; overflow: drop
MAX_WAITERS: Final = 64  # for one lookup; overflow: drop
MAX_NAMES: Final = 8192  # addresses; overflow: the oldest goes

_ADDRESS_SIZE: Final = {dns.A: 4, dns.AAAA: 16}  # bytes
_TRY_NEXT: Final = frozenset(
    {dns.SERVFAIL, dns.NOTIMP, dns.REFUSED}
)  # upstream answers that another may better


class AskCluster(NamedTuple):
    """Send this query to the cluster's DNS server."""

    id: int
    data: bytes


class AskUpstream(NamedTuple):
    """Send this query to the machine's former nameserver number ``server``; keep its answer apart by ``id``."""

    id: int
    data: bytes
    server: int


class Forget(NamedTuple):
    """The upstream query with this id is over: free what it holds."""

    id: int


class Answer(NamedTuple):
    """Send this answer to the client."""

    client: Hashable
    data: bytes


class Drop(NamedTuple):
    """Something was ignored; count it."""

    reason: str


Action = AskCluster | AskUpstream | Forget | Answer | Drop


@dataclass(slots=True)
class _Lookup:
    """One question under way."""

    key: bytes
    query: Query
    waiters: dict[tuple[Hashable, int], None]
    names: list[Name]  # still to ask the cluster for
    upstream: bool
    id: int = -1  # none before the first try
    asked: Name | None = None  # the name the cluster is being asked for; None: upstream is asked
    data: bytes = b""
    tries: int = 0
    deadline: float = 0.0
    denial: Response | None = None


class Resolver:
    """See the module's theory of operation.

    Parameters
    ----------
    policy
        Whose a name is; may be replaced any time with `set_policy`.
    upstreams
        How many former nameservers the machine has.
    random_id
        Returns unpredictable numbers of 16 bits.
    """

    def __init__(self, policy: DnsPolicy, *, upstreams: int, random_id: Callable[[], int]) -> None:
        self._policy = policy
        self._upstreams = upstreams
        self._random_id = random_id
        self._tunnel_up = True
        self._by_key: dict[bytes, _Lookup] = {}
        self._by_id: dict[int, _Lookup] = {}
        self._cache = AnswerCache()
        self._names: OrderedDict[Address, str] = OrderedDict()

    @property
    def names(self) -> Mapping[Address, str]:
        """The name last resolved to each address, in the short form: ``postgres.shop``."""
        return MappingProxyType(self._names)

    # --- inputs --------------------------------------------------------------------------------------------------

    def receive_query(self, client: Hashable, data: bytes, now: float) -> list[Action]:
        """Take a query; `client` comes back in the :class:`Answer`."""
        if len(data) < dns.HEADER.size:
            return [Drop("dns: query shorter than a header")]
        if len(data) > dns.MAX_PAYLOAD:
            return [Drop("dns: query too long")]
        flags = int.from_bytes(data[2:4], "big")
        if flags & dns.QR:  # never answer an answer: two such servers would never stop
            return [Drop("dns: answer to the resolver's port")]
        if flags & dns.OPCODE:
            return [Answer(client, dns.encode_failure(data, dns.NOTIMP))]
        try:
            query = dns.parse_query(data)
        except MessageError:
            return [Answer(client, dns.encode_failure(data, dns.FORMERR))]
        return self._look_up(client, data[2:], query, now)

    def receive_answer(self, ident: int, data: bytes, now: float) -> list[Action]:
        """Take an answer to the :class:`AskCluster` or :class:`AskUpstream` with this id."""
        lookup = self._by_id.get(ident)
        if lookup is None:
            return [Drop("dns: answer that nobody waits for")]
        try:
            response = dns.parse_response(data)
        except MessageError:
            return [Drop("dns: malformed answer")]
        asked = lookup.query.question
        expected = asked.name if lookup.asked is None else lookup.asked
        if response.id != ident or response.question[:3] != (expected, asked.qtype, asked.qclass):
            return [Drop("dns: answer to another question")]
        if lookup.asked is None:
            return self._take_upstream(lookup, data, response, now)
        return self._take_cluster(lookup, lookup.asked, response, now)

    def upstream_failed(self, ident: int, now: float) -> list[Action]:
        """Take note that an upstream query could not be sent or was refused; the next server is tried at once."""
        lookup = self._by_id.get(ident)
        if lookup is None or lookup.asked is not None:
            return []
        return self._ask_upstream(lookup, now)

    def handle_timer(self, now: float) -> list[Action]:
        """Ask again or give up where `next_timer` has passed."""
        actions: list[Action] = []
        for lookup in [lookup for lookup in self._by_key.values() if lookup.deadline <= now]:
            if lookup.asked is None:
                actions += self._ask_upstream(lookup, now)
            elif lookup.tries < CLUSTER_TRIES:
                actions += self._ask_cluster(lookup, lookup.asked, now)
            else:
                actions += self._fail(lookup)
        return actions

    def next_timer(self) -> float | None:
        """Return when to call `handle_timer`, None if nothing is under way."""
        return min((lookup.deadline for lookup in self._by_key.values()), default=None)

    def tunnel_down(self) -> list[Action]:
        """Fail what waits for the cluster, and from now on what would; nothing the cluster said is kept."""
        self._tunnel_up = False
        self._cache.clear()
        waiting = [lookup for lookup in self._by_key.values() if lookup.asked is not None]
        return [action for lookup in waiting for action in self._fail(lookup)]

    def tunnel_up(self) -> None:
        """Ask the cluster again from now on."""
        self._tunnel_up = True

    def set_policy(self, policy: DnsPolicy) -> None:
        """Decide by another policy from now on; what is under way goes on by the old one."""
        self._policy = policy

    # --- a lookup's way ------------------------------------------------------------------------------------------

    def _look_up(self, client: Hashable, key: bytes, query: Query, now: float) -> list[Action]:
        lookup = self._by_key.get(key)  # everything but the id: whoever asks the same gets the same
        if lookup is not None:
            if len(lookup.waiters) >= MAX_WAITERS:
                return [Drop("dns: too many clients wait for one name")]
            lookup.waiters[client, query.id] = None
            return []
        if len(self._by_key) >= MAX_LOOKUPS:
            return [Drop("dns: too many lookups under way")]
        names, upstream = self._policy.decide(query.question.name)
        lookup = _Lookup(key, query, {(client, query.id): None}, list(names), upstream)
        self._by_key[key] = lookup
        return self._advance(lookup, now)

    def _advance(self, lookup: _Lookup, now: float) -> list[Action]:
        """Go on to the next name or server, or end."""
        while lookup.names:
            name = lookup.names.pop(0)
            kept = self._cache.find(lookup.query, name, now)
            if kept is None:
                if not self._tunnel_up:
                    return self._fail(lookup)
                lookup.asked, lookup.tries = name, 0
                return self._ask_cluster(lookup, name, now)
            if kept.rcode != dns.NXDOMAIN:
                return self._finish(lookup, name, kept)
            lookup.denial = self._renamed(kept, lookup.query, name)
        if lookup.upstream and self._upstreams:
            lookup.asked, lookup.tries = None, 0
            return self._ask_upstream(lookup, now)
        if lookup.denial is not None:
            return self._answer(lookup, lookup.denial)
        return self._fail(lookup)

    def _ask_cluster(self, lookup: _Lookup, name: Name, now: float) -> list[Action]:
        if not lookup.tries:
            self._new_id(lookup)
            lookup.data = dns.encode_query(lookup.id, lookup.query, name)
        lookup.tries += 1
        lookup.deadline = now + CLUSTER_TIMEOUT
        return [AskCluster(lookup.id, lookup.data)]

    def _ask_upstream(self, lookup: _Lookup, now: float) -> list[Action]:
        """Ask the next server of the machine's own; each once, and all as often as UPSTREAM_TRIES allows."""
        over: list[Action] = [Forget(lookup.id)] if lookup.tries else []
        if lookup.tries >= max(UPSTREAM_TRIES, self._upstreams):
            return [*over, *self._fail(lookup)]
        self._new_id(lookup)
        server = lookup.tries % self._upstreams
        lookup.tries += 1
        lookup.deadline = now + UPSTREAM_TIMEOUT
        return [*over, AskUpstream(lookup.id, lookup.id.to_bytes(2, "big") + lookup.key, server)]

    def _take_cluster(self, lookup: _Lookup, name: Name, response: Response, now: float) -> list[Action]:
        if response.rcode not in (dns.NOERROR, dns.NXDOMAIN):
            return self._fail(lookup)
        response = dns_cache.shortened(response)
        self._cache.keep(lookup.query, name, response, now)
        if response.rcode == dns.NXDOMAIN:
            lookup.denial = self._renamed(response, lookup.query, name)
            return self._advance(lookup, now)
        return self._finish(lookup, name, response)

    def _take_upstream(self, lookup: _Lookup, data: bytes, response: Response, now: float) -> list[Action]:
        if response.rcode in _TRY_NEXT and lookup.tries < self._upstreams:
            return self._ask_upstream(lookup, now)
        limit = lookup.query.limit
        if len(data) > limit:
            data = dns.encode_response(response, limit)
        self._remove(lookup)
        answers = [Answer(c, ident.to_bytes(2, "big") + data[2:]) for c, ident in lookup.waiters]
        return [Forget(lookup.id), *answers]

    def _finish(self, lookup: _Lookup, name: Name, response: Response) -> list[Action]:
        response = self._policy.reachable(response)
        self._learn(name, response)
        return self._answer(lookup, self._renamed(response, lookup.query, name))

    def _answer(self, lookup: _Lookup, response: Response) -> list[Action]:
        self._remove(lookup)
        data = dns.encode_response(response, lookup.query.limit)
        return [Answer(client, ident.to_bytes(2, "big") + data[2:]) for client, ident in lookup.waiters]

    def _fail(self, lookup: _Lookup) -> list[Action]:
        self._remove(lookup)
        data = dns.encode_failure(b"\0\0" + lookup.key, dns.SERVFAIL)
        return [Answer(client, ident.to_bytes(2, "big") + data[2:]) for client, ident in lookup.waiters]

    def _new_id(self, lookup: _Lookup) -> None:
        self._free_id(lookup)
        ident = self._random_id() & 0xFFFF
        while ident in self._by_id:  # at most MAX_LOOKUPS of 65,536 are taken: this ends with any good source
            ident = (ident + 1) & 0xFFFF
        lookup.id = ident
        self._by_id[ident] = lookup

    def _remove(self, lookup: _Lookup) -> None:
        del self._by_key[lookup.key]
        self._free_id(lookup)

    def _free_id(self, lookup: _Lookup) -> None:
        if self._by_id.get(lookup.id) is lookup:
            del self._by_id[lookup.id]

    # --- what the cluster said -----------------------------------------------------------------------------------

    @staticmethod
    def _renamed(response: Response, query: Query, name: Name) -> Response:
        """Return the cluster's answer for `name` as the answer to `query`."""
        asked = query.question.asked

        def rename(records: tuple[Record, ...]) -> tuple[Record, ...]:
            return tuple(r._replace(owner=asked) if dns.lower(r.owner) == name else r for r in records)

        flags = response.flags & ~(dns.RD | dns.CD) | query.flags & (dns.RD | dns.CD) | dns.RA
        sections = (response.answers, response.authorities, response.additionals)
        return Response(0, flags, query.question, *(rename(records) for records in sections))

    def _learn(self, name: Name, response: Response) -> None:
        wanted = response.question.qtype
        for record in response.answers:
            data = record.data[0]
            if record.rtype == wanted in _ADDRESS_SIZE and len(data) == _ADDRESS_SIZE[wanted]:
                address = ip_address(bytes(data))  # type: ignore[arg-type]  # data of these types holds no name
                self._names.pop(address, None)
                self._names[address] = self._policy.display(name)
        while len(self._names) > MAX_NAMES:
            self._names.popitem(last=False)
