"""The whole way without a manager: a tunnel, an API server, port-forwards over real TLS and WebSockets, real services."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from ipaddress import ip_address
from typing import TYPE_CHECKING

import dns.message
import pytest
import uvloop
from telehelper.core.frames import (
    Frame,
    FrameType,
    Open,
    Proto,
    decode_coded,
    decode_u32,
    encode_coded,
    encode_open,
    encode_u32,
)
from telehelper.datapath.agentless import carrier as carrier_module
from telehelper.datapath.agentless import flow as flow_module
from telehelper.datapath.agentless import heartbeat as heartbeat_module
from telehelper.datapath.agentless.uplink import NO_DNS_SERVER, AgentlessUplink, cluster_info, open_agentless
from telehelper.datapath.tunnel import Tunnel
from telehelper.datapath.tunnel_fake import RecordingUser
from telehelper.discovery.discovery import Discovered
from telehelper.errors import ApiServerUnavailable, CredentialsRefused
from telehelper.kube.access import ApiAccess
from telehelper.kube.client import ApiClient

from tests.datapath.agentless.builders import dns_query, endpoint, endpoint_slice, index_of, pod, service
from tests.datapath.agentless.shop_in_process import Shop
from tests.datapath.agentless.test_catalog import CLUSTER_WIDE
from tests.datapath.waiting import WAIT, turns, until
from tests.kube.api_server import Pki, kubeconfig

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

SERVICE = "10.96.0.1"
ME = ip_address("198.19.240.1")
DNS = 1 << 31  # a flow of the data plane's own


@pytest.fixture(autouse=True)
def _fast(fast_back_off: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat_module, "INTERVAL", 0.02)
    monkeypatch.setattr(heartbeat_module, "RETRY", 0.02)


class Bench:
    """A shop, a tunnel into it, and who uses that."""

    def __init__(self, shop: Shop, api: ApiClient) -> None:
        self.shop = shop
        self.api = api
        self.user = RecordingUser()
        self.tunnel = Tunnel(self._connect, self.user)
        self.uplinks: list[AgentlessUplink] = []

    async def _connect(self, tunnel: Tunnel) -> AgentlessUplink:
        uplink = await open_agentless(tunnel, self.api, "shop", ())
        self.uplinks.append(uplink)
        return uplink

    def open(
        self,
        flow: int,
        dst: str = SERVICE,
        dport: int = 80,
        protocol: Proto = Proto.TCP,
        credit: int = 1 << 20,
    ) -> None:
        self.tunnel.send(encode_open(flow, Open(protocol, ME, 40_000, ip_address(dst), dport, 5.0, credit)))

    def send(self, flow: int, data: bytes) -> None:
        self.tunnel.send(Frame(FrameType.DATA, flow, data))

    def frames(self, flow: int) -> list[Frame]:
        return [frame for frame in self.user.frames if frame.flow == flow]

    def data(self, flow: int) -> bytes:
        return b"".join(bytes(f.payload) for f in self.frames(flow) if f.type is FrameType.DATA)

    async def told(self, flow: int, kind: FrameType) -> Frame:
        await until(lambda: any(f.type is kind for f in self.frames(flow)), f"{kind.name} of flow {flow}")
        return next(f for f in self.frames(flow) if f.type is kind)

    async def opened(self, flow: int, **how: int) -> None:
        self.open(flow, **how)  # type: ignore[arg-type]  # numbers only
        await self.told(flow, FrameType.OPENED)

    async def refused(self, flow: int) -> tuple[int, str]:
        return decode_coded(await self.told(flow, FrameType.REJECTED))


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


def run(
    pki: Pki,
    folder: Path,
    body: Callable[[Bench], Awaitable[None]],
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]] = echo,
) -> None:
    """Run a body with service ``web``, whose pods do what `serve` does, and check that nothing stays."""

    async def everything() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with asyncio.timeout(WAIT / 2), Shop(pki).run() as shop:
            for name in ("web-0", "web-1"):
                shop.ports[name, 8080] = server.sockets[0].getsockname()[1]
            access = await asyncio.to_thread(
                ApiAccess.from_kubeconfig, str(kubeconfig(folder, pki, shop.api.url))
            )
            async with ApiClient(access) as api:
                bench = Bench(shop, api)
                await bench.tunnel.start()
                try:
                    await body(bench)
                finally:
                    await bench.tunnel.close()
                await until(lambda: not ours(), "the end of all tasks")
                assert [uplink.carriers for uplink in bench.uplinks] == [[]] * len(bench.uplinks)
                await until(lambda: not shop.sockets, "the end of all port-forwards")
            await until(lambda: not shop.watchers, "the end of all watches")
        server.close()

    uvloop.run(everything())


def ours() -> set[str]:
    return {
        repr(task)
        for task in asyncio.all_tasks()
        if "agentless/" in repr(task) and "tests/" not in repr(task)
    }


# --- flows -------------------------------------------------------------------------------------------------------


def test_bytes_go_to_a_pod_and_back(pki: Pki, tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        payload = os.urandom(300_000)
        await bench.opened(1)
        granted = decode_u32(await bench.told(1, FrameType.OPENED))
        sent = 0
        while sent < len(payload):
            piece = payload[sent : sent + 50_000]
            more = [decode_u32(f) for f in bench.frames(1) if f.type is FrameType.CREDIT]
            if sent + len(piece) <= granted + sum(more):
                bench.send(1, piece)
                sent += len(piece)
            await asyncio.sleep(0)
        await until(lambda: len(bench.data(1)) == len(payload), "the echo")
        assert bench.data(1) == payload
        bench.tunnel.send(Frame(FrameType.FIN, 1))
        bench.tunnel.send(encode_coded(FrameType.RST, 1, errno.ECONNRESET))

    run(pki, tmp_path, body)


def test_flows_are_spread_over_the_pods(pki: Pki, tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        for flow in range(1, 5):
            await bench.opened(flow)
        asked = [
            request.path.split("/")[-2]
            for request in bench.shop.api.requests
            if "portforward" in request.path
        ]
        assert sorted(asked) == ["web-0", "web-0", "web-1", "web-1"]

    run(pki, tmp_path, body)


def test_many_flows_at_once_each_get_their_own(pki: Pki, tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        for flow in range(1, 61):
            bench.open(flow)
        for flow in range(1, 61):
            await bench.told(flow, FrameType.OPENED)
            bench.send(flow, b"flow %d" % flow)
        await until(lambda: all(bench.data(flow) for flow in range(1, 61)), "all echoes")
        assert [bench.data(flow) for flow in range(1, 61)] == [b"flow %d" % flow for flow in range(1, 61)]

    run(pki, tmp_path, body)


def test_a_slow_reader_holds_up_nobody(pki: Pki, tmp_path: Path) -> None:
    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            for _number in range(64):
                writer.write(bytes(65536))
                await writer.drain()
        writer.close()

    async def body(bench: Bench) -> None:
        await bench.opened(1, credit=10)
        await bench.opened(2, credit=1 << 23)
        await until(lambda: len(bench.data(2)) == 64 * 65536, "all of the other")
        assert len(bench.data(1)) == 10
        await bench.told(2, FrameType.FIN)

    run(pki, tmp_path, body, serve)


def test_a_refused_port_is_refused(pki: Pki, tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        bench.shop.ports.clear()
        bench.open(1)
        bench.open(2, "10.0.0.1", 8080)
        bench.open(3, SERVICE, 81)
        for flow in (1, 2, 3):
            code, reason = await bench.refused(flow)
            assert code == errno.ECONNREFUSED
            assert "refused" in reason

    run(pki, tmp_path, body)


def test_ports_that_answered_are_remembered_but_not_for_ever(
    pki: Pki, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(carrier_module, "MAX_ANSWERED", 1)

    async def body(bench: Bench) -> None:
        for flow in (1, 2):
            await bench.opened(flow)
            bench.send(flow, b"x")
            await until(lambda flow=flow: bench.data(flow), "the echo")
        carrier = bench.uplinks[0].carriers[0]
        assert len(carrier._answered) == 1
        what = Open(Proto.TCP, ME, 40_000, ip_address("10.0.0.2"), 8080, 5.0, 0)
        known = [await carrier.dial(what) for _ in range(2)]
        assert [dialed.is_known for dialed in known] == [True, False], "each trust is for one connection"
        for dialed in known:
            await dialed.forward.close()

    run(pki, tmp_path, body)


@pytest.mark.parametrize("protocol", [Proto.UDP, Proto.ICMP])
def test_datagrams_are_refused_with_a_reason(pki: Pki, tmp_path: Path, protocol: Proto) -> None:
    async def body(bench: Bench) -> None:
        bench.open(1, protocol=protocol)
        _, reason = await bench.refused(1)
        assert "without a traffic manager" in reason

    run(pki, tmp_path, body)


def test_too_many_flows_are_refused(pki: Pki, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(carrier_module, "MAX_FLOWS", 2)

    async def body(bench: Bench) -> None:
        for flow in (1, 2):
            await bench.opened(flow)
        bench.open(3)
        assert (await bench.refused(3))[0] == errno.EMFILE
        bench.tunnel.send(encode_coded(FrameType.RST, 1, errno.ECONNRESET))
        await until(lambda: len(bench.shop.sockets) == 1, "the end of the first")
        await bench.opened(4)

    run(pki, tmp_path, body)


def test_a_replaced_pod_is_found_even_before_the_index_knows(pki: Pki, tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        path = "/api/v1/namespaces/shop/pods/web-0/portforward"
        del bench.shop.api.answers[path]
        bench.shop.api.answer(path, {"kind": "Status"}, 404)
        await bench.opened(1)
        await bench.opened(2)
        bench.shop.api.answer("/api/v1/namespaces/shop/pods/web-1/portforward", {"kind": "Status"}, 404)
        bench.open(3)
        assert (await bench.refused(3))[0] == errno.EHOSTUNREACH
        bench.shop.add_pod("web-9", "10.0.0.9")
        bench.shop.ports["web-9", 8080] = next(iter(bench.shop.ports.values()))
        bench.shop.put("endpointslices", endpoint_slice("web", endpoint("10.0.0.9", "web-9")))
        flows = iter(range(4, 1000))
        while not any(f.type is FrameType.OPENED for f in bench.user.frames if f.flow > 3):
            bench.open(next(flows))
            await asyncio.sleep(0.1)

    run(pki, tmp_path, body)


def test_a_forbidden_port_forward_says_so(pki: Pki, tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        bench.shop.forbidden.add("get")
        bench.open(1)
        code, reason = await bench.refused(1)
        assert code == errno.EACCES
        assert "forbids" in reason

    run(pki, tmp_path, body)


def test_the_services_end_comes_as_fin_and_what_is_sent_after_it_as_reset(pki: Pki, tmp_path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(2))
        writer.close()

    async def body(bench: Bench) -> None:
        for flow in (1, 2):
            await bench.opened(flow)
            bench.send(flow, b"hi")
            await bench.told(flow, FrameType.FIN)
            assert bench.data(flow) == b"hi"
        bench.send(1, b"more")
        assert decode_coded(await bench.told(1, FrameType.RST))[0] == errno.EPIPE
        bench.tunnel.send(Frame(FrameType.FIN, 2))
        await turns()
        assert [f.type for f in bench.frames(2)].count(FrameType.RST) == 0

    run(pki, tmp_path, body, serve)


def test_garbage_from_the_near_side_ends_its_flow_only(pki: Pki, tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        await bench.opened(1)
        await bench.opened(2)
        bench.tunnel.send(encode_u32(FrameType.CREDIT, 1, 0xFFFFFFFF))
        assert decode_coded(await bench.told(1, FrameType.RST))[0] == errno.EPROTO
        bench.send(2, b"still here")
        await until(lambda: bench.data(2) == b"still here", "the other's echo")
        bench.send(99, b"of nobody")
        bench.tunnel.send(Frame(FrameType.FIN, 99))

    run(pki, tmp_path, body)


def test_a_bug_of_ours_resets_its_flow_and_is_reported(
    pki: Pki, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(bench: Bench) -> None:
        reported: list[object] = []
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: reported.append(context["exception"])
        )
        monkeypatch.setattr(flow_module.ForwardedFlow, "_confirm", lambda *_: 1 / 0)
        bench.open(1)
        code, reason = decode_coded(await bench.told(1, FrameType.RST))
        assert (code, reason) == (errno.EIO, "internal error")
        assert isinstance(reported[0], ZeroDivisionError)

    run(pki, tmp_path, body)


# --- names -------------------------------------------------------------------------------------------------------


def test_the_data_planes_questions_are_answered_from_the_api(pki: Pki, tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        info = await bench.uplinks[0].wait_info()
        assert info.dns_server == NO_DNS_SERVER
        bench.open(DNS, info.dns_server, 53, Proto.UDP)
        bench.tunnel.send(Frame(FrameType.DATAGRAM, DNS, dns_query("web.shop.svc.cluster.local")))
        answer = dns.message.from_wire(bytes((await bench.told(DNS, FrameType.DATAGRAM)).payload))
        assert answer.answer[0][0].to_text() == SERVICE
        assert decode_u32(await bench.told(DNS, FrameType.OPENED)) == 0
        bench.tunnel.send(encode_coded(FrameType.RST, DNS, 0))
        bench.tunnel.send(Frame(FrameType.DATAGRAM, DNS, dns_query("web.shop.svc.cluster.local")))
        await turns()
        assert len(bench.frames(DNS)) == 2

    run(pki, tmp_path, body)


def test_a_new_service_has_its_name_and_is_reached(pki: Pki, tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        await until(lambda: bench.shop.watchers >= 3, "the watches")
        bench.open(DNS, NO_DNS_SERVER, 53, Proto.UDP)
        bench.shop.put("services", service("db", "10.96.0.9"))
        bench.shop.put("endpointslices", endpoint_slice("db", endpoint("10.0.0.1", "web-0")))

        def found() -> bool:
            bench.tunnel.send(Frame(FrameType.DATAGRAM, DNS, dns_query("db.shop.svc.cluster.local")))
            answers = [bytes(f.payload) for f in bench.frames(DNS) if f.type is FrameType.DATAGRAM]
            return any(dns.message.from_wire(answer).answer for answer in answers)

        await until(found, "its name")
        bench.open(1, "10.96.0.9")
        await bench.told(1, FrameType.OPENED)

    run(pki, tmp_path, body)


# --- the API server ----------------------------------------------------------------------------------------------


def test_connections_that_break_with_the_api_server_are_reset(pki: Pki, tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        await bench.opened(1)
        bench.shop.cut()
        code, reason = decode_coded(await bench.told(1, FrameType.RST))
        assert code == errno.ECONNRESET
        assert "API server broke" in reason
        assert bench.tunnel.is_up, "the API server still answers"
        await bench.opened(2)

    run(pki, tmp_path, body)


def test_an_api_server_that_goes_takes_all_flows_with_it_and_comes_back(
    pki: Pki, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat_module, "DEAD_AFTER", 0.3)

    async def body(bench: Bench) -> None:
        await until(lambda: bench.tunnel.rtt is not None, "a round trip")
        assert bench.tunnel.min_rtt is not None
        await bench.opened(1)
        answers, bench.shop.api.answers = bench.shop.api.answers, {}
        bench.shop.api.answer("/version", "the backend is gone", 503)
        await until(lambda: bench.user.lost, "the loss")
        assert bench.user.lost[0][0] == {1}
        assert "503" in bench.user.lost[0][1]
        assert bench.user.changes[0][0] is False
        bench.shop.api.answers = answers
        await until(lambda: len(bench.user.changes) == 2, "the return")
        assert bench.user.changes[1][0] is True
        await bench.opened(2)
        bench.send(2, b"again")
        await until(lambda: bench.data(2) == b"again", "the echo")

    run(pki, tmp_path, body)


def test_a_probe_finds_a_dead_api_server_sooner(
    pki: Pki, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat_module, "PROBE_TIMEOUT", 0.1)

    async def body(bench: Bench) -> None:
        await until(lambda: bench.tunnel.rtt is not None, "a round trip")
        bench.shop.api.answer("/version", "gone", 503)
        began = asyncio.get_running_loop().time()
        bench.uplinks[0].carriers[0].probe()
        bench.uplinks[0].wake()
        await until(lambda: bench.user.changes, "the loss")
        assert asyncio.get_running_loop().time() - began < heartbeat_module.DEAD_AFTER

    run(pki, tmp_path, body)


# --- opening -----------------------------------------------------------------------------------------------------


def test_what_may_be_seen_is_told(pki: Pki, tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        assert bench.uplinks[0].scope == "all namespaces"
        bench.shop.forbidden |= set(CLUSTER_WIDE)
        uplink = await open_agentless(bench.tunnel, bench.api, "shop", ())
        assert uplink.scope == "namespace shop only"
        info = await uplink.wait_info()
        assert list(info.namespaces) == ["shop"]
        assert info.cluster_domain == "cluster.local"
        assert {cidr.kind for cidr in info.cidrs} == {"services", "pods"}
        assert (uplink.manager, uplink.manager_version) == ("", "")
        await uplink.close("enough")

    run(pki, tmp_path, body)


def test_opening_that_fails_leaves_nothing_open(pki: Pki, tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        bench.shop.forbidden |= {*CLUSTER_WIDE, "/api/v1/namespaces/shop/pods"}
        with pytest.raises(CredentialsRefused, match="must be readable"):
            await open_agentless(bench.tunnel, bench.api, "shop", ())
        with pytest.raises(ApiServerUnavailable):
            await AgentlessUplink(bench.tunnel, bench.api, "shop", ()).wait_info()
        with pytest.raises(ApiServerUnavailable):
            await AgentlessUplink(bench.tunnel, bench.api, "shop", ()).add_carrier()

    run(pki, tmp_path, body)


def test_the_clusters_own_dns_server_is_named_where_it_is_known() -> None:
    index = index_of(pods=[pod("web-0", "10.0.0.1")], namespaces=["shop"])
    assert cluster_info(Discovered(dns_server="10.96.0.10"), index).dns_server == "10.96.0.10"
    assert cluster_info(Discovered(namespaces=("a",)), index).namespaces == ["a", "shop"]
