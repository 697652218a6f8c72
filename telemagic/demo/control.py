"""The demo daemon's control socket: who wants the cluster, from which network namespaces, and until when.

A Unix socket of sequenced packets in a private directory; every packet is a JSON object, requests have `op`:

========  ==============================  ====================================================================
op        fields                          answer
========  ==============================  ====================================================================
status                                    see :meth:`ControlServer`
attach    network, owner, keep            served: whether the API server listens in that network namespace
listen    network, and a descriptor       {} once the socket, bound in that network namespace, is served
network   app                             {}, and a descriptor of the network namespace of that app's pod
fault     name, options                   {} when it has been done; see :mod:`telemagic.demo.faults`
stop                                      {} and then the end of the daemon
========  ==============================  ====================================================================

A connection that attached holds the cluster for as long as it is open: an owned demo ends with its last owner, and
the API server leaves a network namespace with the last connection from it. `keep` makes an owned demo permanent.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

from telehelper.errors import HelperLost
from telehelper.private import is_own, peer_of

if TYPE_CHECKING:
    from pathlib import Path

SOCKET_NAME: Final = "control.sock"
MAX_PACKET: Final = 64 * 1024  # bytes
_FIRST_OWNER: Final = 10.0  # seconds an owned demo waits for its first owner


@contextlib.contextmanager
def _short_path(directory: Path) -> Any:  # noqa: ANN401 - contextlib's own type is longer than this function
    """Give a path to the socket that fits into the 107 bytes of a socket address, however deep the directory is."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{fd}/{SOCKET_NAME}"
    finally:
        os.close(fd)


def connect(directory: Path, timeout: float) -> socket.socket | None:
    """Connect to the daemon of this directory; None if there is none alive."""
    client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    client.settimeout(timeout)
    try:
        with _short_path(directory) as path:
            client.connect(path)
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
        client.close()
        return None
    return client


def ask(connection: socket.socket, op: str, *fds: int, **fields: Any) -> dict[str, Any] | None:  # noqa: ANN401 - JSON
    """Send a request and wait for its answer; None if the daemon has gone. A descriptor that came is its `fd`.

    Raises
    ------
    HelperLost
        It is there and does not answer; the connection is closed then, for a late answer would be taken for the next.
    """
    if connection.fileno() < 0:
        return None
    try:
        socket.send_fds(connection, [json.dumps({"op": op, **fields}).encode()], fds)
        packet, received, _, _ = socket.recv_fds(connection, MAX_PACKET, 1)
    except (BrokenPipeError, ConnectionResetError):
        return None
    except TimeoutError as error:
        pid = peer_of(connection)[0]
        patience = connection.gettimeout()
        connection.close()
        raise HelperLost(
            f"the demo cluster (pid {pid}) has not answered for {patience:g} s",
            hint=f"if it stays so: kill -KILL {pid}",
        ) from error
    answer: dict[str, Any] | None = json.loads(packet) if packet else None
    return answer | {"fd": received[0]} if answer is not None and received else answer


Stop = Callable[[], Awaitable[None]]


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class ControlServer:
    """The daemon's end.

    Parameters
    ----------
    directory
        Where the socket is made.
    listen
        Serves the API on a socket that was handed over; what it returns ends that.
    status
        The answer to `status`, a JSON object.
    network
        Gives a descriptor of the network namespace of an app's pod; KeyError if there is no such app.
    fault
        Breaks something on purpose; ValueError if that cannot be.
    owned
        End with the last owner, or ten seconds after the start if none came.
    on_end
        Called when the daemon should end.
    """

    def __init__(
        self,
        directory: Path,
        listen: Callable[[socket.socket], Awaitable[Stop]],
        *,
        status: Callable[[], dict[str, Any]],
        network: Callable[[str], int],
        fault: Callable[[str, dict[str, Any]], Awaitable[None]],
        owned: bool,
        on_end: Callable[[], None],
    ) -> None:
        self.owned = owned
        self._listen = listen
        self._status = status
        self._network = network
        self._fault = fault
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._connections: set[asyncio.Task[None]] = set()
        self._owners = 0
        self._home = ""
        self._users: dict[str, int] = {}
        self._served: dict[str, Stop] = {}
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        with _short_path(directory) as path:
            self._socket.bind(path)
        self._socket.listen(16)
        self._loop.add_reader(self._socket, self._accept)
        self._waiting = self._loop.call_later(_FIRST_OWNER, self._check_owners)

    async def serve(self, network: str, listener: socket.socket) -> None:
        """Serve the API in a network namespace; in the first one for good."""
        if network in self._served:
            listener.close()
            return
        self._home = self._home or network
        self._served[network] = await self._listen(listener)

    async def close(self) -> None:
        """Close all connections and the socket."""
        self._waiting.cancel()
        self._loop.remove_reader(self._socket)
        self._socket.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionAbortedError):
            connection, _ = self._socket.accept()
            connection.setblocking(False)
            if not is_own(peer_of(connection)[1]):  # the directory is closed to others; this is the bolt
                connection.close()
                return
            task = self._loop.create_task(self._converse(connection))
            self._connections.add(task)
            task.add_done_callback(self._connections.discard)

    async def _converse(self, connection: socket.socket) -> None:
        held: list[tuple[str, bool]] = []
        try:
            while True:
                packet, fds = await self._receive(connection)
                if not packet:
                    return
                answer = await self._perform(json.loads(packet), fds, held)
                attached = [answer.pop("fd")] if "fd" in answer else []
                # Never blocks: there is one answer on its way at a time, and room for several.
                socket.send_fds(connection, [json.dumps(answer).encode()], attached)
                if answer.get("ending"):
                    self._on_end()
        except (ConnectionError, ValueError):
            return
        finally:
            connection.close()
            await self._release(held)

    async def _receive(self, connection: socket.socket) -> tuple[bytes, list[int]]:
        readable = self._loop.create_future()
        self._loop.add_reader(connection, _resolve, readable)
        try:
            await readable
        finally:
            self._loop.remove_reader(connection)
        packet, fds, _, _ = socket.recv_fds(connection, MAX_PACKET, 1)
        return packet, fds

    async def _perform(
        self, request: dict[str, Any], fds: list[int], held: list[tuple[str, bool]]
    ) -> dict[str, Any]:
        sockets = [socket.socket(fileno=fd) for fd in fds]
        match request:
            case {"op": "status"}:
                return {**self._status(), "owned": self.owned, "owners": self._owners}
            case {"op": "attach", "network": str(network), "owner": bool(owner), "keep": bool(keep)}:
                self.owned = self.owned and not keep
                self._owners += owner
                self._users[network] = self._users.get(network, 0) + 1
                held.append((network, owner))
                return {"served": network in self._served}
            case {"op": "listen", "network": str(network)} if sockets:
                await self.serve(network, sockets[0])
                return {}
            case {"op": "network", "app": str(app)}:
                with contextlib.suppress(KeyError):
                    return {"fd": self._network(app)}
            case {"op": "fault", "name": str(name), "options": dict(options)}:
                try:
                    await self._fault(name, options)
                except ValueError as error:
                    return {"error": str(error)}
                return {}
            case {"op": "stop"}:
                return {"ending": True}
        for unexpected in sockets:
            unexpected.close()
        return {"error": "unknown request"}

    async def _release(self, held: list[tuple[str, bool]]) -> None:
        for network, owner in held:
            self._owners -= owner
            self._users[network] -= 1
            if not self._users[network]:
                del self._users[network]
                if network != self._home and (stop := self._served.pop(network, None)):
                    await stop()
        if any(owner for _, owner in held):
            self._check_owners()

    def _check_owners(self) -> None:
        if self.owned and not self._owners:
            self._on_end()
