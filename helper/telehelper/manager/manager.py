"""The manager as an object: everything wired up, started and drained."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import grpc

from telehelper.background import begin
from telehelper.core.resolv_conf import parse_resolv_conf
from telehelper.discovery.discovery import ApiReader, Explorer
from telehelper.manager.certificate import make_identity
from telehelper.manager.cluster_info import ClusterInfoBoard
from telehelper.manager.dial_rules import DialRules
from telehelper.manager.dialer import Dialer, SocketDialer
from telehelper.manager.mux_server import MuxServer
from telehelper.manager.service import ManagerService
from telehelper.manager.sessions import SessionTable
from telehelper.rpc import manager_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from telehelper.endpoint import Endpoint
    from telehelper.manager.config import ManagerConfig

HOST: Final = "127.0.0.1"  # of the pod: only a port-forward, for which one needs the right, gets there
TOKEN_BYTES: Final = 32
ID_BYTES: Final = 4
SWEEP: Final = 1.0  # seconds between two looks for expired sessions
_GRPC_OPTIONS: Final = (
    ("grpc.so_reuseport", 0),  # a port in use is an error
    ("grpc.keepalive_time_ms", 20_000),  # a client that vanished keeps no session alive
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
)


class Manager:
    """A traffic manager. :meth:`start` it, and :meth:`drain` it.

    Parameters
    ----------
    config
        Its settings.
    audit
        Takes one line for each dial, session and carrier; no secrets in it.
    reader
        The API server; None if there is none.
    dialer
        How to reach services; ordinary sockets by default.
    """

    def __init__(
        self,
        config: ManagerConfig,
        audit: Callable[[str], None],
        *,
        reader: ApiReader | None = None,
        dialer: Dialer | None = None,
    ) -> None:
        self.config = config
        self.grpc_port = 0
        self.carrier_port = 0
        self.listening: list[Endpoint] = []  # besides the loopback
        self.sessions = SessionTable(
            config.expiry, lambda: secrets.token_hex(ID_BYTES), lambda: secrets.token_hex(TOKEN_BYTES)
        )
        self.board = ClusterInfoBoard()
        self._audit = audit
        self._reader = reader
        rules = DialRules(allow_loopback=config.allow_loopback, node=config.node_addresses)
        self._mux_server = MuxServer(self.sessions, dialer or SocketDialer(), audit, rules=rules)
        self._grpc = grpc.aio.server(options=_GRPC_OPTIONS)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Listen on all ports and begin to look at the cluster.

        Raises
        ------
        OSError
            A port is taken, or an address is none of ours.
        HelperMissing
            A TLS listener is wanted and certificates cannot be made.
        """
        try:
            fingerprint = await self._listen_for_carriers()
            service = ManagerService(self.sessions, self.board, self.carrier_port, fingerprint, self._audit)
            manager_pb2_grpc.add_ManagerServicer_to_server(service, self._grpc)  # type: ignore[no-untyped-call]  # generated
            try:
                self.grpc_port = self._grpc.add_insecure_port(f"{HOST}:{self.config.grpc_port}")
            except RuntimeError as error:  # all that grpcio says
                raise OSError(f"port {self.config.grpc_port} is taken") from error
            self._mux_server.rules.own_ports.add(self.grpc_port)
        except BaseException:
            await self._mux_server.drain(0)
            raise
        await self._grpc.start()
        self._tasks = [
            begin(self.board.follow(self._explorer(), self.config.poll_interval)),
            begin(self._sweep()),
        ]

    async def drain(self, grace: float | None = None) -> None:
        """Say goodbye, give flows `grace` seconds (the configured ones by default) to end, and close everything."""
        await self._mux_server.drain(self.config.grace if grace is None else grace)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._grpc.stop(0)

    async def _listen_for_carriers(self) -> str:
        """Open the carrier ports; return the fingerprint of those that speak TLS, empty if none does."""
        endpoints = self.config.carrier_listen
        identity = make_identity() if any(endpoint.is_encrypted for endpoint in endpoints) else None
        self.carrier_port = await self._mux_server.listen(HOST, self.config.carrier_port)
        for endpoint in endpoints:
            context = identity.context if identity is not None and endpoint.is_encrypted else None
            port = await self._mux_server.listen(endpoint.host, endpoint.port, context)
            self.listening.append(replace(endpoint, port=port))
        return identity.fingerprint if identity is not None else ""

    def _explorer(self) -> Explorer:
        resolv = parse_resolv_conf(read_text(self.config.resolv_conf))
        namespace = read_text(self.config.service_account / "namespace").strip()
        return Explorer(self._reader, resolv, namespace)

    async def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(min(SWEEP, self.config.expiry))
            for session in self.sessions.expire(loop.time()):
                self._audit(f"session={session.id} expired")


def read_text(path: Path) -> str:
    """Return a small file's text; empty if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
