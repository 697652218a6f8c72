"""Questions answered at once, or after asking the machine's own nameservers for what is outside."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
from telehelper.datapath.agentless import nameserver as nameserver_module
from telehelper.datapath.agentless.nameserver import MAX_OUTSIDE, NameServer
from telehelper.datapath.agentless.zone import Zone

from tests.datapath.agentless.builders import dns_query, index_of, service
from tests.datapath.waiting import turns, until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

NAME = "db.shop.svc.cluster.local"


def outside(*records: str, rcode: int = 0) -> Callable[[str, int, bytes], Awaitable[bytes]]:
    """A nameserver that answers db.example.com with these records."""

    async def ask(server: str, port: int, data: bytes) -> bytes:
        assert port == 53
        query = dns.message.from_wire(data)
        assert query.question[0].name.to_text() == "db.example.com."
        assert query.flags & dns.flags.RD
        response = dns.message.make_response(query)
        response.set_rcode(dns.rcode.Rcode(rcode))
        for record in records:
            response.answer.append(dns.rrset.from_text_list(*_parts(record)))
        return response.to_wire()

    return ask


def _parts(record: str) -> tuple[str, int, str, str, list[str]]:
    owner, rtype, value = record.split(" ", 2)
    return owner, 300, "IN", rtype, [value]


def make(ask: Any, servers: tuple[str, ...] = ("192.0.2.53",)) -> NameServer:
    external = service("db", type="ExternalName", externalName="db.example.com")
    index = index_of(services=[external, service("web", "10.96.0.1")])
    return NameServer(Zone(index, "cluster.local"), servers, ask)


def answer_of(server: NameServer, query: bytes) -> list[str]:
    """Return the records of the answer to one query."""

    async def run() -> list[str]:
        answers: list[bytes] = []
        server.query(query, answers.append)
        await until(lambda: answers, "an answer")
        await server.close()
        message = dns.message.from_wire(answers[0])
        return [f"{rrset.name} {item}" for rrset in message.answer for item in rrset]

    return asyncio.run(run())


async def never(server: str, port: int, data: bytes) -> bytes:
    await asyncio.Event().wait()
    return b""


async def refusing(server: str, port: int, data: bytes) -> bytes:
    raise ConnectionRefusedError(111, "refused")


def test_what_is_in_the_cluster_is_answered_at_once() -> None:
    answers: list[bytes] = []
    make(never).query(dns_query("web.shop.svc.cluster.local"), answers.append)
    assert dns.message.from_wire(answers[0]).answer[0][0].to_text() == "10.96.0.1"


def test_an_alias_comes_with_what_it_leads_to() -> None:
    ask = outside("db.example.com. CNAME db-1.example.com.", "db-1.example.com. A 192.0.2.7")
    assert answer_of(make(ask), dns_query(NAME)) == [
        f"{NAME}. db.example.com.",
        "db.example.com. db-1.example.com.",
        "db-1.example.com. 192.0.2.7",
    ]


@pytest.mark.parametrize("ask", [refusing, outside(rcode=2)])
def test_a_server_that_fails_is_passed_over(ask: Any) -> None:
    good = outside("db.example.com. A 192.0.2.7")

    async def either(server: str, port: int, data: bytes) -> bytes:
        found: bytes = await (ask if server == "192.0.2.53" else good)(server, port, data)
        return found

    records = answer_of(make(either, ("192.0.2.53", "192.0.2.54")), dns_query(NAME))
    assert records[1:] == ["db.example.com. 192.0.2.7"]


async def forging(server: str, port: int, data: bytes) -> bytes:
    other = dns.message.from_wire(await outside("db.example.com. A 192.0.2.66")(server, port, data))
    other.id = (other.id + 1) % 65536
    return other.to_wire()


async def garbage(server: str, port: int, data: bytes) -> bytes:
    return b"\0" * 5


@pytest.mark.parametrize("ask", [refusing, never, forging, garbage, outside(rcode=3)])
def test_an_alias_that_leads_nowhere_is_answered_alone(ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nameserver_module, "OUTSIDE_TIMEOUT", 0.05)
    assert answer_of(make(ask), dns_query(NAME)) == [f"{NAME}. db.example.com."]


def test_without_nameservers_an_alias_is_answered_alone() -> None:
    assert answer_of(make(never, ()), dns_query(NAME)) == [f"{NAME}. db.example.com."]


def test_questions_to_the_outside_are_bounded_and_given_up_in_the_end() -> None:
    async def run() -> None:
        server, answers = make(never), []
        for number in range(MAX_OUTSIDE):
            server.query(dns_query(NAME, ident=number), answers.append)
        await turns()
        assert answers == []
        server.query(dns_query(NAME), answers.append)
        assert len(answers) == 1, "one more is answered with the alias alone"
        await server.close()
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(run())


@pytest.mark.parametrize("data", [b"", b"\0" * 11, b"\xff" * 40, dns_query(NAME)[:20]])
def test_what_is_no_query_is_dropped(data: bytes) -> None:
    answers: list[bytes] = []
    make(never).query(data, answers.append)
    assert answers == []


def test_an_answer_is_no_query() -> None:
    answers: list[bytes] = []
    response = dns.message.make_response(dns.message.from_wire(dns_query(NAME))).to_wire()
    make(never).query(response, answers.append)
    assert answers == []
