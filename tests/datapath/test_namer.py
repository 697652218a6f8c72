"""The near side's names, put together: what the host is told, and answers to whoever asked, by UDP or TCP."""

from __future__ import annotations

import asyncio
from ipaddress import IPv4Address, ip_address, ip_network
from types import SimpleNamespace
from typing import TYPE_CHECKING

import dns.message
import pytest
from telehelper.core.flows import FiveTuple
from telehelper.core.frames import Frame, FrameType, Open, Proto, decode_open, encode_open
from telehelper.core.stack import Stack
from telehelper.datapath.engine import Engine
from telehelper.datapath.host_names import HostNames
from telehelper.datapath.namer import MAX_DOMAINS, Namer
from telehelper.errors import NotConnected, ResolverError
from telehelper.messages import DnsSet, SetDns
from telehelper.rpc.manager_pb2 import ClusterInfo

from tests.datapath.waiting import until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from telehelper.core.cidr import Address

OURS, RESOLVER = IPv4Address("198.19.240.0"), IPv4Address("198.19.240.1")
INFO = ClusterInfo(
    dns_server="198.18.0.10", cluster_domain="cluster.local", namespaces=["shop", "dev", "com"]
)


class Side:
    """Everything around the namer: netd, router, tunnel and TUN, written down."""

    def __init__(self) -> None:
        self.orders: list[SetDns] = []
        self.refuse = False
        self.sent: list[Frame] = []
        self.written: list[bytes] = []
        self.address: IPv4Address | None = OURS
        self.resolver: IPv4Address | None = RESOLVER
        self.plan = SimpleNamespace(routes=(ip_network("198.18.0.0/16"),))
        self.notes: list[str] = []
        self.namer = Namer(self, self)  # type: ignore[arg-type]  # what it needs of both
        self.namer.note = self.notes.append
        self.engine = Engine(Stack(isn=lambda: 1, resolver=(RESOLVER, 53)))
        self.engine.tunnel = self.engine.tun = self

    async def set_dns(self, order: SetDns) -> DnsSet:
        if self.refuse:
            raise ResolverError("cannot")
        self.orders.append(order)
        return DnsSet("resolved")

    async def admit(self, addresses: Sequence[Address]) -> dict[Address, Address]:
        return {address: address for address in addresses}

    def send(self, frame: Frame) -> None:
        self.sent.append(Frame(frame.type, frame.flow, bytes(frame.payload)))

    def forget(self, flow: int) -> None:
        pass

    def write(self, buffers: Sequence[bytes]) -> None:
        self.written.append(b"".join(buffers))


def run(test: Callable[[Side], Awaitable[None]]) -> None:
    async def main() -> None:
        side = Side()
        try:
            await test(side)
        finally:
            await side.namer.close()
            side.engine.close()

    asyncio.run(main())


def test_what_the_host_is_told() -> None:
    async def test(side: Side) -> None:
        assert (
            await side.namer.point_host(INFO, "auto", "shop") == "resolved, names of shop.svc.cluster.local"
        )
        (order,) = side.orders
        assert (order.mechanism, order.nameserver) == ("auto", str(RESOLVER))
        assert order.search[:2] == ("shop.svc.cluster.local", "svc.cluster.local")
        assert {"~svc", "~shop", "~dev", "~18.198.in-addr.arpa"} <= set(order.domains)
        assert "~com" not in order.domains  # a namespace may be called so, but .com is everybody's
        assert side.namer.domains == order.domains

    run(test)


@pytest.mark.parametrize(
    ("name", "asked"), [("bank.com.", []), ("postgres.dev.", ["postgres.dev.svc.cluster.local."])]
)
def test_a_namespace_called_com_gets_no_names_of_com(name: str, asked: list[str]) -> None:
    async def test(side: Side) -> None:
        side.namer.attach(side.engine, INFO, "shop")
        client = FiveTuple(Proto.UDP, OURS, 40_000, RESOLVER, 53)
        side.engine.names.query(client, dns.message.make_query(name, "A").to_wire())  # type: ignore[union-attr]
        await asyncio.sleep(0)
        questions = [frame.payload for frame in side.sent if frame.type is FrameType.DATAGRAM]
        assert [str(dns.message.from_wire(data).question[0].name) for data in questions] == asked

    run(test)


def test_namespaces_come_and_go_and_there_may_be_very_many(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(side: Side) -> None:
        await side.namer.point_host(INFO, "auto", "shop")
        side.namer.attach(side.engine, INFO, "shop")
        many = ClusterInfo(
            dns_server="198.18.0.10", cluster_domain="cluster.local", namespaces=map(str, range(999))
        )
        side.namer.update(many, "shop")
        await until(lambda: len(side.orders) == 2)
        assert len(side.orders[1].domains) == MAX_DOMAINS
        assert "~shop" in side.orders[1].domains
        side.refuse = True
        side.namer.update(INFO, "shop")
        await until(lambda: side.notes)
        assert side.notes == ["DNS: the cluster's namespaces changed, but: cannot"]

    run(test)


def test_what_the_resolver_ignores_is_counted() -> None:
    async def test(side: Side) -> None:
        assert side.namer.drops == {}
        await side.namer.point_host(INFO, "auto", "shop")
        side.namer.attach(side.engine, INFO, "shop")
        assert side.engine.names is not None
        for _ in range(2):
            side.engine.names.query(FiveTuple(Proto.UDP, OURS, 40000, RESOLVER, 53), b"no question")
        assert side.namer.drops == {"dns: query shorter than a header": 2}

    run(test)


def answer(query: bytes) -> bytes:
    made = dns.message.make_response(dns.message.from_wire(query))
    made.answer = [dns.rrset.from_text(made.question[0].name.to_text(), 5, "IN", "A", "198.18.0.9")]
    return made.to_wire()


def test_a_question_by_udp_and_one_by_tcp() -> None:
    async def test(side: Side) -> None:
        await side.namer.point_host(INFO, "auto", "shop")
        side.namer.attach(side.engine, INFO, "shop")
        query = dns.message.make_query("postgres.shop", "A", id=7).to_wire()
        assert side.engine.names is not None
        side.engine.names.query(FiveTuple(Proto.UDP, OURS, 40000, RESOLVER, 53), query)
        assert decode_open(side.sent[0]).dst == ip_address("198.18.0.10")
        side.engine.frames_received(
            [Frame(FrameType.DATAGRAM, side.sent[0].flow, answer(side.sent[1].payload))]
        )  # type: ignore[arg-type]
        await until(lambda: side.written)
        assert bytes([198, 18, 0, 9]) in side.written[0]
        assert side.namer.names == {ip_address("198.18.0.9"): "postgres.shop"}

        delivered: list[Frame] = []
        side.engine.stack.receive_frame = lambda frame, now: delivered.append(frame) or []  # type: ignore[func-returns-value, method-assign]
        assert side.engine.tunnel is not None
        side.engine.tunnel.send(encode_open(3, Open(Proto.TCP, OURS, 40001, RESOLVER, 53, 9.0, 65536)))
        side.engine.tunnel.send(Frame(FrameType.DATA, 3, len(query).to_bytes(2, "big") + query))
        await until(lambda: any(frame.type is FrameType.DATA for frame in delivered))
        assert bytes([198, 18, 0, 9]) in bytes(delivered[-1].payload)

    run(test)


def test_before_it_is_attached_it_knows_nothing() -> None:
    async def test(side: Side) -> None:
        assert (side.namer.names, side.namer.origins, side.namer.mechanism) == ({}, {}, "")
        side.namer.tunnel_changed(up=False)
        side.namer.update(INFO, "shop")
        side.engine.tunnel = None
        with pytest.raises(NotConnected):
            side.namer.attach(side.engine, INFO, "shop")

    run(test)


def test_names_that_do_not_arrive_are_an_error_where_the_way_was_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def lost(_names: HostNames) -> bool:
        return False

    monkeypatch.setattr(HostNames, "_works", lost)

    async def test(side: Side) -> None:
        await side.namer.point_host(INFO, "resolved", "shop")
        with pytest.raises(ResolverError, match="by resolved"):
            await side.namer.check_host()

    run(test)
