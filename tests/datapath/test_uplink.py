"""The way to a real manager: TLS, port-forward WebSockets, gRPC over one of them, carriers over the others."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ssl
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

import pytest
import uvloop
from telehelper.core.frames import (
    UNKNOWN,
    VERSION,
    Frame,
    FrameType,
    decode_coded,
    decode_opened,
    decode_timing,
    encode,
    encode_coded,
)
from telehelper.datapath import cluster as cluster_module
from telehelper.datapath import uplink as uplink_module
from telehelper.datapath.openers import CarrierOpener, PortForwardOpener
from telehelper.datapath.tunnel import Tunnel
from telehelper.datapath.tunnel_fake import RecordingUser
from telehelper.datapath.uplink import ManagerUplink, open_uplink
from telehelper.errors import (
    ApiServerUnavailable,
    CredentialsRefused,
    ManagerTooOld,
    ManagerUnavailable,
    SessionExpired,
    TelemagicError,
)
from telehelper.kube.access import ApiAccess
from telehelper.kube.client import ApiClient
from telehelper.manager import mux_server
from telehelper.manager import service as manager_service

from tests.datapath.cluster_in_process import CARRIER, GRPC, NAMESPACE, PODS, Cluster, open_to, text_of
from tests.datapath.test_cluster import pod
from tests.datapath.waiting import WAIT, turns, until
from tests.kube.api_server import TOKEN, Pki, announce

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from aiohttp import web

LOOPBACK = IPv4Address("127.0.0.1")
HOP = "traffic manager telemagic/manager-0, through API server 127.0.0.1"


pytestmark = pytest.mark.usefixtures("fast_back_off")


class Bench:
    """A cluster, a client of its API, a tunnel into it."""

    def __init__(self, cluster: Cluster, api: ApiClient, relay: Path) -> None:
        self.cluster = cluster
        self.api = api
        self.relay = relay
        self.opener: CarrierOpener = PortForwardOpener(api)
        self.user = RecordingUser()
        self.tunnel = Tunnel(self.connect, self.user)
        self.uplinks: list[ManagerUplink] = []

    def reset_tunnel(self) -> None:
        """Have another tunnel, after the first was closed."""
        self.user = RecordingUser()
        self.tunnel = Tunnel(self.connect, self.user)

    async def connect(self, tunnel: Tunnel) -> ManagerUplink:
        uplink = await open_uplink(tunnel, self.api, NAMESPACE, self.relay, self.opener)
        self.uplinks.append(uplink)
        return self.uplinks[-1]

    async def start(self) -> ManagerUplink:
        await self.tunnel.start()
        return self.uplinks[-1]

    async def failure(self, kind: type[TelemagicError]) -> str:
        with pytest.raises(kind) as caught:
            await self.tunnel.start()
        assert type(caught.value) is kind
        assert not any(self.cluster.sockets.values()) or await self._drained()
        return caught.value.message

    async def _drained(self) -> bool:
        await until(lambda: not any(self.cluster.sockets.values()), "closing all port-forwards")
        return True


def bench(
    pki: Pki, folder: Path, work: Callable[[Bench], Awaitable[None]], *, loops: tuple[str, ...] = ("uvloop",)
) -> None:
    async def run() -> None:
        async with asyncio.timeout(WAIT), Cluster(pki, folder).run() as cluster:
            context = ssl.create_default_context(cafile=pki.ca)
            access = ApiAccess(cluster.api.url, lambda: {"Authorization": f"Bearer {TOKEN}"}, context)
            async with ApiClient(access) as api:
                it = Bench(cluster, api, folder / "rpc")
                try:
                    await work(it)
                finally:
                    await it.tunnel.close()

    for loop in loops:
        factory = uvloop.new_event_loop if loop == "uvloop" else asyncio.new_event_loop
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(run())
    assert not (folder / "rpc").exists()


@contextlib.asynccontextmanager
async def echo_service() -> asyncio.Server:  # type: ignore[misc]  # a generator
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65_536):
                writer.write(data)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    try:
        yield server
    finally:
        server.close()  # and not `async with server`: Python 3.12 waits there for clients that are still connected


def port_of(server: asyncio.Server) -> int:
    return int(server.sockets[0].getsockname()[1])


# --- up ----------------------------------------------------------------------------------------------------------


def test_the_whole_way_up_and_back(pki: Pki, tmp_path: Path) -> None:
    async def work(it: Bench) -> None:
        uplink = await it.start()
        assert (uplink.pod.name, uplink.pod.carrier_port) == ("manager-0", CARRIER)
        assert uplink.control.session.manager_version
        info = await uplink.wait_info()
        assert (info.dns_server, info.cluster_domain) == ("198.18.0.10", "cluster.local")
        assert it.user.infos == [info]
        assert it.tunnel.carriers == uplink_module.CARRIERS
        await until(lambda: it.tunnel.rtt, "a heartbeat's answer")
        assert it.tunnel.min_rtt == it.tunnel.rtt
        assert (len(it.cluster.sockets[GRPC]), len(it.cluster.sockets[CARRIER])) == (1, 2)
        await it.tunnel.close()
        await until(lambda: not any(it.cluster.sockets.values()))
        assert it.user.changes == []

    bench(pki, tmp_path, work, loops=("uvloop", "asyncio"))


def test_flows_reach_services(pki: Pki, tmp_path: Path) -> None:
    async def work(it: Bench) -> None:
        await it.start()
        async with echo_service() as service:
            for flow in (1, 2, 3):
                it.tunnel.send(open_to(flow, LOOPBACK, port_of(service)))
            await until(lambda: sum(f.type is FrameType.OPENED for f in it.user.frames) == 3)
            for flow in (1, 2, 3):
                it.tunnel.send(Frame(FrameType.DATA, flow, b"hello %d" % flow))
            await until(lambda: all(text_of(it.user.frames, n) == b"hello %d" % n for n in (1, 2, 3)))
            it.tunnel.send(encode_coded(FrameType.RST, 1, errno.ECONNRESET))
            it.tunnel.forget(1)
        it.tunnel.send(open_to(4, LOOPBACK, port_of_nobody()))
        await until(lambda: any(f.type is FrameType.REJECTED for f in it.user.frames))

    bench(pki, tmp_path, work)


def port_of_nobody() -> int:
    return 1  # tcpmux: nothing listens there


# --- it cannot be opened -----------------------------------------------------------------------------------------


def test_there_is_no_manager(pki: Pki, tmp_path: Path) -> None:
    async def work(it: Bench) -> None:
        it.cluster.api.answer(PODS, {"items": []})
        assert "no traffic manager" in await it.failure(ManagerUnavailable)
        it.cluster.api.answer(PODS, {"items": [pod("manager-0", conditions=[])]})
        assert "is not ready" in await it.failure(ManagerUnavailable)
        assert not it.cluster.log

    bench(pki, tmp_path, work)


def test_the_right_to_forward_ports_is_missing(pki: Pki, tmp_path: Path) -> None:
    async def work(it: Bench) -> None:
        path = f"{PODS}/manager-0/portforward"
        it.cluster.api.answer(path, {"message": "no"}, 403)
        message = await it.failure(CredentialsRefused)
        assert "forbids port-forward to telemagic/manager-0" in message

    bench(pki, tmp_path, work)


def test_a_manager_of_another_version(pki: Pki, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_module, "SPOKEN", (VERSION + 2, VERSION + 1))

    async def work(it: Bench) -> None:
        message = await it.failure(ManagerTooOld)
        assert "refuses this version" in message
        assert f"speaks protocol 1 to {VERSION}, not {VERSION + 1}" in message

    bench(pki, tmp_path, work)


def test_an_older_manager_is_spoken_to_in_its_own_version(
    pki: Pki, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of version 1 refuses 2, in OpenSession, and tells no times."""
    monkeypatch.setattr(manager_service, "SPOKEN", (1,))
    monkeypatch.setattr(mux_server, "SPOKEN", (1,))

    async def work(it: Bench) -> None:
        uplink = await it.start()
        assert uplink.control.protocol == 1
        async with echo_service() as service:
            it.tunnel.send(open_to(1, LOOPBACK, port_of(service)))
            it.tunnel.send(Frame(FrameType.DATA, 1, b"hello"))
            await until(lambda: text_of(it.user.frames, 1) == b"hello")
        opened, *others = it.user.frames
        assert decode_opened(opened).dial == UNKNOWN
        assert {frame.type for frame in others} == {FrameType.DATA}
        assert (await uplink.add_carrier()).is_open

    bench(pki, tmp_path, work)


def test_a_manager_of_our_version_tells_times(pki: Pki, tmp_path: Path) -> None:
    async def work(it: Bench) -> None:
        await it.start()
        async with echo_service() as service:
            it.tunnel.send(open_to(1, LOOPBACK, port_of(service)))
            it.tunnel.send(Frame(FrameType.DATA, 1, b"hello"))
            await until(lambda: text_of(it.user.frames, 1) == b"hello")
        opened, timing = it.user.frames[:2]
        assert 0 <= decode_opened(opened).dial < WAIT
        assert 0 <= decode_timing(timing) < WAIT

    bench(pki, tmp_path, work)


def test_carriers_of_another_version(pki: Pki, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mux_server, "SPOKEN", (VERSION + 1,))

    async def work(it: Bench) -> None:
        await it.failure(ManagerTooOld)

    bench(pki, tmp_path, work)


def test_a_manager_that_does_not_listen(pki: Pki, tmp_path: Path) -> None:
    async def work(it: Bench) -> None:
        await it.cluster.manager.drain(0)
        assert "connection refused" in await it.failure(ManagerUnavailable)
        await it.cluster.restart_manager()

    bench(pki, tmp_path, work)


def test_an_api_server_that_goes_away(pki: Pki, tmp_path: Path) -> None:
    async def work(it: Bench) -> None:
        it.cluster.api.answer(PODS, "<html>", 503)
        await it.failure(ApiServerUnavailable)

    bench(pki, tmp_path, work)


def carriers_are(it: Bench, behaviour: Callable[[web.WebSocketResponse], Awaitable[None]]) -> None:
    """Make carriers, but not the control connection, end at something else than the manager."""
    real = it.cluster.forward

    async def forward(socket: web.WebSocketResponse, port: int) -> None:
        if port == CARRIER:
            await announce(socket, port)
            await behaviour(socket)
        else:
            await real(socket, port)

    it.cluster.api.port_forward = forward


async def _silence(socket: web.WebSocketResponse) -> None:
    async for _ in socket:
        pass


async def _hang_up(socket: web.WebSocketResponse) -> None:
    await socket.receive()
    await socket.close()


async def _data_first(socket: web.WebSocketResponse) -> None:
    await socket.send_bytes(b"\0" + encode(Frame(FrameType.DATA, 1, b"x")))
    await _silence(socket)


async def _garbage(socket: web.WebSocketResponse) -> None:
    await socket.send_bytes(b"\0HTTP/1.1 400 Bad Request\r\n\r\n")
    await _silence(socket)


async def _refusal(socket: web.WebSocketResponse) -> None:
    await socket.send_bytes(b"\0" + encode(encode_coded(FrameType.GOAWAY, 0, errno.EACCES, "unknown token")))
    await _silence(socket)


@pytest.mark.parametrize(
    ("behaviour", "kind", "words"),
    [
        (_silence, ManagerUnavailable, "did not say HELLO"),
        (_hang_up, ManagerUnavailable, "lost before HELLO"),
        (_data_first, ManagerUnavailable, "DATA instead of HELLO"),
        (_garbage, ManagerUnavailable, "lost before HELLO: unknown frame type"),
        (_refusal, SessionExpired, "refused a carrier: unknown token"),
    ],
)
def test_carriers_that_do_not_say_hello(
    pki: Pki,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    behaviour: Callable[[web.WebSocketResponse], Awaitable[None]],
    kind: type[TelemagicError],
    words: str,
) -> None:
    monkeypatch.setattr(uplink_module, "HELLO_TIMEOUT", 0.1)

    async def work(it: Bench) -> None:
        carriers_are(it, behaviour)
        assert words in await it.failure(kind)
        assert not it.relay.exists()

    bench(pki, tmp_path, work)


def test_a_carrier_lost_right_after_hello_is_no_success(pki: Pki, tmp_path: Path) -> None:
    async def work(it: Bench) -> None:
        opened = 0
        first_is_lost = asyncio.Event()

        async def behaviour(socket: web.WebSocketResponse) -> None:
            nonlocal opened
            opened += 1
            hello = b"\0" + encode(encode_coded(FrameType.HELLO, 0, VERSION))
            if opened == 1:
                await socket.send_bytes(hello)
                await socket.close()  # returns when the other side has closed too
                first_is_lost.set()
            else:
                await first_is_lost.wait()
                await socket.send_bytes(hello)
                await _silence(socket)

        carriers_are(it, behaviour)
        assert "lost right after HELLO" in await it.failure(ManagerUnavailable)

    bench(pki, tmp_path, work)


def test_a_carrier_told_to_leave_right_after_hello_is_no_success(pki: Pki, tmp_path: Path) -> None:
    async def work(it: Bench) -> None:
        async def behaviour(socket: web.WebSocketResponse) -> None:
            hello = encode(encode_coded(FrameType.HELLO, 0, VERSION))
            goaway = encode(encode_coded(FrameType.GOAWAY, 0, errno.ESHUTDOWN, "draining"))
            await socket.send_bytes(b"\0" + hello + goaway)
            await _silence(socket)

        carriers_are(it, behaviour)
        assert "lost right after HELLO" in await it.failure(ManagerUnavailable)

    bench(pki, tmp_path, work)


def test_what_a_carrier_says_of_itself_is_not_for_the_user(pki: Pki, tmp_path: Path) -> None:
    opened, data = Frame(FrameType.OPENED, 1, b"\0\0\0\1"), Frame(FrameType.DATA, 1, b"x")
    own = [encode_coded(FrameType.HELLO, 0, VERSION), encode_coded(FrameType.GOAWAY, 0, errno.ESHUTDOWN, "")]

    async def work(it: Bench) -> None:
        async def behaviour(socket: web.WebSocketResponse) -> None:
            await socket.send_bytes(b"\0" + encode(own[0]))
            await until(lambda: it.tunnel.is_up)
            frames = [own[0], opened, own[1], data, own[1]]
            await socket.send_bytes(b"\0" + b"".join(encode(frame) for frame in frames))
            await _silence(socket)

        carriers_are(it, behaviour)
        await it.start()
        await until(lambda: len(it.user.frames) == 4)  # of two carriers
        assert it.user.frames == [opened, data] * 2
        assert it.user.changes[0] == (False, f"the traffic manager is going away ({HOP})")
        assert len(it.user.changes) == 1

    bench(pki, tmp_path, work)


def test_being_cancelled_leaves_nothing_open(pki: Pki, tmp_path: Path) -> None:
    async def work(it: Bench) -> None:
        carriers_are(it, _silence)
        starting = asyncio.ensure_future(it.tunnel.start())
        await until(lambda: len(it.cluster.sockets[GRPC]) == 1 and len(it.cluster.api.requests) >= 4)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        await until(lambda: not it.cluster.sockets[GRPC])
        assert not it.relay.exists()

    bench(pki, tmp_path, work)


def test_being_cancelled_between_two_carriers_leaves_nothing_open(pki: Pki, tmp_path: Path) -> None:
    async def work(it: Bench) -> None:
        carriers: list[web.WebSocketResponse] = []
        greeted = asyncio.Event()
        hello = encode(encode_coded(FrameType.HELLO, 0, VERSION))
        ping, pong = (encode(Frame(kind, 0, b"are you?")) for kind in (FrameType.PING, FrameType.PONG))

        async def behaviour(socket: web.WebSocketResponse) -> None:
            carriers.append(socket)
            if len(carriers) == 1:  # the other one never says HELLO
                await socket.send_bytes(b"\0" + hello + ping)
            async for message in socket:
                if pong in message.data:
                    greeted.set()
            carriers.remove(socket)

        carriers_are(it, behaviour)
        starting = asyncio.ensure_future(it.tunnel.start())
        await until(lambda: greeted.is_set() and len(carriers) == 2, "opening one of two carriers")
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        await turns()  # closing waits for the other side, which has heard by now
        assert not carriers

    bench(pki, tmp_path, work)


# --- it is lost --------------------------------------------------------------------------------------------------


def test_cut_carriers_lead_to_a_new_uplink(pki: Pki, tmp_path: Path) -> None:
    async def work(it: Bench) -> None:
        await it.start()
        async with echo_service() as service:
            it.tunnel.send(open_to(1, LOOPBACK, port_of(service)))
            await until(lambda: it.user.frames)
            await it.cluster.cut(CARRIER)
            await until(lambda: it.user.lost)
            assert it.user.lost[0][0] == {1}
            await until(lambda: it.tunnel.carriers == 2)
            it.tunnel.send(open_to(2, LOOPBACK, port_of(service)))
            await until(lambda: any(f.flow == 2 for f in it.user.frames))

    bench(pki, tmp_path, work)


def test_one_cut_carrier_is_replaced_in_the_same_session(pki: Pki, tmp_path: Path) -> None:
    async def work(it: Bench) -> None:
        await it.start()
        await it.cluster.sockets[CARRIER][0].close()
        await until(lambda: len(it.uplinks[0].carriers) == 3)
        await until(lambda: it.tunnel.carriers == 2)
        assert (len(it.uplinks), it.user.changes) == (1, [])

    bench(pki, tmp_path, work)


def test_a_cut_control_connection_comes_back_and_flows_go_on(pki: Pki, tmp_path: Path) -> None:
    async def work(it: Bench) -> None:
        uplink = await it.start()
        await uplink.wait_info()
        async with echo_service() as service:
            it.tunnel.send(open_to(1, LOOPBACK, port_of(service)))
            await until(lambda: it.user.frames)
            for number in (2, 3):
                await it.cluster.cut(GRPC)
                it.tunnel.send(Frame(FrameType.DATA, 1, b"%d" % number))
                await until(lambda: len(it.user.infos) == number, "hearing of the networks again")  # noqa: B023  # awaited
            await until(lambda: text_of(it.user.frames, 1) == b"23")
        assert it.tunnel.last_error.endswith("; flows go on")
        assert (it.uplinks, it.user.changes, it.user.lost) == ([uplink], [], [])
        assert len(it.cluster.manager.sessions) == 1
        assert (len(it.cluster.sockets[GRPC]), len(it.cluster.sockets[CARRIER])) == (1, 2)

    bench(pki, tmp_path, work)


def test_a_carrier_is_replaced_while_there_is_no_control_connection(pki: Pki, tmp_path: Path) -> None:
    async def work(it: Bench) -> None:
        uplink = await it.start()
        await uplink.wait_info()
        real = it.cluster.forward

        async def forward(socket: web.WebSocketResponse, port: int) -> None:
            if port == CARRIER:
                await real(socket, port)
            else:
                await socket.close()

        it.cluster.api.port_forward = forward
        await it.cluster.cut(GRPC)
        await until(lambda: it.tunnel.last_error)
        await it.cluster.sockets[CARRIER][0].close()
        await until(lambda: len(uplink.carriers) == 3 and it.tunnel.carriers == 2)
        it.cluster.api.port_forward = real
        await until(lambda: len(it.user.infos) == 2, "the control connection")
        assert (it.uplinks, it.user.changes) == ([uplink], [])

    bench(pki, tmp_path, work)


def test_a_session_that_the_manager_forgot_leads_to_a_new_uplink(pki: Pki, tmp_path: Path) -> None:
    async def work(it: Bench) -> None:
        uplink = await it.start()
        await uplink.wait_info()
        it.cluster.manager.sessions._sessions.clear()
        await it.cluster.cut(GRPC)
        await until(lambda: len(it.uplinks) == 2 and it.tunnel.is_up)
        assert [up for up, _ in it.user.changes] == [False, True]
        assert "does not know our session" in it.user.changes[0][1]
        assert it.uplinks[1].control.session.token != uplink.control.session.token
        assert (await it.uplinks[1].wait_info()).cluster_domain == "cluster.local"

    bench(pki, tmp_path, work)


def test_flows_of_a_drained_manager_end_in_peace_and_new_ones_wait_for_the_next(
    pki: Pki, tmp_path: Path
) -> None:
    async def work(it: Bench) -> None:
        await it.start()
        async with echo_service() as service:
            for flow in (1, 2):
                it.tunnel.send(open_to(flow, LOOPBACK, port_of(service)))
            await until(lambda: opened(it.user.frames) == {1, 2})
            old = it.cluster.manager
            draining = asyncio.ensure_future(old.drain(WAIT))
            await until(lambda: it.user.changes)
            assert it.user.changes == [(False, f"the traffic manager is going away ({HOP})")]
            it.tunnel.send(open_to(3, LOOPBACK, port_of(service)))
            for flow in (1, 2):
                it.tunnel.send(Frame(FrameType.DATA, flow, b"goodbye"))
            await until(lambda: all(text_of(it.user.frames, flow) == b"goodbye" for flow in (1, 2)))
            assert opened(it.user.frames) == {1, 2}  # nobody takes the third yet
            await it.cluster.start_manager()
            await until(lambda: opened(it.user.frames) == {1, 2, 3})
            it.tunnel.send(Frame(FrameType.DATA, 1, b", old friend"))
            await until(lambda: text_of(it.user.frames, 1) == b"goodbye, old friend")
            for flow in (1, 2):
                it.tunnel.send(Frame(FrameType.FIN, flow, b""))
            await until(lambda: sum(frame.type is FrameType.FIN for frame in it.user.frames) == 2)
            for flow in (1, 2):
                it.tunnel.forget(flow)
            await draining
            it.tunnel.send(Frame(FrameType.DATA, 3, b"hello"))
            await until(lambda: text_of(it.user.frames, 3) == b"hello")
        assert it.user.lost == []

    bench(pki, tmp_path, work)


def opened(frames: list[Frame]) -> set[int]:
    return {frame.flow for frame in frames if frame.type is FrameType.OPENED}


def test_a_restarted_manager_is_found_again(pki: Pki, tmp_path: Path) -> None:
    async def work(it: Bench) -> None:
        await it.start()
        await it.cluster.restart_manager()
        await until(lambda: len(it.uplinks) == 2 and it.tunnel.is_up, "coming back")
        async with echo_service() as service:
            it.tunnel.send(open_to(9, LOOPBACK, port_of(service)))
            await until(lambda: any(f.flow == 9 and f.type is FrameType.OPENED for f in it.user.frames))

    bench(pki, tmp_path, work)


def test_a_carrier_of_a_forgotten_session_is_refused(pki: Pki, tmp_path: Path) -> None:
    async def work(it: Bench) -> None:
        uplink = await it.start()
        await uplink.wait_info()
        uplink.control.session.token = "forgotten"
        with pytest.raises(SessionExpired, match="refused a carrier"):
            await uplink.add_carrier()
        assert it.tunnel.carriers == 2

    bench(pki, tmp_path, work)


def test_watching_with_a_forgotten_session(pki: Pki, tmp_path: Path) -> None:
    async def work(it: Bench) -> None:
        uplink = await it.start()
        uplink.control.session.token = "forgotten"
        with pytest.raises(SessionExpired, match="does not know our session"):
            await anext(aiter(uplink.control.watch()))

    bench(pki, tmp_path, work)


def test_before_the_first_word_there_is_no_info(pki: Pki, tmp_path: Path) -> None:
    async def work(it: Bench) -> None:
        uplink = ManagerUplink(it.tunnel, it.api, (await it.start()).pod, tmp_path / "other", it.opener)
        with pytest.raises(ManagerUnavailable, match="has not told"):
            _ = uplink.info
        with pytest.raises(ManagerUnavailable, match="not open"):
            await anext(aiter(uplink.control.watch()))
        await uplink.close("never opened")

    bench(pki, tmp_path, work)


def test_who_waits_for_the_first_word_hears_that_it_will_not_come(
    pki: Pki, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silent(_control: object) -> AsyncIterator[object]:
        await asyncio.Event().wait()
        yield

    monkeypatch.setattr(uplink_module.ManagerControl, "watch", silent)

    async def work(it: Bench) -> None:
        uplink = await it.start()
        waiting = asyncio.ensure_future(uplink.wait_info())
        await it.cluster.cut(CARRIER)  # all of them: the uplink is given up
        with pytest.raises(ManagerUnavailable, match="has gone") as caught:
            await waiting
        assert caught.value.hint

    bench(pki, tmp_path, work)


def test_the_reason_of_a_refused_carrier_is_readable() -> None:
    code, text = decode_coded(encode_coded(FrameType.GOAWAY, 0, errno.EACCES, "why"))
    assert (code, text) == (errno.EACCES, "why")
