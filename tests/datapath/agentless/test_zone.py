"""The cluster's names, as its own DNS server would answer them."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from telehelper.core import dns_message as dns
from telehelper.core.dns_cache import time_to_live
from telehelper.core.dns_message import MessageError, Question, Record, from_text, parse_response, to_text
from telehelper.datapath.agentless.zone import LARGEST, Zone, parse

from tests.datapath.agentless.builders import (
    dns_query,
    endpoint,
    endpoint_slice,
    index_of,
    pod,
    service,
    web_shop,
)

if TYPE_CHECKING:
    from telehelper.datapath.agentless.index import Index
    from telehelper.datapath.agentless.zone import Found

DOMAIN = "cluster.local"
TXT = 16


def ask(index: Index, name: str, qtype: int = dns.A) -> Found:
    labels = from_text(name)
    raw = bytearray()
    dns.write_name(labels, raw, None)
    return Zone(index, DOMAIN).find(
        Question(labels, qtype, 1, bytes(raw) + qtype.to_bytes(2, "big") + b"\0\1")
    )


def addresses(found: Found) -> list[str]:
    return [str(ip_address(bytes(r.data[0]))) for r in found.records if r.rtype in (dns.A, dns.AAAA)]  # type: ignore[arg-type]  # bytes of an address


def names(found: Found, rtype: int) -> list[str]:
    """The names that records of a type hold, SRV ones with their port before."""
    shown = []
    for record in found.records:
        if record.rtype == rtype:
            target = record.data[-1]
            assert isinstance(target, tuple)
            port = f"{int.from_bytes(record.data[0][4:], 'big')} " if rtype == dns.SRV else ""  # type: ignore[arg-type]  # its fixed part
            shown.append(port + to_text(target))
    return shown


def headless() -> Index:
    """``db`` before db-0 with a host name of its own, db-1 without, and one that is not ready."""
    endpoints = [
        endpoint("10.0.0.1", "db-0", hostname="db-0"),
        endpoint("10.0.0.2", "db-1"),
        endpoint("10.0.0.3", "db-2", hostname="db-2", ready=False),
    ]
    return index_of(
        services=[service("db")],
        slices=[endpoint_slice("db", *endpoints, port=5432)],
        pods=[pod("db-0", "10.0.0.1"), pod("db-1", "10.0.0.2")],
    )


# --- services ----------------------------------------------------------------------------------------------------


def test_a_service_has_its_cluster_addresses_by_family() -> None:
    index = index_of(services=[service("web", "10.96.0.1", "fd96::1")])
    assert addresses(ask(index, "web.shop.svc.cluster.local")) == ["10.96.0.1"]
    assert addresses(ask(index, "web.shop.svc.cluster.local", dns.AAAA)) == ["fd96::1"]


def test_names_are_compared_without_regard_to_case() -> None:
    assert addresses(ask(web_shop(), "WEB.Shop.SVC.Cluster.Local")) == ["10.96.0.1"]


@pytest.mark.parametrize("qtype", [dns.AAAA, dns.SRV, TXT, dns.PTR])
def test_a_service_has_no_records_of_other_types_and_still_is_there(qtype: int) -> None:
    assert ask(web_shop(), "web.shop.svc.cluster.local", qtype) == (dns.NOERROR, (), ())


@pytest.mark.parametrize(
    "name",
    [
        "nothing.shop.svc.cluster.local",
        "web.elsewhere.svc.cluster.local",
        "elsewhere.svc.cluster.local",
        "a.b.web.shop.svc.cluster.local",
        "web-0.web.shop.svc.cluster.local",
        "something.cluster.local",
        "x.y.cluster.local",
    ],
)
def test_what_is_not_there_is_denied(name: str) -> None:
    assert ask(web_shop(), name).rcode == dns.NXDOMAIN


@pytest.mark.parametrize(
    "name",
    ["cluster.local", "svc.cluster.local", "shop.svc.cluster.local", "_tcp.web.shop.svc.cluster.local"],
)
def test_a_name_between_others_is_there(name: str) -> None:
    assert ask(web_shop(), name) == (dns.NOERROR, (), ())


@pytest.mark.parametrize(
    "name",
    [
        "vault.bank.svc.cluster.local",
        "bank.svc.cluster.local",
        "_x._tcp.vault.bank.svc.cluster.local",
        "a.vault.bank.svc.cluster.local",
        "10-0-0-1.bank.pod.cluster.local",
        "a.b.bank.pod.cluster.local",
        "9.9.9.10.in-addr.arpa",
    ],
)
def test_of_what_may_not_be_seen_nothing_is_said(name: str) -> None:
    index = index_of(services=[service("web", "10.96.0.1")], namespaces=["shop"])
    assert ask(index, name) == (dns.SERVFAIL, (), ())
    assert ask(index, "nothing.shop.svc.cluster.local").rcode == dns.NXDOMAIN


def test_a_named_port_of_a_service_is_its_address_and_number() -> None:
    found = ask(web_shop(), "_http._tcp.web.shop.svc.cluster.local", dns.SRV)
    assert names(found, dns.SRV) == ["80 web.shop.svc.cluster.local"]
    assert ask(web_shop(), "_http._tcp.web.shop.svc.cluster.local") == (dns.NOERROR, (), ())


@pytest.mark.parametrize("port", ["_http._udp", "_https._tcp", "_80._tcp"])
def test_a_port_that_is_not_there_is_denied(port: str) -> None:
    assert ask(web_shop(), f"{port}.web.shop.svc.cluster.local", dns.SRV).rcode == dns.NXDOMAIN


# --- headless services and pods ----------------------------------------------------------------------------------


def test_a_headless_service_has_its_ready_endpoints() -> None:
    assert addresses(ask(headless(), "db.shop.svc.cluster.local")) == ["10.0.0.1", "10.0.0.2"]


def test_a_headless_service_without_endpoints_is_there() -> None:
    assert ask(index_of(services=[service("db")]), "db.shop.svc.cluster.local") == (dns.NOERROR, (), ())


def test_an_endpoint_is_found_by_its_host_name() -> None:
    assert addresses(ask(headless(), "db-0.db.shop.svc.cluster.local")) == ["10.0.0.1"]
    assert addresses(ask(headless(), "10-0-0-2.db.shop.svc.cluster.local")) == ["10.0.0.2"]
    assert ask(headless(), "db-2.db.shop.svc.cluster.local").rcode == dns.NXDOMAIN


def test_a_named_port_of_a_headless_service_is_at_each_endpoint() -> None:
    found = ask(headless(), "_http._tcp.db.shop.svc.cluster.local", dns.SRV)
    assert names(found, dns.SRV) == [
        "5432 db-0.db.shop.svc.cluster.local",
        "5432 10-0-0-2.db.shop.svc.cluster.local",
    ]


@pytest.mark.parametrize(
    ("name", "qtype"),
    [
        ("10-0-0-1.shop.pod.cluster.local", dns.A),
        ("fd00--1.shop.pod.cluster.local", dns.AAAA),
        ("fd00-0-0-0-0-0-0-1.shop.pod.cluster.local", dns.AAAA),
    ],
)
def test_a_pod_is_found_by_its_written_address(name: str, qtype: int) -> None:
    index = index_of(pods=[pod("web-0", "10.0.0.1", "fd00::1")])
    assert len(addresses(ask(index, name, qtype))) == 1


@pytest.mark.parametrize(
    "name", ["10-0-0-9.shop.pod", "10-0-0-1.bank.pod", "web-0.shop.pod", "1-2-3.shop.pod"]
)
def test_an_address_that_no_pod_of_the_namespace_has_is_denied(name: str) -> None:
    assert ask(web_shop(), f"{name}.cluster.local").rcode == dns.NXDOMAIN


# --- reverse names -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("1.0.96.10.in-addr.arpa", ["web.shop.svc.cluster.local"]),
        ("1.0.0.10.in-addr.arpa", []),
    ],
)
def test_an_address_has_the_name_of_its_service(name: str, expected: list[str]) -> None:
    found = ask(web_shop(1), name, dns.PTR)
    assert names(found, dns.PTR) == expected
    assert found.rcode == (dns.NOERROR if expected else dns.NXDOMAIN)


def test_an_endpoint_of_a_headless_service_has_a_name() -> None:
    found = ask(headless(), "1.0.0.10.in-addr.arpa", dns.PTR)
    assert names(found, dns.PTR) == ["db-0.db.shop.svc.cluster.local"]
    assert ask(headless(), "3.0.0.10.in-addr.arpa", dns.PTR).rcode == dns.NXDOMAIN
    assert ask(headless(), "1.0.0.10.in-addr.arpa").rcode == dns.NOERROR


def test_a_network_has_no_name() -> None:
    assert ask(web_shop(), "0.96.10.in-addr.arpa", dns.PTR).rcode == dns.NXDOMAIN


# --- aliases -----------------------------------------------------------------------------------------------------


def external(name: str, target: str) -> dict[str, object]:
    return service(name, type="ExternalName", externalName=target)


def test_an_external_name_is_an_alias_to_be_resolved_outside() -> None:
    found = ask(index_of(services=[external("db", "db.example.com")]), "db.shop.svc.cluster.local")
    assert names(found, dns.CNAME) == ["db.example.com"]
    assert to_text(found.outside) == "db.example.com"


def test_an_alias_of_a_service_is_followed() -> None:
    index = index_of(services=[external("db", "web.shop.svc.cluster.local"), service("web", "10.96.0.1")])
    found = ask(index, "db.shop.svc.cluster.local")
    assert names(found, dns.CNAME) == ["web.shop.svc.cluster.local"]
    assert addresses(found) == ["10.96.0.1"]
    assert not found.outside


def test_an_alias_that_is_asked_for_is_not_followed() -> None:
    index = index_of(services=[external("db", "db.example.com")])
    found = ask(index, "db.shop.svc.cluster.local", dns.CNAME)
    assert names(found, dns.CNAME) == ["db.example.com"]
    assert not found.outside


def test_aliases_in_a_circle_come_to_an_end() -> None:
    index = index_of(
        services=[external("a", "b.shop.svc.cluster.local"), external("b", "a.shop.svc.cluster.local")]
    )
    assert ask(index, "a.shop.svc.cluster.local").rcode == dns.SERVFAIL


@pytest.mark.parametrize("target", ["x" * 64 + ".com", "ä.example.com", ".".join(["a" * 60] * 5), "..."])
def test_a_target_that_is_no_name_is_a_failure(target: str) -> None:
    index = index_of(services=[external("db", target)])
    found = ask(index, "db.shop.svc.cluster.local")
    assert found in ((dns.SERVFAIL, (), ()), (dns.NOERROR, (), ()))


# --- messages ----------------------------------------------------------------------------------------------------


def exchange(index: Index, data: bytes) -> dns.Response:
    zone = Zone(index, DOMAIN)
    query = parse(data)
    assert query is not None
    return parse_response(zone.encode(query, zone.find(query.question)))


def test_an_answer_says_what_was_asked_and_is_authoritative() -> None:
    response = exchange(web_shop(), dns_query("web.shop.svc.cluster.local", ident=7))
    assert response.id == 7
    assert to_text(response.question.name) == "web.shop.svc.cluster.local"
    assert response.flags & dns.QR
    assert [r.data for r in response.answers] == [(bytes([10, 96, 0, 1]),)]


def test_a_denial_may_be_remembered_and_a_failure_may_not() -> None:
    denied = exchange(web_shop(), dns_query("nothing.shop.svc.cluster.local"))
    assert denied.rcode == dns.NXDOMAIN
    assert time_to_live(denied) > 0
    failed = exchange(index_of(namespaces=["shop"]), dns_query("vault.bank.svc.cluster.local"))
    assert failed.rcode == dns.SERVFAIL
    assert time_to_live(failed) == 0


def test_another_class_is_refused() -> None:
    data = bytearray(dns_query("web.shop.svc.cluster.local"))
    data[-1] = 3  # CHAOS
    assert exchange(web_shop(), bytes(data)).rcode == dns.REFUSED


def test_a_thousand_endpoints_fit() -> None:
    endpoints = [
        endpoint(f"10.0.{n // 250}.{n % 250 + 1}", f"db-{n}", hostname=f"db-{n}") for n in range(1000)
    ]
    index = index_of(services=[service("db")], slices=[endpoint_slice("db", *endpoints)])
    assert len(exchange(index, dns_query("db.shop.svc.cluster.local")).answers) == 1000
    srv = exchange(index, dns_query("_http._tcp.db.shop.svc.cluster.local", "SRV"))
    assert 500 < len(srv.answers) <= 1000


@given(st.binary(max_size=100))
def test_bytes_are_a_query_or_nothing(data: bytes) -> None:
    zone = Zone(web_shop(), DOMAIN)
    query = parse(data)
    if query is not None:
        answer = zone.encode(query, zone.find(query.question))
        assert len(answer) <= LARGEST
        try:
            parse_response(answer)
        except MessageError:
            pytest.fail("an answer that cannot be read")


@given(st.lists(st.sampled_from(["web", "shop", "svc", "pod", "_http", "_tcp", "10-0-0-1", "x"]), max_size=7))
def test_every_name_of_the_zone_has_an_answer(labels: list[str]) -> None:
    found = ask(web_shop(), ".".join([*labels, DOMAIN]))
    assert found.rcode in (dns.NOERROR, dns.NXDOMAIN)
    assert all(isinstance(record, Record) for record in found.records)
