"""One port of one pod as a byte stream, over the API server's port-forward WebSocket.

Subprotocol ``v4.channel.k8s.io``: each binary message starts with a channel byte, 0 for data both ways and 1 for
errors from the server; on connect the server announces each channel with the channel byte and the port, little
endian. One port and one stream on each socket, because with several a container runtime lets one slow reader stop
all (and does not show the end of one). Half-closes are not carried: our frames have FIN and RST of their own.
"""

from __future__ import annotations

import asyncio
import errno
from typing import TYPE_CHECKING, Final

import aiohttp

from telehelper.byte_stream import PulledStream

if TYPE_CHECKING:
    from collections.abc import Sequence

    from telehelper.kube.access import ApiAccess, Identity

PROTOCOL: Final = "v4.channel.k8s.io"
CONNECT_TIMEOUT: Final = 10.0  # seconds for TCP, TLS and the upgrade
CLOSE_TIMEOUT: Final = 1.0  # seconds for the server to answer our close, and again for TLS to say goodbye
MAX_MESSAGE: Final = (
    4 * 1024 * 1024
)  # bytes; servers copy 32 KiB at a time, and a hostile one must not fill our memory
_DATA, _ERROR = 0, 1
_GOODBYE: Final = (
    aiohttp.WSCloseCode.OK,
    0,
)  # not 1001: a server or proxy on the way that is stopping; 0: no code


class PortForward(PulledStream):
    """A :class:`telehelper.byte_stream.ByteStream` over a port-forward WebSocket.

    Attributes
    ----------
    announced
        Set when the server has announced both channels: from now on it dials, and tells if that fails.
    said_goodbye
        Whether the server has closed the WebSocket properly; else its end is a connection that broke.
    """

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        super().__init__()
        self._socket = socket
        self.announced = asyncio.Event()
        self.said_goodbye = False
        self._announced: set[int] = set()
        # aiohttp has no public way to abort a WebSocket; without this one, closing may take as long as TLS likes.
        connection = getattr(getattr(socket, "_response", None), "connection", None)
        self._transport: asyncio.Transport | None = getattr(connection, "transport", None)

    async def receive(self) -> bytes | memoryview:
        """Return the next bytes from the pod; empty at the end.

        Raises
        ------
        ConnectionResetError
            The server reported an error on the error channel, or broke the channel protocol.
        """
        while True:
            message = await self._socket.receive()
            if message.type is not aiohttp.WSMsgType.BINARY:
                return self._ended(message)
            data: bytes = message.data
            channel = data[0] if data else -1
            if channel not in (_DATA, _ERROR):
                raise _broken(f"message on unknown channel {channel}")
            if channel not in self._announced:
                if len(data) != 3:
                    raise _broken("channel not announced")
                self._announced.add(channel)
                if len(self._announced) == len((_DATA, _ERROR)):
                    self.announced.set()
            elif channel == _ERROR:
                raise _broken(data[1:].decode("utf-8", "replace").strip()[:300])
            elif len(data) > 1:
                return memoryview(data)[1:]

    def _ended(self, message: aiohttp.WSMessage) -> bytes:
        if message.type is aiohttp.WSMsgType.ERROR:
            raise _broken(str(message.data or self._socket.exception()))
        if message.type is aiohttp.WSMsgType.CLOSE and message.data in _GOODBYE:
            self.said_goodbye = True
        return b""

    async def send(self, buffers: Sequence[bytes | bytearray | memoryview]) -> None:
        """Send bytes to the pod as one message; returns when more may be sent."""
        await self._socket.send_bytes(
            b"".join((b"\0", *buffers))
        )  # aiohttp's error here is a ConnectionResetError

    async def hang_up(self) -> None:
        """Close the socket, waiting at most a second for the server's answer; a second later it is gone for certain."""
        try:
            await self._socket.close()
        finally:
            if self._transport is not None:
                # A closed transport waits for the server's TLS goodbye, which a server that hangs never says: half a
                # minute, uvloop's and asyncio's SSL shutdown timeout. Aborting one that has ended does nothing.
                asyncio.get_running_loop().call_later(CLOSE_TIMEOUT, self._transport.abort)


def _broken(why: str) -> ConnectionResetError:
    return ConnectionResetError(errno.ECONNRESET, f"port-forward broke: {why}")


async def open_portforward(
    session: aiohttp.ClientSession,
    access: ApiAccess,
    identity: Identity,
    namespace: str,
    pod: str,
    port: int,
) -> PortForward:
    """Open the WebSocket. Raises aiohttp's errors and TimeoutError; the client translates them."""
    async with asyncio.timeout(CONNECT_TIMEOUT):
        # No WebSocket pings: the mux's own heartbeat crosses every load balancer on the way, and a kubelet counts
        # only data as life.
        socket = await session.ws_connect(
            f"{access.server}/api/v1/namespaces/{namespace}/pods/{pod}/portforward",
            params={"ports": str(port)},
            protocols=(PROTOCOL,),
            headers=identity.headers,
            ssl=identity.ssl_context or True,
            proxy=access.proxy or None,
            server_hostname=access.server_hostname or None,
            compress=0,
            max_msg_size=MAX_MESSAGE,
            timeout=aiohttp.ClientWSTimeout(ws_receive=None, ws_close=CLOSE_TIMEOUT),
        )
    return PortForward(socket)
