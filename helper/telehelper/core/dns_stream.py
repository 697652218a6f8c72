"""Our resolver over TCP (RFC 7766): the frames of flows to its own address in, questions and frames back out; sans-IO.

Theory of operation
-------------------
The stack treats TCP to the resolver's address like any other: it opens a flow and sends frames. Those frames come here
instead of going into the tunnel, and what is returned looks to the stack like the far side's.

- *Questions may be pipelined* and are answered in whatever order the answers come (RFC 7766 §6.2.1.1, §7).
- *Bounds.* MAX_FLOWS at once (a further one is refused), WINDOW bytes of questions not yet taken from each, MAX_PENDING
  questions of each under way (the rest waits in the window: backpressure), MAX_QUEUED bytes of answers that a client
  does not read (then it is reset). A question longer than the resolver takes resets the flow.
- *End.* A client that has sent FIN gets the answers it waits for, and then ours. One that is silent for IDLE seconds
  gets FIN, and RST after as long again.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from telehelper.core.dns_message import MAX_PAYLOAD
from telehelper.core.frames import (
    MAX_DATA,
    Frame,
    FrameType,
    Open,
    Proto,
    decode_u32,
    encode_coded,
    encode_u32,
)

LIMIT: Final = 0xFFFF  # bytes of an answer; the two bytes before it can say no more (RFC 1035 §4.2.2)
MAX_FLOWS: Final = 128
MAX_PENDING: Final = 64  # questions of one flow
WINDOW: Final = 16 * 1024  # bytes; three of the longest questions and a part
MAX_QUEUED: Final = 256 * 1024  # bytes; three of the longest answers and a part
IDLE: Final = 15.0  # seconds; RFC 7766 §6.2.3: "of the order of a few seconds", and longer than any lookup
_LENGTH: Final = 2  # bytes before each message


class StreamClient(NamedTuple):
    """Who asked over TCP: the flow, and which of its questions."""

    flow: int
    number: int


class Question(NamedTuple):
    """A client's question; its answer goes to `DnsStreams.answer`."""

    client: StreamClient
    data: bytes


Output = Question | Frame  # a frame is for the stack


@dataclass(slots=True)
class _Flow:
    number: int
    credit: int  # bytes that the client takes
    deadline: float
    received: bytearray = field(default_factory=bytearray)
    queued: bytearray = field(default_factory=bytearray)
    pending: set[int] = field(default_factory=set)
    asked: int = 0
    near_eof: bool = False
    far_eof: bool = False


class DnsStreams:
    """See the module's theory of operation."""

    def __init__(self) -> None:
        self._flows: dict[int, _Flow] = {}

    def __contains__(self, flow: int) -> bool:
        return flow in self._flows

    def __len__(self) -> int:
        return len(self._flows)

    def open(self, flow: int, what: Open, now: float) -> list[Output]:
        """Take OPEN of a flow to the resolver's address and port."""
        if what.protocol is not Proto.TCP or len(self._flows) >= MAX_FLOWS:
            return [encode_coded(FrameType.REJECTED, flow, errno.ECONNREFUSED, "the resolver is busy")]
        self._flows[flow] = _Flow(flow, what.credit, now + IDLE)
        return [encode_u32(FrameType.OPENED, flow, WINDOW)]

    def receive_frame(self, frame: Frame, now: float) -> list[Output]:
        """Take another frame of a flow that was opened."""
        flow = self._flows[frame.flow]
        match frame.type:
            case FrameType.DATA:
                flow.deadline = now + IDLE
                flow.received += frame.payload
                return self._take_questions(flow)
            case FrameType.CREDIT:
                flow.credit += decode_u32(frame)
                return self._send(flow)
            case FrameType.FIN:
                flow.near_eof = True
                return self._send(flow)
            case FrameType.RST:
                self.forget(frame.flow)
        return []

    def answer(self, client: StreamClient, data: bytes, now: float) -> list[Output]:
        """Take the resolver's answer to a question."""
        flow = self._flows.get(client.flow)
        if flow is None or client.number not in flow.pending:
            return []
        flow.pending.remove(client.number)
        flow.deadline = now + IDLE
        flow.queued += len(data).to_bytes(_LENGTH, "big") + data
        if len(flow.queued) > MAX_QUEUED:
            return self._reset(flow, "answers are not read")
        return [*self._take_questions(flow), *self._send(flow)]

    def forget(self, flow: int) -> None:
        """Drop a flow that is over."""
        self._flows.pop(flow, None)

    def handle_timer(self, now: float) -> list[Output]:
        """End flows that were silent for too long."""
        out: list[Output] = []
        for flow in [flow for flow in self._flows.values() if flow.deadline <= now]:
            if flow.far_eof:
                out += self._reset(flow, "idle")
            else:
                flow.deadline = now + IDLE
                out += self._finish(flow)
        return out

    def next_timer(self) -> float | None:
        """Return when to call `handle_timer`, None while there are no flows."""
        return min((flow.deadline for flow in self._flows.values()), default=None)

    def _take_questions(self, flow: _Flow) -> list[Output]:
        out: list[Output] = []
        taken, size = 0, len(flow.received)
        while size - taken >= _LENGTH and len(flow.pending) < MAX_PENDING:
            length = int.from_bytes(flow.received[taken : taken + _LENGTH], "big")
            if length > MAX_PAYLOAD:
                return self._reset(flow, "a question is too long")
            end = taken + _LENGTH + length
            if end > size:
                break
            flow.asked += 1
            flow.pending.add(flow.asked)
            question = bytes(flow.received[taken + _LENGTH : end])
            out.append(Question(StreamClient(flow.number, flow.asked), question))
            taken = end
        del flow.received[:taken]
        if len(flow.received) > WINDOW:
            return self._reset(flow, "more than was granted")
        if taken and not flow.near_eof:
            out.append(encode_u32(FrameType.CREDIT, flow.number, taken))
        return out

    def _send(self, flow: _Flow) -> list[Output]:
        """Send what the client takes, and FIN after the last answer that it may still expect."""
        out: list[Output] = []
        while flow.queued and flow.credit > 0 and not flow.far_eof:
            data = bytes(flow.queued[: min(flow.credit, MAX_DATA)])
            del flow.queued[: len(data)]
            flow.credit -= len(data)
            out.append(Frame(FrameType.DATA, flow.number, data))
        if flow.near_eof and not flow.queued and not flow.pending:
            out += self._finish(flow)
        return out

    @staticmethod
    def _finish(flow: _Flow) -> list[Output]:
        if flow.far_eof:
            return []
        flow.far_eof = True
        return [Frame(FrameType.FIN, flow.number)]

    def _reset(self, flow: _Flow, reason: str) -> list[Output]:
        self.forget(flow.number)
        return [encode_coded(FrameType.RST, flow.number, errno.ECONNRESET, reason)]
