"""What people write, and which service and port they mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from telehelper.errors import UsageError
from telehelper.views import PortRow, ServiceRow

from telemagic import addresses
from telemagic.addresses import Place, Target

if TYPE_CHECKING:
    from collections.abc import Sequence

HTTP, TALLY = PortRow("http", 8000, "TCP"), PortRow("tally", 7000, "TCP")
DNS, DNS_TCP = PortRow("dns", 53, "UDP"), PortRow("dns-tcp", 53, "TCP")


def service(name: str, namespace: str = "shop", *ports: PortRow) -> ServiceRow:
    return ServiceRow(name, namespace, "ClusterIP", "198.18.8.20", ports, "", "", 1, 1)


POSTGRES = service("postgres", "shop", PortRow("postgresql", 5432, "TCP"))
SERVICES = (
    POSTGRES,
    service("catalog", "shop", HTTP, TALLY),
    service("redis", "other"),
    service("redis", "third"),
)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("postgres.shop", "postgres.shop", ""),
        ("postgres.shop:5432", "postgres.shop", "5432"),
        ("catalog:http", "catalog", "http"),
        (" postgres.shop. ", "postgres.shop", ""),
        ("198.18.8.20", "198.18.8.20", ""),
        ("198.18.8.20:80", "198.18.8.20", "80"),
        ("2001:2::1", "2001:2::1", ""),
        ("[2001:2::1]:80", "2001:2::1", "80"),
        ("[2001:2::1]", "2001:2::1", ""),
        ("http://catalog.shop/x?y=1", "catalog.shop", ""),
        ("postgresql+psycopg://shop@postgres.shop:99/shop", "postgres.shop", "99"),
    ],
)
def test_what_is_written(text: str, host: str, port: str) -> None:
    found = addresses.parse(text)
    assert (found.host, found.port) == (host, port)
    assert (found.url is not None) == ("://" in text)


@pytest.mark.parametrize(
    "text",
    ["", ":80", "a:", "a:b:c", "a b", "a/b", "[::1", "[::1]x", "http://", "http://a:99999", "http://[::1"],
)
def test_what_names_nothing_is_refused(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        addresses.parse(text)
    assert "write it like" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("postgres", Place("postgres", "shop")),
        ("Postgres.Other", Place("postgres", "other")),
        ("postgres.other.svc", Place("postgres", "other")),
        ("postgres.other.svc.cluster.local", Place("postgres", "other")),
        ("pod-0.postgres.other", None),
        ("www.example.com", None),
        ("", None),
    ],
)
def test_where_a_name_leads(name: str, expected: Place | None) -> None:
    assert addresses.place(name, "shop", "cluster.local") == expected


def test_a_service_is_found_or_suggested() -> None:
    assert addresses.find(Place("postgres", "shop"), SERVICES) == POSTGRES
    assert addresses.find(Place("postgres", "other"), SERVICES) is None
    suggest = addresses.did_you_mean
    assert suggest(Place("postgres", "other"), SERVICES) == "did you mean postgres.shop?"
    assert suggest(Place("postgrs", "shop"), SERVICES) == "did you mean postgres.shop?"
    assert suggest(Place("redis", "shop"), SERVICES) == "did you mean redis.other or redis.third?"
    assert (
        suggest(Place("kafka", "shop"), SERVICES) == ""
    )  # nothing is like it, though it is in the same namespace


@pytest.mark.parametrize(
    ("ports", "wanted", "scheme", "expected"),
    [
        ((HTTP,), "", "", HTTP),
        ((HTTP, TALLY), "tally", "", TALLY),
        ((HTTP, TALLY), "7000", "", TALLY),
        ((HTTP, TALLY), "", "http", HTTP),
        ((PortRow("web", 80, "TCP"), TALLY), "", "http", PortRow("web", 80, "TCP")),
        ((DNS, DNS_TCP), "", "", DNS_TCP),
        ((DNS, DNS_TCP), "dns", "", DNS),
    ],
)
def test_which_port(ports: Sequence[PortRow], wanted: str, scheme: str, expected: PortRow) -> None:
    assert addresses.choose_port("s", ports, wanted, scheme) == expected


@pytest.mark.parametrize(
    ("ports", "wanted", "scheme", "message", "hint"),
    [
        ((HTTP, TALLY), "", "", "several ports", "http 8000/TCP, tally 7000/TCP"),
        ((HTTP, TALLY), "", "redis", "several ports", "http 8000/TCP"),
        ((HTTP,), "grpc", "", "no port 'grpc'", "http 8000/TCP"),
        ((), "", "", "has no ports", "by number"),
        ((), "80", "", "no port '80'", "it has none"),
    ],
)
def test_no_such_port(ports: Sequence[PortRow], wanted: str, scheme: str, message: str, hint: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        addresses.choose_port("s", ports, wanted, scheme)
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("port", "scheme"),
    [
        (PortRow("http", 8000, "TCP"), "http"),
        (PortRow("http-metrics", 9100, "TCP"), "http"),
        (PortRow("", 5432, "TCP"), "postgresql"),
        (PortRow("db", 3306, "TCP"), "mysql"),
        (PortRow("", 6379, "TCP"), "redis"),
        (PortRow("", 9092, "TCP"), "kafka"),
        (PortRow("", 443, "UDP"), ""),
        (PortRow("tally", 7000, "TCP"), ""),
        (PortRow("httpfoo", 7000, "TCP"), ""),
    ],
)
def test_what_a_port_speaks(port: PortRow, scheme: str) -> None:
    assert addresses.guess(port) == scheme


def test_urls() -> None:
    assert addresses.url_of(POSTGRES) == "postgresql://postgres.shop:5432"
    assert addresses.url_of(service("a", "b", TALLY, HTTP)) == "http://a.b:8000"
    assert addresses.url_of(service("a", "b", TALLY)) == ""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("postgres.shop", "postgres.shop:1"),
        ("2001:2::1", "[2001:2::1]:1"),
        ("http://catalog.shop/x?y=1#z", "http://catalog.shop:1/x?y=1#z"),
        (
            "postgresql+psycopg://shop:pw@postgres.shop/shop",
            "postgresql+psycopg://shop:pw@postgres.shop:1/shop",
        ),
    ],
)
def test_joining(text: str, expected: str) -> None:
    assert addresses.join(addresses.parse(text), 1) == expected
    assert isinstance(addresses.parse(text), Target)
