"""One UDP flow at the manager: a connected datagram socket on one side, DATAGRAM frames on the other."""

from __future__ import annotations

import asyncio
import errno
import os
from typing import TYPE_CHECKING, Final

from telehelper.core.frames import Frame, FrameType, encode_coded

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from telehelper.carrier import Carrier

MAX_DATAGRAM: Final = 65_535  # bytes, RFC 768
READS: Final = 16  # at a time, so that one flood does not keep the loop from the others


class UdpFlow:
    """Copies datagrams. Nothing waits here: what the socket cannot take now is dropped and counted, as IP does.

    An ICMP "port unreachable" shows as ECONNREFUSED on the socket, and becomes RST(ECONNREFUSED).

    Parameters
    ----------
    flow, sock, carrier, on_closed
        As for :class:`~telehelper.manager.tcp_flow.TcpFlow`.
    """

    def __init__(
        self, flow: int, sock: socket.socket, carrier: Carrier, on_closed: Callable[[int], None]
    ) -> None:
        self.flow = flow
        self.dropped = 0
        self._sock = sock
        self._carrier = carrier
        self._on_closed = on_closed
        self._closed = False
        self._loop = asyncio.get_running_loop()

    def start(self) -> None:
        """Begin to copy; after OPENED was queued."""
        self._loop.add_reader(self._sock.fileno(), self._readable)

    def receive_datagram(self, data: bytes | bytearray | memoryview) -> None:
        """Send a DATAGRAM frame's payload to the service."""
        try:
            self._sock.send(data)
        except BlockingIOError:
            self.dropped += 1
        except OSError as error:
            if error.errno in (errno.EMSGSIZE, errno.ENOBUFS):
                self.dropped += 1
            else:
                self._fail(error)

    def receive_fin(self) -> None:
        """Take a FIN frame: the near side has forgotten the flow."""
        self.abort()
        self._on_closed(self.flow)

    def abort(self) -> None:
        """Close, and say nothing."""
        if not self._closed:
            self._closed = True
            self._loop.remove_reader(self._sock.fileno())
            self._sock.close()

    def _readable(self) -> None:
        for _ in range(READS):
            try:
                data = self._sock.recv(MAX_DATAGRAM)
            except BlockingIOError:
                return
            except OSError as error:
                self._fail(error)
                return
            self._carrier.send(Frame(FrameType.DATAGRAM, self.flow, data))

    def _fail(self, error: OSError) -> None:
        code = error.errno or errno.EIO
        self._carrier.send(encode_coded(FrameType.RST, self.flow, code, os.strerror(code)))
        self.abort()
        self._on_closed(self.flow)
