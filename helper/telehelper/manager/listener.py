"""One port where carriers come in.

Whoever connects is a stranger until the server welcomes them, which their HELLO with a good token earns. Strangers
hold little and not for long: TLS must stand within ``HANDSHAKE_TIME``, HELLO come within its own time after, and
when there are ``MAX_STRANGERS`` the next one takes the place of the oldest, so that who floods a port throws out
themselves first: an honest carrier needs two or three round trips from its connection to its HELLO.

Sockets are accepted here and not by an `asyncio.Server`, because that one has its clients shake hands before it tells
of them: then nobody counts those who don't.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING, Final

from telehelper.background import begin
from telehelper.tcp_stream import TcpStream
from telehelper.tls_stream import TlsStream

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable, Coroutine

HANDSHAKE_TIME: Final = 5.0  # seconds from the connection to the end of the TLS handshake
MAX_STRANGERS: Final = 64  # at once on one port, each with half a megabyte of buffers at most
BACKLOG: Final = 128  # connections that wait to be accepted; a reconnecting laptop brings two
ACCEPT_PAUSE: Final = 0.5  # seconds to wait when descriptors have run out


class Listener:
    """Accepts carriers.

    Parameters
    ----------
    serve
        Serves one carrier to its end; calls its second argument when this is no stranger any more.
    spawn
        Runs a coroutine beside.
    has_room
        Whether one more connection may be accepted; else it is closed unheard.
    context
        Speak TLS with this; None for plain TCP.

    Attributes
    ----------
    connections
        How many are open, strangers included.
    """

    def __init__(
        self,
        serve: Callable[[TcpStream, Callable[[], None]], Awaitable[None]],
        spawn: Callable[[Coroutine[object, None, None]], object],
        has_room: Callable[[], bool],
        *,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self.connections = 0
        self._serve = serve
        self._spawn = spawn
        self._has_room = has_room
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._strangers: dict[socket.socket, None] = {}  # the oldest first
        self._socket: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen and return the port; OSError if that cannot be."""
        found = await self._loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        self._socket = socket.create_server(address[:2], family=family, backlog=BACKLOG)
        self._socket.setblocking(False)
        self._accepting = begin(self._accept_all(self._socket))
        bound: int = self._socket.getsockname()[1]
        return bound

    async def stop(self) -> None:
        """Accept no more, turn strangers away, and free the port."""
        if self._accepting is not None:
            self._accepting.cancel()
            await asyncio.gather(self._accepting, return_exceptions=True)
        if self._socket is not None:
            self._socket.close()
        for stranger in self._strangers:
            _cut(stranger)

    async def _accept_all(self, listening: socket.socket) -> None:
        while True:
            try:
                accepted, _ = await self._loop.sock_accept(listening)
            except OSError:  # out of descriptors, or a client that was faster to leave
                await asyncio.sleep(ACCEPT_PAUSE)
                continue
            if not self._has_room():
                accepted.close()
                continue
            if len(self._strangers) >= MAX_STRANGERS:
                oldest = next(iter(self._strangers))
                del self._strangers[oldest]
                _cut(oldest)
            self._strangers[accepted] = None
            self.connections += 1
            self._spawn(self._receive(accepted))

    async def _receive(self, accepted: socket.socket) -> None:
        def welcome() -> None:
            self._strangers.pop(accepted, None)

        try:
            await self._serve(await self._open(accepted), welcome)
        except (
            OSError
        ):  # TimeoutError is one: TLS does not stand; if it was a client of ours, it tells its user why
            accepted.close()
        finally:
            welcome()
            self.connections -= 1

    async def _open(self, accepted: socket.socket) -> TcpStream:
        stream = TcpStream() if self._context is None else TlsStream()
        async with asyncio.timeout(HANDSHAKE_TIME):
            # What it returns is no use: uvloop's has the TLS layer there, not our stream.
            await self._loop.connect_accepted_socket(lambda: stream, accepted, ssl=self._context)
        return stream


def _cut(accepted: socket.socket) -> None:
    """End a connection in whatever state it is; whoever serves it hears of its end."""
    with contextlib.suppress(OSError):  # it has ended already
        accepted.shutdown(socket.SHUT_RDWR)
