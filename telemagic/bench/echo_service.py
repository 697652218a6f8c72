"""The far end's echo: one epoll loop for ten thousand idle connections or thousands of new ones per second."""

from __future__ import annotations

import contextlib
import select
import socket
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

REQUEST: Final = 4096  # bytes read at once; a client waits for its answer before it sends more
EVENTS: Final = 256  # per turn
SPARE: Final = 32  # descriptors left free of connections


class EchoService:
    """Send back what comes. Who lets answers pile up, or goes beyond `limit` connections, is cut off."""

    def __init__(self, listeners: Iterable[socket.socket], limit: int) -> None:
        self._limit = limit
        self._epoll = select.epoll()
        self._listeners: dict[int, socket.socket] = {}
        self._open: dict[int, socket.socket] = {}
        for listener in listeners:
            listener.setblocking(False)
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # what it accepts inherits this
            self._listeners[listener.fileno()] = listener
            self._epoll.register(listener, select.EPOLLIN)

    def run(self) -> None:
        """Serve until the process ends."""
        while True:
            for fd, _ in self._epoll.poll(-1, EVENTS):
                if listener := self._listeners.get(fd):
                    self._accept(listener)
                else:
                    self._answer(fd)

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(
            BlockingIOError, ConnectionAbortedError
        ):  # all taken; or gone before its turn
            while True:
                connection, _ = listener.accept()
                if len(self._open) >= self._limit:
                    connection.close()
                    continue
                fd = connection.fileno()
                self._open[fd] = connection
                self._epoll.register(fd, select.EPOLLIN)

    def _answer(self, fd: int) -> None:
        connection = self._open[fd]
        try:
            data = connection.recv(REQUEST, socket.MSG_DONTWAIT)
            if data and connection.send(data, socket.MSG_DONTWAIT) == len(data):
                return
        except OSError:  # reset, or its answers pile up
            pass
        del self._open[fd]
        connection.close()
