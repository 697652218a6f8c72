"""Dialing: from an address and a port to a non-blocking socket, and from there to a connected one."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import socket
import sys
from functools import lru_cache
from time import monotonic
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from telehelper.core.frames import Address, Open
    from telehelper.manager.poller import Poller

MAX_DIAL_TIME: Final = 130.0  # seconds; Linux itself gives up after 127 s (tcp_syn_retries 6, ip-sysctl)
MIN_DIAL_TIME: Final = 0.05  # seconds; a zero in OPEN still gets a chance within the node
RESERVED: Final = 8  # one descriptor of so many is for carriers and control, never for a flow
KNOWN_ADDRESSES: Final = 4096  # whose text is remembered: services are few, dials many
NO_DESCRIPTORS: Final = "the traffic manager has no file descriptor left for a flow"


class Dialer(Protocol):
    """What flows need of the network."""

    def connect(self, dst: Address, dport: int) -> socket.socket:
        """Begin to connect by TCP: see :func:`is_connected`; OSError if that fails at once."""

    def associate(self, dst: Address, dport: int) -> socket.socket:
        """Return a UDP socket that talks to one peer only; OSError if that fails."""


@lru_cache(maxsize=KNOWN_ADDRESSES)
def text_of(dst: Address) -> str:
    """Return an address as the socket calls want it."""
    return str(dst)


def _family(dst: Address) -> socket.AddressFamily:
    return socket.AF_INET if dst.version == 4 else socket.AF_INET6


def _failure(code: int) -> OSError:
    return OSError(code, os.strerror(code))


def is_connected(sock: socket.socket) -> bool:
    """Whether a socket from :meth:`Dialer.connect` is connected by now; OSError if that has failed."""
    try:
        sock.getpeername()
    except OSError:
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise _failure(code) from None
        return False
    return True


class Dial:
    """A connection that takes its time; closes the socket unless it comes about.

    Parameters
    ----------
    flow, what
        Which flow it is for.
    sock
        From :meth:`Dialer.connect`, not connected yet.
    poller
        Tells when that has changed; it watches the socket afterwards, too.
    on_done
        Called once unless cancelled, with the dial and why it failed, or None.

    Attributes
    ----------
    events
        What the socket was ready for when it was connected.
    """

    __slots__ = ("_on_done", "_poller", "_timer", "events", "flow", "sock", "started", "what")

    def __init__(
        self,
        flow: int,
        what: Open,
        sock: socket.socket,
        poller: Poller,
        on_done: Callable[[Dial, OSError | None], None],
    ) -> None:
        self.flow = flow
        self.what = what
        self.sock = sock
        self.started = monotonic()
        self.events = 0
        self._poller = poller
        self._on_done = on_done
        limit = min(max(what.timeout, MIN_DIAL_TIME), MAX_DIAL_TIME)
        self._timer = asyncio.get_running_loop().call_later(limit, self._expire, limit)
        poller.watch(sock.fileno(), self)

    def ready(self, events: int) -> None:
        """See :class:`~telehelper.manager.poller.Pollable`."""
        try:
            if not is_connected(self.sock):
                return
        except OSError as error:
            self.cancel()
            self._on_done(self, error)
            return
        self._timer.cancel()
        self.events = events
        self._on_done(self, None)

    def cancel(self) -> None:
        """Give up, and say nothing."""
        self._timer.cancel()
        self._poller.forget(self.sock.fileno())
        self.sock.close()

    def _expire(self, limit: float) -> None:
        self.cancel()
        self._on_done(self, TimeoutError(errno.ETIMEDOUT, f"no answer within {limit:.1f} s"))


class SocketDialer:
    """Dials with ordinary sockets."""

    def __init__(self) -> None:
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._first_reserved = sys.maxsize if limit < 0 else limit - limit // RESERVED

    def connect(self, dst: Address, dport: int) -> socket.socket:
        """See :class:`Dialer`."""
        sock = self._socket(dst, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        code = sock.connect_ex((text_of(dst), dport))
        if code not in (0, errno.EINPROGRESS):
            sock.close()
            raise _failure(code)
        return sock

    def associate(self, dst: Address, dport: int) -> socket.socket:
        """See :class:`Dialer`."""
        sock = self._socket(dst, socket.SOCK_DGRAM, socket.IPPROTO_UDP)
        code = sock.connect_ex((text_of(dst), dport))
        if code:
            sock.close()
            raise _failure(code)
        return sock

    def _socket(self, dst: Address, kind: socket.SocketKind, protocol: int) -> socket.socket:
        """Make a non-blocking socket, if its number is none of those kept: the kernel gives the lowest first."""
        try:
            sock = socket.socket(_family(dst), kind | socket.SOCK_NONBLOCK, protocol)
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                raise OSError(error.errno, NO_DESCRIPTORS) from error
            raise
        if sock.fileno() >= self._first_reserved:
            sock.close()
            raise OSError(errno.EMFILE, NO_DESCRIPTORS)
        return sock


class FakeDialer:
    """Dials in memory, for tests: each connection is a socket pair, or a failure, or silence.

    Parameters
    ----------
    serve
        Called with the far end of each connection, which is then the callee's to close.
    error
        Raised instead of connecting.
    silent
        Never answer.
    """

    def __init__(
        self,
        serve: Callable[[socket.socket], None] | None = None,
        *,
        error: OSError | None = None,
        silent: bool = False,
    ) -> None:
        self._serve = serve
        self._error = error
        self._silent = silent
        self.dialed: list[tuple[Address, int]] = []

    def connect(self, dst: Address, dport: int) -> socket.socket:
        """See :class:`Dialer`."""
        self.dialed.append((dst, dport))
        if self._silent:
            return socket.socket(
                socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK
            )  # connected to nobody, and no error either
        return self._pair(socket.SOCK_STREAM)

    def associate(self, dst: Address, dport: int) -> socket.socket:
        """See :class:`Dialer`."""
        self.dialed.append((dst, dport))
        return self._pair(socket.SOCK_DGRAM)

    def _pair(self, kind: socket.SocketKind) -> socket.socket:
        if self._error is not None:
            raise self._error
        ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
        ours.setblocking(False)
        if self._serve is None:
            theirs.close()
        else:
            self._serve(theirs)
        return ours
