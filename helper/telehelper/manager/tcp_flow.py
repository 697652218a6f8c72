"""One TCP flow at the manager: an ordinary socket on one side, frames on the other.

The service's bytes become DATA within the near side's credit; without credit, or with enough queued in the mux
(:mod:`.backlog`), the *service's* socket is not read (never a carrier). The near side's DATA is written to the service,
and CREDIT goes back for what the kernel took. A FIN is a ``shutdown(SHUT_WR)`` after what came before it, and the
service's end of file is a FIN; when both have passed, the flow is over. A failure on the socket becomes a RST,
but only after everything the service had sent before it, unless the near side gives no credit for that in
``PATIENCE``: who does not read must still learn that the service is gone.

There are thousands of these, and most are idle: no task, no timer, no closure, nothing that is only used sometimes.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
from collections import deque
from select import EPOLLOUT
from time import monotonic
from typing import TYPE_CHECKING, Final, Protocol

from telehelper.core.credit import CreditBalance, CreditIssuer, CreditPool, growth_time
from telehelper.core.frames import UNKNOWN, Frame, FrameType, encode_coded, encode_timing, encode_u32
from telehelper.errors import TunnelError
from telehelper.manager.poller import ODD, Poller

if TYPE_CHECKING:
    from telehelper.carrier import Carrier

PATIENCE: Final = 5.0  # seconds; a near side that reads gives credit within a round trip or two
WRITE_BUFFERS: Final = 64  # to one sendmsg(2); IOV_MAX is 1024
_ABORT: Final = struct.pack("ii", 1, 0)  # struct linger: close(2) sends RST (socket(7))

_DATA: Final = FrameType.DATA

Buffer = bytes | bytearray | memoryview


class Home(Protocol):
    """What a flow shares with the others of its carrier."""

    carrier: Carrier
    tells_times: bool
    poller: Poller
    pool: CreditPool

    def room(self, flow: int) -> int:
        """Return how many bytes a flow may read now."""

    def wait(self, flow: TcpFlow) -> None:
        """Call the flow's :meth:`TcpFlow.look_again` when the carrier has taken something."""

    def forget(self, flow: int) -> None:
        """Learn that a flow is over."""


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
    home
        Its carrier, and what else it shares. Told when the flow is over, but not by :meth:`abort`.
    """

    __slots__ = (
        "_asked_at",
        "_balance",
        "_closed",
        "_failed",
        "_fd",
        "_home",
        "_issuer",
        "_near_done",
        "_odd",
        "_read_over",
        "_readable",
        "_shut",
        "_sock",
        "_unwritten",
        "flow",
    )

    def __init__(self, flow: int, sock: socket.socket, credit: int, home: Home) -> None:
        self.flow = flow
        self._sock = sock
        self._fd = sock.fileno()
        self._home = home
        self._balance = CreditBalance(credit)
        self._issuer = CreditIssuer(pool=home.pool)
        # Since when the service is waited for: it has connected, or has taken the last of the request or its end. UNKNOWN when its
        # first byte has come, or nobody wants to hear
        self._asked_at = monotonic() if home.tells_times else UNKNOWN
        self._unwritten: deque[memoryview] | None = None  # made when the service is slow
        self._readable = False  # as far as is known, there is something in the socket
        self._odd = False  # and not only bytes: see poller.ODD
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
        self._home.poller.watch(self._fd, self)

    # --- from the near side ---

    def receive_data(self, data: Buffer) -> None:
        """Write a DATA frame's payload to the service; TunnelError if it was over its credit or after FIN.

        What cannot be written at once is copied: the buffer is used again.
        """
        if self._near_done:
            raise TunnelError(f"DATA after FIN on flow {self.flow}")
        self._issuer.received(len(data))
        if self._failed:
            return
        if self._unwritten:
            self._unwritten.append(memoryview(bytes(data)))
            return
        written = self._write([data])
        if written < len(data) and not self._failed:
            if self._unwritten is None:
                self._unwritten = deque()
            self._unwritten.append(memoryview(bytes(memoryview(data)[written:])))
        self._consumed(written)

    def receive_credit(self, n: int) -> None:
        """Take a CREDIT frame: the service may be read again."""
        self._balance.grant(n)
        self._read()

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

    def ready(self, events: int) -> None:
        """See :class:`~telehelper.manager.poller.Pollable`."""
        if events & EPOLLOUT and self._unwritten:
            self._write_waiting()
        if events != EPOLLOUT and not self._closed:
            self._readable = True
            if events & ODD:
                self._odd = True
            self._read()

    def _read(self) -> None:
        """Read once, if there is something to be read, credit, and room.

        Once, so that a fast service does not keep the loop from the others: the next piece is the next turn's.
        """
        if not self._readable:
            return
        if self._read_over:
            self._readable = False
            self._heed_error()
            return
        balance, home, flow = self._balance, self._home, self.flow
        limit = min(balance.available, home.room(flow))
        if not limit:
            self._hold()
            return
        try:
            data = self._sock.recv(limit)
        except BlockingIOError:
            self._readable = False
            return
        except OSError as error:
            self._fail_reading(error.errno or errno.ECONNRESET)
            return
        if not data:
            self._end_of_file()
            return
        balance.spend(len(data))
        if self._asked_at >= 0:
            home.carrier.send(encode_timing(flow, monotonic() - self._asked_at))
            self._asked_at = UNKNOWN
        home.carrier.send(Frame(_DATA, flow, data))
        if len(data) == limit or self._odd:
            home.poller.again(self._fd)
        else:
            self._readable = False

    def _hold(self) -> None:
        """Leave the rest in the socket, for want of credit or of room."""
        if self._balance.available:
            self._home.wait(self)
        else:
            self._heed_error()  # until a CREDIT, unless there is nothing to wait for

    def _heed_error(self) -> None:
        """Notice a reset without reading."""
        if self._odd and not self._failed:
            code = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                self._fail_writing(code)

    def _end_of_file(self) -> None:
        self._readable = False
        self._read_over = True
        if self._failed:
            self._finish_failure()
            return
        self._home.carrier.send(Frame(FrameType.FIN, self.flow))
        self._close_if_done()

    # --- to the service ---

    def _write(self, buffers: list[Buffer]) -> int:
        """Return how many bytes the kernel took; after a failure none."""
        try:
            return self._sock.sendmsg(buffers) if len(buffers) > 1 else self._sock.send(buffers[0])
        except BlockingIOError:
            return 0
        except OSError as error:
            self._fail_writing(error.errno or errno.EPIPE)
            return 0

    def _write_waiting(self) -> None:
        unwritten = self._unwritten or deque()
        written = 1
        while unwritten and written:
            written = self._write([unwritten[i] for i in range(min(len(unwritten), WRITE_BUFFERS))])
            self._take_off(unwritten, written)
            self._consumed(written)
        if not unwritten:
            self._unwritten = None
            if self._near_done:
                self._shut_down()

    @staticmethod
    def _take_off(unwritten: deque[memoryview], written: int) -> None:
        while written:
            first = unwritten[0]
            if written < len(first):
                unwritten[0] = first[written:]
                return
            written -= len(first)
            unwritten.popleft()

    def _consumed(self, written: int) -> None:
        if not written:
            return
        now = monotonic()
        if self._asked_at >= 0:
            self._asked_at = now
        if not self._near_done:
            issuer, carrier = self._issuer, self._home.carrier
            issuer.growth_time = growth_time(carrier.mux.min_rtt)
            grant = issuer.consumed(written, now)
            if grant:
                carrier.send(encode_u32(FrameType.CREDIT, self.flow, grant))

    def _shut_down(self) -> None:
        if self._failed:
            return
        if self._asked_at >= 0:
            self._asked_at = monotonic()
        if not self._read_over:  # else closing does it
            try:
                self._sock.shutdown(socket.SHUT_WR)
            except OSError as error:  # reset in the meantime
                self._fail_writing(error.errno or errno.EPIPE)
                return
        self._shut = True
        self._close_if_done()

    # --- failure, end, and waiting for room ---

    def look_again(self) -> None:
        """Go on if there is room in the mux now, or wait again."""
        if self._closed:
            return
        if self._failed and self._read_over:
            self._finish_failure()
        else:
            self._read()

    def _fail_writing(self, code: int) -> None:
        """Note that the service takes no more. What it sent before may still be read, so the RST comes after that."""
        self._failed = code
        self._drop_unwritten()
        if self._read_over:
            self._finish_failure()
        else:
            self._odd = True  # so that reading goes on until its end
            asyncio.get_running_loop().call_later(PATIENCE, self._lose_patience)

    def _lose_patience(self) -> None:
        if self._closed:
            return
        if self._balance.available:  # the near side reads; what there is waits for nobody but the carrier
            asyncio.get_running_loop().call_later(PATIENCE, self._lose_patience)
        else:
            self._fail_reading(self._failed)

    def _fail_reading(self, code: int) -> None:
        """Note that the service's connection is gone, both ways."""
        self._failed = code
        self._readable = False
        self._read_over = True
        self._drop_unwritten()
        self._finish_failure()

    def _drop_unwritten(self) -> None:
        if self._unwritten is not None:
            self._unwritten.clear()  # whoever is writing it sees it empty
            self._unwritten = None

    def _finish_failure(self) -> None:
        """Send the RST, once no DATA is queued any more that it would overtake."""
        home = self._home
        if home.carrier.mux.queued_of(self.flow):
            home.wait(self)
            return
        home.carrier.send(encode_coded(FrameType.RST, self.flow, self._failed, os.strerror(self._failed)))
        self._close()
        home.forget(self.flow)

    def _close_if_done(self) -> None:
        if self._read_over and self._shut and not (self._failed or self._closed):
            self._close()
            self._home.forget(self.flow)

    def _close(self) -> None:
        self._closed = True
        self._readable = False
        self._drop_unwritten()
        self._home.poller.forget(self._fd)
        self._issuer.close()
        self._sock.close()
