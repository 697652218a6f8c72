"""The resolver takes any bytes in any order: every client gets at most one answer per query, and nothing leaks."""

from __future__ import annotations

import itertools
from ipaddress import ip_network
from typing import TYPE_CHECKING

import dns.flags
import dns.message
import dns.rrset
from hypothesis import given, settings
from hypothesis import strategies as st
from telehelper.core import dns_message as codec
from telehelper.core.dns_actions import Action, Admit, Answer, AskCluster, AskUpstream, Drop, Forget
from telehelper.core.dns_policy import DnsPolicy
from telehelper.core.dns_resolver import Resolver

if TYPE_CHECKING:
    from telehelper.core.cidr import Address

POLICY = DnsPolicy("cluster.local", "shop", frozenset({"dev"}), (ip_network("198.18.0.0/16"),))
NAMES = ["postgres", "a.dev", "example.com", "x.shop.svc.cluster.local", "1.0.18.198.in-addr.arpa", "."]


@settings(deadline=None)
@given(st.binary(max_size=600), st.binary(max_size=600))
def test_any_bytes_give_actions(query: bytes, answer: bytes) -> None:
    resolver = Resolver(POLICY, upstreams=1, random_id=lambda: 7)
    for data in (query, b"\0\1\1\0\0\1\0\0\0\0\0\0" + query):
        for action in resolver.receive_query("me", data, 0.0):
            assert isinstance(action, Answer | AskCluster | AskUpstream | Drop)
    resolver.receive_query("me", dns.message.make_query("postgres", "A").to_wire(), 0.0)
    for data in (answer, b"\0\7\x80\0\0\1\0\1\0\0\0\0" + answer):
        resolver.receive_answer(7, data, 0.0)


class Run:
    """Drives a resolver and checks each action against what was asked."""

    def __init__(self, upstreams: int) -> None:
        counter = itertools.count(1)
        self.resolver = Resolver(POLICY, upstreams=upstreams, random_id=lambda: next(counter))
        self.now = 0.0
        self.owed: set[object] = set()
        self.open: dict[int, bytes] = {}
        self.upstream: set[int] = set()
        self.admitting: dict[int, tuple[Address, ...]] = {}
        self.clients = itertools.count()

    def perform(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Answer(client, data):
                    assert client in self.owed  # asked, and not yet answered
                    self.owed.remove(client)
                    assert codec.parse_response(data).id == 3
                case AskCluster(ident, data, _):
                    name = codec.to_text(codec.parse_query(data).question.name)
                    assert name.endswith((".cluster.local", ".18.198.in-addr.arpa"))
                    self.open[ident] = data
                case AskUpstream(ident, data, _):
                    assert b"cluster" not in data
                    self.open[ident] = data
                    self.upstream.add(ident)
                case Admit(ident, addresses):
                    assert addresses
                    self.admitting[ident] = addresses
                case Forget(ident) if ident in self.admitting:
                    del self.admitting[ident]
                case Forget(ident):
                    self.upstream.remove(ident)
                    del self.open[ident]
                case Drop(_):
                    pass

    def query(self, name: str) -> None:
        client = next(self.clients)
        self.owed.add(client)
        data = dns.message.make_query(name, "A", id=3).to_wire()
        self.perform(self.resolver.receive_query(client, data, self.now))

    def answer(self, pick: int, rcode: int) -> None:
        if self.open:
            ident = sorted(self.open)[pick % len(self.open)]
            made = dns.message.make_response(dns.message.from_wire(self.open[ident]))
            made.set_rcode(rcode)
            if rcode == 0:
                name = made.question[0].name.to_text()
                made.answer = [dns.rrset.from_text(name, 5, "IN", "A", f"198.18.0.{pick}", "127.0.0.1")]
                made.flags |= dns.flags.TC if pick == 3 else 0
            self.perform(self.resolver.receive_answer(ident, made.to_wire(), self.now))
            if ident not in self.upstream:
                self.open.pop(ident, None)

    def admit(self, pick: int, well: bool) -> None:
        if self.admitting:
            ident = sorted(self.admitting)[pick % len(self.admitting)]
            addresses = self.admitting.pop(ident)
            told = {address: address for address in addresses[pick % 2 :]}
            resolver = self.resolver
            self.perform(
                resolver.receive_admission(ident, told) if well else resolver.admission_failed(ident)
            )

    def pass_time(self) -> None:
        when = self.resolver.next_timer()
        if when is not None:
            self.now = max(self.now, when)
            self.perform(self.resolver.handle_timer(self.now))


steps = st.lists(
    st.one_of(
        st.tuples(st.just("query"), st.sampled_from(NAMES)),
        st.tuples(st.just("answer"), st.integers(0, 9), st.sampled_from([0, 2, 3, 5])),
        st.tuples(st.just("time")),
        st.tuples(st.just("admit"), st.integers(0, 9), st.booleans()),
        st.tuples(st.just("down")),
        st.tuples(st.just("up")),
        st.tuples(st.just("fail"), st.integers(0, 9)),
    ),
    max_size=40,
)


@settings(deadline=None)
@given(steps, st.integers(0, 3))
def test_every_query_is_answered_exactly_once_in_the_end(
    script: list[tuple[object, ...]], upstreams: int
) -> None:
    run = Run(upstreams)
    for step in script:
        match step:
            case ("query", str(name)):
                run.query(name)
            case ("answer", int(pick), int(rcode)):
                run.answer(pick, rcode)
            case ("time",):
                run.pass_time()
            case ("down",):
                run.resolver.tunnel_down(run.now)
            case ("up",):
                run.perform(run.resolver.tunnel_up(run.now))
            case ("admit", int(pick), bool(well)):
                run.admit(pick, well)
            case ("fail", int(pick)) if run.open:
                ident = sorted(run.open)[pick % len(run.open)]
                run.perform(run.resolver.upstream_failed(ident, run.now))
    for _ in range(200):
        run.pass_time()
    assert not run.owed
    assert not run.upstream
    assert run.resolver.next_timer() is None
