"""The resolver's shell over real sockets on loopback, against a small nameserver made of dnspython."""

from __future__ import annotations

import asyncio
import socket
import struct
from ipaddress import ip_address
from time import monotonic
from typing import TYPE_CHECKING

import dns.flags
import dns.message
import dns.rcode
import dns.rdataset
import dns.rrset
import pytest
import uvloop
from telehelper.core import dns_resolver
from telehelper.core.dns_policy import DnsPolicy
from telehelper.datapath.dns_io import DnsShell
from telehelper.errors import CidrConflict

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable, Sequence

    from telehelper.core.cidr import Address
    from telehelper.core.dns_actions import Ended

POLICY = DnsPolicy("cluster.local", "shop", frozenset({"shop", "dev"}))
LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]


def respond(query: bytes, address: str, records: int = 1) -> dns.message.Message:
    message = dns.message.from_wire(query)
    made = dns.message.make_response(message)
    name = message.question[0].name.to_text()
    made.answer = [dns.rrset.from_text(name, 60, "IN", "A", *[address] * records)]
    return made


class Nameserver(asyncio.DatagramProtocol):
    """Answers 203.0.113.1 to everything over UDP, 203.0.113.2 over TCP; by name it truncates, lies first, is mute."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, int, int]] = []  # name, id, source port

    async def start(self) -> int:
        loop = asyncio.get_running_loop()
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        port: int = self.server.sockets[0].getsockname()[1]
        self.transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=("127.0.0.1", port))
        return port

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        message = dns.message.from_wire(data)
        name = message.question[0].name.to_text()
        self.seen.append((name, message.id, addr[1]))
        made = respond(data, "203.0.113.1")
        if name.startswith("mute"):
            return
        if name.startswith("liar"):
            self.transport.sendto(b"short", addr)
            self.transport.sendto(struct.pack("!H", message.id ^ 1) + made.to_wire()[2:], addr)
        if name.startswith(("big", "half")):
            made.flags |= dns.flags.TC
        self.transport.sendto(made.to_wire(), addr)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        (length,) = struct.unpack("!H", await reader.readexactly(2))
        query = await reader.readexactly(length)
        if b"half" not in query:
            wire = respond(query, "203.0.113.2").to_wire()
            writer.write(struct.pack("!H", len(wire)) + wire)
        writer.close()
        await writer.wait_closed()

    async def stop(self) -> None:
        self.transport.close()
        self.server.close()
        await self.server.wait_closed()


class Client:
    """What the data plane is to the shell: it asks, and keeps what it is told."""

    def __init__(self) -> None:
        self.to_cluster: list[bytes] = []
        self.streams: list[bool] = []
        self.admitted: list[Address] = []
        self.may_admit = asyncio.Event()
        self.may_admit.set()
        self.admit_error: Exception | None = None
        self.asked_twice = asyncio.Event()
        self.answers: asyncio.Queue[tuple[Hashable, dns.message.Message]] = asyncio.Queue()

    def shell(self, upstreams: tuple[str, ...] = ("127.0.0.1",), port: int = 53) -> DnsShell:
        return DnsShell(POLICY, self.ask_cluster, self.answer, upstreams, admit=self.admit, port=port)

    async def admit(self, addresses: Sequence[Address]) -> dict[Address, Address]:
        self.admitted.extend(addresses)
        await self.may_admit.wait()
        if self.admit_error is not None:
            raise self.admit_error
        return {address: address for address in addresses}

    def ask_cluster(self, data: bytes, stream: bool) -> None:
        self.streams.append(stream)
        self.to_cluster.append(data)
        if len(self.to_cluster) == 2:
            self.asked_twice.set()

    def answer(self, client: Hashable, data: bytes) -> None:
        self.answers.put_nowait((client, dns.message.from_wire(data)))

    async def receive(self) -> dns.message.Message:
        async with asyncio.timeout(5):
            return (await self.answers.get())[1]


def query(name: str, ident: int = 1) -> bytes:
    return dns.message.make_query(name, "A", id=ident).to_wire()


def first(message: dns.message.Message) -> str:
    return message.answer[0][0].to_text()


def run(
    test: Callable[[Client, DnsShell, Nameserver], Awaitable[None]],
    factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop,
    upstreams: tuple[str, ...] = ("127.0.0.1",),
) -> None:
    async def main() -> None:
        nameserver = Nameserver()
        client = Client()
        shell = client.shell(upstreams, await nameserver.start())
        try:
            await test(client, shell, nameserver)
        finally:
            await shell.close()
            await nameserver.stop()

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())


@pytest.mark.parametrize("factory", LOOPS)
def test_other_names_go_to_the_machines_nameserver_with_new_ids_and_ports(
    factory: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    async def test(client: Client, shell: DnsShell, nameserver: Nameserver) -> None:
        for ident in (1, 2, 3):
            shell.query("me", query(f"n{ident}.example.com", ident))
        messages = [await client.receive() for _ in range(3)]
        assert {message.id for message in messages} == {1, 2, 3}
        assert {first(message) for message in messages} == {"203.0.113.1"}
        assert len({port for _, _, port in nameserver.seen}) == 3
        assert {ident for _, ident, _ in nameserver.seen} != {1, 2, 3}
        assert not client.to_cluster
        assert not shell.names

    run(test, factory)


@pytest.mark.parametrize("factory", LOOPS)
def test_how_a_lookup_ended_is_told_once_with_when_it_began(
    factory: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    async def test(client: Client, shell: DnsShell, _: Nameserver) -> None:
        ended: list[Ended] = []
        shell.ended = ended.append
        began = monotonic()
        shell.query("me", query("postgres.shop"))
        shell.cluster_answer(respond(client.to_cluster[0], "198.18.0.9").to_wire())
        await client.receive()
        (told,) = ended
        assert (told.name, told.addresses) == ("postgres.shop", (ip_address("198.18.0.9"),))
        assert began <= told.started <= monotonic()
        shell.query("me", query("nosuch.shop"))
        denied = respond(client.to_cluster[1], "198.18.0.9")
        denied.answer = []
        denied.set_rcode(dns.rcode.NXDOMAIN)
        shell.cluster_answer(denied.to_wire())
        await client.receive()
        assert [each.failure for each in ended[1:]] == ["no such name"]

    run(test, factory, ())


@pytest.mark.parametrize("factory", LOOPS)
def test_truncated_is_asked_again_over_tcp(factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def test(client: Client, shell: DnsShell, _: Nameserver) -> None:
        shell.query("me", query("big.example.com"))
        assert first(await client.receive()) == "203.0.113.2"

    run(test, factory)


def test_a_truncated_answer_is_better_than_none() -> None:
    async def test(client: Client, shell: DnsShell, _: Nameserver) -> None:
        shell.query("me", query("half.example.com"))
        assert first(await client.receive()) == "203.0.113.1"

    run(test)


def test_a_forged_answer_does_not_make_us_deaf() -> None:
    async def test(client: Client, shell: DnsShell, _: Nameserver) -> None:
        shell.query("me", query("liar.example.com"))
        assert first(await client.receive()) == "203.0.113.1"

    run(test)


@pytest.mark.parametrize("factory", LOOPS)
def test_a_nameserver_that_refuses_is_passed_over_at_once(
    factory: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    # Nobody listens on 127.0.0.2: the kernel says so by ICMP.
    async def test(client: Client, shell: DnsShell, _: Nameserver) -> None:
        started = asyncio.get_running_loop().time()
        shell.query("me", query("a.example.com"))
        assert first(await client.receive()) == "203.0.113.1"
        assert asyncio.get_running_loop().time() - started < dns_resolver.UPSTREAM_TIMEOUT

    run(test, factory, ("127.0.0.2", "127.0.0.1"))


def test_all_refuse() -> None:
    async def test(client: Client, shell: DnsShell, _: Nameserver) -> None:
        shell.query("me", query("a.example.com"))
        assert (await client.receive()).rcode() == dns.rcode.SERVFAIL

    run(test, upstreams=("127.0.0.2", "no such address"))


@pytest.mark.parametrize("factory", LOOPS)
def test_silence_ends_in_servfail_and_frees_the_sockets(
    factory: Callable[[], asyncio.AbstractEventLoop], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dns_resolver, "UPSTREAM_TIMEOUT", 0.05)

    async def test(client: Client, shell: DnsShell, nameserver: Nameserver) -> None:
        shell.query("me", query("mute.example.com"))
        assert (await client.receive()).rcode() == dns.rcode.SERVFAIL
        assert len(nameserver.seen) == dns_resolver.UPSTREAM_TRIES
        await asyncio.sleep(0)

    run(test, factory)


def test_cluster_names_go_to_the_cluster_and_a_lost_datagram_is_sent_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dns_resolver, "CLUSTER_TIMEOUT", 0.05)

    async def test(client: Client, shell: DnsShell, nameserver: Nameserver) -> None:
        shell.query("me", query("postgres.shop"))
        async with asyncio.timeout(5):
            await client.asked_twice.wait()
        assert client.to_cluster[0] == client.to_cluster[1]
        shell.cluster_answer(respond(client.to_cluster[0], "198.18.0.9").to_wire())
        assert first(await client.receive()) == "198.18.0.9"
        assert shell.names == {ip_address("198.18.0.9"): "postgres.shop"}
        shell.cluster_answer(b"")
        assert sum(shell.drops.values()) == 1
        assert not nameserver.seen

    run(test)


def test_the_tunnel_dies_and_what_was_asked_is_asked_again_when_it_is_back() -> None:
    async def test(client: Client, shell: DnsShell, _: Nameserver) -> None:
        shell.query("me", query("postgres"))
        shell.tunnel_down()
        shell.tunnel_up()
        assert len(client.to_cluster) == 2
        shell.set_policy(DnsPolicy("cluster.local", "other"))
        shell.query("me", query("catalog"))
        assert b"\x05other" in client.to_cluster[-1]

    run(test)


def test_a_tunnel_that_stays_away_is_servfail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns_resolver, "RECONNECT_WAIT", 0.05)

    async def test(client: Client, shell: DnsShell, _: Nameserver) -> None:
        shell.tunnel_down()
        shell.query("me", query("postgres"))
        assert client.to_cluster == []
        assert (await client.receive()).rcode() == dns.rcode.SERVFAIL

    run(test)


@pytest.mark.parametrize("factory", LOOPS)
def test_addresses_are_admitted_before_they_are_told_and_others_do_not_wait(
    factory: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    async def test(client: Client, shell: DnsShell, _: Nameserver) -> None:
        client.may_admit.clear()
        shell.query("slow", query("postgres"))
        shell.cluster_answer(respond(client.to_cluster[0], "198.18.0.9").to_wire())
        shell.query("quick", query("a.example.com"))
        async with asyncio.timeout(5):
            assert (await client.answers.get())[0] == "quick"
        assert client.admitted == [ip_address("198.18.0.9")]
        client.may_admit.set()
        assert first(await client.receive()) == "198.18.0.9"

    run(test, factory)


@pytest.mark.parametrize("error", [OSError(19, "No such device"), CidrConflict("10.0.0.9 is elsewhere")])
def test_what_cannot_be_admitted_is_servfail_and_counted(error: Exception) -> None:
    async def test(client: Client, shell: DnsShell, _: Nameserver) -> None:
        client.admit_error = error
        shell.query("me", query("postgres"))
        shell.cluster_answer(respond(client.to_cluster[0], "198.18.0.9").to_wire())
        assert (await client.receive()).rcode() == dns.rcode.SERVFAIL
        assert shell.drops == {"dns: addresses could not be routed": 1}

    run(test)


def test_admission_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns_resolver, "ADMISSION_TIMEOUT", 0.05)

    async def test(client: Client, shell: DnsShell, _: Nameserver) -> None:
        client.may_admit.clear()
        shell.query("me", query("postgres"))
        shell.cluster_answer(respond(client.to_cluster[0], "198.18.0.9").to_wire())
        assert (await client.receive()).rcode() == dns.rcode.SERVFAIL
        assert shell.drops == {"dns: addresses could not be routed": 1}

    run(test)


def test_what_the_cluster_cut_short_is_asked_over_tcp_and_may_fail() -> None:
    async def test(client: Client, shell: DnsShell, _: Nameserver) -> None:
        shell.query("me", query("postgres"))
        cut = respond(client.to_cluster[0], "198.18.0.9")
        cut.flags |= dns.flags.TC
        shell.cluster_answer(cut.to_wire())
        assert client.streams == [False, True]
        shell.cluster_failed(int.from_bytes(client.to_cluster[1][:2], "big"))
        message = await client.receive()
        assert message.flags & dns.flags.TC
        assert first(message) == "198.18.0.9"

    run(test)


def test_a_client_of_a_stream_gets_all_of_it() -> None:
    async def test(client: Client, shell: DnsShell, _: Nameserver) -> None:
        shell.query("me", query("postgres"), 65535)
        wire = respond(client.to_cluster[0], "198.18.0.9").to_wire()
        made = dns.message.from_wire(wire)
        made.answer[0].update(dns.rdataset.from_text("IN", "A", 5, *(f"198.18.1.{i}" for i in range(200))))
        shell.cluster_answer(made.to_wire())
        assert len((await client.receive()).answer[0]) == 201

    run(test)


def test_a_name_that_is_expected_is_seen_and_answered_here() -> None:
    async def test(client: Client, shell: DnsShell, nameserver: Nameserver) -> None:
        seen = asyncio.create_task(shell.arrives(b"telemagic-0123", 5))
        await asyncio.sleep(0)
        shell.query("me", query("Telemagic-0123.shop.svc.cluster.local"))
        assert await seen
        assert (await client.receive()).rcode() == dns.rcode.NXDOMAIN
        assert (client.to_cluster, nameserver.seen) == ([], [])
        assert not await shell.arrives(b"telemagic-0123", 0.01)

    run(test)


def test_other_nameservers_of_the_machine_are_asked() -> None:
    async def test(client: Client, shell: DnsShell, _: Nameserver) -> None:
        shell.query("me", query("a.example.com"))
        assert (await client.receive()).rcode() == dns.rcode.SERVFAIL
        shell.set_upstreams(["127.0.0.1"])
        shell.query("me", query("a.example.com"))
        assert first(await client.receive()) == "203.0.113.1"

    run(test, upstreams=())


def test_nothing_is_called_after_close() -> None:
    async def test(client: Client, shell: DnsShell, _: Nameserver) -> None:
        shell.query("me", query("mute.example.com"))
        shell.query("me", query("postgres"))
        asked = client.to_cluster[0]
        await shell.close()
        shell.cluster_answer(respond(asked, "198.18.0.9").to_wire())
        assert client.answers.empty()

    run(test)


def test_a_system_resolver_takes_our_answers() -> None:
    """A stub that answers over a real socket, asked by the socket's owner: the whole datagram path."""

    async def main() -> None:
        client = Client()
        loop = asyncio.get_running_loop()
        shell = DnsShell(
            POLICY,
            client.ask_cluster,
            lambda who, data: stub.sendto(data, who),  # type: ignore[arg-type]
            admit=client.admit,
        )

        class Stub(asyncio.DatagramProtocol):
            def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
                shell.query(addr, data)
                shell.cluster_answer(respond(client.to_cluster[-1], "198.18.0.9").to_wire())

        stub, _ = await loop.create_datagram_endpoint(Stub, local_addr=("127.0.0.1", 0))
        asker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        asker.setblocking(False)
        asker.connect(stub.get_extra_info("sockname"))
        await loop.sock_sendall(asker, query("postgres.shop", 9))
        async with asyncio.timeout(5):
            message = dns.message.from_wire(await loop.sock_recv(asker, 512))
        assert (message.id, first(message)) == (9, "198.18.0.9")
        asker.close()
        stub.close()
        await shell.close()

    asyncio.run(main())
