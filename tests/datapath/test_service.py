"""The whole data plane in one process: a netd that answers by script, a socket for a TUN, a real manager behind TLS."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import sys
from ipaddress import IPv4Address, ip_address, ip_network
from typing import TYPE_CHECKING, Any

import pytest
import uvloop
from telehelper.core.flows import FiveTuple
from telehelper.core.frames import UNKNOWN, Proto
from telehelper.core.packet import Segment, TcpTemplate, parse, syn_options, to_key
from telehelper.datapath import backoff, openers
from telehelper.datapath.host_names import HostNames
from telehelper.datapath.netd_client import NetdClient
from telehelper.datapath.service import DataPlane
from telehelper.discovery.discovery import NODES, SERVICE_CIDRS
from telehelper.endpoint import Endpoint
from telehelper.errors import (
    AlreadyConnected,
    CidrConflict,
    ConnectTimeout,
    ControlError,
    CredentialsRefused,
    HelperLost,
    KubeconfigError,
    ManagerUnavailable,
    ResolverError,
    TelemagicError,
    UndoIncomplete,
    UsageError,
    VifError,
)
from telehelper.messages import (
    PHASES,
    PROTOCOL_VERSION,
    Configure,
    Connect,
    Disconnect,
    DnsSet,
    Done,
    Failed,
    GetRoutes,
    GetStatus,
    Message,
    NetdReady,
    OpenVif,
    PhaseChanged,
    RouteTable,
    SetDns,
    Status,
    TunnelChanged,
    Undo,
    VifOpened,
    Welcome,
)
from telehelper.observing import (
    CellEnded,
    CellStarted,
    FlowRow,
    FlowTable,
    GetEvents,
    GetFlows,
    GetLatency,
    Introduce,
    Snapshot,
    SnapshotChanged,
    Watch,
)
from telehelper.tcp_stream import TcpStream, connect_tcp

from tests.core.builders import whole
from tests.datapath.cluster_in_process import CARRIER, GRPC, NAMESPACE, PODS, Cluster
from tests.datapath.test_netd_client import ScriptedNetd
from tests.datapath.waiting import WAIT, turns, until
from tests.kube.api_server import Pki, kubeconfig

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

POD_CIDR, SERVICE_CIDR, NEW_CIDR = "198.18.64.0/24", "198.18.80.0/24", "198.18.96.0/24"
SILENT = object()  # netd does not answer this


def node(name: str, *cidrs: str) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"podCIDR": cidrs[0], "podCIDRs": list(cidrs)}}


pytestmark = pytest.mark.usefixtures("fast_back_off")


@pytest.fixture(autouse=True)
def _arriving(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have names arrive: a netd that changes nothing cannot have them come; test_host_names.py sees when they don't."""

    async def arrives(_names: HostNames) -> bool:
        return True

    monkeypatch.setattr(HostNames, "_works", arrives)


class ObligingNetd(ScriptedNetd):
    """Does what it is asked, in words only; `answers` may say otherwise. The TUN is a socket; `kernel` its other end."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Message] = []
        self.kernel, self._tun = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.kernel.setblocking(False)
        self.answers: dict[type[Message], object] = {
            OpenVif: VifOpened("tele7", 7, 3, 10),
            Configure: Done(),
            SetDns: DnsSet("resolvconf"),
            Undo: Done(),
        }
        self.task = asyncio.create_task(self._serve())

    def kinds(self) -> list[type[Message]]:
        return [type(message) for message in self.asked]

    def of(self, kind: type[Message]) -> list[Any]:
        return [message for message in self.asked if isinstance(message, kind)]

    async def _serve(self) -> None:
        self.say(NetdReady(PROTOCOL_VERSION, 1))
        with contextlib.suppress(AssertionError, OSError):  # the client hung up: what netd takes as "undo"
            while True:
                envelope = await self.request()
                self.asked.append(envelope.body)
                answer = self.answers[type(envelope.body)]
                if isinstance(answer, VifOpened):
                    self.say(answer, envelope.id, (self._tun.fileno(),))
                elif isinstance(answer, Message):
                    self.say(answer, envelope.id)

    async def close(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        for sock in (self.ours, self.kernel, self._tun):
            sock.close()


class AKernel:
    """A kernel as far as the data plane looks at it."""

    is_last = True
    pid = os.getpid()
    unsent = 0

    def __init__(self) -> None:
        self.told: list[Message] = []

    def send(self, body: Message, _request: int = 0) -> None:
        self.told.append(body)


class Bench:
    def __init__(self, cluster: Cluster, pki: Pki, folder: Path) -> None:
        self.cluster = cluster
        self.folder = folder
        self.netd = ObligingNetd()
        self.events: list[Message] = []
        self.client = NetdClient(self.netd.theirs, on_lost=lambda reason: self.plane.lost(reason))
        self.plane = DataPlane(self.client, folder / "rpc", self.events.append)
        self.config = kubeconfig(folder, pki, cluster.api.url)

    def request(self, timeout: float = 15.0, **changes: Any) -> Connect:
        return Connect(
            **{"kubeconfig": str(self.config), "context": "", "namespace": "", "timeout": timeout} | changes
        )

    async def ask(self, request: Message) -> Any:  # tests know what they asked for
        return await self.plane.handle(request, AKernel())  # type: ignore[arg-type]  # see AKernel

    async def connect(self, **changes: Any) -> Status:
        status = await self.ask(self.request(**changes))
        assert isinstance(status, Status)
        return status

    async def status(self) -> Status:
        found = await self.ask(GetStatus())
        assert isinstance(found, Status)
        return found

    def phases(self) -> list[tuple[str, str]]:
        return [(e.phase, e.state) for e in self.events if isinstance(e, PhaseChanged)]

    def tunnel_changes(self) -> list[bool]:
        return [event.up for event in self.events if isinstance(event, TunnelChanged)]

    async def failure(self, kind: type[TelemagicError], **changes: Any) -> TelemagicError:
        """Connect, fail, and look that everything was undone."""
        with pytest.raises(kind) as caught:
            await self.ask(self.request(**changes))
        assert type(caught.value) is kind
        await self.is_all_undone()
        return caught.value

    async def is_all_undone(self) -> None:
        await self.plane.ended.wait()
        await until(lambda: self.netd.task.done(), "netd hearing the end of our socket")
        await until(lambda: not any(self.cluster.sockets.values()), "closing all port-forwards")
        assert not os.path.exists(self.folder / "rpc")  # noqa: ASYNC240  # it takes no time
        assert self.plane.status().state == "closed"


def bench(pki: Pki, folder: Path, work: Callable[[Bench], Awaitable[None]]) -> None:
    async def run() -> None:
        cluster = Cluster(pki, folder)
        cluster.objects[NODES] = {"items": [node("a", POD_CIDR)]}
        cluster.objects[SERVICE_CIDRS] = {"items": [{"spec": {"cidrs": [SERVICE_CIDR]}}]}
        async with asyncio.timeout(WAIT), cluster.run():
            it = Bench(cluster, pki, folder)
            try:
                await work(it)
            finally:
                with contextlib.suppress(UndoIncomplete):
                    await it.plane.close()
                await it.netd.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


# --- before connecting -------------------------------------------------------------------------------------------


def test_before_connecting_there_is_nothing_to_tell(pki: Pki, tmp_path: Path) -> None:
    async def work(it: Bench) -> None:
        status = await it.status()
        assert (status.state, status.context, status.device, status.cidrs) == ("idle", "", "", ())
        assert await it.ask(GetRoutes()) == RouteTable(())
        flows = await it.ask(GetFlows())
        assert isinstance(flows, FlowTable)
        assert (flows.rows, flows.drops) == ("[]", {})
        assert not it.plane.is_connected
        with pytest.raises(ControlError, match="may not send Welcome"):
            await it.ask(Welcome(1, 1, False))
        assert it.netd.asked == []

    bench(pki, tmp_path, work)


# --- connecting --------------------------------------------------------------------------------------------------


def test_connecting_and_disconnecting(pki: Pki, tmp_path: Path) -> None:
    async def work(it: Bench) -> None:
        status = await it.connect()
        assert (status.state, status.context, status.namespace) == ("connected", "here", "shop")
        assert (status.manager, status.via, status.carriers) == (f"{NAMESPACE}/manager-0", "manager", 2)
        assert (status.device, status.dns, status.cluster_domain) == ("tele7", "resolvconf", "cluster.local")
        assert {(row.cidr, row.kind) for row in status.cidrs} == {
            (POD_CIDR, "pods"),
            (SERVICE_CIDR, "services"),
        }
        assert status.offload == "checksum TSO4"
        assert it.plane.is_connected
        routes = await it.ask(GetRoutes())
        assert {(row.cidr, row.device, row.state) for row in routes.rows} == {
            (POD_CIDR, "tele7", "applied"),
            (SERVICE_CIDR, "tele7", "applied"),
        }
        (configured,) = it.netd.of(Configure)
        assert configured.addresses == (f"{status.address}/32",)
        assert set(configured.routes) == {
            f"{status.dns_server}/32",
            POD_CIDR,
            SERVICE_CIDR,
        }
        (dns,) = it.netd.of(SetDns)
        assert (dns.nameserver, dns.search[0]) == (status.dns_server, "shop.svc.cluster.local")
        assert await it.ask(Disconnect()) == Done()
        assert it.netd.kinds() == [OpenVif, Configure, SetDns, Undo]
        await it.is_all_undone()
        assert it.tunnel_changes() == []

    bench(pki, tmp_path, work)


def test_an_end_on_purpose_is_no_loss_of_the_device(pki: Pki, tmp_path: Path) -> None:
    """Undoing takes the device away, and reading from it fails then: nobody is to hear of that."""

    async def work(it: Bench) -> None:
        await it.connect()
        it.netd.answers[Undo] = SILENT
        closing = asyncio.create_task(it.plane.close())
        await until(lambda: Undo in it.netd.kinds(), "asking netd to undo")
        it.plane.lost("the TUN device failed: File descriptor in bad state")
        assert not it.plane.ended.is_set()  # closing goes on
        it.netd.ours.close()
        await closing
        await it.is_all_undone()
        assert not [one for one in it.events if isinstance(one, TunnelChanged | Failed)]

    bench(pki, tmp_path, work)


def test_phases_are_told_as_they_happen(pki: Pki, tmp_path: Path) -> None:
    async def work(it: Bench) -> None:
        status = await it.connect()
        assert tuple(row.phase for row in status.phases) == PHASES
        assert {row.state for row in status.phases} == {"done"}
        told = it.phases()
        assert len(told) == 2 * len(PHASES)
        for name in PHASES:
            assert told.index((name, "started")) < told.index((name, "done"))
        assert told.index(("tunnel", "done")) < told.index(("CIDRs", "started"))

    bench(pki, tmp_path, work)


def test_the_users_wishes_are_obeyed(pki: Pki, tmp_path: Path) -> None:
    async def work(it: Bench) -> None:
        status = await it.connect(
            namespace="tools", also_proxy=(NEW_CIDR,), never_proxy=(SERVICE_CIDR,), dns="none"
        )
        assert status.namespace == "tools"
        routes = await it.ask(GetRoutes())
        assert {(row.cidr, row.state) for row in routes.rows} == {
            (POD_CIDR, "applied"),
            (SERVICE_CIDR, "skipped"),
            (NEW_CIDR, "applied"),
        }
        assert status.dns == "none"
        assert SetDns not in it.netd.kinds()

    bench(pki, tmp_path, work)


def test_a_second_notebook_shares_the_connection(pki: Pki, tmp_path: Path) -> None:
    async def work(it: Bench) -> None:
        both = await asyncio.gather(it.connect(), it.connect())
        assert [status.state for status in both] == ["connected"] * 2
        assert (await it.connect(timeout=1.0)).state == "connected"
        assert it.netd.kinds() == [OpenVif, Configure, SetDns]
        with pytest.raises(AlreadyConnected, match="other options"):
            await it.connect(never_proxy=("198.18.0.0/16",))

    bench(pki, tmp_path, work)


# --- a flow ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


def test_a_flow_of_nobody_known_is_refused_and_said_so(pki: Pki, tmp_path: Path) -> None:
    async def work(it: Bench) -> None:
        status = await it.connect()
        assert not any("refused" in line for line in status.notices)
        key = to_key(FiveTuple(Proto.TCP, IPv4Address(status.address), 40_000, IPv4Address("127.0.0.1"), 1))
        template = TcpTemplate(key, 1460, offload=True)
        it.netd.kernel.send(whole(template.segment(1000, 0, 2, 512, (), 0, syn_options(1460, 7))))
        answer = parse(await asyncio.get_running_loop().sock_recv(it.netd.kernel, 70_000))
        assert isinstance(answer, Segment)
        assert answer.flags & 4  # RST
        await turns()
        (line,) = [line for line in (await it.status()).notices if "refused" in line]
        assert line == "flows were refused: 1 of nobody known; --share lets everybody on this machine through"
        rows = [FlowRow(*values) for values in json.loads((await it.ask(GetFlows())).rows)]
        assert [row.reason for row in rows] == ["not yours: nobody's who is known"]

    bench(pki, tmp_path, work)


def test_share_says_so(pki: Pki, tmp_path: Path) -> None:
    async def work(it: Bench) -> None:
        assert any(line.startswith("--share: everybody") for line in (await it.connect(share=True)).notices)
        with pytest.raises(AlreadyConnected, match="other options"):
            await it.connect()

    bench(pki, tmp_path, work)


def test_what_a_kernel_says_of_its_cells_is_taken(pki: Pki, tmp_path: Path) -> None:
    async def work(it: Bench) -> None:
        for message in (Introduce("a.ipynb"), CellStarted(1, 1.0), CellEnded(1, 2.0)):
            assert await it.ask(message) == Done()

    bench(pki, tmp_path, work)


def test_a_connection_through_all_of_it(pki: Pki, tmp_path: Path) -> None:
    async def work(it: Bench) -> None:
        status = await it.connect(share=True)  # behind this packet there is no socket
        loop = asyncio.get_running_loop()

        async def packet() -> Segment:
            found = parse(await loop.sock_recv(it.netd.kernel, 70_000))
            assert isinstance(found, Segment)
            return found

        with listening() as service:
            port = service.getsockname()[1]
            here, there = IPv4Address(status.address), IPv4Address("127.0.0.1")
            template = TcpTemplate(
                to_key(FiveTuple(Proto.TCP, here, 40_000, there, port)), 1460, offload=True
            )

            def send(seq: int, ack: int, flags: int, text: bytes = b"", options: bytes = b"") -> None:
                segment = template.segment(seq, ack, flags, 512, (text,), len(text), options)
                it.netd.kernel.send(whole(segment))

            send(1000, 0, 2, options=syn_options(1460, 7))
            answer = await packet()
            assert answer.flags & 18 == 18  # SYN and ACK: the service was reached
            far, _ = await loop.sock_accept(service)
            with far:
                far.setblocking(False)
                send(1001, (answer.seq + 1) & 0xFFFFFFFF, 16)
                send(1001, (answer.seq + 1) & 0xFFFFFFFF, 24, b"select 1")
                assert await loop.sock_recv(far, 100) == b"select 1"
                await loop.sock_sendall(far, b"1 row")
                text = b""
                while not text:
                    text = bytes((await packet()).text)
                assert text == b"1 row"
            flows = await it.ask(GetFlows())
            assert isinstance(flows, FlowTable)
            (row,) = (FlowRow(*values) for values in json.loads(flows.rows))
            assert (row.protocol, row.dst, row.dport) == ("TCP", "127.0.0.1", port)
            assert (row.bytes_up, row.bytes_down) == (8, 5)
            assert abs(row.opened_at - flows.taken_at) < WAIT
            times = (row.queue, row.connect, row.dial, row.first_byte, row.wait, row.transfer)
            assert all(0 <= seconds < WAIT for seconds in times)
            assert row.queue <= row.connect
            assert row.wait <= row.first_byte
            assert row.dns == UNKNOWN  # no name led there
            after = await it.status()
            assert (after.flows_total, after.bytes_up, after.bytes_down) == (1, 8, 5)
            table = await it.ask(GetLatency())
            assert [row.service for row in table.rows] == ["tunnel", f"127.0.0.1:{port}"]

    bench(pki, tmp_path, work)


# --- watching ----------------------------------------------------------------------------------------------------


def test_what_happens_is_told_to_who_watches(pki: Pki, tmp_path: Path) -> None:
    async def work(it: Bench) -> None:
        await it.connect()
        kernel = AKernel()
        snapshot = await it.plane.handle(Watch(0.1), kernel)  # type: ignore[arg-type]
        assert isinstance(snapshot, Snapshot)
        whole = json.loads(snapshot.text)
        assert (whole["status"]["state"], whole["flows"]) == ("connected", [])
        assert {row[0] for row in whole["cidrs"]} == {POD_CIDR, SERVICE_CIDR}
        assert [row[2:4] for row in whole["events"]] == [["connected", "here"]]
        await it.cluster.cut(CARRIER)
        await until(lambda: it.tunnel_changes() == [False, True], "the tunnel's coming back")
        events: list[list[Any]] = []
        while "tunnel up" not in [row[2] for row in events]:
            await until(lambda: kernel.told, "a change")
            change = kernel.told.pop(0)
            assert isinstance(change, SnapshotChanged)
            events += json.loads(change.text)["events"]
        assert "tunnel down" in [row[2] for row in events]
        it.plane.kernel_left(kernel)  # type: ignore[arg-type]
        table = await it.ask(GetEvents())
        assert [row.kind for row in table.rows][:2] == ["connected", "tunnel down"]

    bench(pki, tmp_path, work)


# --- it fails ----------------------------------------------------------------------------------------------------


def test_no_such_kubeconfig(pki: Pki, tmp_path: Path) -> None:
    async def work(it: Bench) -> None:
        await it.failure(KubeconfigError, kubeconfig=str(tmp_path / "nowhere"))
        assert ("tunnel", "failed") in it.phases()
        assert Configure not in it.netd.kinds()
        assert it.netd.kinds()[-1] is Undo

    bench(pki, tmp_path, work)


def test_no_such_context(pki: Pki, tmp_path: Path) -> None:
    async def work(it: Bench) -> None:
        assert "elsewhere" in (await it.failure(KubeconfigError, context="elsewhere")).message

    bench(pki, tmp_path, work)


def test_no_manager(pki: Pki, tmp_path: Path) -> None:
    async def work(it: Bench) -> None:
        it.cluster.api.answer(PODS, {"items": []})
        await it.failure(ManagerUnavailable, via="manager")

    bench(pki, tmp_path, work)


def test_a_refused_token(pki: Pki, tmp_path: Path) -> None:
    async def work(it: Bench) -> None:
        it.cluster.api.tokens.clear()
        await it.failure(CredentialsRefused)

    bench(pki, tmp_path, work)


@pytest.mark.parametrize(
    ("asked", "error", "phase"),
    [
        (OpenVif, VifError("no /dev/net/tun"), "TUN"),
        (Configure, VifError("no route"), "routes"),
        (SetDns, ResolverError("read-only"), "DNS"),
    ],
)
def test_netd_refuses(
    pki: Pki, tmp_path: Path, asked: type[Message], error: TelemagicError, phase: str
) -> None:
    async def work(it: Bench) -> None:
        it.netd.answers[asked] = Failed.of(error)
        assert (await it.failure(type(error))).message == error.message
        assert (phase, "failed") in it.phases()
        assert it.netd.kinds()[-1] is Undo

    bench(pki, tmp_path, work)


def test_a_cidr_that_the_machine_has_already(pki: Pki, tmp_path: Path) -> None:
    async def work(it: Bench) -> None:
        # The loopback's own network is a route of every machine, but never a cluster's: so take a real one.
        with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as probe:
            try:
                probe.connect(("192.0.2.1", 9))  # sends nothing; tells which address we have
                address = probe.getsockname()[0]
            except OSError:
                pytest.skip("this machine has no network to clash with")
        error = await it.failure(CidrConflict, also_proxy=(f"{address}/32",))
        assert error.data["wanted"] == f"{address}/32"
        assert Configure not in it.netd.kinds()

    bench(pki, tmp_path, work)


@pytest.mark.parametrize(("asked", "phase"), [(OpenVif, "TUN"), (Configure, "routes"), (SetDns, "DNS")])
def test_it_takes_too_long(pki: Pki, tmp_path: Path, asked: type[Message], phase: str) -> None:
    async def work(it: Bench) -> None:
        it.netd.answers[asked] = SILENT
        error = await it.failure(ConnectTimeout, timeout=1.5)
        assert repr(phase) in error.message
        assert it.netd.kinds()[-1] is Undo

    bench(pki, tmp_path, work)


def test_a_login_plugin_that_hangs_is_named_and_does_not_outlive_it(pki: Pki, tmp_path: Path) -> None:
    async def work(it: Bench) -> None:
        script = (
            f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(1000)"
        )
        plugin = {
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": sys.executable,
            "args": ["-c", script],
        }
        path = kubeconfig(tmp_path, pki, it.cluster.api.url, name="hangs", user={"exec": plugin})
        error = await it.failure(ConnectTimeout, kubeconfig=str(path), timeout=3.0)
        assert "the login plugin 'python' of the kubeconfig did not end in time" in error.message
        pid = int((tmp_path / "pid").read_text())
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
        assert it.cluster.api.requests == []

    bench(pki, tmp_path, work)


def test_a_late_answer_of_netd_does_not_confuse_the_undoing(pki: Pki, tmp_path: Path) -> None:
    async def work(it: Bench) -> None:
        it.netd.answers[OpenVif] = SILENT
        connecting = asyncio.ensure_future(it.connect())
        await until(lambda: it.netd.asked)
        it.netd.answers[Undo] = SILENT
        closing = asyncio.ensure_future(it.plane.close())
        await until(lambda: it.netd.kinds()[-1] is Undo)
        it.netd.say(VifOpened("tele7", 7, 3, 10), 1, (it.netd._tun.fileno(),))
        await turns()
        it.netd.say(Done(), 2)
        await closing
        await asyncio.gather(connecting, return_exceptions=True)
        await it.is_all_undone()

    bench(pki, tmp_path, work)


def test_leaving_while_connecting(pki: Pki, tmp_path: Path) -> None:
    async def work(it: Bench) -> None:
        held = asyncio.Event()
        real = it.cluster.forward

        async def forward(ws: Any, port: int) -> None:
            held.set()
            if port == GRPC:
                await asyncio.Event().wait()
            await real(ws, port)

        it.cluster.api.port_forward = forward
        connecting = asyncio.ensure_future(it.connect())
        await held.wait()
        await it.plane.close()
        with pytest.raises((asyncio.CancelledError, TelemagicError)):
            await connecting
        await it.is_all_undone()

    bench(pki, tmp_path, work)


def test_netd_dies_while_connecting(pki: Pki, tmp_path: Path) -> None:
    async def work(it: Bench) -> None:
        it.netd.answers[OpenVif] = SILENT
        connecting = asyncio.ensure_future(it.connect())
        await until(lambda: it.netd.asked)
        await it.netd.close()
        with pytest.raises(HelperLost):
            await connecting
        await it.plane.ended.wait()

    bench(pki, tmp_path, work)


# --- direct carriers ---------------------------------------------------------------------------------------------


def test_direct_carriers_are_told_and_never_routed_into_the_tunnel(
    pki: Pki, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside_the_cluster = POD_CIDR.replace("0/24", "7")

    async def work(it: Bench) -> None:
        it.cluster.listen_at(Endpoint("tcp", "127.0.0.1", 0))
        await it.cluster.restart_manager()
        (listening,) = it.cluster.manager.listening
        dialed = []

        async def connect(host: str, port: int) -> TcpStream:
            dialed.append((host, port))
            return await connect_tcp("127.0.0.1", listening.port)

        monkeypatch.setattr(openers, "connect_tcp", connect)
        carrier = f"tcp://{inside_the_cluster}:8084"
        status = await it.connect(carrier=carrier)
        assert (status.carrier, status.carriers) == (carrier, 2)
        assert dialed == [(inside_the_cluster, 8084)] * 2
        (tunnel,) = (row for row in status.phases if row.phase == "tunnel")
        assert tunnel.detail.endswith(f"carriers by {carrier}")
        (configured,) = it.netd.of(Configure)
        routed = [ip_network(route) for route in configured.routes]
        for last in range(256):
            address = ip_address(POD_CIDR.replace("0/24", str(last)))
            is_routed = any(address in network for network in routed)
            assert is_routed == (str(address) != inside_the_cluster), address
        # Nor when the cluster's networks change.
        it.cluster.objects[NODES] = {"items": [node("a", POD_CIDR), node("b", NEW_CIDR)]}
        await until(lambda: len(it.netd.of(Configure)) == 2)
        routed = [ip_network(route) for route in it.netd.of(Configure)[1].routes]
        assert ip_network(NEW_CIDR) in routed
        assert not any(ip_address(inside_the_cluster) in network for network in routed)
        # Another notebook that wants another way is told.
        with pytest.raises(AlreadyConnected, match="with other options"):
            await it.connect()

    bench(pki, tmp_path, work)


@pytest.mark.parametrize(
    ("carrier", "kind", "words"),
    [
        ("pigeon", UsageError, "'pigeon' is no address for carriers"),
        ("tls://nowhere.invalid:1", ManagerUnavailable, "does not resolve"),
        ("tls://127.0.0.1:1", ManagerUnavailable, "has no TLS listener"),
        ("tcp://127.0.0.1:1", ManagerUnavailable, "does not take carriers: connection refused"),
    ],
)
def test_direct_carriers_that_cannot_be_are_undone(
    pki: Pki, tmp_path: Path, carrier: str, kind: type[TelemagicError], words: str
) -> None:
    async def work(it: Bench) -> None:
        assert words in (await it.failure(kind, carrier=carrier)).message

    bench(pki, tmp_path, work)


# --- while connected ---------------------------------------------------------------------------------------------


def test_netd_dies_while_connected(pki: Pki, tmp_path: Path) -> None:
    async def work(it: Bench) -> None:
        await it.connect()
        await it.netd.close()
        await it.plane.ended.wait()
        assert it.tunnel_changes() == [False]
        assert (await it.status()).last_error == "netd ended"
        await it.plane.close()
        await it.is_all_undone()

    bench(pki, tmp_path, work)


def test_the_tunnel_breaks_and_comes_back(pki: Pki, tmp_path: Path) -> None:
    async def work(it: Bench) -> None:
        await it.connect()
        it.cluster.api.answer(PODS, {"items": []})  # for a while there is no manager
        await it.cluster.cut(CARRIER)
        await until(lambda: it.tunnel_changes() == [False])
        status = await it.status()
        assert (status.state, status.carriers, status.cluster_domain) == ("reconnecting", 0, "cluster.local")
        assert "carrier" in status.last_error
        await until(lambda: "no traffic manager" in it.plane.status().last_error, "saying what it waits for")
        assert it.plane.is_connected
        del it.cluster.api.answers[PODS]
        it.cluster.api.answer(PODS, {"items": [_manager_pod()]})

        await until(lambda: it.plane.status().state == "connected")  # it can be told at every moment
        assert it.tunnel_changes() == [False, True]
        status = await it.status()
        assert status.cluster_domain == "cluster.local"
        assert "carrier" in status.last_error  # what was lost, not what came of trying again
        await until(lambda: len(it.cluster.sockets[CARRIER]) == 2)

    bench(pki, tmp_path, work)


def _manager_pod() -> dict[str, Any]:
    from tests.datapath.test_cluster import pod

    return pod("manager-1")


def test_a_changed_network_ends_the_wait_for_the_next_try(
    pki: Pki, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(it: Bench) -> None:
        await it.connect()
        monkeypatch.setattr(backoff, "MAX_DELAY", 1000.0)
        monkeypatch.setattr(backoff, "FIRST_DELAY", 1000.0)
        await it.cluster.restart_manager()
        await until(lambda: it.plane.status().state == "reconnecting")
        await until(lambda: it.plane._tunnel._back_offs)
        monkeypatch.setattr(backoff, "FIRST_DELAY", 0.005)
        it.plane._machine_woke(0.0)  # as when wlan0 went up
        await until(lambda: it.plane.status().state == "connected")
        assert it.tunnel_changes() == [False, True]

    bench(pki, tmp_path, work)


def test_a_machine_that_slept_is_connected_anew_at_once(pki: Pki, tmp_path: Path) -> None:
    async def work(it: Bench) -> None:
        await it.connect()
        it.plane._machine_woke(60.0)
        status = await it.status()
        assert (status.state, status.last_error) == ("reconnecting", "this machine was asleep for 60 s")
        await until(lambda: it.plane.status().state == "connected")
        assert it.tunnel_changes() == [False, True]
        assert (await it.status()).carriers == 2

    bench(pki, tmp_path, work)


def test_clock_and_network_are_watched_while_connected(pki: Pki, tmp_path: Path) -> None:
    async def work(it: Bench) -> None:
        assert it.plane._outside._socket is None
        await it.connect()
        assert it.plane._outside._socket is not None
        it.plane._outside._slept -= 3600
        await until(lambda: False in it.tunnel_changes())
        await it.plane.close()
        assert it.plane._outside._socket is None

    bench(pki, tmp_path, work)


def test_new_networks_are_routed(pki: Pki, tmp_path: Path) -> None:
    async def work(it: Bench) -> None:
        await it.connect()
        it.cluster.objects[NODES] = {"items": [node("a", POD_CIDR), node("b", NEW_CIDR)]}
        await until(lambda: len(it.netd.of(Configure)) > 1, "configuring again")
        assert NEW_CIDR in it.netd.of(Configure)[-1].routes
        first, second = it.netd.of(Configure)[0], it.netd.of(Configure)[-1]
        assert first.addresses == second.addresses
        await until(lambda: NEW_CIDR in {row.cidr for row in it.plane.status().cidrs})

    bench(pki, tmp_path, work)


def test_new_networks_that_cannot_be_routed_are_noted(pki: Pki, tmp_path: Path) -> None:
    async def work(it: Bench) -> None:
        await it.connect()
        it.netd.answers[Configure] = Failed.of(VifError("the table is full"))
        it.cluster.objects[NODES] = {"items": [node("a", POD_CIDR), node("b", NEW_CIDR)]}
        await until(lambda: "the table is full" in " ".join(it.plane.status().notices))
        assert (await it.status()).state == "connected"

    bench(pki, tmp_path, work)


# --- down --------------------------------------------------------------------------------------------------------


def test_another_notebook_keeps_the_connection(pki: Pki, tmp_path: Path) -> None:
    async def work(it: Bench) -> None:
        await it.connect()
        kernel = AKernel()
        kernel.is_last = False
        assert await it.plane.handle(Disconnect(), kernel) == Done()  # type: ignore[arg-type]  # see AKernel
        assert it.plane.is_connected
        assert Undo not in it.netd.kinds()

    bench(pki, tmp_path, work)


def test_what_is_left_is_told_and_the_rest_is_taken_down(pki: Pki, tmp_path: Path) -> None:
    async def work(it: Bench) -> None:
        await it.connect()
        it.netd.answers[Undo] = Failed.of(UndoIncomplete("resolv.conf is locked", left="/etc/resolv.conf"))
        with pytest.raises(UndoIncomplete) as caught:
            await it.ask(Disconnect())
        assert caught.value.data == {"left": "/etc/resolv.conf"}
        await it.is_all_undone()

    bench(pki, tmp_path, work)


@pytest.mark.parametrize("part", ["_vif", "_attribution", "_places", "_networks", "_tunnel"])
def test_a_part_that_fails_to_close_keeps_no_other_from_it(
    pki: Pki, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    async def work(it: Bench) -> None:
        await it.connect()
        close = getattr(it.plane, part).close

        async def fail() -> None:
            await close()
            raise UndoIncomplete(f"{part} is broken")

        monkeypatch.setattr(getattr(it.plane, part), "close", fail)
        with pytest.raises(UndoIncomplete, match="is broken"):
            await it.plane.close()
        await it.is_all_undone()
        monkeypatch.undo()

    bench(pki, tmp_path, work)


def test_closing_twice_undoes_once(pki: Pki, tmp_path: Path) -> None:
    async def work(it: Bench) -> None:
        await it.connect()
        await asyncio.gather(it.plane.close(), it.plane.close())
        await it.plane.close()
        assert it.netd.kinds().count(Undo) == 1

    bench(pki, tmp_path, work)


def test_closing_what_was_never_connected(pki: Pki, tmp_path: Path) -> None:
    async def work(it: Bench) -> None:
        await it.plane.close()
        assert it.netd.kinds() == [Undo]
        await it.is_all_undone()

    bench(pki, tmp_path, work)


def test_connecting_what_is_just_ending(pki: Pki, tmp_path: Path) -> None:
    async def work(it: Bench) -> None:
        await it.connect()
        await it.plane.close()
        with pytest.raises(HelperLost, match="just ending"):
            await it.connect()

    bench(pki, tmp_path, work)
