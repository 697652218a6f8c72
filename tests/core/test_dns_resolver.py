"""The resolver as transcripts: queries in, actions out."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
from telehelper.core import dns_message, dns_resolver
from telehelper.core.dns_actions import Action, Admit, Answer, AskCluster, AskUpstream, Drop, Ended, Forget
from telehelper.core.dns_names import Origin
from telehelper.core.dns_policy import DnsPolicy
from telehelper.core.dns_resolver import Resolver

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

ROUTED = (ip_network("198.18.0.0/16"), ip_network("fd12::/48"))
POLICY = DnsPolicy("cluster.local", "shop", frozenset({"shop", "dev", "svc"}), ROUTED)
SOA = "cluster.local. 30 IN SOA ns.dns.cluster.local. h.cluster.local. 1 2 3 4 5"


def numbers() -> Callable[[], int]:
    it = iter(range(100, 100000))
    return lambda: next(it)


def make(upstreams: int = 1) -> Resolver:
    return Resolver(POLICY, upstreams=upstreams, random_id=numbers())


def ask(name: str, rtype: str = "A", ident: int = 1, **options: int) -> bytes:
    return dns.message.make_query(name, rtype, id=ident, **options).to_wire()


def reply(query: bytes, *texts: str, rcode: int = 0, soa: str = "") -> bytes:
    made = dns.message.make_response(dns.message.from_wire(query))
    made.set_rcode(rcode)
    made.answer = [dns.rrset.from_text(*text.split(" ", 4)) for text in texts]
    if soa:
        made.authority = [dns.rrset.from_text(*soa.split(" ", 4))]
    return made.to_wire()


def only(actions: list[Action]) -> Action:
    assert len(actions) == 1, actions
    return actions[0]


def to_cluster(actions: list[Action]) -> AskCluster:
    action = actions[-1]
    assert isinstance(action, AskCluster)
    return action


def to_upstream(actions: list[Action]) -> AskUpstream:
    action = actions[-1]
    assert isinstance(action, AskUpstream)
    return action


def let_in(resolver: Resolver, actions: list[Action]) -> list[Action]:
    """Admit all addresses as they are, as where everything is routed already."""
    action = only(actions)
    assert isinstance(action, Admit)
    return resolver.receive_admission(action.id, {address: address for address in action.addresses})


def tell(resolver: Resolver, asked: AskCluster, *texts: str, now: float = 0.1) -> list[Action]:
    """Answer with addresses, and admit them."""
    return let_in(resolver, resolver.receive_answer(asked.id, reply(asked.data, *texts), now))


def question(data: bytes) -> str:
    return dns.message.from_wire(data).question[0].name.to_text()


def answered(actions: list[Action]) -> dns.message.Message:
    action = actions[-1]
    assert isinstance(action, Answer)
    return dns.message.from_wire(action.data)


def rcode(actions: list[Action]) -> str:
    return dns.rcode.to_text(answered(actions).rcode())


# --- the cluster's names -----------------------------------------------------------------------------------------


def test_a_short_name_is_asked_in_full_and_answered_short() -> None:
    resolver = make()
    asked = to_cluster(resolver.receive_query("me", ask("Postgres.shop"), 0.0))
    assert (asked.id, question(asked.data)) == (100, "postgres.shop.svc.cluster.local.")
    assert resolver.next_timer() == 2.0
    actions = tell(resolver, asked, f"{question(asked.data)} 30 IN A 198.18.0.9")
    action = only(actions)
    assert isinstance(action, Answer)
    assert action.client == "me"
    message = answered(actions)
    assert message.id == 1
    assert message.question[0].to_text() == "Postgres.shop. IN A"
    assert [rrset.to_text() for rrset in message.answer] == ["Postgres.shop. 10 IN A 198.18.0.9"]
    assert message.flags & dns.flags.RA
    assert message.flags & dns.flags.RD
    assert resolver.next_timer() is None
    assert resolver.names == {ip_address("198.18.0.9"): "postgres.shop"}


def test_the_second_client_is_answered_from_memory_whatever_form_it_uses() -> None:
    resolver = make()
    asked = to_cluster(resolver.receive_query("me", ask("postgres"), 0.0))
    tell(resolver, asked, f"{question(asked.data)} 5 IN A 198.18.0.9")
    for name in ("postgres", "postgres.shop", "postgres.shop.svc", "postgres.shop.svc.cluster.local"):
        message = answered(let_in(resolver, resolver.receive_query("you", ask(name, ident=7), 2.2)))
        assert message.id == 7
        assert message.answer[0].to_text() == f"{name}. 3 IN A 198.18.0.9"
    assert to_cluster(resolver.receive_query("you", ask("postgres"), 5.2))


def test_no_such_record_is_passed_on_quickly_and_kept() -> None:
    resolver = make()
    asked = to_cluster(resolver.receive_query("me", ask("postgres", "AAAA"), 0.0))
    message = answered(resolver.receive_answer(asked.id, reply(asked.data, soa=SOA), 0.1))
    assert (message.rcode(), message.answer) == (dns.rcode.NOERROR, [])
    assert message.authority[0].ttl == 2
    assert rcode(resolver.receive_query("me", ask("postgres", "AAAA"), 2.0)) == "NOERROR"
    assert to_cluster(resolver.receive_query("me", ask("postgres", "AAAA"), 2.2))


def test_a_name_without_a_dot_never_goes_upstream() -> None:
    resolver = make()
    asked = to_cluster(resolver.receive_query("me", ask("nosuch"), 0.0))
    assert rcode(resolver.receive_answer(asked.id, reply(asked.data, rcode=3, soa=SOA), 0.1)) == "NXDOMAIN"
    assert rcode(resolver.receive_query("me", ask("nosuch"), 0.2)) == "NXDOMAIN"


def test_several_names_are_asked_in_order() -> None:
    resolver = make()
    first = to_cluster(resolver.receive_query("me", ask("web.svc"), 0.0))
    second = to_cluster(resolver.receive_answer(first.id, reply(first.data, rcode=3), 0.1))
    assert (question(first.data), question(second.data)) == (
        "web.svc.cluster.local.",
        "web.svc.svc.cluster.local.",
    )
    assert first.id != second.id
    message = answered(tell(resolver, second, f"{question(second.data)} 5 IN A 198.18.0.3"))
    assert message.answer[0].name.to_text() == "web.svc."


def test_srv_leads_to_names_not_addresses() -> None:
    resolver = make()
    asked = to_cluster(resolver.receive_query("me", ask("_pg._tcp.postgres.shop", "SRV"), 0.0))
    full = question(asked.data)
    target = "postgres.shop.svc.cluster.local."
    message = answered(
        tell(resolver, asked, f"{full} 5 IN SRV 0 100 5432 {target}", f"{target} 5 IN AAAA fd12::1")
    )
    assert message.answer[0].to_text() == f"_pg._tcp.postgres.shop. 5 IN SRV 0 100 5432 {target}"
    assert resolver.names == {}


def test_an_address_of_another_length_is_nobodys() -> None:
    resolver = make()
    asked = to_cluster(resolver.receive_query("me", ask("postgres", "AAAA"), 0.0))
    full = question(asked.data)
    wire = reply(asked.data, f"{full} 5 IN AAAA fd12::1", f"{full} 5 IN A 198.18.0.9")
    let_in(resolver, resolver.receive_answer(asked.id, wire[:-6] + b"\0\2" + wire[-2:], 0.1))
    assert resolver.names == {ip_address("fd12::1"): "postgres.shop"}
    asked = to_cluster(resolver.receive_query("me", ask("catalog"), 0.0))
    wire = reply(asked.data, f"{question(asked.data)} 5 IN A 198.18.0.9")
    resolver.receive_answer(asked.id, wire[:-6] + b"\0\2" + wire[-2:], 0.1)
    assert len(resolver.names) == 1


def test_reverse_names_of_the_cluster() -> None:
    resolver = make()
    asked = to_cluster(resolver.receive_query("me", ask("9.0.18.198.in-addr.arpa", "PTR"), 0.0))
    wire = reply(asked.data, "9.0.18.198.in-addr.arpa. 5 IN PTR postgres.shop.svc.cluster.local.")
    assert answered(resolver.receive_answer(asked.id, wire, 0.1)).answer
    assert to_upstream(resolver.receive_query("me", ask("8.8.8.8.in-addr.arpa", "PTR"), 0.0))


# --- the machine's own names -------------------------------------------------------------------------------------


def test_everything_else_passes_untouched_but_for_the_id() -> None:
    resolver = make()
    query = ask("Example.com", "TXT", ident=77, use_edns=0, payload=1400)
    asked = to_upstream(resolver.receive_query("me", query, 0.0))
    assert asked == AskUpstream(100, (100).to_bytes(2, "big") + query[2:], 0)
    wire = reply(asked.data, "Example.com. 86400 IN TXT hello")
    actions = resolver.receive_answer(100, wire, 0.1)
    assert actions == [Forget(100), Answer("me", (77).to_bytes(2, "big") + wire[2:])]
    assert resolver.names == {}


def test_a_public_name_that_looks_like_a_services_goes_on_upstream_after_nxdomain() -> None:
    resolver = make()
    asked = to_cluster(resolver.receive_query("me", ask("foo.dev"), 0.0))
    onward = to_upstream(resolver.receive_answer(asked.id, reply(asked.data, rcode=3, soa=SOA), 0.1))
    assert question(onward.data) == "foo.dev."
    assert onward.id != asked.id
    wire = reply(onward.data, "foo.dev. 60 IN A 203.0.113.1")
    assert answered(resolver.receive_answer(onward.id, wire, 0.2)).answer
    # The cluster's denial is remembered: straight upstream the next time.
    assert to_upstream(resolver.receive_query("me", ask("foo.dev"), 0.3))


def test_without_upstream_the_clusters_denial_is_the_answer_and_strangers_fail() -> None:
    resolver = make(upstreams=0)
    asked = to_cluster(resolver.receive_query("me", ask("foo.dev"), 0.0))
    message = answered(resolver.receive_answer(asked.id, reply(asked.data, rcode=3, soa=SOA), 0.1))
    assert (message.rcode(), message.question[0].name.to_text()) == (dns.rcode.NXDOMAIN, "foo.dev.")
    assert rcode(resolver.receive_query("me", ask("example.com"), 0.0)) == "SERVFAIL"


def test_upstream_servers_take_turns_until_all_have_had_their_tries() -> None:
    resolver = make(upstreams=2)
    first = to_upstream(resolver.receive_query("me", ask("example.com"), 0.0))
    assert (first.server, resolver.next_timer()) == (0, 2.0)
    actions = resolver.handle_timer(2.0)
    assert actions[0] == Forget(first.id)
    second = to_upstream(actions)
    assert (second.server, second.id != first.id) == (1, True)
    third = to_upstream(resolver.upstream_failed(second.id, 2.5))
    assert third.server == 0
    actions = resolver.handle_timer(4.5)
    assert actions[0] == Forget(third.id)
    assert rcode(actions) == "SERVFAIL"
    assert resolver.upstream_failed(third.id, 4.6) == []
    assert resolver.next_timer() is None


def test_a_refusing_server_is_passed_over_but_the_last_ones_word_counts() -> None:
    resolver = make(upstreams=2)
    first = to_upstream(resolver.receive_query("me", ask("example.com"), 0.0))
    second = to_upstream(resolver.receive_answer(first.id, reply(first.data, rcode=5), 0.1))
    assert second.server == 1
    assert rcode(resolver.receive_answer(second.id, reply(second.data, rcode=5), 0.2)) == "REFUSED"


def test_an_answer_too_long_for_the_client_is_cut() -> None:
    resolver = make()
    asked = to_upstream(resolver.receive_query("me", ask("example.com", "TXT"), 0.0))
    wire = reply(asked.data, *(f"example.com. 5 IN TXT {'x' * 200}{i}" for i in range(5)))
    message = answered(resolver.receive_answer(asked.id, wire, 0.1))
    assert message.flags & dns.flags.TC
    assert len(message.to_wire()) <= 512


# --- trouble -----------------------------------------------------------------------------------------------------


def test_a_silent_cluster_is_asked_twice_and_then_it_is_servfail() -> None:
    resolver = make()
    first = to_cluster(resolver.receive_query("me", ask("postgres.shop"), 0.0))
    assert resolver.handle_timer(1.9) == []
    assert only(resolver.handle_timer(2.0)) == first
    assert resolver.next_timer() == 4.0
    assert rcode(resolver.handle_timer(4.0)) == "SERVFAIL"
    # Nothing of that is remembered, and a late answer is nobody's.
    assert only(resolver.receive_answer(first.id, reply(first.data), 4.1)) == Drop(
        "dns: answer that nobody waits for"
    )
    assert to_cluster(resolver.receive_query("me", ask("postgres.shop"), 4.2))


def test_a_failing_cluster_never_sends_its_names_to_strangers() -> None:
    resolver = make()
    asked = to_cluster(resolver.receive_query("me", ask("postgres.dev"), 0.0))
    assert rcode(resolver.receive_answer(asked.id, reply(asked.data, rcode=2), 0.1)) == "SERVFAIL"


def test_a_tunnel_just_gone_is_waited_for_and_what_was_known_is_forgotten() -> None:
    resolver = make()
    known = to_cluster(resolver.receive_query("me", ask("postgres"), 0.0))
    tell(resolver, known, f"{question(known.data)} 5 IN A 198.18.0.9")
    before = to_cluster(resolver.receive_query("me", ask("catalog.shop"), 0.2))
    outside = to_upstream(resolver.receive_query("me", ask("example.com"), 0.2))
    resolver.tunnel_down(0.5)
    assert resolver.receive_query("me", ask("postgres"), 1.0) == []
    assert resolver.next_timer() == 2.2  # the machine's own server
    assert only(resolver.receive_answer(before.id, reply(before.data), 1.0)) == Drop(
        "dns: answer that nobody waits for"
    )
    assert answered(resolver.receive_answer(outside.id, reply(outside.data), 1.0))
    again = resolver.tunnel_up(1.5)
    assert [question(to_cluster([one]).data) for one in again] == [
        "catalog.shop.svc.cluster.local.",
        "postgres.shop.svc.cluster.local.",
    ]
    assert resolver.next_timer() == 3.5
    asked = to_cluster(again)
    assert answered(tell(resolver, asked, f"{question(asked.data)} 5 IN A 198.18.0.8")).answer


def test_a_tunnel_that_stays_away_is_servfail_and_soon_at_once() -> None:
    resolver = make()
    resolver.receive_query("me", ask("catalog"), 0.0)
    resolver.tunnel_down(0.5)
    resolver.tunnel_down(2.0)  # it tried, and failed again
    assert resolver.next_timer() == 2.5
    assert rcode(resolver.handle_timer(2.5)) == "SERVFAIL"
    assert resolver.receive_query("me", ask("postgres"), 10.4) == []
    assert rcode(resolver.handle_timer(12.4)) == "SERVFAIL"
    assert rcode(resolver.receive_query("me", ask("postgres"), 10.5)) == "SERVFAIL"
    resolver.tunnel_up(20.0)
    assert to_cluster(resolver.receive_query("me", ask("postgres"), 20.0))


# --- admission ---------------------------------------------------------------------------------------------------


def pending(resolver: Resolver, *texts: str, name: str = "postgres", rtype: str = "A") -> Admit:
    asked = to_cluster(resolver.receive_query("me", ask(name, rtype), 0.0))
    full = question(asked.data)
    action = only(resolver.receive_answer(asked.id, reply(asked.data, *(f"{full} {t}" for t in texts)), 0.1))
    assert isinstance(action, Admit)
    return action


def test_an_address_is_told_as_another_and_its_reverse_name_is_the_clusters() -> None:
    resolver = make()
    admit = pending(resolver, "5 IN A 10.0.0.9")
    theirs, ours = ip_address("10.0.0.9"), ip_address("198.19.0.4")
    assert admit.addresses == (theirs,)
    message = answered(resolver.receive_admission(admit.id, {theirs: ours}))
    assert message.answer[0].to_text() == "postgres. 5 IN A 198.19.0.4"
    assert resolver.names == {theirs: "postgres.shop", ours: "postgres.shop"}
    asked = to_cluster(resolver.receive_query("me", ask("4.0.19.198.in-addr.arpa", "PTR"), 0.2))
    assert question(asked.data) == "9.0.0.10.in-addr.arpa."
    wire = reply(asked.data, "9.0.0.10.in-addr.arpa. 5 IN PTR postgres.shop.svc.cluster.local.")
    message = answered(resolver.receive_answer(asked.id, wire, 0.3))
    assert message.answer[0].to_text() == "4.0.19.198.in-addr.arpa. 5 IN PTR postgres.shop.svc.cluster.local."


def test_addresses_that_are_not_admitted_are_left_out() -> None:
    resolver = make()
    admit = pending(resolver, "5 IN A 198.18.0.1", "5 IN A 198.18.0.2")
    kept = admit.addresses[1]
    message = answered(resolver.receive_admission(admit.id, {kept: kept}))
    assert message.answer[0].to_text() == "postgres. 5 IN A 198.18.0.2"
    assert resolver.names == {kept: "postgres.shop"}


def test_an_answer_with_no_address_left_has_no_data() -> None:
    resolver = make()
    admit = pending(resolver, "5 IN AAAA fd99::1", rtype="AAAA")
    message = answered(resolver.receive_admission(admit.id, {}))
    assert (message.rcode(), message.answer) == (dns.rcode.NOERROR, [])
    assert resolver.names == {}


def test_the_addresses_behind_a_cname_are_admitted() -> None:
    resolver = make()
    asked = to_cluster(resolver.receive_query("me", ask("db.shop"), 0.0))
    far = "db.example.com."
    wire = reply(asked.data, f"{question(asked.data)} 5 IN CNAME {far}", f"{far} 5 IN A 203.0.113.9")
    admit = only(resolver.receive_answer(asked.id, wire, 0.1))
    assert isinstance(admit, Admit)
    assert admit.addresses == (ip_address("203.0.113.9"),)
    message = answered(resolver.receive_admission(admit.id, {a: a for a in admit.addresses}))
    assert [rrset.to_text() for rrset in message.answer] == [
        f"db.shop. 5 IN CNAME {far}",
        f"{far} 5 IN A 203.0.113.9",
    ]
    # A stranger's address: the cluster does not get its reverse name.
    assert to_upstream(resolver.receive_query("me", ask("9.113.0.203.in-addr.arpa", "PTR"), 0.2))


def test_an_answer_from_memory_is_admitted_again() -> None:
    resolver = make()
    admit = pending(resolver, "5 IN A 198.18.0.9")
    assert rcode(resolver.admission_failed(admit.id)) == "SERVFAIL"
    again = only(resolver.receive_query("me", ask("postgres.shop"), 0.2))
    assert isinstance(again, Admit)
    assert again.addresses == admit.addresses
    assert again.id != admit.id


def test_failed_admission_is_counted() -> None:
    resolver = make()
    admit = pending(resolver, "5 IN A 198.18.0.9")
    assert resolver.admission_failed(admit.id)[0] == Drop("dns: addresses could not be routed")
    assert resolver.admission_failed(admit.id) == []
    assert only(resolver.receive_admission(admit.id, {})) == Drop("dns: admission that nobody waits for")


def test_admission_that_takes_too_long_is_given_up() -> None:
    resolver = make()
    admit = pending(resolver, "5 IN A 198.18.0.9")
    assert resolver.next_timer() == 0.1 + dns_resolver.ADMISSION_TIMEOUT
    actions = resolver.handle_timer(0.1 + dns_resolver.ADMISSION_TIMEOUT)
    assert actions[:2] == [Forget(admit.id), Drop("dns: addresses could not be routed")]
    assert rcode(actions) == "SERVFAIL"


def test_while_one_is_admitted_others_are_answered_and_late_answers_dropped() -> None:
    resolver = make()
    admit = pending(resolver, "5 IN A 198.18.0.9")
    assert only(resolver.receive_answer(admit.id, b"", 0.2)) == Drop("dns: answer that nobody waits for")
    other = to_cluster(resolver.receive_query("me", ask("catalog"), 0.2))
    assert answered(tell(resolver, other, f"{question(other.data)} 5 IN A 198.18.0.8")).answer
    resolver.tunnel_down(0.3)  # its answer is here already
    assert answered(resolver.receive_admission(admit.id, {a: a for a in admit.addresses})).answer


def test_addresses_that_no_cluster_has_reach_nobody() -> None:
    resolver = make()
    admit = pending(resolver, "5 IN A 127.0.0.1", "5 IN A 169.254.169.254", "5 IN A 198.18.0.9")
    assert [str(address) for address in admit.addresses] == ["198.18.0.9"]
    message = answered(resolver.receive_admission(admit.id, {a: a for a in admit.addresses}))
    assert [item.to_text() for item in message.answer[0]] == ["198.18.0.9"]
    asked = to_cluster(resolver.receive_query("me", ask("bad"), 0.2))
    actions = resolver.receive_answer(
        asked.id, reply(asked.data, f"{question(asked.data)} 5 IN A 127.0.0.1"), 0.3
    )
    assert actions[0] == Drop("dns: answer with nothing but addresses that no cluster has")
    assert answered(actions).answer == []


# --- size --------------------------------------------------------------------------------------------------------


def truncated(query: bytes, *texts: str) -> bytes:
    wire = bytearray(reply(query, *texts))
    wire[2] |= dns_message.TC >> 8
    return bytes(wire)


def test_an_answer_cut_by_the_cluster_is_asked_for_over_tcp() -> None:
    resolver = make()
    asked = to_cluster(resolver.receive_query("me", ask("many"), 0.0))
    assert not asked.stream
    full = question(asked.data)
    again = to_cluster(
        resolver.receive_answer(asked.id, truncated(asked.data, f"{full} 5 IN A 198.18.0.1"), 0.1)
    )
    assert again.stream
    assert again.id != asked.id
    every = [f"{full} 5 IN A 198.18.1.{i}" for i in range(100)]
    message = answered(tell(resolver, again, *every))
    assert message.flags & dns.flags.TC
    assert len(message.to_wire()) <= 512
    whole = answered(let_in(resolver, resolver.receive_query("you", ask("many"), 0.2, limit=65535)))
    assert not whole.flags & dns.flags.TC
    assert len(whole.answer[0]) == 100


def test_a_cut_answer_is_better_than_none() -> None:
    resolver = make()
    asked = to_cluster(resolver.receive_query("me", ask("many"), 0.0))
    cut = truncated(asked.data, f"{question(asked.data)} 5 IN A 198.18.0.1")
    again = to_cluster(resolver.receive_answer(asked.id, cut, 0.1))
    assert resolver.cluster_failed(asked.id, 0.2) == []
    message = answered(let_in(resolver, resolver.cluster_failed(again.id, 0.2)))
    assert message.flags & dns.flags.TC
    assert message.answer[0][0].to_text() == "198.18.0.1"
    # Silence over TCP comes to the same; and nothing cut is remembered.
    asked = to_cluster(resolver.receive_query("me", ask("many"), 1.0))
    cut = truncated(asked.data, f"{question(asked.data)} 5 IN A 198.18.0.1")
    resolver.receive_answer(asked.id, cut, 1.0)
    resolver.handle_timer(3.0)
    assert answered(let_in(resolver, resolver.handle_timer(5.0))).answer


def test_each_client_of_one_question_gets_what_it_takes() -> None:
    resolver = make()
    query = ask("many", "TXT")
    asked = to_cluster(resolver.receive_query("udp", query, 0.0))
    assert resolver.receive_query("tcp", query, 0.0, limit=65535) == []
    full = question(asked.data)
    wire = reply(asked.data, *(f"{full} 5 IN TXT {'x' * 200}{i}" for i in range(5)))
    sizes = {
        a.client: len(a.data) for a in resolver.receive_answer(asked.id, wire, 0.1) if isinstance(a, Answer)
    }
    assert sizes["udp"] <= 512 < sizes["tcp"]


# --- who said so -------------------------------------------------------------------------------------------------


def test_who_answered_is_remembered() -> None:
    resolver = make()
    short, full = dns_message.from_text("postgres"), dns_message.from_text("postgres.shop.svc.cluster.local")
    asked = to_cluster(resolver.receive_query("me", ask("postgres"), 0.0))
    tell(resolver, asked, f"{question(asked.data)} 5 IN A 198.18.0.9")
    assert resolver.origins[short, 1] == Origin("cluster", full)
    let_in(resolver, resolver.receive_query("me", ask("postgres"), 0.2))
    assert resolver.origins[short, 1] == Origin("cache", full)
    outside = to_upstream(resolver.receive_query("me", ask("example.com"), 0.2))
    resolver.receive_answer(outside.id, reply(outside.data), 0.3)
    public = dns_message.from_text("example.com")
    assert resolver.origins[public, 1] == Origin("machine", public)
    resolver.tunnel_down(0.5)
    resolver.receive_query("me", ask("catalog"), 100.0)
    assert resolver.origins[dns_message.from_text("catalog"), 1].source == "nobody"


def test_lookups_that_led_somewhere_or_should_have_are_told_once() -> None:
    resolver = make()
    there = ip_address("198.18.0.9")
    asked = to_cluster(resolver.receive_query("me", ask("postgres"), 1.0))
    assert resolver.take_ended() == []
    tell(resolver, asked, f"{question(asked.data)} 30 IN A {there}", now=1.5)
    assert resolver.take_ended() == [Ended(1.0, "postgres.shop", (there,))]
    let_in(resolver, resolver.receive_query("you", ask("postgres.shop"), 2.0))
    assert resolver.take_ended() == [Ended(2.0, "postgres.shop", (there,))]
    to_upstream(resolver.receive_query("me", ask("example.com"), 3.0))
    resolver.upstream_failed(resolver.receive_query("me", ask("example.org"), 3.0)[0].id, 3.0)  # type: ignore[union-attr]
    assert resolver.take_ended() == []


def test_denied_names_of_services_are_told_and_no_others() -> None:
    resolver = make(upstreams=0)
    for name, told in (
        ("nosuch", ["nosuch.shop"]),
        ("nosuch.dev", ["nosuch.dev"]),
        ("example.com.shop.svc.cluster.local", []),
    ):
        asked = to_cluster(resolver.receive_query("me", ask(name), 0.0))
        resolver.receive_answer(asked.id, reply(asked.data, rcode=3, soa=SOA), 0.1)
        ended = resolver.take_ended()
        assert [(each.name, each.failure) for each in ended] == [(name, "no such name") for name in told]


def test_a_denial_counts_whoever_repeats_it() -> None:
    resolver = make()
    asked = to_cluster(resolver.receive_query("me", ask("nosuch.dev"), 0.0))
    upstream = to_upstream(resolver.receive_answer(asked.id, reply(asked.data, rcode=3, soa=SOA), 0.1))
    resolver.receive_answer(upstream.id, reply(upstream.data, rcode=3), 0.2)
    assert resolver.take_ended() == [Ended(0.0, "nosuch.dev", (), "no such name")]


def test_failures_say_why() -> None:
    def why(fail: Callable[[Resolver, AskCluster], object]) -> list[str]:
        resolver = make(upstreams=0)
        fail(resolver, to_cluster(resolver.receive_query("me", ask("postgres"), 0.0)))
        return [ended.failure for ended in resolver.take_ended()]

    def admission(resolver: Resolver, asked: AskCluster) -> None:
        answer = reply(asked.data, f"{question(asked.data)} 30 IN A 198.18.0.9")
        resolver.admission_failed(resolver.receive_answer(asked.id, answer, 0.1)[0].id)  # type: ignore[union-attr]

    def silence(resolver: Resolver, _asked: AskCluster) -> None:
        resolver.handle_timer(2.0)
        resolver.handle_timer(4.0)

    def outage(resolver: Resolver, _asked: AskCluster) -> None:
        resolver.tunnel_down(0.1)
        resolver.handle_timer(2.1)

    assert why(admission) == ["its addresses could not be routed"]
    assert why(silence) == ["the cluster's DNS server does not answer"]
    assert why(outage) == ["the tunnel is down"]
    assert why(lambda it, asked: it.receive_answer(asked.id, reply(asked.data, rcode=2), 0.1)) == [
        "the cluster's DNS server fails, with code 2"
    ]


def test_clients_of_one_question_wait_together() -> None:
    resolver = make()
    asked = to_cluster(resolver.receive_query("me", ask("postgres", ident=1), 0.0))
    assert resolver.receive_query("me", ask("postgres", ident=1), 1.0) == []  # it asks again
    assert resolver.receive_query("you", ask("postgres", ident=2), 1.0) == []
    actions = resolver.receive_answer(asked.id, reply(asked.data), 1.1)
    assert [(a.client, a.data[:2]) for a in actions if isinstance(a, Answer)] == [
        ("me", b"\0\1"),
        ("you", b"\0\2"),
    ]


def test_a_forged_answer_is_dropped_and_the_lookup_waits_on() -> None:
    resolver = make()
    asked = to_cluster(resolver.receive_query("me", ask("postgres"), 0.0))
    true = reply(asked.data)
    for false in (b"\xff\xff" + true[2:], true.replace(b"postgres", b"postgras"), true[:-4] + b"\0\x1c\0\1"):
        assert only(resolver.receive_answer(asked.id, false, 0.1)) == Drop("dns: answer to another question")
    assert only(resolver.receive_answer(asked.id, true[:-1], 0.1)) == Drop("dns: malformed answer")
    assert only(resolver.receive_answer(asked.id, true[:11], 0.1)) == Drop("dns: malformed answer")
    assert rcode(resolver.receive_answer(asked.id, true, 0.2)) == "NOERROR"


def test_queries_that_are_none() -> None:
    resolver = make()
    good = ask("postgres", ident=5)
    assert only(resolver.receive_query("me", good[:11], 0.0)) == Drop("dns: query shorter than a header")
    assert only(resolver.receive_query("me", good + bytes(4096), 0.0)) == Drop("dns: query too long")
    assert only(resolver.receive_query("me", reply(good), 0.0)) == Drop("dns: answer to the resolver's port")
    assert rcode(resolver.receive_query("me", good[:2] + b"\x20\0" + good[4:], 0.0)) == "NOTIMP"
    assert rcode(resolver.receive_query("me", good[:-1], 0.0)) == "FORMERR"


def test_every_table_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns_resolver, "MAX_LOOKUPS", 2)
    monkeypatch.setattr(dns_resolver, "MAX_WAITERS", 2)
    resolver = make()
    asked = to_cluster(resolver.receive_query(1, ask("a"), 0.0))
    resolver.receive_query(2, ask("a"), 0.0)
    assert only(resolver.receive_query(3, ask("a"), 0.0)) == Drop("dns: too many clients wait for one name")
    resolver.receive_query(1, ask("b"), 0.0)
    assert only(resolver.receive_query(1, ask("c"), 0.0)) == Drop("dns: too many lookups under way")
    assert len(resolver.receive_answer(asked.id, reply(asked.data), 0.1)) == 2


def test_ids_are_never_shared() -> None:
    resolver = Resolver(POLICY, upstreams=1, random_id=lambda: 65535)
    first = to_cluster(resolver.receive_query("me", ask("a"), 0.0))
    second = to_cluster(resolver.receive_query("me", ask("b"), 0.0))
    assert (first.id, second.id) == (65535, 0)
    assert rcode(resolver.receive_answer(0, reply(second.data), 0.1)) == "NOERROR"
    assert rcode(resolver.receive_answer(65535, reply(first.data), 0.1)) == "NOERROR"


def test_other_nameservers_of_the_machine() -> None:
    resolver = make(upstreams=2)
    asked = to_upstream(resolver.receive_query("me", ask("example.com"), 0.0))
    resolver.set_upstreams(0)
    assert rcode(resolver.upstream_failed(asked.id, 0.1)) == "SERVFAIL"
    resolver.set_upstreams(1)
    assert to_upstream(resolver.receive_query("me", ask("example.com"), 0.2)).server == 0


def test_another_policy() -> None:
    resolver = make()
    resolver.set_policy(DnsPolicy("cluster.local", "other"))
    asked = to_cluster(resolver.receive_query("me", ask("postgres"), 0.0))
    assert question(asked.data) == "postgres.other.svc.cluster.local."
