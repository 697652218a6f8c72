"""The manager and its services, as frames: what the stack in a namespace of its own talks to. No sockets."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import time
from collections import deque
from typing import TYPE_CHECKING, Final

from telehelper.core.credit import CreditBalance, CreditIssuer
from telehelper.core.frames import (
    MAX_DATA,
    Frame,
    FrameType,
    Open,
    Proto,
    decode_open,
    decode_u32,
    encode_coded,
    encode_u32,
)

if TYPE_CHECKING:
    from collections.abc import Callable

# What a service does, by its port.
REFUSED, BLACK_HOLE, NO_ROUTE = 1, 2, 3
RESET: Final = 4  # resets at the first byte
CROSSING: Final = 6  # sends its FIN when it sees near's, which near must not know yet; see tun_shell
ECHO: Final = 7
SINK: Final = 9  # takes everything, and says its digest at the end
SOURCES: Final = {15: 500_000, 17: 5_000_000, 18: 20_000_000, 19: 200_000_000}  # so many bytes, then FIN
STALL_TIME: Final = 0.3  # seconds
SWALLOW: Final = 20  # takes what comes and never consumes it: no more credit
COUNTS: Final = 21  # says how many bytes each flow has sent and received, as JSON
GATE: Final = 22  # a SINK that consumes nothing until somebody connects to RELEASE
RELEASE: Final = 23
STALL: Final = 24  # at each byte, stands still for so long that the kernel's queue fills

ERRORS: Final = {REFUSED: errno.ECONNREFUSED, BLACK_HOLE: errno.ETIMEDOUT, NO_ROUTE: errno.EHOSTUNREACH}
BLOCK: Final = bytes(range(256)) * (MAX_DATA // 256 + 1)


class FarFlow:
    """What one service does with one flow."""

    def __init__(self, number: int, what: Open) -> None:
        self.number = number
        self.port = what.dport
        self.balance = CreditBalance(what.credit)
        self.issuer = CreditIssuer()
        self.digest = hashlib.sha256()
        self.queued: deque[bytes] = deque()
        self.left = SOURCES.get(self.port, 0)
        self.sent = self.received = 0
        self.is_gated = self.port in (SWALLOW, GATE)
        self.eof = self.finished = False

    def receive(self, frame: Frame, now: float) -> list[Frame]:
        """Take a frame of the flow; return the answers."""
        out: list[Frame] = []
        if frame.type is FrameType.CREDIT:
            self.balance.grant(decode_u32(frame))
        elif frame.type is FrameType.FIN:
            self.eof = True
            if self.port in (SINK, GATE):
                self.queued.append(self.digest.hexdigest().encode())
        elif frame.type is FrameType.DATA:
            if self.port == RESET:
                return [encode_coded(FrameType.RST, self.number, errno.ECONNRESET, "by the service")]
            self.received += len(frame.payload)
            self.issuer.received(len(frame.payload))
            self.digest.update(frame.payload)
            if self.port == STALL:
                time.sleep(STALL_TIME)  # and with it the whole loop
            if self.port == ECHO:
                self.queued.append(bytes(frame.payload))
            if not self.is_gated:
                out += self.consume(len(frame.payload), now)
        return out + self.pump()

    def consume(self, size: int, now: float) -> list[Frame]:
        """Grant credit for bytes that were taken."""
        credit = self.issuer.consumed(size, now)
        return [encode_u32(FrameType.CREDIT, self.number, credit)] if credit else []

    def release(self, now: float) -> list[Frame]:
        """Open the gate: consume what waits, and from now on everything."""
        if self.port != GATE:
            return []
        self.is_gated = False
        return self.consume(self.issuer.held, now)

    def pump(self) -> list[Frame]:
        """Send what there is credit for, and FIN after the last byte."""
        out = []
        while self.balance.available and (self.queued or self.left):
            block = (
                self.queued.popleft() if self.queued else BLOCK[self.sent % 256 :][: min(self.left, MAX_DATA)]
            )
            n = min(len(block), self.balance.available)
            if self.left:
                self.left -= n
            elif n < len(block):
                self.queued.appendleft(block[n:])
            self.balance.spend(n)
            self.sent += n
            out.append(Frame(FrameType.DATA, self.number, block[:n]))
        is_done = self.eof or self.port in (*SOURCES, COUNTS, RELEASE)
        if is_done and not self.queued and not self.left and not self.finished:
            out += self.finish()
        return out

    def finish(self) -> list[Frame]:
        """Send FIN."""
        self.finished = True
        return [Frame(FrameType.FIN, self.number)]


class Far:
    """All services, behind the interface of a tunnel. `answer` gets the frames that come back, a turn later."""

    def __init__(self, answer: Callable[[list[Frame]], None]) -> None:
        self.flows: dict[int, FarFlow] = {}
        self.resets = 0
        self._answer = answer
        self._waiting: list[Frame] = []
        self._loop = asyncio.get_running_loop()

    def send(self, frame: Frame) -> None:
        """Take a frame from the stack."""
        if not self._waiting:
            self._loop.call_soon(self._turn)
        self._waiting.append(frame)

    def forget(self, flow: int) -> None:
        """Nothing is kept for a flow here but its counters."""

    def cross(self, number: int) -> None:
        """Send the FIN of a CROSSING flow, once."""
        flow = self.flows[number]
        if flow.port == CROSSING and not flow.finished:
            self._answer(flow.finish())

    def _turn(self) -> None:
        frames, self._waiting = self._waiting, []
        now = self._loop.time()
        self._answer([answer for frame in frames for answer in self._receive(frame, now)])

    def _receive(self, frame: Frame, now: float) -> list[Frame]:
        if frame.type is FrameType.OPEN:
            return self._open(frame, now)
        if frame.type is FrameType.DATAGRAM:
            return [Frame(FrameType.DATAGRAM, frame.flow, bytes(frame.payload))]
        if frame.type is FrameType.RST:
            self.resets += 1
            self.flows.pop(frame.flow, None)
            return []
        flow = self.flows.get(frame.flow)
        return flow.receive(frame, now) if flow else []

    def _open(self, frame: Frame, now: float) -> list[Frame]:
        what = decode_open(frame)
        if what.dport in ERRORS:
            return [encode_coded(FrameType.REJECTED, frame.flow, ERRORS[what.dport])]
        if what.protocol is Proto.UDP:
            return [encode_u32(FrameType.OPENED, frame.flow, 0)]
        flow = FarFlow(frame.flow, what)
        others: list[Frame] = []
        if flow.port == COUNTS:
            flow.queued.append(json.dumps({n: [f.sent, f.received] for n, f in self.flows.items()}).encode())
        elif flow.port == RELEASE:
            others = [answer for other in self.flows.values() for answer in other.release(now)]
        self.flows[frame.flow] = flow
        return [encode_u32(FrameType.OPENED, frame.flow, flow.issuer.initial), *flow.pump(), *others]
