"""gRPC: the service ``telemagic.v1.Manager``."""

from __future__ import annotations

import asyncio
from importlib import metadata
from typing import TYPE_CHECKING, Any, Final

import grpc

from telehelper.core.frames import SPOKEN
from telehelper.discovery.message import to_message
from telehelper.manager.sessions import MAX_USERS
from telehelper.rpc import manager_pb2 as pb
from telehelper.rpc import manager_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from telehelper.manager.cluster_info import ClusterInfoBoard
    from telehelper.manager.sessions import SessionTable

MAX_NAME: Final = 200  # characters of a client's name that are kept for the log

Context = grpc.aio.ServicerContext[Any, Any]


def manager_version() -> str:
    """Return the version of the distribution this is part of."""
    try:
        return metadata.version("telemagic")
    except metadata.PackageNotFoundError:  # run from plain files, as from a ConfigMap
        return "unknown"


class ManagerService(manager_pb2_grpc.ManagerServicer):
    """Answers the near side's control requests.

    Parameters
    ----------
    sessions, board
        What is registered and what is known.
    carrier_port
        Where carriers are accepted on the loopback.
    carrier_fingerprint
        By which clients know the TLS listeners; empty if there is none.
    audit
        Takes one line for each session opened.
    """

    def __init__(
        self,
        sessions: SessionTable,
        board: ClusterInfoBoard,
        carrier_port: int,
        carrier_fingerprint: str,
        audit: Callable[[str], None],
    ) -> None:
        self._sessions = sessions
        self._board = board
        self._carrier_port = carrier_port
        self._carrier_fingerprint = carrier_fingerprint
        self._audit = audit
        self._version = manager_version()
        self._loop = asyncio.get_running_loop()
        self._started = self._loop.time()

    async def OpenSession(
        self, request: pb.OpenSessionRequest, context: Context
    ) -> pb.Session:  # gRPC's name
        """Register a client."""
        if request.protocol not in SPOKEN:
            await context.abort(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"this manager ({self._version}) speaks protocol {SPOKEN[-1]} to {SPOKEN[0]}, not {request.protocol}",
            )
        session = self._sessions.open(request.client_name[:MAX_NAME], self._loop.time())
        if session is None:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "this manager has too many sessions")
            raise AssertionError("abort raises")
        self._audit(
            f"session={session.id} opened by {session.client!r} with {request.client_version[:MAX_NAME]!r}"
        )
        return pb.Session(
            id=session.id,
            token=session.token,
            manager_version=self._version,
            carrier_port=self._carrier_port,
            expiry_seconds=self._sessions.expiry,
            carrier_fingerprint=self._carrier_fingerprint,
        )

    async def WatchClusterInfo(  # gRPC's name
        self, request: pb.WatchClusterInfoRequest, context: Context
    ) -> AsyncIterator[pb.ClusterInfo]:
        """Send what is known of the cluster, at once and on change."""
        session = self._sessions.find(request.token)
        if session is None:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "no such session, or it has expired")
            raise AssertionError("abort raises")
        if session.users >= MAX_USERS:
            await context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED, f"the session has {MAX_USERS} streams already"
            )
        self._sessions.attach(session)
        try:
            async for info in self._board.watch():
                yield to_message(info)
        finally:
            self._sessions.detach(session, self._loop.time())

    async def Health(self, _request: pb.HealthRequest, _context: Context) -> pb.HealthResponse:  # gRPC's name
        """Say how it is."""
        return pb.HealthResponse(
            version=self._version,
            uptime_seconds=self._loop.time() - self._started,
            sessions=len(self._sessions),
            flows=self._sessions.flows,
        )
