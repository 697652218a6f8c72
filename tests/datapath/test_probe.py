"""One lookup and what it means: real datagrams to a real socket that answers as the resolver would."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import dns.message
import dns.rcode
import dns.rrset
import pytest
from telehelper.core.dns_message import from_text
from telehelper.core.dns_names import Origin
from telehelper.datapath import probe
from telehelper.errors import NotConnected, ResolverError, UsageError
from telehelper.views import Lookup, RecordRow, Resolved

if TYPE_CHECKING:
    from collections.abc import Callable

LOOPBACK = ip_address("127.0.0.1")
FULL = "postgres.shop.svc.cluster.local"
A_RECORD = RecordRow("postgres.shop", "A", 5, "198.18.8.20")


class Server(asyncio.DatagramProtocol):
    """Answers each question as `reply` says; None is silence."""

    def __init__(self, reply: Callable[[dns.message.Message], bytes | None]) -> None:
        self._reply = reply
        self.asked: list[str] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        query = dns.message.from_wire(data)
        self.asked.append(query.question[0].to_text())
        answer = self._reply(query)
        if answer is not None:
            self._transport.sendto(answer, addr)


def reply(*texts: str, rcode: int = 0) -> Callable[[dns.message.Message], bytes]:
    def make(query: dns.message.Message) -> bytes:
        answer = dns.message.make_response(query)
        answer.set_rcode(rcode)
        answer.answer = [dns.rrset.from_text(*text.split(" ", 4)) for text in texts]
        return answer.to_wire()

    return make


def resolve(
    name: str,
    rtype: str,
    answer: Callable[[dns.message.Message], bytes | None],
    origins: dict[Any, Origin] | None = None,
) -> tuple[Resolved, list[str]]:
    async def run() -> tuple[Resolved, list[str]]:
        loop = asyncio.get_running_loop()
        transport, server = await loop.create_datagram_endpoint(
            lambda: Server(answer), local_addr=("127.0.0.1", 0)
        )
        port = transport.get_extra_info("sockname")[1]
        try:
            found = await probe.resolve(
                name, rtype, server=LOOPBACK, origins=lambda: origins or {}, domain="cluster.local", port=port
            )
        finally:
            transport.close()
        return found, server.asked

    return asyncio.run(run())


def test_a_name_of_the_cluster() -> None:
    origins = {(from_text("postgres.shop"), 1): Origin("cluster", from_text(FULL))}
    found, asked = resolve("postgres.shop", "A", reply("postgres.shop. 5 IN A 198.18.8.20"), origins)
    assert asked == ["postgres.shop. IN A"]
    assert (found.rcode, found.records, found.explanation) == ("NOERROR", (A_RECORD,), "")
    assert found.lookup == Lookup("cluster", FULL)
    assert found.server == "127.0.0.1"
    assert 0 < found.seconds < probe.TIMEOUT


def test_other_types_and_the_names_of_addresses() -> None:
    found, asked = resolve(
        "_http._tcp.catalog", "SRV", reply("_http._tcp.catalog. 5 IN SRV 0 100 8000 catalog.shop.")
    )
    assert asked == ["_http._tcp.catalog. IN SRV"]
    assert found.records[0].data == "0 100 8000 catalog.shop."
    _, asked = resolve("198.18.8.20", "A", reply())
    assert asked == ["20.8.18.198.in-addr.arpa. IN PTR"]
    _, asked = resolve("2001:2::1", "A", reply())
    assert asked[0].endswith("ip6.arpa. IN PTR")


@pytest.mark.parametrize("name", ["a" * 64, "a..b", ".a", "x." * 130, "\udcff"])
def test_what_cannot_be_a_name_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="cannot be a name"):
        probe.encode(name, "A")


def test_an_unknown_type_is_refused() -> None:
    with pytest.raises(UsageError, match="no record type 'XYZZY'") as caught:
        probe.encode("postgres", "XYZZY")
    assert "SRV" in caught.value.hint


def test_a_resolver_that_is_silent_or_talks_nonsense(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ResolverError, match="no DNS message"):
        resolve("postgres", "A", lambda query: query.to_wire()[:2] + b"\xff" * 20)
    monkeypatch.setattr(probe, "TIMEOUT", 0.02)
    with pytest.raises(ResolverError, match="did not answer within"):
        resolve("postgres", "A", lambda _: None)


def test_a_resolver_that_is_not_there() -> None:
    async def ask(server: Any, port: int) -> None:
        await probe.resolve("postgres", "A", server=server, origins=dict, domain="cluster.local", port=port)

    with pytest.raises(NotConnected):
        asyncio.run(ask(None, 53))
    with pytest.raises(ResolverError, match="cannot be reached"):
        asyncio.run(ask(LOOPBACK, 1))  # tcpmux: nobody listens


def test_an_answer_is_bounded() -> None:
    texts = [f"big. 5 IN TXT {'x' * 200}{i}" for i in range(20)]
    found, _ = resolve("big", "TXT", reply(*texts[:3]))
    assert all(len(row.data) <= probe.MAX_DATA for row in found.records)
    message = dns.message.make_response(dns.message.make_query("big", "A"))
    message.answer = [
        dns.rrset.from_text("big.", 5, "IN", "A", *(f"10.0.{i // 250}.{i % 250}" for i in range(900)))
    ]
    assert len(probe.decode(message.to_wire())[1]) == probe.MAX_RECORDS


def test_who_answered_a_name() -> None:
    origins = {
        (from_text("a.shop"), 28): Origin("cache", from_text("a.shop.svc.cluster.local")),
        (from_text("b"), 1): Origin("nobody", ()),
    }
    assert probe.find_lookup("A.shop.", origins) == Lookup("cache", "a.shop.svc.cluster.local")
    assert probe.find_lookup("a.shop", origins, 1) == Lookup("")
    assert probe.find_lookup("b", origins) == Lookup("nobody", "b")
    assert probe.find_lookup("c", origins).source == ""


@pytest.mark.parametrize(
    ("rcode", "records", "lookup", "expected"),
    [
        ("NOERROR", (A_RECORD,), Lookup("cluster", FULL), ""),
        (
            "NOERROR",
            (A_RECORD,),
            Lookup("machine", "example.com"),
            "a public name: asked this machine's own DNS",
        ),
        ("NOERROR", (), Lookup("cache", FULL), f"{FULL} exists, and has no A record"),
        (
            "NXDOMAIN",
            (),
            Lookup("cluster", "x.shop.svc.cluster.local"),
            "no such service in namespace shop: x",
        ),
        ("NXDOMAIN", (), Lookup("cluster", "x.cluster.local"), "the cluster has no name x.cluster.local"),
        (
            "NXDOMAIN",
            (),
            Lookup("machine", "x.example"),
            "not a name of the cluster, and this machine's own DNS says that there is no such name",
        ),
        ("SERVFAIL", (), Lookup("nobody", FULL), "the cluster's DNS did not answer (SERVFAIL)"),
        (
            "SERVFAIL",
            (),
            Lookup("nobody", "example.com"),
            "a public name, and this machine's own DNS did not answer (SERVFAIL)",
        ),
    ],
)
def test_each_answer_is_explained(rcode: str, records: Any, lookup: Lookup, expected: str) -> None:
    assert probe.explain(rcode, records, lookup, "A", "cluster.local") == expected
