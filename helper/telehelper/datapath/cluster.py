"""The traffic manager as seen from the data plane: find its pod, register a session, watch the cluster's networks."""

from __future__ import annotations

import asyncio
import getpass
import os
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import grpc
import grpc.aio

from telehelper import __version__
from telehelper.core.frames import SPOKEN
from telehelper.datapath.registration import Registration
from telehelper.errors import (
    CredentialsRefused,
    ManagerTooOld,
    ManagerUnavailable,
    SessionExpired,
    TelemagicError,
)
from telehelper.kube.client import ApiNotFound
from telehelper.private import peer_of
from telehelper.rpc import manager_pb2, manager_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from telehelper.kube.client import ApiClient

LABEL: Final = "app.kubernetes.io/name=telemagic-manager"
RPC_TIMEOUT: Final = 10.0  # seconds for one control call
_CHANNEL: Final = (
    ("grpc.default_authority", "localhost"),
    (
        "grpc.use_local_subchannel_pool",
        1,
    ),  # the next one's address is the same, this one's back-off is not for it
    # A control connection that died silently is noticed, and one that broke comes back as fast as carriers do.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 5_000),
)
_CHUNK: Final = 65536  # bytes
_INSTALL: Final = "%tele install puts one there; --via agentless works without, for TCP"


@dataclass(frozen=True)
class ManagerPod:
    """A ready traffic manager, and the ports on its loopback."""

    namespace: str
    name: str
    grpc_port: int
    carrier_port: int


def _is_ready(pod: dict[str, Any]) -> bool:
    conditions = pod.get("status", {}).get("conditions") or ()
    is_leaving = bool(pod.get("metadata", {}).get("deletionTimestamp"))
    return not is_leaving and any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)


def _ports(pod: dict[str, Any]) -> dict[str, int]:
    return {
        str(port.get("name")): int(port["containerPort"])
        for container in pod.get("spec", {}).get("containers") or ()
        for port in container.get("ports") or ()
    }


def choose_manager(pods: dict[str, Any], namespace: str) -> ManagerPod:
    """Pick a ready manager from a PodList; the youngest, because an old one may be about to be replaced.

    Raises
    ------
    ManagerUnavailable
        There is none, or none is ready.
    """
    items: list[dict[str, Any]] = pods.get("items") or []
    if not items:
        raise ManagerUnavailable(f"there is no traffic manager in namespace {namespace!r}", hint=_INSTALL)
    ready = [pod for pod in items if _is_ready(pod) and {"grpc", "carrier"} <= _ports(pod).keys()]
    if not ready:
        name = items[0].get("metadata", {}).get("name", "?")
        raise ManagerUnavailable(
            f"the traffic manager {namespace}/{name} is not ready",
            hint=f"kubectl -n {namespace} describe pod {name}",
        )
    chosen = max(ready, key=lambda pod: str(pod["metadata"].get("creationTimestamp") or ""))
    ports = _ports(chosen)
    return ManagerPod(namespace, str(chosen["metadata"]["name"]), ports["grpc"], ports["carrier"])


async def find_manager(api: ApiClient, namespace: str) -> ManagerPod:
    """Ask the API server for a ready manager in `namespace`."""
    try:
        pods = await api.get(f"/api/v1/namespaces/{namespace}/pods", labelSelector=LABEL)
    except ApiNotFound:
        pods = {}
    except CredentialsRefused as error:
        if error.data.get("status") != "403":
            raise
        raise CredentialsRefused(
            f"you may not list pods in namespace {namespace!r}, so the traffic manager there cannot be found",
            hint=f"ask for a Role in {namespace!r} with list on pods, get and create on pods/portforward; "
            "or --via agentless",
            **error.data,
        ) from error
    return choose_manager(pods, namespace)


class Relay:
    """A Unix socket in a private directory that leads to one port of a pod; grpcio needs an address to dial."""

    def __init__(self, api: ApiClient, pod: ManagerPod, path: Path) -> None:
        self._api = api
        self._pod = pod
        self._path = path
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_closed = False
        self.error: TelemagicError | None = (
            None  # why the last port-forward failed; grpc says only "unavailable"
        )

    async def start(self) -> str:
        """Listen and return grpcio's name for the address."""
        self._path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._accept, self._path)
        return f"unix:{self._path}"

    async def close(self) -> None:
        """Stop, close all connections, remove the socket file."""
        self._is_closed = True
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._path.unlink(missing_ok=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        # Nobody but our own grpcio may speak to the manager for us, and it no more once we are closed: what was accepted
        # just before is told of afterwards.
        if self._is_closed or peer_of(writer.get_extra_info("socket")) != (os.getpid(), os.geteuid()):
            writer.close()
            return
        self.error = None
        try:
            await self._relay(reader, writer)
        except TelemagicError as error:
            self.error = error
        except asyncio.CancelledError:
            return  # only close() cancels; asyncio's stream server would report it as unhandled
        finally:
            writer.close()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        stream = await self._api.portforward(self._pod.namespace, self._pod.name, self._pod.grpc_port)

        async def up() -> None:
            while data := await reader.read(_CHUNK):
                await stream.send((data,))

        async def down() -> None:
            while data := await stream.receive():
                writer.write(data)
                await writer.drain()

        # Whichever side ends first ends the other: grpcio must hear at once that the manager has gone.
        pumps = [asyncio.create_task(up()), asyncio.create_task(down())]
        try:
            done, _ = await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            for pump in done:
                pump.result()
        except OSError as error:
            raise ManagerUnavailable(f"the control connection broke: {error.strerror or error}") from error
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            await stream.close()


def _translate(error: grpc.aio.AioRpcError, relay: Relay) -> TelemagicError:
    code, details = error.code(), error.details() or ""
    if code is grpc.StatusCode.FAILED_PRECONDITION:
        return ManagerTooOld(f"the traffic manager refuses this version: {details}")
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return ManagerTooOld(f"the traffic manager does not know what this version asks: {details}")
    if code is grpc.StatusCode.UNAUTHENTICATED:
        return SessionExpired(f"the traffic manager does not know our session: {details}")
    if relay.error is not None:
        return relay.error
    return ManagerUnavailable(f"the traffic manager does not answer: {code.name.lower()} {details}".strip())


def client_name() -> str:
    """Return who we are, for the manager's log."""
    try:
        user = getpass.getuser()
    except (
        KeyError,
        OSError,
    ):  # in a container a user may have no name; since Python 3.13 that is an OSError
        user = f"uid {os.getuid()}"
    return f"{user}@{socket.gethostname()}"


class ManagerControl:
    """The control connection: one gRPC channel over one port-forward.

    Attributes
    ----------
    session
        What the manager registered us as.
    protocol
        The version that both sides speak, of those in :data:`~telehelper.core.frames.SPOKEN`.
    """

    def __init__(self, api: ApiClient, pod: ManagerPod, relay_path: Path) -> None:
        self._relay = Relay(api, pod, relay_path)
        self._channel: grpc.aio.Channel | None = None
        self._stub: manager_pb2_grpc.ManagerStub | None = None
        self.session = Registration()
        self.protocol = SPOKEN[0]

    async def open(self) -> Registration:
        """Register with the manager.

        Raises
        ------
        ManagerTooOld, ManagerUnavailable, ApiServerUnavailable, CredentialsRefused
            What the connection failed on.
        """
        target = await self._relay.start()
        self._channel = grpc.aio.insecure_channel(target, options=_CHANNEL)
        self._stub = manager_pb2_grpc.ManagerStub(self._channel)  # type: ignore[no-untyped-call]  # generated
        for self.protocol in SPOKEN:
            try:
                return await self._register(self._stub)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.FAILED_PRECONDITION or self.protocol == SPOKEN[-1]:
                    raise _translate(error, self._relay) from error
        raise AssertionError("the last version's error is raised")

    async def _register(self, stub: manager_pb2_grpc.ManagerStub) -> Registration:
        request = manager_pb2.OpenSessionRequest(
            protocol=self.protocol, client_version=__version__, client_name=client_name()
        )
        self.session = Registration.of(await stub.OpenSession(request, timeout=RPC_TIMEOUT))
        return self.session

    async def watch(self) -> AsyncIterator[manager_pb2.ClusterInfo]:
        """Yield the cluster's networks and names, at once and at each change, until the manager ends it.

        Raises
        ------
        SessionExpired, ManagerUnavailable
            The manager forgot us, or has gone.
        """
        if self._stub is None:
            raise ManagerUnavailable("the control connection is not open")
        try:
            async for info in self._stub.WatchClusterInfo(
                manager_pb2.WatchClusterInfoRequest(token=self.session.token)
            ):
                yield info
        except grpc.aio.AioRpcError as error:
            raise _translate(error, self._relay) from error

    async def close(self) -> None:
        """Close the channel and its port-forward."""
        if self._channel is not None:
            await self._channel.close(None)
            self._channel = None
        await self._relay.close()
