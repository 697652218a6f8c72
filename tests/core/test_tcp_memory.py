"""What all flows together hold: bounded whatever stalls, and little when they are idle."""

from __future__ import annotations

import gc
import random
import tracemalloc
from typing import TYPE_CHECKING, Final

from telehelper.core.actions import SendFrame, SendPacket
from telehelper.core.credit import FLOOR
from telehelper.core.frames import Frame, FrameType, decode_open, decode_u32, encode_u32
from telehelper.core.limits import Limits
from telehelper.core.packet import Segment, TcpTemplate, parse, syn_options, to_key
from telehelper.core.stack import Stack

from tests.core.builders import TCP, credit_taken, whole

if TYPE_CHECKING:
    from telehelper.core.actions import Action

FLOWS: Final = 10_000
POOL: Final = 8 * 1024 * 1024
CHUNK: Final = 4096
BEYOND: Final = 5000  # bytes of each flow that its first credit does not cover
SHARED: Final = random.Random(1).randbytes(300_000)
IRS, ISS = 5000, 2**32 - 3000


class Ends:
    """The kernel's and the far side's end of one flow."""

    def __init__(self, stack: Stack, index: int) -> None:
        self.stack = stack
        self.number = index + 1
        self.template = TcpTemplate(to_key(TCP._replace(sport=20_000 + index)), 1460, offload=True)
        (_, opened) = stack.receive_packet(whole(self.segment(0, 0, 2, options=syn_options(1460, 7))), 0.0)
        assert isinstance(opened, SendFrame)
        self.credit = decode_open(opened.frame).credit
        at = index * 13 % 30_000
        self.text = SHARED[at : at + self.credit + BEYOND]
        self.sent = self.acked = 0
        self.received = bytearray()
        stack.receive_frame(encode_u32(FrameType.OPENED, self.number, 1000), 0.0)
        stack.receive_packet(whole(self.segment(1, 1, 16)), 0.0)

    def segment(self, seq: int, ack: int, flags: int, window: int = 0, options: bytes = b"") -> SendPacket:
        wire_ack = (ISS + ack) & 0xFFFFFFFF if flags & 16 else 0
        return self.template.segment(IRS + seq, wire_ack, flags, window, options=options)

    def push(self, now: float) -> None:
        """Send as much as credit allows."""
        while n := min(self.credit, CHUNK, len(self.text) - self.sent):
            frame = Frame(FrameType.DATA, self.number, self.text[self.sent : self.sent + n])
            self.take(self.stack.receive_frame(frame, now))
            self.sent, self.credit = self.sent + n, self.credit - n

    def take(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, SendPacket):
                packet = parse(whole(action))
                assert isinstance(packet, Segment)
                self.received += packet.text
            elif isinstance(action, SendFrame) and action.frame.type is FrameType.CREDIT:
                self.credit += decode_u32(action.frame)

    def read(self, now: float) -> None:
        """Acknowledge what has come, and open the window wide."""
        ack = self.segment(1, 1 + len(self.received), 16, 8000)
        self.take(self.stack.receive_packet(whole(ack), now))


def test_ten_thousand_stalled_flows_stay_within_the_bound_and_go_on() -> None:
    stack = Stack(isn=lambda: ISS, limits=Limits(pool=POOL))
    flows = [Ends(stack, index) for index in range(FLOWS)]
    bound = POOL + FLOWS * FLOOR
    assert sum(flow.credit for flow in flows) == credit_taken(stack) <= bound
    gc.collect()
    tracemalloc.start()
    for flow in flows:
        flow.push(1.0)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sum(flow.sent for flow in flows) == credit_taken(stack)
    assert all(
        not flow.received and not flow.credit for flow in flows
    )  # nothing went on, all credit is used up
    assert held <= bound * 1.1  # 10 % for what the bytes are kept in
    for now in range(2, 6):
        for flow in flows:
            flow.read(float(now))
            flow.push(float(now))
    assert all(flow.received == flow.text for flow in flows)
    assert credit_taken(stack) <= bound
    stack.reset_flows(None, "end", 9.0)
    assert credit_taken(stack) == 0


def test_an_idle_flow_takes_little() -> None:
    count = 2000
    stack = Stack(isn=lambda: ISS)
    gc.collect()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for index in range(count):
        Ends(stack, index)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert stack.open_flows == count
    assert (after - before) / count < 3072  # bytes; 2.3 KiB when written
