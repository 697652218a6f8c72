"""Direct carriers against a real manager: TCP and TLS over the loopback, and who may stand in between."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest
import uvloop
from telehelper.core.frames import Frame, FrameType
from telehelper.datapath import openers
from telehelper.datapath.openers import DirectOpener, PortForwardOpener, choose_opener
from telehelper.endpoint import PORTFORWARD, Endpoint
from telehelper.errors import ManagerUnavailable, ManagerUntrusted, TelemagicError, UsageError
from telehelper.kube.access import ApiAccess
from telehelper.kube.client import ApiClient
from telehelper.manager.certificate import make_identity
from telehelper.rpc.manager_pb2 import Session

from tests.datapath.cluster_in_process import CARRIER, GRPC, PODS, Cluster, open_to, text_of
from tests.datapath.test_uplink import LOOPBACK, Bench, echo_service, opened, port_of
from tests.datapath.waiting import WAIT, until
from tests.kube.api_server import TOKEN, Pki

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

SCHEMES = ("tcp", "tls")
both = pytest.mark.parametrize("scheme", SCHEMES)


pytestmark = pytest.mark.usefixtures("fast_back_off")


class DirectBench(Bench):
    """The usual bench, but its carriers go to one of the manager's own listeners."""

    def listener(self, scheme: str) -> Endpoint:
        """Where the manager that runs now listens."""
        (found,) = (each for each in self.cluster.manager.listening if each.scheme == scheme)
        return found

    async def use(self, endpoint: Endpoint) -> None:
        self.opener = await choose_opener(str(endpoint), self.api)

    async def refusal(self, endpoint: Endpoint) -> TelemagicError:
        """Try to connect there; return the error, nothing being left open."""
        await self.use(endpoint)
        with pytest.raises(TelemagicError) as caught:
            await self.tunnel.start()
        await until(lambda: not any(self.cluster.sockets.values()), "closing all port-forwards")
        await until(lambda: self.direct_connections == 0, "closing all direct connections")
        return caught.value

    @property
    def direct_connections(self) -> int:
        return sum(each.connections for each in self.cluster.manager._mux_server._listeners)


def bench(
    pki: Pki,
    folder: Path,
    work: Callable[[DirectBench], Awaitable[None]],
    listen: tuple[str, ...] = SCHEMES,
    *,
    loops: tuple[str, ...] = ("asyncio", "uvloop"),
) -> None:
    async def run() -> None:
        endpoints = tuple(Endpoint(scheme, "127.0.0.1", 0) for scheme in listen)
        cluster = Cluster(pki, folder, carrier_listen=endpoints)
        async with asyncio.timeout(WAIT), cluster.run():
            context = ssl.create_default_context(cafile=pki.ca)
            access = ApiAccess(cluster.api.url, lambda: {"Authorization": f"Bearer {TOKEN}"}, context)
            async with ApiClient(access) as api:
                it = DirectBench(cluster, api, folder / "rpc")
                try:
                    await work(it)
                finally:
                    await it.tunnel.close()

    for loop in loops:
        factory = uvloop.new_event_loop if loop == "uvloop" else asyncio.new_event_loop
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(run())


class Relay:
    """Somebody between the data plane and the manager: passes bytes on, keeps a copy, and can be cut.

    With an identity it is a man in the middle: it speaks TLS itself, and would speak it to the manager, too.
    """

    def __init__(self, target: Endpoint, identity: ssl.SSLContext | None = None) -> None:
        self.seen = bytearray()  # from the near side, as read: decrypted if it could be
        self.connections = 0
        self.open: set[asyncio.StreamWriter] = set()
        self._target = target
        self._identity = identity
        self._tasks: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def run(self) -> AsyncIterator[Endpoint]:
        """Yield where it listens."""
        server = await asyncio.start_server(self._pass_on, "127.0.0.1", 0, ssl=self._identity)
        try:
            yield Endpoint(self._target.scheme, "127.0.0.1", port_of(server))
        finally:
            server.close()
            self.cut()
            await asyncio.gather(*self._tasks)

    def cut(self) -> None:
        for writer in list(self.open):
            writer.transport.abort()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        far_reader, far_writer = await asyncio.open_connection(self._target.host, self._target.port)
        self.open |= {writer, far_writer}
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, far_writer, self.seen))
                group.create_task(self._pump(far_reader, writer, bytearray()))
        finally:
            self.open -= {writer, far_writer}
            for end in (writer, far_writer):
                end.transport.abort()
            self._tasks.discard(task)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, copy: bytearray
    ) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65_536):
                copy += data
                writer.write(data)
                await writer.drain()
        writer.transport.abort()


# --- it works ----------------------------------------------------------------------------------------------------


@both
def test_flows_go_straight_to_the_manager(pki: Pki, tmp_path: Path, scheme: str) -> None:
    async def work(it: DirectBench) -> None:
        await it.use(it.listener(scheme))
        uplink = await it.start()
        assert str(it.opener) == str(it.listener(scheme))
        assert list(it.opener.addresses) == [ip_address("127.0.0.1")]
        # Control goes by port-forward, carriers do not.
        await uplink.wait_info()
        assert (len(it.cluster.sockets[GRPC]), len(it.cluster.sockets[CARRIER])) == (1, 0)
        assert (it.direct_connections, it.tunnel.carriers) == (2, 2)
        block = bytes(range(256)) * 200
        async with echo_service() as service:
            for flow in (1, 2):
                it.tunnel.send(open_to(flow, LOOPBACK, port_of(service)))
            await until(lambda: opened(it.user.frames) == {1, 2})
            for flow in (1, 2):
                it.tunnel.send(Frame(FrameType.DATA, flow, block))
            await until(lambda: all(text_of(it.user.frames, flow) == block for flow in (1, 2)))
        await it.tunnel.close()
        await until(lambda: it.direct_connections == 0)

    bench(pki, tmp_path, work)


@both
def test_one_cut_carrier_is_replaced_and_all_are_reconnected(pki: Pki, tmp_path: Path, scheme: str) -> None:
    async def work(it: DirectBench) -> None:
        relay = Relay(it.listener(scheme))
        async with relay.run() as endpoint, echo_service() as service:
            await it.use(endpoint)
            await it.start()
            for flow in (1, 2):
                it.tunnel.send(open_to(flow, LOOPBACK, port_of(service)))
            await until(lambda: opened(it.user.frames) == {1, 2})
            next(iter(relay.open)).transport.abort()
            await until(lambda: it.tunnel.carriers == 2 and relay.connections == 3, "a replacement")
            assert len(it.user.lost) == 1
            (lost,), reason = it.user.lost[0]
            (left,) = {1, 2} - {lost}
            assert reason
            assert it.tunnel.last_error == reason
            it.tunnel.send(Frame(FrameType.DATA, left, b"alive"))
            await until(lambda: text_of(it.user.frames, left) == b"alive")
            assert (len(it.uplinks), it.user.changes) == (1, [])
            relay.cut()
            await until(lambda: len(it.uplinks) == 2 and it.tunnel.carriers == 2, "a new uplink")
            it.tunnel.send(open_to(3, LOOPBACK, port_of(service)))
            await until(lambda: 3 in opened(it.user.frames))

    bench(pki, tmp_path, work)


@both
def test_a_carrier_lives_on_without_the_api_server(pki: Pki, tmp_path: Path, scheme: str) -> None:
    async def work(it: DirectBench) -> None:
        relay = Relay(it.listener(scheme))
        async with relay.run() as endpoint, echo_service() as service:
            await it.use(endpoint)
            await (await it.start()).wait_info()
            it.tunnel.send(open_to(1, LOOPBACK, port_of(service)))
            await until(lambda: opened(it.user.frames) == {1})
            it.cluster.api.answer(PODS, "<html>", 503)
            it.cluster.api.answer(f"{PODS}/manager-0/portforward", "<html>", 503)
            await it.cluster.cut(GRPC)
            await until(lambda: it.tunnel.last_error, "hearing that the control connection is lost")
            before = relay.connections
            next(iter(relay.open)).transport.abort()
            await until(lambda: relay.connections == before + 1 and it.tunnel.carriers == 2, "a replacement")
            it.tunnel.send(open_to(2, LOOPBACK, port_of(service)))
            await until(lambda: 2 in opened(it.user.frames))
            assert (len(it.uplinks), it.user.changes) == (1, [])

    # grpcio dials again and again until the end. Python 3.11's own loop loses a connection that a server had accepted
    # just before it was closed (it stays open, a ResourceWarning in whatever test runs then); uvloop, ours, does not.
    bench(pki, tmp_path, work, loops=("uvloop",))


def test_after_a_restart_the_new_managers_certificate_counts(pki: Pki, tmp_path: Path) -> None:
    async def work(it: DirectBench) -> None:
        await it.use(it.listener("tls"))
        uplink = await it.start()
        port = it.listener("tls").port
        it.cluster.listen_at(Endpoint("tls", "127.0.0.1", port))
        await it.cluster.restart_manager()
        await until(lambda: len(it.uplinks) == 2 and it.tunnel.is_up, "coming back")
        fingerprints = {each.control.session.carrier_fingerprint for each in (uplink, it.uplinks[1])}
        assert len(fingerprints) == 2
        assert it.direct_connections == 2

    bench(pki, tmp_path, work)


# --- somebody in between -----------------------------------------------------------------------------------------


def test_a_man_in_the_middle_gets_nothing_at_all(pki: Pki, tmp_path: Path) -> None:
    async def work(it: DirectBench) -> None:
        # One who only passes bytes on learns nothing by it, and that it works shows that the relay does.
        honest = Relay(it.listener("tls"))
        async with honest.run() as endpoint:
            await it.use(endpoint)
            token = (await it.start()).control.session.token.encode()
            assert honest.seen
            assert token not in honest.seen
            await it.tunnel.close()
        # One who reads along has to have a certificate of their own.
        identity = make_identity()
        middle = Relay(it.listener("tls"), identity.context)
        async with middle.run() as endpoint:
            await it.use(endpoint)
            fooled = Session(carrier_fingerprint=identity.fingerprint)
            stream = await it.opener.open(it.uplinks[0].pod, fooled)
            stream.write([b"a secret"])
            await until(lambda: middle.seen == b"a secret", "the man in the middle being able to read")
            await stream.close()
            middle.seen.clear()
            it.reset_tunnel()
            error = await it.refusal(endpoint)
            assert isinstance(error, ManagerUntrusted)
            assert f"127.0.0.1 port {endpoint.port} is not the traffic manager" in error.message
            assert "nothing was sent to it" in error.message
            assert "--carrier portforward" in error.hint
            await until(lambda: not middle.open)
            assert middle.seen == b""

    bench(pki, tmp_path, work)


def test_in_plain_tcp_the_token_is_there_to_be_read(pki: Pki, tmp_path: Path) -> None:
    # Why status says "not encrypted", and the proof that the test above would see a token.
    async def work(it: DirectBench) -> None:
        relay = Relay(it.listener("tcp"))
        async with relay.run() as endpoint:
            await it.use(endpoint)
            token = (await it.start()).control.session.token.encode()
            assert token in relay.seen
            await it.tunnel.close()

    bench(pki, tmp_path, work)


# --- it does not work --------------------------------------------------------------------------------------------


def test_the_manager_has_no_tls_listener(pki: Pki, tmp_path: Path) -> None:
    async def work(it: DirectBench) -> None:
        error = await it.refusal(Endpoint("tls", "127.0.0.1", it.listener("tcp").port))
        assert isinstance(error, ManagerUnavailable)
        assert "manager-0 has no TLS listener" in error.message
        assert "--carrier-listen tls://" in error.hint
        assert not [line for line in it.cluster.log if line.startswith("carrier")]  # nobody even came

    bench(pki, tmp_path, work, listen=("tcp",))


def test_the_other_protocol_is_spoken_there(pki: Pki, tmp_path: Path) -> None:
    async def work(it: DirectBench) -> None:
        error = await it.refusal(Endpoint("tls", "127.0.0.1", it.listener("tcp").port))
        assert isinstance(error, ManagerUnavailable)
        assert error.message.startswith("tls://127.0.0.1:")
        error = await it.refusal(Endpoint("tcp", "127.0.0.1", it.listener("tls").port))
        assert isinstance(error, ManagerUnavailable)
        assert "lost before HELLO" in error.message

    bench(pki, tmp_path, work)


def test_nobody_listens_there(pki: Pki, tmp_path: Path) -> None:
    async def work(it: DirectBench) -> None:
        for scheme in SCHEMES:
            with socket.socket() as reserved:
                reserved.bind(("127.0.0.1", 0))  # not listening
                endpoint = Endpoint(scheme, "127.0.0.1", reserved.getsockname()[1])
                error = await it.refusal(endpoint)
            assert isinstance(error, ManagerUnavailable)
            assert error.message == f"{endpoint} does not take carriers: connection refused"
            assert "--carrier-listen" in error.hint

    bench(pki, tmp_path, work)


def test_who_listens_there_is_silent(pki: Pki, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openers, "CONNECT_TIMEOUT", 0.1)

    async def work(it: DirectBench) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            endpoint = Endpoint("tls", "127.0.0.1", silent.getsockname()[1])
            error = await it.refusal(endpoint)
        assert error.message == f"{endpoint} does not take carriers: no answer in time"

    bench(pki, tmp_path, work)


def test_tls_1_2_is_not_good_enough(pki: Pki, tmp_path: Path) -> None:
    async def work(it: DirectBench) -> None:
        old = make_identity().context
        old.minimum_version = ssl.TLSVersion.TLSv1_2
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        relay = Relay(it.listener("tls"), old)
        async with relay.run() as endpoint:
            error = await it.refusal(endpoint)
            assert isinstance(error, ManagerUnavailable)
            assert "does not take carriers" in error.message
            assert relay.seen == b""

    bench(pki, tmp_path, work)


# --- choosing ----------------------------------------------------------------------------------------------------


def choose(carrier: str) -> openers.CarrierOpener:
    api: ApiClient = object()  # type: ignore[assignment]  # nothing is asked of it
    return asyncio.run(choose_opener(carrier, api))


def test_the_ways_by_name() -> None:
    default = choose(PORTFORWARD)
    assert isinstance(default, PortForwardOpener)
    assert (str(default), list(default.addresses)) == ("portforward", [])
    direct = choose("tls://[::1]:8083")
    assert isinstance(direct, DirectOpener)
    assert (str(direct), list(direct.addresses)) == ("tls://[::1]:8083", [ip_address("::1")])
    with pytest.raises(UsageError, match="neither"):
        choose("carrier pigeon")


def test_a_name_is_looked_up_once_and_that_is_where_carriers_go(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, dialed = [], []

    async def getaddrinfo(self: object, host: str, port: int, **_: object) -> list[object]:
        asked.append(host)
        found = ("192.0.2.1", "192.0.2.1", "2001:db8::1")
        return [(0, 0, 0, "", (address, port)) for address in found]

    async def connect(host: str, port: int) -> None:
        dialed.append((host, port))
        raise ConnectionRefusedError(111, "no")

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(openers, "connect_tcp", connect)

    async def work() -> None:
        opener = await choose_opener("tcp://manager.example:99", object())  # type: ignore[arg-type]  # as above
        assert [str(address) for address in opener.addresses] == ["192.0.2.1", "2001:db8::1"]
        for _ in range(2):
            with pytest.raises(ManagerUnavailable, match=r"connection refused\n"):
                await opener.open(None, Session())  # type: ignore[arg-type]  # it is not asked

    asyncio.run(work())
    assert asked == ["manager.example"]
    assert dialed == [("192.0.2.1", 99), ("2001:db8::1", 99)] * 2


def test_a_name_that_does_not_resolve() -> None:
    with pytest.raises(ManagerUnavailable, match=r"name in tls://nowhere\.invalid:1 does not resolve"):
        choose("tls://nowhere.invalid:1")
