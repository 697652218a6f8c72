"""Many connections from one process: new ones per second, and thousands that stay open.

Each is opened, gets one byte back and is closed in order, as ordinary programs do; up to `AT_ONCE` are under way.
`MOST` is for a network with the usual limits, see :mod:`telemagic.bench.timewait`.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from telemagic.bench.dial import PATIENCE

if TYPE_CHECKING:
    from telemagic.bench.dial import FarEnd

AT_ONCE: Final = 64
MOST: Final = 12_000  # connections in one measurement: with 2,000 for latency, half of the ports there are
_BOTH: Final = select.EPOLLIN | select.EPOLLOUT | select.EPOLLET  # registered once, and never changed


@dataclass(frozen=True, slots=True)
class Rate:
    """What one measurement of new connections found."""

    per_second: float
    count: int
    cpu: float
    """What this process used, as a fraction of a core: near 1 says that the generator is the limit."""


class Crowd:
    """Connections under way; those whose byte came back are closed, or kept.

    Raises from every method ``OSError`` when a connection fails, and ``TimeoutError`` when none gets on.
    """

    def __init__(self, far: FarEnd, port: int, *, keep: bool = False) -> None:
        self._family = far.family
        self._address = far.at(port)
        self._epoll = select.epoll()
        self._fresh: dict[int, socket.socket] = {}  # connecting
        self._asked: dict[int, socket.socket] = {}  # its byte is on the way
        self._keep = keep
        self.kept: list[socket.socket] = []
        self.done = 0

    @property
    def under_way(self) -> int:
        """How many have begun and not ended."""
        return len(self._fresh) + len(self._asked)

    def begin(self, count: int) -> None:
        """Open so many more."""
        for _ in range(count):
            connection = socket.socket(self._family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            fd = connection.fileno()
            self._fresh[fd] = connection
            code = connection.connect_ex(self._address)
            if code not in (0, errno.EINPROGRESS):
                raise OSError(code, os.strerror(code))
            self._epoll.register(fd, _BOTH)

    def advance(self) -> None:
        """Wait until some get on, and serve those."""
        events = self._epoll.poll(PATIENCE, 2 * AT_ONCE)
        if not events:
            raise TimeoutError(f"no answer within {PATIENCE:g} s")
        for fd, _ in events:
            if connection := self._fresh.pop(fd, None):
                if code := connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    connection.close()
                    raise OSError(code, os.strerror(code))
                self._asked[fd] = connection
                connection.send(b"?")
            else:
                self._receive(fd)

    def _receive(self, fd: int) -> None:
        connection = self._asked[fd]
        try:
            if not connection.recv(1):
                raise ConnectionError("closed by the far end")
        except BlockingIOError:
            return  # it can be written to again, which is no news
        del self._asked[fd]
        self.done += 1
        if self._keep:
            self._epoll.unregister(fd)
            self.kept.append(connection)
        else:
            connection.close()

    def close(self) -> None:
        """Close all."""
        for connection in (*self._fresh.values(), *self._asked.values(), *self.kept):
            connection.close()
        self._epoll.close()


def connects_per_second(far: FarEnd, port: int, *, seconds: float, most: int = MOST) -> Rate:
    """Open and close as many as possible; those still under way when the time is over are not counted."""
    crowd = Crowd(far, port)
    try:
        begun, cpu = time.perf_counter(), time.process_time()
        started = 0
        while crowd.done < most and time.perf_counter() - begun < seconds:
            more = min(AT_ONCE - crowd.under_way, most - started)
            crowd.begin(more)
            started += more
            crowd.advance()
        done, took, cpu = crowd.done, time.perf_counter() - begun, time.process_time() - cpu
        while crowd.under_way:  # in order, and out of the next measurement's way
            crowd.advance()
    finally:
        crowd.close()
    return Rate(done / took, done, cpu / took)


def hold(far: FarEnd, port: int, count: int) -> Crowd:
    """Open so many connections and keep them; each has had a byte back. The caller closes the crowd."""
    crowd = Crowd(far, port, keep=True)
    try:
        while crowd.done < count:
            crowd.begin(min(AT_ONCE - crowd.under_way, count - crowd.done - crowd.under_way))
            crowd.advance()
    except OSError:
        crowd.close()
        raise
    return crowd
