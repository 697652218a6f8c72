"""One TCP flow at the manager: an ordinary socket on one side, frames on the other.

The service's bytes become DATA within the near side's credit; without credit, or with enough of this flow queued in
the mux, the *service's* socket is not read (never a carrier). The near side's DATA is written to the service, and
CREDIT goes back for what the kernel took. A FIN is a ``shutdown(SHUT_WR)`` after what came before it, and the
service's end of file is a FIN; when both have passed, the flow is over. A failure on the socket becomes a RST,
but only after everything the service had sent before it.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
from collections import deque
from typing import TYPE_CHECKING, Final

from telehelper.core.credit import CreditBalance, CreditIssuer, growth_time
from telehelper.core.frames import MAX_DATA, Frame, FrameType, encode_coded, encode_u32
from telehelper.errors import TunnelError

if TYPE_CHECKING:
    from collections.abc import Callable

    from telehelper.carrier import Carrier

FLOW_QUEUE: Final = 256 * 1024  # bytes of one flow in the mux beyond which its socket is not read
CARRIER_QUEUE: Final = (
    8 * 1024 * 1024
)  # bytes in the mux beyond which only flows that have nothing queued are read
READS: Final = 4  # at a time, so that one fast service does not keep the loop from the others
WRITE_BUFFERS: Final = 64  # to one sendmsg(2); IOV_MAX is 1024
_ABORT: Final = struct.pack("ii", 1, 0)  # struct linger: close(2) sends RST (socket(7))

_DATA: Final = FrameType.DATA


class TcpFlow:
    """Copies between one connected socket and one flow; closes the socket.

    Parameters
    ----------
    flow
        Its number on the carrier.
    sock
        Connected and non-blocking.
    credit
        Bytes the near side accepts at first, from OPEN.
    carrier
        Where the frames go.
    on_closed
        Called once with the flow's number when the flow is over, but not by :meth:`abort`.
    on_waiting
        Called when the flow can go on only with room in the mux: then :meth:`look_again` must be called.
    """

    def __init__(
        self,
        flow: int,
        sock: socket.socket,
        credit: int,
        carrier: Carrier,
        *,
        on_closed: Callable[[int], None],
        on_waiting: Callable[[TcpFlow], None],
    ) -> None:
        self.flow = flow
        self._sock = sock
        self._fd = sock.fileno()
        self._carrier = carrier
        self._mux = carrier.mux
        self._on_closed = on_closed
        self._on_waiting = on_waiting
        self._loop = asyncio.get_running_loop()
        self._balance = CreditBalance(credit)
        self._issuer = CreditIssuer()
        self._unwritten: deque[memoryview] = deque()
        self._reading = False
        self._read_over = False  # nothing more will come from the service
        self._near_done = False  # FIN received
        self._shut = False  # and passed on
        self._failed = 0  # errno of the socket; the RST waits for what is queued
        self._closed = False

    @property
    def initial_credit(self) -> int:
        """What OPENED must grant."""
        return self._issuer.initial

    def start(self) -> None:
        """Begin to copy; after OPENED was queued."""
        self._resume()

    # --- from the near side ---

    def receive_data(self, data: bytes | bytearray | memoryview) -> None:
        """Write a DATA frame's payload to the service; TunnelError if it was over its credit or after FIN."""
        if self._near_done:
            raise TunnelError(f"DATA after FIN on flow {self.flow}")
        self._issuer.received(len(data))
        if self._failed:
            return
        if self._unwritten:
            self._unwritten.append(memoryview(data))
            return
        written = self._write([data])
        if written < len(data) and not self._failed:
            self._unwritten.append(memoryview(data)[written:])
            self._loop.add_writer(self._fd, self._writable)
        self._consumed(written)

    def receive_credit(self, n: int) -> None:
        """Take a CREDIT frame: the service may be read again."""
        self._balance.grant(n)
        self._resume()

    def receive_fin(self) -> None:
        """Take a FIN frame: shut the service's direction down once everything before it is written."""
        if self._near_done:
            raise TunnelError(f"FIN after FIN on flow {self.flow}")
        self._near_done = True
        if not self._unwritten:
            self._shut_down()

    def abort(self) -> None:
        """Reset the service's connection at once and say nothing: the near side knows."""
        if not self._closed:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
            self._close()

    # --- from the service ---

    def _readable(self) -> None:
        for _ in range(READS):
            limit = min(MAX_DATA, self._balance.available)
            if not limit:
                self._pause()  # until a CREDIT
                return
            if not self._has_room():
                self._pause()
                self._on_waiting(self)
                return
            try:
                data = self._sock.recv(limit)
            except BlockingIOError:
                return
            except OSError as error:
                self._fail_reading(error)
                return
            if not data:
                self._end_of_file()
                return
            self._balance.spend(len(data))
            self._carrier.send(Frame(_DATA, self.flow, data))
            if len(data) < limit:
                return

    def _end_of_file(self) -> None:
        self._pause()
        self._read_over = True
        if self._failed:
            self._finish_failure()
            return
        self._carrier.send(Frame(FrameType.FIN, self.flow))
        self._close_if_done()

    # --- to the service ---

    def _write(self, buffers: list[bytes | bytearray | memoryview]) -> int:
        """Return how many bytes the kernel took; after a failure none."""
        try:
            return self._sock.sendmsg(buffers) if len(buffers) > 1 else self._sock.send(buffers[0])
        except BlockingIOError:
            return 0
        except OSError as error:
            self._fail_writing(error)
            return 0

    def _writable(self) -> None:
        unwritten = self._unwritten
        written = self._write([unwritten[i] for i in range(min(len(unwritten), WRITE_BUFFERS))])
        left = written
        while left:
            first = unwritten[0]
            if left < len(first):
                unwritten[0] = first[left:]
                break
            left -= len(first)
            unwritten.popleft()
        self._consumed(written)
        if not (unwritten or self._failed):
            self._loop.remove_writer(self._fd)
            if self._near_done:
                self._shut_down()

    def _consumed(self, written: int) -> None:
        if written and not self._near_done:
            self._issuer.growth_time = growth_time(self._mux.min_rtt)
            grant = self._issuer.consumed(written, self._loop.time())
            if grant:
                self._carrier.send(encode_u32(FrameType.CREDIT, self.flow, grant))

    def _shut_down(self) -> None:
        if self._failed:
            return
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError as error:  # reset in the meantime
            self._fail_writing(error)
            return
        self._shut = True
        self._close_if_done()

    # --- failure, end, and waiting for room ---

    def look_again(self) -> bool:
        """Go on if there is room in the mux now; return whether the flow need not be asked again."""
        if self._closed:
            return True
        if self._failed and self._read_over:
            return self._finish_failure()
        if not self._has_room():
            return False
        self._resume()
        return True

    def _has_room(self) -> bool:
        queued = self._mux.queued_of(self.flow)
        return queued < FLOW_QUEUE and (not queued or self._mux.queued < CARRIER_QUEUE)

    def _resume(self) -> None:
        if not (self._reading or self._read_over or self._closed):
            self._reading = True
            self._loop.add_reader(self._fd, self._readable)

    def _pause(self) -> None:
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._fd)

    def _fail_writing(self, error: OSError) -> None:
        """Note that the service takes no more. What it sent before may still be read, so the RST comes after that."""
        self._failed = error.errno or errno.ECONNRESET
        self._unwritten.clear()
        self._loop.remove_writer(self._fd)
        if self._read_over:
            self._finish_failure()

    def _fail_reading(self, error: OSError) -> None:
        """Note that the service's connection is gone, both ways."""
        self._failed = error.errno or errno.ECONNRESET
        self._read_over = True
        self._pause()
        self._loop.remove_writer(self._fd)
        self._finish_failure()

    def _finish_failure(self) -> bool:
        """Send the RST unless DATA is still queued, which it would overtake; return whether it was sent."""
        if self._mux.queued_of(self.flow):
            self._on_waiting(self)
            return False
        self._carrier.send(encode_coded(FrameType.RST, self.flow, self._failed, os.strerror(self._failed)))
        self._close()
        self._on_closed(self.flow)
        return True

    def _close_if_done(self) -> None:
        if self._read_over and self._shut and not (self._failed or self._closed):
            self._close()
            self._on_closed(self.flow)

    def _close(self) -> None:
        self._closed = True
        self._pause()
        self._loop.remove_writer(self._fd)
        self._unwritten.clear()
        self._sock.close()
