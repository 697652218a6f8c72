"""Dialing: from an address and a port to a connected, non-blocking socket."""

from __future__ import annotations

import asyncio
import errno
import socket
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from telehelper.core.frames import Address

MAX_DIAL_TIME: Final = 130.0  # seconds; Linux itself gives up after 127 s (tcp_syn_retries 6, ip-sysctl)
MIN_DIAL_TIME: Final = 0.05  # seconds; a zero in OPEN still gets a chance within the node


class Dialer(Protocol):
    """What flows need of the network."""

    async def connect(self, dst: Address, dport: int, limit: float) -> socket.socket:
        """Connect by TCP within `limit` seconds; OSError, its errno telling why, if that fails."""

    def associate(self, dst: Address, dport: int) -> socket.socket:
        """Return a UDP socket that talks to one peer only; OSError if that fails."""


def refusal(dst: Address, *, allow_loopback: bool = False) -> str:
    """Return why `dst` must not be dialed, or an empty string.

    These are never a cluster's services, but this pod's own (its control port above all), the node's metadata
    service, or nobody.
    """
    if dst.is_loopback:
        return "" if allow_loopback else f"{dst} is the manager's own loopback"
    for wrong, what in (
        (dst.is_unspecified, "unspecified"),
        (dst.is_multicast, "multicast"),
        (dst.is_link_local, "link-local"),
    ):
        if wrong:
            return f"{dst} is {what}"
    return ""


def _family(dst: Address) -> socket.AddressFamily:
    return socket.AF_INET if dst.version == 4 else socket.AF_INET6


class SocketDialer:
    """Dials with ordinary sockets."""

    async def connect(self, dst: Address, dport: int, limit: float) -> socket.socket:
        """See :class:`Dialer`."""
        sock = socket.socket(_family(dst), socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            async with asyncio.timeout(min(max(limit, MIN_DIAL_TIME), MAX_DIAL_TIME)):
                await asyncio.get_running_loop().sock_connect(sock, (str(dst), dport))
        except TimeoutError as error:
            sock.close()
            raise TimeoutError(errno.ETIMEDOUT, f"no answer within {limit:.1f} s") from error
        except BaseException:  # cancelling must not leak the socket
            sock.close()
            raise
        return sock

    def associate(self, dst: Address, dport: int) -> socket.socket:
        """See :class:`Dialer`."""
        sock = socket.socket(_family(dst), socket.SOCK_DGRAM)
        try:
            sock.setblocking(False)
            sock.connect((str(dst), dport))
        except OSError:
            sock.close()
            raise
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
        Never answer: every connection times out after no time at all.
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
        self.dialed: list[tuple[Address, int, float]] = []

    async def connect(self, dst: Address, dport: int, limit: float) -> socket.socket:
        """See :class:`Dialer`."""
        self.dialed.append((dst, dport, limit))
        if self._silent:
            raise TimeoutError(errno.ETIMEDOUT, f"no answer within {limit:.1f} s")
        return self._pair(socket.SOCK_STREAM)

    def associate(self, dst: Address, dport: int) -> socket.socket:
        """See :class:`Dialer`."""
        self.dialed.append((dst, dport, 0.0))
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
