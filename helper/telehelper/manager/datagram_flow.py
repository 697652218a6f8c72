"""What flows of datagrams have in common at the manager: a connected socket on one side, DATAGRAM frames on the other."""

from __future__ import annotations

import asyncio
import errno
import socket
import sys
from abc import ABC, abstractmethod
from select import EPOLLERR, EPOLLET, EPOLLIN
from typing import TYPE_CHECKING, Final, Protocol

from telehelper.core.frames import Frame, FrameType, encode_coded

if TYPE_CHECKING:
    from telehelper.carrier import Carrier
    from telehelper.manager.poller import Poller

MAX_DATAGRAM: Final = 65_535  # bytes, RFC 768
READS: Final = 16  # at a time, so that one flood does not keep the loop from the others
# Seconds without a datagram in either direction until a flow closes, or twice that: RFC 4787 §4.3 asks for two minutes
# at least. The near side closes idle flows sooner, and all flows go with their carrier; this is for a near side that
# forgets some.
IDLE: Final = 120.0

_MASK: Final = EPOLLIN | EPOLLET  # not EPOLLOUT, which would come for each datagram that has left the socket
_MAX_ANCILLARY: Final = 256  # bytes; a struct sock_extended_err and an address
_HEAR_ERRORS: Final = {  # IP_RECVERR and IPV6_RECVERR of linux/in.h and linux/in6.h, which socket does not have
    socket.AF_INET: (socket.IPPROTO_IP, 11),
    socket.AF_INET6: (socket.IPPROTO_IPV6, 25),
}
# Nothing is wrong with the flow: this one datagram is too long, or the kernel is short of memory. EMSGSIZE that was
# heard from a router means that the kernel knows the path's MTU now, and cuts what comes next.
# EREMOTEIO is an ICMP redirect.
_PASSING: Final = frozenset({errno.EMSGSIZE, errno.ENOBUFS, errno.ENOMEM, errno.EREMOTEIO})


class Home(Protocol):
    """What a flow shares with the others of its carrier."""

    carrier: Carrier
    poller: Poller

    def room(self, flow: int) -> int:
        """Return how many bytes a flow may read now."""

    def forget(self, flow: int) -> None:
        """Learn that a flow is over."""


class DatagramFlow(ABC):
    """Copies datagrams. Nothing waits here: what the socket or the carrier cannot take now is dropped, as IP does.

    ICMP errors are heard by way of the socket's error queue (IP_RECVERR, ip(7)), which tells of hosts and networks
    that are not there as well as of ports. An event loop's own reader would not do: libuv stops watching a descriptor
    once it has shown EPOLLERR, and with errors that only concern one datagram the flow goes on.

    Parameters
    ----------
    flow, home
        As for :class:`~telehelper.manager.tcp_flow.TcpFlow`.
    sock
        Connected and non-blocking; ours from now on.

    Attributes
    ----------
    dropped
        How many datagrams were dropped, in both directions together.
    """

    def __init__(self, flow: int, sock: socket.socket, home: Home) -> None:
        self.flow = flow
        self.dropped = 0
        self._sock = sock
        self._home = home
        self._closed = False
        self._is_active = True
        self._loop = asyncio.get_running_loop()
        if sock.family in _HEAR_ERRORS:  # a test's is a Unix socket
            sock.setsockopt(*_HEAR_ERRORS[sock.family], 1)

    def start(self) -> None:
        """Begin to copy; after OPENED was queued."""
        self._home.poller.watch(self._sock.fileno(), self, _MASK)
        self._timer = self._loop.call_later(IDLE, self._check_idle)

    @abstractmethod
    def receive_datagram(self, payload: bytes | bytearray | memoryview) -> None:
        """Take a DATAGRAM frame's payload, valid only now; TunnelError if it is malformed."""

    def receive_fin(self) -> None:
        """Take a FIN frame: the near side has forgotten the flow."""
        self._close()

    def abort(self) -> None:
        """Close, and say nothing."""
        if not self._closed:
            self._closed = True
            self._timer.cancel()
            self._home.poller.forget(self._sock.fileno())
            self._sock.close()

    @abstractmethod
    def _to_payload(self, data: bytes) -> bytes | None:
        """Return what a DATAGRAM frame says for data that was received, or None if it says nothing."""

    @abstractmethod
    def _unreachable(self, code: int, sent: bytes | bytearray | memoryview) -> None:
        """Learn that what was sent cannot arrive, and why."""

    def _transmit(self, data: bytes | bytearray | memoryview) -> None:
        self._is_active = True
        try:
            self._sock.send(data)
        except BlockingIOError:
            self.dropped += 1
        except OSError as error:
            self._failed(error.errno or errno.EIO, data)

    def _failed(self, code: int, sent: bytes | bytearray | memoryview) -> None:
        if code in _PASSING:
            self.dropped += 1
        elif not self._closed:
            self._unreachable(code, sent)

    def ready(self, events: int) -> None:
        """See :class:`~telehelper.manager.poller.Pollable`."""
        self._is_active = True
        if events & EPOLLERR:
            self._take_errors()
        has_room = self._home.room(self.flow) > 0
        for _ in range(READS):
            if self._closed:
                return
            try:
                data = self._sock.recv(MAX_DATAGRAM)
            except BlockingIOError:
                return
            except (
                OSError
            ):  # an ICMP error, which is in its own queue too, and was announced by an event of its own
                continue
            payload = self._to_payload(data)
            if not has_room:
                self.dropped += 1
            elif payload is not None:
                self._home.carrier.send(Frame(FrameType.DATAGRAM, self.flow, payload))
        self._home.poller.again(self._sock.fileno())

    def _take_errors(self) -> None:
        """Empty the error queue."""
        while not self._closed:
            try:
                sent, about, _flags, _address = self._sock.recvmsg(
                    MAX_DATAGRAM, _MAX_ANCILLARY, socket.MSG_ERRQUEUE
                )
            except OSError:
                return
            for _level, _kind, error in about:  # struct sock_extended_err: the first field is the errno
                self._failed(int.from_bytes(error[:4], sys.byteorder), sent)

    def _check_idle(self) -> None:
        if self._is_active:
            self._is_active = False
            self._timer = self._loop.call_later(IDLE, self._check_idle)
        else:
            self._reset(0, "idle")

    def _reset(self, code: int, reason: str) -> None:
        """Close, and say why."""
        self._home.carrier.send(encode_coded(FrameType.RST, self.flow, code, reason))
        self._close()

    def _close(self) -> None:
        self.abort()
        self._home.forget(self.flow)
