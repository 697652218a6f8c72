"""Port-forward over a WebSocket, subprotocol `v4.channel.k8s.io`, as containerd's streaming server does it.

Port number *i* of the request has two channels, the first byte of every message: ``2i`` for data both ways, ``2i+1``
for an error text to the client. The server begins with one message per channel that holds the port, little endian.
The target is 127.0.0.1, then ::1, in the pod. What it does at the end is what a real one does, too: after the
application's end of file another second for the other direction, then close 1000; a half-close of the client does
not exist; a port of several that ends stays silent until all have ended; a slow application holds up the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from functools import partial
from typing import TYPE_CHECKING, Final

from aiohttp import WSMsgType, web

from telemagic.demo import namespaces

if TYPE_CHECKING:
    from collections.abc import Sequence

    from telemagic.demo.kubelet import Pod
    from telemagic.demo.passage import Passage

PROTOCOL: Final = "v4.channel.k8s.io"
_EOF_GRACE: Final = 1.0  # seconds; containerd's internal/cri/server/sandbox_portforward_linux.go
_READ: Final = 32 * 1024  # bytes; Go's io.Copy buffer, so the largest message to the client is one more
_LARGEST_MESSAGE: Final = (
    32 * 1024 * 1024 + 1
)  # bytes; golang.org/x/net/websocket's default, and the channel byte
_CLOSE_TIMEOUT: Final = 2.0  # seconds to wait for the client's answer to our close
_ANNOUNCEMENT: Final = struct.Struct("<BH")
_FAMILIES: Final = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))


def wanted_ports(request: web.Request) -> list[int]:
    """Read `ports=` of a request, which may repeat and may hold several with commas.

    Raises
    ------
    ValueError
        There is none, or it is no port.
    """
    ports = [int(text) for value in request.query.getall("ports", []) for text in value.split(",")]
    if not ports or not all(0 < port < 1 << 16 for port in ports):
        raise ValueError("ports: at least one, each between 1 and 65535")
    return ports


def offers_protocol(request: web.Request) -> bool:
    """Tell whether the client speaks our subprotocol; one that names none is taken at its word."""
    offered = request.headers.get("Sec-WebSocket-Protocol", "")
    return not offered or PROTOCOL in (name.strip() for name in offered.split(","))


class _Forward:
    """One forwarded port: its channels and its connection into the pod."""

    def __init__(
        self, web_socket: web.WebSocketResponse, pod: Pod, passage: Passage, channel: int, port: int
    ) -> None:
        self._web_socket = web_socket
        self._pod = pod
        self._passage = passage
        self._channel = bytes([channel])
        self._error_channel = bytes([channel + 1])
        self._port = port
        self._loop = asyncio.get_running_loop()
        self._socket: socket.socket | None = None
        self._dialled = self._loop.create_future()

    def announcements(self) -> list[bytes]:
        """Return the first message of each channel."""
        return [_ANNOUNCEMENT.pack(*channel, self._port) for channel in (self._channel, self._error_channel)]

    async def run(self) -> None:
        """Dial, then copy to the client until the application ends, and wait out the grace."""
        try:
            self._socket, why = await self._dial()
        finally:
            if not self._dialled.done():
                self._dialled.set_result(None)
        if self._socket is None:
            await self._web_socket.send_bytes(self._error_channel + why.encode())
            return
        try:
            while data := await self._loop.sock_recv(self._socket, _READ):
                if self._passage.faults:
                    await self._passage.carry(memoryview(data), self._send)
                else:
                    await self._web_socket.send_bytes(self._channel + data)
        except ConnectionResetError:
            return  # of either side; the client cannot be told more than that it is over
        await asyncio.sleep(_EOF_GRACE)

    async def deliver(self, data: memoryview) -> None:
        """Pass a message on to the application, and return when it fits into its socket; lost after its end."""
        await self._dialled
        if self._socket is not None:
            with contextlib.suppress(ConnectionError):
                if self._passage.faults:
                    await self._passage.carry(data, partial(self._loop.sock_sendall, self._socket))
                else:
                    await self._loop.sock_sendall(self._socket, data)

    def close(self) -> None:
        """Close the connection into the pod."""
        if self._socket is not None:
            self._socket.close()

    async def _send(self, data: memoryview | bytes) -> None:
        await self._web_socket.send_bytes(self._channel + data)

    async def _dial(self) -> tuple[socket.socket | None, str]:
        reasons = []
        for family, host in _FAMILIES:
            with namespaces.inside_network(self._pod.network):
                trying = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            try:
                await self._loop.sock_connect(trying, (host, self._port))
            except OSError as error:
                trying.close()
                version = "4" if family == socket.AF_INET else "6"
                where = host if version == "4" else f"[{host}]"
                why = os.strerror(error.errno or 0).lower()
                reasons.append(f"IPv{version}: dial tcp{version} {where}:{self._port}: connect: {why}")
            except BaseException:
                trying.close()  # cancelled: nobody else knows of it yet
                raise
            else:
                trying.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return trying, ""
        return None, (
            f"error forwarding port {self._port} to pod {self._pod.spec.name}, uid : failed to connect to "
            f'localhost:{self._port} inside namespace "{self._pod.spec.namespace}", {" ".join(reasons)} '
        )


async def serve(
    request: web.Request, pod: Pod, ports: Sequence[int], passage: Passage
) -> web.WebSocketResponse:
    """Forward ports of a pod over one WebSocket until either side ends."""
    web_socket = web.WebSocketResponse(
        protocols=(PROTOCOL,), compress=False, max_msg_size=_LARGEST_MESSAGE, timeout=_CLOSE_TIMEOUT
    )
    await web_socket.prepare(request)
    with passage.using(request.transport):
        await passage.thaw()
        await _forward(
            web_socket, [_Forward(web_socket, pod, passage, 2 * i, port) for i, port in enumerate(ports)]
        )
        await passage.thaw()  # the close is a message, too
        await web_socket.close(code=1000)
    return web_socket


async def _forward(web_socket: web.WebSocketResponse, forwards: Sequence[_Forward]) -> None:
    for forward in forwards:
        for announcement in forward.announcements():
            await web_socket.send_bytes(announcement)
    with contextlib.ExitStack() as connections:
        for forward in forwards:
            connections.callback(forward.close)
        await _copy(web_socket, forwards)


async def _copy(web_socket: web.WebSocketResponse, forwards: Sequence[_Forward]) -> None:
    """Copy in both directions until either has ended; no task is left then, not even after a cancellation.

    A client's close often is two ends at once: its message ends one direction, and the connection that goes down right
    after it makes aiohttp cancel us while we wait for the other.
    """
    tasks = {
        asyncio.create_task(_deliver_all(web_socket, forwards)),
        asyncio.create_task(_run_all(forwards)),
    }
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
    for error in ended:
        if isinstance(error, Exception) and not isinstance(error, ConnectionResetError):
            raise error


async def _run_all(forwards: Sequence[_Forward]) -> None:
    async with asyncio.TaskGroup() as group:
        for forward in forwards:
            group.create_task(forward.run())


async def _deliver_all(web_socket: web.WebSocketResponse, forwards: Sequence[_Forward]) -> None:
    async for message in web_socket:
        if message.type is not WSMsgType.BINARY or not message.data:
            return  # the channel protocol has binary messages only
        index, is_error = divmod(message.data[0], 2)
        if is_error or index >= len(forwards):
            return
        if len(message.data) > 1:
            await forwards[index].deliver(memoryview(message.data)[1:])
