"""One question under way: whose word it is, and what each of those who wait is told."""

from __future__ import annotations

import dns.message
import dns.rcode
import dns.rrset
from telehelper.core import dns_message as codec
from telehelper.core.dns_actions import Action, Answer
from telehelper.core.dns_lookup import Lookup, Stage

FULL = codec.from_text("postgres.shop.svc.cluster.local")


def lookup(limits: dict[tuple[str, int], int] | None = None) -> Lookup:
    wire = dns.message.make_query("Postgres.shop", "A", id=9).to_wire()
    waiters = dict(limits or {("me", 1): 512})
    return Lookup(wire[2:], codec.parse_query(wire), waiters, [], upstream=False, asked=FULL)  # type: ignore[arg-type]


def response(count: int = 1) -> codec.Response:
    made = dns.message.make_response(dns.message.make_query(codec.to_text(FULL), "A", id=100))
    made.answer = [
        dns.rrset.from_text(codec.to_text(FULL) + ".", 5, "IN", "A", *(f"198.18.0.{i}" for i in range(count)))
    ]
    return codec.parse_response(made.to_wire())


def told(actions: list[Action]) -> dict[object, dns.message.Message]:
    return {a.client: dns.message.from_wire(a.data) for a in actions if isinstance(a, Answer)}


def test_who_has_the_last_word() -> None:
    it = lookup()
    assert it.source == "cluster"
    it.remembered = True
    assert it.source == "cache"
    it.stage = Stage.UPSTREAM
    assert it.source == "machine"


def test_the_clusters_answer_under_the_name_that_was_asked() -> None:
    it = lookup()
    renamed = it.renamed(response())
    assert codec.to_text(renamed.answers[0].owner) == "Postgres.shop"
    assert renamed.flags & codec.RA
    assert renamed.question.raw == it.query.question.raw


def test_each_gets_as_much_as_it_takes_under_its_own_number() -> None:
    it = lookup({("udp", 1): 512, ("tcp", 2): 65535})
    answers = told(it.answers(it.renamed(response(100))))
    assert {client: message.id for client, message in answers.items()} == {"udp": 1, "tcp": 2}
    assert len(answers["udp"].answer[0]) < 100 == len(answers["tcp"].answer[0])


def test_what_came_whole_goes_whole_to_those_who_take_it() -> None:
    it = lookup({("udp", 1): 512, ("tcp", 2): 65535})
    made = it.renamed(response(100))
    whole = codec.encode_response(made, 65535)
    (small, large) = it.answers(made, whole)
    assert isinstance(small, Answer)
    assert isinstance(large, Answer)
    assert len(small.data) <= 512
    assert large.data[2:] == whole[2:]


def test_failure_for_all() -> None:
    answers = told(lookup({("a", 1): 512, ("b", 2): 512}).failures())
    assert [message.rcode() for message in answers.values()] == [dns.rcode.SERVFAIL] * 2
