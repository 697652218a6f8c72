"""Two answers side by side, and from names to addresses and ports, with lists instead of a cluster."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING, Any

import pytest
from telehelper.errors import CredentialsRefused, UsageError
from telehelper.views import Lookup, PodRow, PortRow, RecordRow, Resolved, ServiceRow

from telemagic import looking
from telemagic.looking import Directory, Goal, SystemAnswer
from tests.kernel.test_addresses import DNS, HTTP, POSTGRES, SERVICES, TALLY, service

if TYPE_CHECKING:
    from collections.abc import Sequence

MISSING = SystemAnswer((), 0.01, "Name or service not known", is_missing=True)
BROKEN = SystemAnswer((), 0.01, "Temporary failure in name resolution")
POD = PodRow(
    "postgres-0",
    "shop",
    "198.18.0.12",
    "n1",
    "Running",
    1,
    1,
    0,
    -1.0,
    "postgres:16",
    "",
    (PortRow("pg", 5432, "TCP"),),
)


def said(*addresses: str, rcode: str = "NOERROR", explanation: str = "") -> Resolved:
    records = tuple(RecordRow("postgres.shop", "A", 5, address) for address in addresses)
    lookup = Lookup("cluster", "postgres.shop.svc.cluster.local")
    return Resolved(rcode, records, lookup, 0.002, "198.19.240.2", explanation)


def system(*addresses: str) -> SystemAnswer:
    return SystemAnswer(addresses, 0.01, "")


# --- two answers -------------------------------------------------------------------------------------------------


def test_both_agree() -> None:
    (line,), agree = looking.compare("postgres.shop", "A", said("198.18.8.20"), system("198.18.8.20"))
    assert agree is True
    assert (line.answer, line.ttl, line.answered_by, line.system) == ("198.18.8.20", 5, "cluster", True)
    assert (line.asked, line.note) == ("postgres.shop.svc.cluster.local", "")


def test_programs_get_another_address() -> None:
    lines, agree = looking.compare("postgres.shop", "A", said("198.18.8.20"), system("203.0.113.7"))
    assert agree is False
    assert [(line.answer, line.answered_by, line.system) for line in lines] == [
        ("198.18.8.20", "cluster", False),
        ("203.0.113.7", "this machine only", True),
    ]
    assert "what programs get" in lines[1].note


def test_programs_get_nothing() -> None:
    (line,), agree = looking.compare("postgres.shop", "A", said("198.18.8.20"), MISSING)
    assert (agree, line.system) == (False, False)
    assert line.note == "programs do not get it: Name or service not known"


@pytest.mark.parametrize(
    ("rcode", "answer", "agree"),
    [
        ("NXDOMAIN", MISSING, True),
        ("NXDOMAIN", BROKEN, False),
        ("SERVFAIL", BROKEN, True),
        ("NOERROR", MISSING, True),
    ],
)
def test_no_answer_is_a_line_that_says_why(rcode: str, answer: SystemAnswer, agree: bool) -> None:
    (line,), found = looking.compare("x.shop", "A", said(rcode=rcode, explanation="because"), answer)
    assert found is agree
    assert (line.name, line.answer, line.ttl, line.note) == ("x.shop", "", -1, "because")


def test_records_that_getaddrinfo_does_not_know_are_not_compared() -> None:
    record = RecordRow("_http._tcp.catalog", "SRV", 5, "0 100 8000 catalog.shop.")
    answer = Resolved("NOERROR", (record,), Lookup("cluster", "x"), 0.1, "198.19.240.2")
    (line,), agree = looking.compare("_http._tcp.catalog", "SRV", answer, None)
    assert (agree, line.system) == (None, None)


def test_what_getaddrinfo_can_be_asked() -> None:
    assert looking.family_of("postgres", "A") == socket.AF_INET
    assert looking.family_of("postgres", "AAAA") == socket.AF_INET6
    assert looking.family_of("postgres", "SRV") is None
    assert looking.family_of("198.18.8.20", "A") is None


def test_the_machine_is_really_asked() -> None:
    found = looking.ask_system("localhost", socket.AF_INET)
    assert found.addresses == ("127.0.0.1",)
    assert looking.ask_system("127.0.0.1").addresses == ("127.0.0.1",)
    bad = looking.ask_system("a" * 70)
    assert bad.addresses == ()
    assert bad.error


def test_a_machine_that_does_not_answer_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(*_: Any) -> Any:
        time.sleep(0.3)
        raise socket.gaierror(socket.EAI_AGAIN, "too late")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    monkeypatch.setattr(looking, "SYSTEM_PATIENCE", 0.01)
    assert "no answer within" in looking.ask_system("postgres").error


# --- names to places ---------------------------------------------------------------------------------------------


class Lists:
    """A cluster of lists; remembers which namespaces were asked for."""

    def __init__(self, services: Sequence[ServiceRow] = SERVICES, pods: Sequence[PodRow] = (POD,)) -> None:
        self.all = services
        self.pods = pods
        self.asked: list[str] = []
        self.directory = Directory(self.services, lambda _: self.pods, "shop", "cluster.local")

    def services(self, namespace: str) -> Sequence[ServiceRow]:
        self.asked.append(namespace)
        return [row for row in self.all if namespace in ("", row.namespace)]


def goal(text: str, answer: SystemAnswer = MISSING, lists: Lists | None = None) -> Goal:
    return (lists or Lists()).directory.goal(text, ask=lambda _: answer)


@pytest.mark.parametrize(
    ("text", "port", "expected"),
    [
        ("postgres.shop", "", "postgres.shop:5432"),
        ("postgres", "", "postgres:5432"),
        ("postgres.shop.svc.cluster.local", "", "postgres.shop.svc.cluster.local:5432"),
        ("catalog.shop", "http", "catalog.shop:8000"),
        ("catalog.shop", "7000", "catalog.shop:7000"),
        ("catalog.shop:tally", "", "catalog.shop:7000"),
        ("http://catalog.shop/products", "", "http://catalog.shop:8000/products"),
        (
            "postgresql+psycopg://shop@postgres.shop/shop",
            "",
            "postgresql+psycopg://shop@postgres.shop:5432/shop",
        ),
    ],
)
def test_url(text: str, port: str, expected: str) -> None:
    lists = Lists()
    assert lists.directory.url(text, port) == expected
    assert lists.asked == ["shop"]  # one list of one namespace, whatever the size of the cluster


@pytest.mark.parametrize(
    ("text", "port", "message", "hint"),
    [
        ("catalog.shop", "", "several ports", "http 8000/TCP, tally 7000/TCP"),
        ("postgrs.shop", "", "no service 'postgrs' in namespace 'shop'", "did you mean postgres.shop?"),
        ("redis", "", "no service 'redis' in namespace 'shop'", "did you mean redis.other or redis.third?"),
        ("kafka", "", "no service 'kafka'", "%tele services -A lists them"),
        ("www.example.com", "", "no service's name", "write it like"),
        ("postgres:1", "2", "has a port already", "one of them"),
        ("postgres", "http", "no port 'http'", "postgresql 5432/TCP"),
    ],
)
def test_no_url(text: str, port: str, message: str, hint: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        Lists().directory.url(text, port)
    assert hint in caught.value.hint


def test_where_a_ping_goes() -> None:
    assert goal("postgres", system("198.18.8.20", "2001:2::1")) == Goal("198.18.8.20", 5432)
    assert goal("catalog:tally", system("198.18.8.21")) == Goal("198.18.8.21", 7000)
    assert goal("198.18.8.20:99") == Goal("198.18.8.20", 99)
    assert goal("[2001:2::1]:99") == Goal("2001:2::1", 99)


def test_a_ping_of_a_pod() -> None:
    assert goal("postgres-0") == Goal("198.18.0.12", 5432)
    assert goal("postgres-0.shop:9187") == Goal("198.18.0.12", 9187)  # a port that its manifest does not tell


def test_a_ping_of_a_headless_service_may_go_to_any_port() -> None:
    headless = ServiceRow("h", "shop", "Headless", "", (HTTP,), "", "", 1, 1)
    assert goal("h:99", system("198.18.0.12"), Lists((headless,))) == Goal("198.18.0.12", 99)
    assert goal("h", system("198.18.0.12"), Lists((headless,))) == Goal("198.18.0.12", 8000)


def test_a_name_that_this_machine_does_not_resolve_is_pinged_all_the_same() -> None:
    found = goal("postgres", MISSING)
    assert (found.address, found.port) == ("198.18.8.20", 5432)
    assert "does not resolve on this machine" in found.notices[0]


def test_names_outside_need_a_port() -> None:
    assert goal("www.example.com:443", system("192.0.2.1")) == Goal("192.0.2.1", 443)
    for text in (
        "www.example.com",
        "www.example.com:http",
        "198.18.8.20",
        "198.18.8.20:0",
        "198.18.8.20:65536",
    ):
        with pytest.raises(UsageError, match="needs a port by number"):
            goal(text, system("192.0.2.1"))


def test_pings_that_cannot_be() -> None:
    lists = Lists((service("kube-dns", "shop", DNS), service("two", "shop", HTTP, TALLY), POSTGRES), ())
    for text, message in (
        ("kube-dns", "port 53 is UDP"),
        ("two", "several ports"),
        ("postgrs", "no service 'postgrs'"),
        ("postgres:80", "no port '80'"),
    ):
        with pytest.raises(UsageError, match=message):
            goal(text, lists=lists)
    with pytest.raises(UsageError, match="does not resolve"):
        goal("www.example.com:80", MISSING)


def test_without_the_right_to_list_services_a_port_by_number_is_enough() -> None:
    def refuse(_: str) -> Sequence[ServiceRow]:
        raise CredentialsRefused("forbidden")

    directory = Directory(refuse, lambda _: (), "shop", "cluster.local")
    assert directory.goal("postgres:5432", ask=lambda _: system("198.18.8.20")) == Goal("198.18.8.20", 5432)
    with pytest.raises(CredentialsRefused):
        directory.goal("postgres")
    with pytest.raises(CredentialsRefused):
        directory.url("postgres", "")


def test_a_name_that_is_not_there_gets_a_suggestion() -> None:
    lists = Lists()
    answer = Resolved(
        "NXDOMAIN", (), Lookup("cluster", "postgrs.shop.svc.cluster.local"), 0.1, "", "no such service"
    )
    assert lists.directory.explain(answer).explanation == "no such service; did you mean postgres.shop?"
    for other in (
        said("198.18.8.20"),
        Resolved("NXDOMAIN", (), Lookup("machine", "example.com"), 0.1, "", "public"),
        Resolved("NXDOMAIN", (), Lookup("cluster", "kafka.shop.svc.cluster.local"), 0.1, "", "none"),
    ):
        assert lists.directory.explain(other) == other
