"""The resolver: queries of this machine in, questions to the cluster and to the machine's own DNS out; sans-IO.

Theory of operation
-------------------
A *lookup* is one question under way, with everybody who waits for it. It walks the names that
:class:`~telehelper.core.dns_policy.DnsPolicy` gives for it: each is asked of the cluster, NXDOMAIN leads to the next
name and, where the policy allows, to the machine's own DNS; any other answer ends the walk. The cluster's answer for
a longer name is given back under the name that was asked, without a CNAME in between.

- *Outage is SERVFAIL, never NXDOMAIN*, because programs (and glibc's search list) take NXDOMAIN as the truth. When the
  tunnel has just gone, questions wait RECONNECT_WAIT for it, so that what is run next works; when it stays away
  (OUTAGE), they fail at once. Silence of the cluster's DNS fails after two tries. No failure is remembered.
- *Admission.* Before a program gets an address of the cluster's, from memory or not, it is given to the shell to make
  it reachable (``Admit``); it comes back the same, as another one, or not at all, and then is left out: programs try
  IPv6 first, and would wait for an address that leads nowhere. An answer with none left has no data. If that fails
  or takes too long it is SERVFAIL. Addresses that no cluster has are left out before (:mod:`telehelper.core.dns_names`).
- *Memory.* The cluster's answers are kept for a few seconds (:mod:`telehelper.core.dns_cache`). Answers of the
  machine's own DNS pass through untouched. The addresses told are remembered in `names` for the flow table, and their
  PTR records are asked of the cluster under its own address.
- *Size.* An answer is cut to what its client takes, with TC set, and whole over TCP. One that the cluster's server cut
  is asked for again over TCP; if that fails, a part is better than nothing.
- *Bounds.* MAX_LOOKUPS under way (a further query is dropped: the client asks again), MAX_WAITERS on each,
  MAX_NAMES and MAX_ORIGINS remembered (the oldest goes).
- *Forgery.* Ids are random, each try at a server has its own; an answer must carry the id and the very question.
  What does not is dropped and the lookup goes on waiting. The shell adds a random source port.
- *Timers.* One per lookup: when to ask again, the next server, or give up.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from telehelper.core import dns_cache, dns_names
from telehelper.core import dns_message as dns
from telehelper.core.dns_actions import Action, Admit, Answer, AskCluster, AskUpstream, Drop, Ended, Forget
from telehelper.core.dns_cache import AnswerCache
from telehelper.core.dns_lookup import Lookup, Stage
from telehelper.core.dns_message import MessageError
from telehelper.core.dns_names import NameMemory, Origin
from telehelper.core.dns_policy import reverse_network

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    from telehelper.core.cidr import Address
    from telehelper.core.dns_message import Name, Query, Response
    from telehelper.core.dns_policy import DnsPolicy

CLUSTER_TIMEOUT: Final = 2.0  # seconds for one try; a tunnel round trip is well below one
CLUSTER_TRIES: Final = 2
RECONNECT_WAIT: Final = 2.0  # seconds a question waits for a tunnel that has just gone
OUTAGE: Final = 10.0  # seconds after which it has not just gone, and nobody waits for it any more
ADMISSION_TIMEOUT: Final = 3.0  # seconds; a route takes milliseconds
UPSTREAM_TIMEOUT: Final = 2.0  # seconds for one try; glibc's own is 5 s for all
UPSTREAM_TRIES: Final = 3  # at least one for each server, as glibc's attempts:2 over one to three servers
MAX_LOOKUPS: Final = 1024  # under way; overflow: drop
MAX_WAITERS: Final = 64  # for one lookup; overflow: drop

_TRY_NEXT: Final = frozenset(
    {dns.SERVFAIL, dns.NOTIMP, dns.REFUSED}
)  # upstream answers that another may better


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
        self._down_since: float | None = None
        self._by_key: dict[bytes, Lookup] = {}
        self._by_id: dict[int, Lookup] = {}
        self._cache = AnswerCache()
        self._memory = NameMemory()
        self._ended: deque[Ended] = deque(maxlen=MAX_LOOKUPS)

    @property
    def names(self) -> Mapping[Address, str]:
        """The name last resolved to each address, in the short form: ``postgres.shop``."""
        return self._memory.names

    @property
    def origins(self) -> Mapping[tuple[Name, int], Origin]:
        """Who answered each question last, by its name (in lower case) and type."""
        return self._memory.origins

    def take_ended(self) -> list[Ended]:
        """Hand over the news of lookups that are over since the last call; the oldest are lost if nobody calls."""
        taken = list(self._ended)
        self._ended.clear()
        return taken

    # --- inputs --------------------------------------------------------------------------------------------------

    def receive_query(self, client: Hashable, data: bytes, now: float, limit: int = 0) -> list[Action]:
        """Take a query; `client` comes back in the :class:`Answer`.

        Parameters
        ----------
        limit
            Bytes that the answer may have; 0 stands for UDP, where the query itself says it.
        """
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
        return self._look_up((client, query.id), limit or query.limit, data[2:], query, now)

    def receive_answer(self, ident: int, data: bytes, now: float) -> list[Action]:
        """Take an answer to the :class:`AskCluster` or :class:`AskUpstream` with this id."""
        lookup = self._by_id.get(ident)
        if lookup is None or lookup.stage not in (Stage.CLUSTER, Stage.UPSTREAM):
            return [Drop("dns: answer that nobody waits for")]
        try:
            response = dns.parse_response(data)
        except MessageError:
            return [Drop("dns: malformed answer")]
        asked, from_cluster = lookup.query.question, lookup.stage is Stage.CLUSTER
        expected = lookup.asked if from_cluster else asked.name
        if response.id != ident or response.question[:3] != (expected, asked.qtype, asked.qclass):
            return [Drop("dns: answer to another question")]
        if from_cluster:
            return self._take_cluster(lookup, response, now)
        return self._take_upstream(lookup, data, response, now)

    def receive_admission(self, ident: int, told: Mapping[Address, Address]) -> list[Action]:
        """Take what to tell programs for each address of the :class:`Admit` with this id; what is missing is left out."""
        lookup = self._by_id.get(ident)
        if lookup is None or lookup.stage is not Stage.ADMISSION or lookup.answer is None:
            return [Drop("dns: admission that nobody waits for")]
        domain = dns.from_text(self._policy.domain)
        self._memory.learn(self._policy.display(lookup.asked), lookup.answer, told, domain)
        response = lookup.renamed(dns_names.rewritten(lookup.answer, told))
        return self._answer(lookup, response, addresses=tuple(told.values()))

    def admission_failed(self, ident: int) -> list[Action]:
        """Take note that the addresses of the :class:`Admit` with this id could not be made reachable."""
        lookup = self._by_id.get(ident)
        if lookup is None or lookup.stage is not Stage.ADMISSION:
            return []
        return [
            Drop("dns: addresses could not be routed"),
            *self._fail(lookup, "its addresses could not be routed"),
        ]

    def cluster_failed(self, ident: int, now: float) -> list[Action]:
        """Take note that a query could not be put to the cluster over TCP; what was cut short is the answer then."""
        lookup = self._by_id.get(ident)
        if lookup is None or lookup.stage is not Stage.CLUSTER or not lookup.stream:
            return []
        return self._give_up(lookup, now)

    def upstream_failed(self, ident: int, now: float) -> list[Action]:
        """Take note that an upstream query could not be sent or was refused; the next server is tried at once."""
        lookup = self._by_id.get(ident)
        if lookup is None or lookup.stage is not Stage.UPSTREAM:
            return []
        return self._ask_upstream(lookup, now)

    def handle_timer(self, now: float) -> list[Action]:
        """Ask again or give up where `next_timer` has passed."""
        actions: list[Action] = []
        for lookup in [lookup for lookup in self._by_key.values() if lookup.deadline <= now]:
            match lookup.stage:
                case Stage.UPSTREAM:
                    actions += self._ask_upstream(lookup, now)
                case Stage.CLUSTER if lookup.tries < CLUSTER_TRIES:
                    actions += self._ask_cluster(lookup, now)
                case Stage.CLUSTER:
                    actions += self._give_up(lookup, now)
                case Stage.ADMISSION:
                    actions += [Forget(lookup.id), *self.admission_failed(lookup.id)]
                case _:
                    actions += self._fail(lookup, "the tunnel is down")
        return actions

    def next_timer(self) -> float | None:
        """Return when to call `handle_timer`, None if nothing is under way."""
        return min((lookup.deadline for lookup in self._by_key.values()), default=None)

    def tunnel_down(self, now: float) -> None:
        """Let what asks the cluster wait a little, and then fail; nothing the cluster said is kept."""
        if self._down_since is None:
            self._down_since = now
        self._cache.clear()
        for lookup in self._by_key.values():
            if lookup.stage is Stage.CLUSTER:
                self._pause(lookup, now)

    def tunnel_up(self, now: float) -> list[Action]:
        """Ask the cluster again from now on, first of all what has waited."""
        self._down_since = None
        waiting = [lookup for lookup in self._by_key.values() if lookup.stage is Stage.TUNNEL]
        return [action for lookup in waiting for action in self._ask_cluster(lookup, now)]

    def set_upstreams(self, count: int) -> None:
        """Ask so many nameservers of the machine's own from now on."""
        self._upstreams = count

    def set_policy(self, policy: DnsPolicy) -> None:
        """Decide by another policy from now on; what is under way goes on by the old one."""
        self._policy = policy

    # --- a lookup's way ------------------------------------------------------------------------------------------

    def _look_up(
        self, waiter: tuple[Hashable, int], limit: int, key: bytes, query: Query, now: float
    ) -> list[Action]:
        lookup = self._by_key.get(key)  # everything but the id: whoever asks the same gets the same
        if lookup is not None:
            if len(lookup.waiters) >= MAX_WAITERS:
                return [Drop("dns: too many clients wait for one name")]
            lookup.waiters[waiter] = limit
            return []
        if len(self._by_key) >= MAX_LOOKUPS:
            return [Drop("dns: too many lookups under way")]
        names, upstream = self._decide(query.question.name)
        lookup = Lookup(key, query, {waiter: limit}, list(names), upstream, now)
        self._by_key[key] = lookup
        return self._advance(lookup, now)

    def _decide(self, name: Name) -> tuple[tuple[Name, ...], bool]:
        """Decide whom to ask; for a told address's reverse name, the cluster by its own address."""
        network = reverse_network(name)
        if network is not None and network.num_addresses == 1:
            original = self._memory.original(network.network_address)
            if original is not None:
                return (dns_names.reverse_name(original),), False
        return self._policy.decide(name)

    def _advance(self, lookup: Lookup, now: float) -> list[Action]:
        """Go on to the next name or server, or end."""
        while lookup.names:
            lookup.asked = lookup.names.pop(0)
            kept = self._cache.find(lookup.query, lookup.asked, now)
            if kept is None:
                lookup.tries, lookup.stream, lookup.remembered = 0, False, False
                return self._ask_cluster(lookup, now)
            lookup.remembered = True
            if kept.rcode != dns.NXDOMAIN:
                return self._finish(lookup, kept, now)
            lookup.denial = lookup.renamed(kept)
        if lookup.upstream and self._upstreams:
            lookup.tries = 0
            return self._ask_upstream(lookup, now)
        if lookup.denial is not None:
            return self._answer(lookup, lookup.denial)
        return self._fail(lookup)  # nobody was asked

    def _ask_cluster(self, lookup: Lookup, now: float) -> list[Action]:
        if self._down_since is not None:
            if now - self._down_since >= OUTAGE:
                return self._fail(lookup, "the tunnel is down")
            self._pause(lookup, now)
            return []
        lookup.stage = Stage.CLUSTER
        if not lookup.tries:
            self._new_id(lookup)
            lookup.data = dns.encode_query(lookup.id, lookup.query, lookup.asked)
        lookup.tries += 1
        lookup.deadline = now + CLUSTER_TIMEOUT
        return [AskCluster(lookup.id, lookup.data, lookup.stream)]

    @staticmethod
    def _pause(lookup: Lookup, now: float) -> None:
        lookup.stage, lookup.tries, lookup.stream = Stage.TUNNEL, 0, False
        lookup.answer = None
        lookup.deadline = now + RECONNECT_WAIT

    def _give_up(self, lookup: Lookup, now: float) -> list[Action]:
        """End a lookup that the cluster does not answer."""
        if lookup.answer is not None:
            return self._finish(lookup, lookup.answer, now)
        return self._fail(lookup, "the cluster's DNS server does not answer")

    def _ask_upstream(self, lookup: Lookup, now: float) -> list[Action]:
        """Ask the next server of the machine's own; each once, and all as often as UPSTREAM_TRIES allows."""
        over: list[Action] = [Forget(lookup.id)] if lookup.tries else []
        if lookup.tries >= max(UPSTREAM_TRIES, self._upstreams) or not self._upstreams:
            return [*over, *self._fail(lookup)]
        lookup.stage = Stage.UPSTREAM
        self._new_id(lookup)
        server = lookup.tries % self._upstreams
        lookup.tries += 1
        lookup.deadline = now + UPSTREAM_TIMEOUT
        return [*over, AskUpstream(lookup.id, lookup.id.to_bytes(2, "big") + lookup.key, server)]

    def _take_cluster(self, lookup: Lookup, response: Response, now: float) -> list[Action]:
        if response.rcode not in (dns.NOERROR, dns.NXDOMAIN):
            return self._fail(lookup, f"the cluster's DNS server fails, with code {response.rcode}")
        response = dns_cache.shortened(response)
        if response.flags & dns.TC and not lookup.stream:
            lookup.answer, lookup.stream, lookup.tries = response, True, 0
            return self._ask_cluster(lookup, now)
        self._cache.keep(lookup.query, lookup.asked, response, now)
        if response.rcode == dns.NXDOMAIN:
            lookup.denial = lookup.renamed(response)
            return self._advance(lookup, now)
        return self._finish(lookup, response, now)

    def _take_upstream(self, lookup: Lookup, data: bytes, response: Response, now: float) -> list[Action]:
        if response.rcode in _TRY_NEXT and lookup.tries < self._upstreams:
            return self._ask_upstream(lookup, now)
        return [Forget(lookup.id), *self._answer(lookup, response, data)]

    def _finish(self, lookup: Lookup, response: Response, now: float) -> list[Action]:
        """Answer with the cluster's word, once the addresses in it can be reached."""
        if not dns_names.has_addresses(response):
            return self._answer(lookup, lookup.renamed(response))
        addresses = dns_names.addresses(response)
        if not addresses:
            unfit = Drop("dns: answer with nothing but addresses that no cluster has")
            return [unfit, *self._answer(lookup, lookup.renamed(dns_names.rewritten(response, {})))]
        self._new_id(lookup)
        lookup.stage, lookup.answer = Stage.ADMISSION, response
        lookup.deadline = now + ADMISSION_TIMEOUT
        return [Admit(lookup.id, addresses)]

    def _answer(
        self, lookup: Lookup, response: Response, whole: bytes = b"", addresses: tuple[Address, ...] = ()
    ) -> list[Action]:
        denied = response.rcode == dns.NXDOMAIN and self._policy.names_service(lookup.asked)
        self._remove(lookup, lookup.source, addresses, "no such name" if denied else "")
        return lookup.answers(response, whole)

    def _fail(self, lookup: Lookup, why: str = "") -> list[Action]:
        """End a lookup without an answer; `why`, if that is the cluster's doing or the tunnel's."""
        self._remove(lookup, "nobody", (), why)
        return lookup.failures()

    def _new_id(self, lookup: Lookup) -> None:
        self._free_id(lookup)
        ident = self._random_id() & 0xFFFF
        while ident in self._by_id:  # at most MAX_LOOKUPS of 65,536 are taken: this ends with any good source
            ident = (ident + 1) & 0xFFFF
        lookup.id = ident
        self._by_id[ident] = lookup

    def _remove(self, lookup: Lookup, source: str, addresses: tuple[Address, ...], failure: str) -> None:
        question = lookup.query.question
        if addresses or failure:
            shown = self._policy.display(lookup.asked)
            self._ended.append(Ended(lookup.started, shown, addresses, failure))
        origin = Origin(source, question.name if source == "machine" else lookup.asked or question.name)
        self._memory.note(question.name, question.qtype, origin)
        del self._by_key[lookup.key]
        self._free_id(lookup)

    def _free_id(self, lookup: Lookup) -> None:
        if self._by_id.get(lookup.id) is lookup:
            del self._by_id[lookup.id]
