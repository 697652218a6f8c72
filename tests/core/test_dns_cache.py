"""What the resolver remembers, and for how long."""

from __future__ import annotations

import dns.message
import dns.rrset
from telehelper.core.dns_cache import AnswerCache, shortened, time_to_live
from telehelper.core.dns_message import TC, Name, Query, Response, parse_query, parse_response

NAME: Name = (b"db", b"shop")
SOA = "shop. {} IN SOA ns.shop. root.shop. 1 2 3 4 {}"


def answer(*texts: str, soa: str = "", rcode: int = 0, edns: bool = False) -> tuple[Query, Response]:
    query = dns.message.make_query("db.shop", "A", use_edns=edns)
    made = dns.message.make_response(query)
    made.set_rcode(rcode)
    made.answer = [dns.rrset.from_text(*text.split(" ", 4)) for text in texts]
    if soa:
        made.authority = [dns.rrset.from_text(*soa.split(" ", 4))]
    return parse_query(query.to_wire()), parse_response(made.to_wire())


def test_an_answer_lives_as_long_as_its_shortest_record() -> None:
    assert time_to_live(answer("db.shop. 9 IN CNAME x.", "x. 7 IN A 1.2.3.4")[1]) == 7
    assert time_to_live(answer("db.shop. 3600 IN A 1.2.3.4")[1]) == 10
    assert time_to_live(answer("db.shop. 0 IN A 1.2.3.4")[1]) == 0


def test_a_denial_lives_as_its_soa_says() -> None:
    assert time_to_live(answer(rcode=3, soa=SOA.format(30, 1))[1]) == 1
    assert time_to_live(answer(rcode=3, soa=SOA.format(1, 30))[1]) == 1
    assert time_to_live(answer(soa=SOA.format(30, 30))[1]) == 2
    assert time_to_live(answer("db.shop. 9 IN CNAME x.", soa=SOA.format(30, 30))[1]) == 2
    assert time_to_live(answer(rcode=3)[1]) == 0
    assert time_to_live(answer(rcode=3, soa="shop. 5 IN NS ns.shop.")[1]) == 0


def test_a_truncated_answer_is_not_kept() -> None:
    _, response = answer("db.shop. 5 IN A 1.2.3.4")
    assert time_to_live(response._replace(flags=response.flags | TC)) == 0


def test_the_clients_own_cache_is_kept_short_too_but_opt_is_no_time() -> None:
    _, response = answer("db.shop. 3600 IN A 1.2.3.4", edns=True)
    opt = response.additionals[0]._replace(ttl=0x8000)
    short = shortened(response._replace(additionals=(opt,)))
    assert short.answers[0].ttl == 10
    assert short.additionals[0].ttl == 0x8000
    assert shortened(answer(rcode=3, soa=SOA.format(30, 30))[1]).authorities[0].ttl == 2


def test_what_is_kept_ages_and_ends() -> None:
    cache = AnswerCache()
    query, response = answer("db.shop. 5 IN A 1.2.3.4")
    cache.keep(query, NAME, response, 100.0)
    assert cache.find(query, (b"other",), 100.0) is None
    found = cache.find(query, NAME, 102.5)
    assert found is not None
    assert found.answers[0].ttl == 3
    assert cache.find(query, NAME, 105.0) is None
    assert len(cache) == 0


def test_queries_with_other_options_do_not_share() -> None:
    cache = AnswerCache()
    query, response = answer("db.shop. 5 IN A 1.2.3.4")
    cache.keep(query, NAME, response, 0.0)
    assert cache.find(answer(edns=True)[0], NAME, 0.0) is None


def test_the_oldest_goes() -> None:
    cache = AnswerCache(limit=2)
    query, response = answer("db.shop. 5 IN A 1.2.3.4")
    for name in (b"a", b"b", b"a", b"c"):
        cache.keep(query, (name,), response, 0.0)
    assert [cache.find(query, (name,), 0.0) is not None for name in (b"a", b"b", b"c")] == [True, False, True]
    cache.clear()
    assert len(cache) == 0


def test_what_may_not_be_kept_is_not() -> None:
    cache = AnswerCache()
    query, response = answer(rcode=3)
    cache.keep(query, NAME, response, 0.0)
    assert len(cache) == 0
