"""A cluster for tests: the small API server with one manager's pod, whose port-forwards lead to a real manager."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from aiohttp import WSMsgType, web
from telehelper.core.frames import Frame, FrameType, Open, Proto, encode_open
from telehelper.discovery.discovery import FakeApiReader
from telehelper.manager.config import ManagerConfig
from telehelper.manager.manager import Manager

from tests.datapath.test_cluster import pod
from tests.kube.api_server import ApiServer, Pki, announce

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from ipaddress import IPv4Address
    from pathlib import Path

    from telehelper.endpoint import Endpoint
    from telehelper.errors import ClusterError

NAMESPACE = "telemagic"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
GRPC, CARRIER = 8081, 8082


class Cluster:
    """One API server and one manager; `sockets` are the port-forwards that are open, by port."""

    def __init__(self, pki: Pki, folder: Path, carrier_listen: tuple[Endpoint, ...] = ()) -> None:
        resolv_conf = folder / "pod-resolv.conf"
        resolv_conf.write_text(
            "nameserver 198.18.0.10\nsearch shop.svc.cluster.local svc.cluster.local cluster.local\n"
        )
        self.config = ManagerConfig(
            grpc_port=0,
            carrier_port=0,
            resolv_conf=resolv_conf,
            service_account=folder,
            allow_loopback=True,
            poll_interval=0.05,
            carrier_listen=carrier_listen,
        )
        self.objects: dict[str, dict[str, Any] | ClusterError] = {}  # what the manager finds in the cluster
        self.log: list[str] = []
        self.api = ApiServer(pki)
        self.api.answer(PODS, {"items": [pod("manager-0")]})
        self.api.port_forward = self.forward
        self.manager = Manager(self.config, self.log.append, reader=FakeApiReader(self.objects))
        self.sockets: dict[int, list[web.WebSocketResponse]] = {GRPC: [], CARRIER: []}

    @contextlib.asynccontextmanager
    async def run(self) -> AsyncIterator[Cluster]:
        """Start both."""
        await self.manager.start()
        try:
            async with self.api.run():
                yield self
        finally:
            await self.manager.drain(0)

    def listen_at(self, *endpoints: Endpoint) -> None:
        """Have the next manager listen there."""
        self.config = replace(self.config, carrier_listen=endpoints)

    async def restart_manager(self) -> None:
        """Replace the manager by another, which knows no session."""
        await self.manager.drain(0)
        await self.start_manager()

    async def start_manager(self) -> None:
        """Start another manager, and lead port-forwards there; the one before is the caller's."""
        self.manager = Manager(self.config, self.log.append, reader=FakeApiReader(self.objects))
        await self.manager.start()

    async def forward(self, socket: web.WebSocketResponse, port: int) -> None:
        """Lead one port-forward to the manager, as a kubelet does."""
        real = {GRPC: self.manager.grpc_port, CARRIER: self.manager.carrier_port}[port]
        await announce(socket, port)
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", real)
        except OSError:
            await socket.send_bytes(b"\1connection refused")
            await socket.close()
            return
        self.sockets[port].append(socket)
        up = asyncio.ensure_future(_up(socket, writer))
        try:
            while data := await reader.read(30_000):
                await socket.send_bytes(b"\0" + data)
        except ConnectionError:
            pass  # the test cut one side
        finally:
            up.cancel()
            await asyncio.gather(up, return_exceptions=True)
            self.sockets[port].remove(socket)
            writer.close()
            await socket.close()

    async def cut(self, port: int) -> None:
        """Break all port-forwards to a port, as an API server does that restarts."""
        for socket in list(self.sockets[port]):
            await socket.close()


async def _up(socket: web.WebSocketResponse, writer: asyncio.StreamWriter) -> None:
    async for message in socket:
        if message.type is WSMsgType.BINARY:
            writer.write(message.data[1:])
            await writer.drain()
    writer.close()


def open_to(flow: int, address: IPv4Address, port: int) -> Frame:
    """Return an OPEN of a TCP flow to a service on this machine."""
    return encode_open(flow, Open(Proto.TCP, address, 40_000, address, port, 5.0, 65_536))


def text_of(frames: list[Frame], flow: int) -> bytes:
    """Return all that a flow brought."""
    return b"".join(bytes(f.payload) for f in frames if f.flow == flow and f.type is FrameType.DATA)
