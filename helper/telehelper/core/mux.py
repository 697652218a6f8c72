"""The mux: many flows on one carrier, at either end of it; sans-IO.

Theory of operation
-------------------
What is sent waits here until the carrier can take it: :meth:`Mux.send` queues a frame, :meth:`Mux.take` hands out
the next bytes. There are two lanes. *Control* (HELLO, OPEN, OPENED, REJECTED, CREDIT, RST, PING, PONG, GOAWAY,
TIMING) goes first, in the order sent, so that no amount of data delays a heartbeat or an answer. *Data* (DATA, FIN,
DATAGRAM) stays in order within its flow, and the flows take turns of ``QUANTUM`` bytes, so a small query waits for
one turn of each busy flow and not for all they have queued. RST overtakes, and drops, what its flow has queued; so
does one that comes in.

What comes in is cut into frames by :meth:`Mux.receive_data`. PING is answered and PONG consumed here.

Time: a PING goes out every ``PING_INTERVAL``; any byte received is a sign of life; ``DEAD_AFTER`` without one makes
:meth:`Mux.is_dead` true. Arm one timer for :meth:`Mux.next_timer`, and call :meth:`Mux.handle_timer` when it fires.

Bounds: a flow's DATA is bounded by its credit (:mod:`telehelper.core.credit`), which is the caller's to keep; its
datagrams by ``MAX_DATAGRAM_QUEUE``, and all flows' by ``MAX_QUEUE_FOR_DATAGRAMS`` (drop and count); the control lane
by ``MAX_CONTROL`` frames, beyond which the far side has stopped reading and the carrier counts as dead; answers to PINGs
by ``MAX_PONGS`` (drop and count).
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Final

from telehelper.core.frames import MAX_DATA, MAX_PAYLOAD, Frame, FrameDecoder, FrameType, encode_header
from telehelper.errors import LocalProtocolError, TunnelError

HEADER_SIZE: Final = 8  # bytes, see frames.py
QUANTUM: Final = 64 * 1024  # bytes of a turn: the largest DATA frame fits, and takes 0.1 ms at 5 Gbit/s
# Bytes; payloads up to this are joined with their header: copying is cheaper than one more buffer
SMALL: Final = 2048
PING_INTERVAL: Final = 3.0  # seconds
FIRST_PING: Final = 0.02  # seconds; right after the HELLOs: the first flows are told beside a round-trip time
PROBE_TIMEOUT: Final = 3.0  # seconds that the answer to a probe may take
DEAD_AFTER: Final = 9.0  # seconds without receiving anything; three PINGs, and found out within ten
MAX_DATAGRAM_QUEUE: Final = (
    256 * 1024
)  # bytes of one flow's DATA and DATAGRAM frames; more datagrams are dropped
MAX_QUEUE_FOR_DATAGRAMS: Final = 16 * 1024 * 1024  # bytes queued in all, beyond which datagrams are dropped
MAX_CONTROL: Final = 65_536  # frames; several for each of 10,000 flows
MAX_PONGS: Final = 16  # unsent answers; an honest far side has one PING under way
RTT_GAIN: Final = 0.125  # weight of a new sample, alpha of RFC 6298 §2

_DATA: Final = FrameType.DATA
_FIN: Final = FrameType.FIN
_DATAGRAM: Final = FrameType.DATAGRAM
_IN_ORDER: Final = frozenset({_DATA, _FIN, _DATAGRAM})
_FLOWLESS: Final = frozenset({FrameType.HELLO, FrameType.GOAWAY})
_HEARTBEAT: Final = frozenset({FrameType.PING, FrameType.PONG})
_OURS: Final = _HEARTBEAT | {FrameType.RST}  # frames received that mean something to the mux itself

Buffer = bytes | bytearray | memoryview


class _Lane:
    """What one flow has queued."""

    __slots__ = ("finished", "frames", "size")

    def __init__(self) -> None:
        self.frames: deque[Frame] = deque()
        self.size = 0  # bytes, headers included
        self.finished = False  # a FIN is queued


class Mux:
    """One end of one carrier.

    Parameters
    ----------
    now
        Monotonic seconds: when the carrier came into being.

    Attributes
    ----------
    queued
        Bytes waiting to be taken, headers included.
    rtt
        Smoothed round-trip time in seconds; None before the first PONG.
    min_rtt
        The least one measured: the way's own, without what waits on it.
    dropped_datagrams, dropped_pongs
        How many frames were dropped because their queue was full.
    """

    def __init__(self, now: float) -> None:
        self.queued = 0
        self.rtt: float | None = None
        self.min_rtt: float | None = None
        self.dropped_datagrams = 0
        self.dropped_pongs = 0
        self._control: deque[Frame] = deque()
        self._lanes: dict[int, _Lane] = {}
        self._turns: OrderedDict[int, None] = OrderedDict()  # flows with something queued, the next one first
        self._decoder = FrameDecoder()
        self._heard_at = now
        self._ping_at = now + FIRST_PING
        self._ping_number = 0
        self._ping_sent: float | None = None  # when the PING went out that is not answered yet
        self._pongs_queued = 0

    # --- sending ---

    def send(self, frame: Frame) -> None:
        """Queue one frame.

        The payload is not copied: it must not change before it was taken and sent.

        Raises
        ------
        LocalProtocolError
            The frame is none that may be sent: PING and PONG are the mux's own, a flow frame needs a flow and the
            others must have none, payloads have limits, and nothing follows a FIN.
        """
        kind, flow, payload = frame
        if (flow == 0) != (kind in _FLOWLESS) or kind in _HEARTBEAT:
            raise LocalProtocolError(f"{kind.name} frame on flow {flow}")
        if kind in _IN_ORDER:
            self._queue_data(frame, len(payload))
            return
        if kind is FrameType.RST:
            self.drop_flow(flow)
        if len(payload) > MAX_PAYLOAD:
            raise LocalProtocolError(f"{kind.name} frame of {len(payload)} bytes")
        self._queue_control(frame)

    def drop_flow(self, flow: int) -> None:
        """Forget what `flow` has queued of DATA, FIN and DATAGRAM; nothing happens if there is none."""
        lane = self._lanes.pop(flow, None)
        if lane is not None:
            self.queued -= lane.size
            del self._turns[flow]

    def queued_of(self, flow: int) -> int:
        """Return the bytes that `flow` has waiting, headers included."""
        lane = self._lanes.get(flow)
        return 0 if lane is None else lane.size

    def take(self, budget: int) -> list[Buffer]:
        """Take the next bytes off the queue, to be sent at once and in order.

        Parameters
        ----------
        budget
            About how many bytes; whole frames only, and at least one if any is queued.

        Returns
        -------
        list
            Headers and payloads in turn; payloads are the very objects queued, except small ones.
        """
        out: list[Buffer] = []
        left = self._take_control(out, budget)
        while self._turns and (left > 0 or not out):
            left -= self._take_turn(out, left)
        return out

    def _queue_control(self, frame: Frame) -> None:
        self._control.append(frame)
        self.queued += HEADER_SIZE + len(frame.payload)

    def _queue_data(self, frame: Frame, length: int) -> None:
        kind, flow, _ = frame
        lane = self._lanes.get(flow)
        if lane is not None and lane.finished:
            raise LocalProtocolError(f"{kind.name} after FIN on flow {flow}")
        if kind is _DATAGRAM:
            if length > MAX_PAYLOAD:
                raise LocalProtocolError(f"DATAGRAM frame of {length} bytes")
            own = 0 if lane is None else lane.size
            if own + length > MAX_DATAGRAM_QUEUE or self.queued > MAX_QUEUE_FOR_DATAGRAMS:
                self.dropped_datagrams += 1
                return
        elif (kind is _DATA) != (0 < length <= MAX_DATA):
            raise LocalProtocolError(f"{kind.name} frame of {length} bytes")
        if lane is None:
            lane = self._lanes[flow] = _Lane()
            self._turns[flow] = None
        lane.finished = kind is _FIN
        lane.frames.append(frame)
        lane.size += HEADER_SIZE + length
        self.queued += HEADER_SIZE + length

    def _take_control(self, out: list[Buffer], budget: int) -> int:
        control = self._control
        left = budget
        while control and left > 0:
            frame = control.popleft()
            if frame.type is FrameType.PONG:
                self._pongs_queued -= 1
            out.append(encode_header(frame) + frame.payload)
            left -= HEADER_SIZE + len(frame.payload)
        self.queued -= budget - left
        return left

    def _take_turn(self, out: list[Buffer], left: int) -> int:
        """Take one flow's turn: its first frame, and more while they fit; return the bytes taken."""
        flow, _ = self._turns.popitem(last=False)
        lane = self._lanes[flow]
        frames = lane.frames
        limit = min(QUANTUM, left)
        taken = 0
        while frames and (not taken or taken + len(frames[0].payload) <= limit):
            frame = frames.popleft()
            length = len(frame.payload)
            taken += HEADER_SIZE + length
            if length <= SMALL:
                out.append(encode_header(frame) + frame.payload)
            else:
                out.append(encode_header(frame))
                out.append(frame.payload)
        self.queued -= taken
        lane.size -= taken
        if frames:
            self._turns[flow] = None
        else:
            del self._lanes[flow]
        return taken

    # --- receiving ---

    def receive_data(self, data: Buffer, now: float) -> list[Frame]:
        """Take bytes as the carrier delivered them and return the frames completed by them, without PING and PONG.

        Payloads may be views of `data`.

        Raises
        ------
        TunnelError
            The bytes are no frames: close the carrier.
        """
        if data:
            self._heard_at = now
        frames = self._decoder.feed(data)
        for frame in frames:
            if frame.type in _OURS:
                break
        else:
            return frames
        return [frame for frame in frames if not self._is_consumed(frame, now)]

    def at_boundary(self) -> bool:
        """Whether no frame is half received: the only good moment for an EOF."""
        return self._decoder.at_boundary()

    def _is_consumed(self, frame: Frame, now: float) -> bool:
        """Deal with a PING or PONG, and with what a RST means here; return whether that was all."""
        if frame.type is FrameType.RST:
            self.drop_flow(frame.flow)
        if frame.type not in _HEARTBEAT:
            return False
        if len(frame.payload) != HEADER_SIZE:
            raise TunnelError(f"{frame.type.name} has {len(frame.payload)} bytes, not 8")
        if frame.type is FrameType.PING:
            self._pong(frame.payload)
        elif self._ping_sent is not None and int.from_bytes(frame.payload, "big") == self._ping_number:
            sample = now - self._ping_sent
            self.rtt = sample if self.rtt is None else self.rtt + RTT_GAIN * (sample - self.rtt)
            self.min_rtt = sample if self.min_rtt is None else min(sample, self.min_rtt)
            self._ping_sent = None
        return True

    def _pong(self, payload: Buffer) -> None:
        if self._pongs_queued == MAX_PONGS:
            self.dropped_pongs += 1
            return
        self._pongs_queued += 1
        self._queue_control(Frame(FrameType.PONG, 0, bytes(payload)))

    # --- time ---

    def next_timer(self) -> float:
        """Return when to call :meth:`handle_timer`, in monotonic seconds."""
        return min(self._ping_at, self._heard_at + DEAD_AFTER)

    def handle_timer(self, now: float) -> None:
        """Queue a PING if one is due. Then ask :meth:`is_dead`, and take and send what is queued.

        A call that comes very late means that this process stood still, and what the far side sent in the
        meantime is waiting to be read: it is given one more interval to be heard.
        """
        if now - self.next_timer() > PING_INTERVAL:
            self._heard_at = max(self._heard_at, now - DEAD_AFTER + PING_INTERVAL)
        if now < self._ping_at:
            return
        self._ping_at = now + PING_INTERVAL
        self._ping_number += 1
        self._ping_sent = now
        self._queue_control(Frame(FrameType.PING, 0, self._ping_number.to_bytes(8, "big")))

    def probe(self, now: float) -> None:
        """Have the far side prove within ``PROBE_TIMEOUT`` that it is there: there is reason to doubt it.

        A PING goes out with the next :meth:`handle_timer`; anything received is proof. Arm the timer anew.
        """
        self._heard_at = min(self._heard_at, now - DEAD_AFTER + PROBE_TIMEOUT)
        self._ping_at = now

    def is_dead(self, now: float) -> bool:
        """Whether the far side has been silent for too long, or has stopped reading."""
        return now - self._heard_at >= DEAD_AFTER or len(self._control) > MAX_CONTROL
