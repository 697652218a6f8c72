"""Where the demo's API server listens: any number of sockets, which can be deaf for a while."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING, Final

from aiohttp import web

if TYPE_CHECKING:
    import ssl

_BACKLOG: Final = 128


class Listener:
    """One socket that is served.

    A second descriptor of it is kept, since a socket in another network namespace cannot be made anew from here: shut
    down it refuses connections as a closed one does, and `listen` wakes it up again (Linux, inet_shutdown).
    """

    def __init__(self, runner: web.AppRunner, listener: socket.socket, tls: ssl.SSLContext | None) -> None:
        self._runner = runner
        self._tls = tls
        self._kept = listener.dup()
        self._site: web.SockSite | None = None
        self._first: socket.socket | None = listener

    async def start(self) -> None:
        """Serve connections; does nothing if it does."""
        if self._site is not None:
            return
        served, self._first = self._first or self._kept.dup(), None
        served.listen(_BACKLOG)
        self._site = web.SockSite(self._runner, served, ssl_context=self._tls, backlog=_BACKLOG)
        await self._site.start()

    async def pause(self) -> None:
        """Refuse connections until :meth:`start`."""
        site, self._site = self._site, None
        if site is not None:
            await site.stop()
            address = self._kept.getsockname()
            self._kept.shutdown(socket.SHUT_RD)
            with contextlib.suppress(
                OSError
            ):  # only a port that the kernel had chosen has been lost with that
                self._kept.bind(address)

    async def stop(self) -> None:
        """Close it for good."""
        site, self._site = self._site, None
        if site is not None:
            await site.stop()
        if self._first is not None:
            self._first.close()
        self._kept.close()


class Listeners:
    """All sockets of a server, and its connections."""

    def __init__(self, runner: web.AppRunner) -> None:
        self._runner = runner
        self._all: set[Listener] = set()
        self._is_paused = False

    async def add(self, listener: socket.socket, tls: ssl.SSLContext | None) -> Listener:
        """Serve one more, unless all are paused: then later."""
        added = Listener(self._runner, listener, tls)
        self._all.add(added)
        await added.start()
        if self._is_paused:
            await added.pause()
        return added

    async def remove(self, listener: Listener) -> None:
        """Close one for good."""
        self._all.discard(listener)
        await listener.stop()

    async def pause(self) -> None:
        """Refuse connections, and cut those there are."""
        self._is_paused = True
        for listener in list(self._all):
            await listener.pause()
        server = self._runner.server
        for handler in server.connections if server is not None else ():
            if handler.transport is not None:
                handler.transport.abort()

    async def resume(self) -> None:
        """Serve all of them again."""
        self._is_paused = False
        for listener in list(self._all):
            await listener.start()

    async def close(self) -> None:
        """Close all for good."""
        for listener in list(self._all):
            await self.remove(listener)
