"""Two ends, a link that loses, repeats and reorders, and exactly the bytes that were sent."""

from __future__ import annotations

import random
from collections import deque
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from telehelper.core.actions import FlowClosed, SendFrame, SendPacket
from telehelper.core.credit import CreditBalance, CreditIssuer
from telehelper.core.frames import Frame, FrameType, decode_open, decode_u32, encode_u32
from telehelper.core.packet import to_key
from telehelper.core.stack import Stack

from tests.core.builders import TCP, TCP6
from tests.core.peer import Peer

if TYPE_CHECKING:
    from collections.abc import Callable

    from telehelper.core.actions import Action
    from telehelper.core.flows import FiveTuple


class Far:
    """The manager's end of one flow: opens at once, sends `text` as credit allows, keeps what comes until it is read."""

    def __init__(self, text: bytes, step: int) -> None:
        self.unread = 0
        self.text, self.step, self.at = text, step, 0
        self.balance = CreditBalance()
        self.issuer = CreditIssuer(4096, 65_536)
        self.received = bytearray()
        self.eof = self.finished = self.opened = self.was_reset = False

    def read(self, flow: int, now: float) -> list[Frame]:
        """Let the service read everything."""
        n, self.unread = self.unread, 0
        credit = self.issuer.consumed(n, now) if n else 0
        return [encode_u32(FrameType.CREDIT, flow, credit)] if credit and not self.eof else []

    def receive(self, frame: Frame) -> list[Frame]:
        out: list[Frame] = []
        if frame.type is FrameType.OPEN:
            self.balance.grant(decode_open(frame).credit)
            self.opened = True
            out.append(encode_u32(FrameType.OPENED, frame.flow, self.issuer.initial))
        elif frame.type is FrameType.DATA:
            assert not self.eof
            self.received += frame.payload
            self.issuer.received(len(frame.payload))
            self.unread += len(frame.payload)
        elif frame.type is FrameType.CREDIT:
            self.balance.grant(decode_u32(frame))
        elif frame.type is FrameType.FIN:
            assert not self.eof
            self.eof = True
        else:
            self.was_reset = True
        return out + self.pump(frame.flow)

    def pump(self, flow: int) -> list[Frame]:
        out = []
        while not self.finished and (n := min(self.step, len(self.text) - self.at, self.balance.available)):
            out.append(Frame(FrameType.DATA, flow, self.text[self.at : self.at + n]))
            self.at += n
            self.balance.spend(n)
        if self.at == len(self.text) and not self.finished:
            self.finished = True
            out.append(Frame(FrameType.FIN, flow))
        return out


class Link:
    """Between near and stack: each packet is lost, doubled or late with some probability."""

    def __init__(self, rng: random.Random, trouble: float) -> None:
        self.rng, self.trouble = rng, trouble
        self.waiting: list[tuple[float, int, bytes]] = []
        self.sent = 0

    def put(self, data: bytes, now: float) -> None:
        if self.rng.random() < self.trouble:
            return
        for _ in range(2 if self.rng.random() < self.trouble else 1):
            self.sent += 1
            late = self.rng.random() * 0.05 if self.rng.random() < self.trouble else 0.0
            self.waiting.append((now + 0.001 + late, self.sent, data))

    def take(self, now: float) -> list[bytes]:
        due = sorted(item for item in self.waiting if item[0] <= now)
        self.waiting = [item for item in self.waiting if item[0] > now]
        return [data for _, _, data in due]


class World:
    """All of it, on a clock of its own."""

    def __init__(self, peer: Peer, far: Far, stack: Stack, up: Link, down: Link) -> None:
        self.peer, self.far, self.stack, self.up, self.down = peer, far, stack, up, down
        self.now = 0.0
        self.closed: str | None = None

    def perform(self, actions: list[Action]) -> None:
        frames: deque[Frame] = deque()
        todo = deque(actions)
        while todo or frames:
            while todo:
                action = todo.popleft()
                if isinstance(action, SendPacket):
                    self.down.put(b"".join(action.buffers), self.now)
                elif isinstance(action, SendFrame):
                    frames.append(action.frame)
                elif isinstance(action, FlowClosed):
                    self.closed = action.reason
            if frames:
                for frame in self.far.receive(frames.popleft()):
                    todo.extend(self.stack.receive_frame(frame, self.now))

    def step(self) -> None:
        self.now += 0.002
        self.peer.tick(self.now)
        for data in self.up.take(self.now):
            self.perform(self.stack.receive_packet(data, self.now))
        if (when := self.stack.next_timer()) is not None and when <= self.now:
            self.perform(self.stack.handle_timer(self.now))
        for data in self.down.take(self.now):
            self.peer.receive(data, self.now)
        for data in self.peer.packets:
            self.up.put(data, self.now)
        self.peer.packets.clear()

    def run(self, until: Callable[[], bool], pauses: tuple[float, float] = (0.01, 0.0)) -> None:
        """Go on, while the application and the service read once in so many seconds."""
        reads = [self.now, self.now]
        while not until() and self.now < 600:
            self.step()
            if self.now >= reads[0]:
                reads[0] += pauses[0]
                self.peer.read()
            if self.now >= reads[1]:
                reads[1] += pauses[1]
                for frame in self.far.read(1, self.now):
                    self.perform(self.stack.receive_frame(frame, self.now))


def make_world(
    seed: int,
    trouble: float,
    up: bytes,
    down: bytes,
    isns: tuple[int, int],
    *,
    step: int,
    gso: bool,
    five_tuple: FiveTuple = TCP,
) -> World:
    rng = random.Random(seed)
    stack = Stack(isn=lambda: isns[1], gso=gso)
    peer = Peer(to_key(five_tuple), isns[0], up, step=step)
    return World(peer, Far(down, step), stack, Link(rng, trouble), Link(rng, trouble))


NUMBERS = st.sampled_from([0, 1, 2**31 - 100, 2**31, 2**32 - 1, 2**32 - 3000])


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    trouble=st.sampled_from([0.0, 0.05, 0.2]),
    sizes=st.tuples(st.integers(0, 60_000), st.integers(0, 60_000)),
    isns=st.tuples(NUMBERS, NUMBERS),
    step=st.sampled_from([100, 1460, 20_000]),
    gso=st.booleans(),
    five_tuple=st.sampled_from([TCP, TCP6]),
    pauses=st.tuples(st.sampled_from([0.01, 0.1, 3.0]), st.sampled_from([0.0, 0.05, 1.5])),
)
def test_exactly_the_bytes_that_were_sent(
    seed: int,
    trouble: float,
    sizes: tuple[int, int],
    isns: tuple[int, int],
    step: int,
    gso: bool,
    five_tuple: FiveTuple,
    pauses: tuple[float, float],
) -> None:
    """Both directions at once; each ends when it has sent all (half-close); a slow reader means zero windows."""
    rng = random.Random(seed)
    step = max(step, max(sizes) // 100)  # keep the number of packets small
    world = make_world(
        seed,
        trouble,
        rng.randbytes(sizes[0]),
        rng.randbytes(sizes[1]),
        isns,
        step=step,
        gso=gso,
        five_tuple=five_tuple,
    )
    world.run(lambda: world.peer.is_done, pauses)
    if world.peer.was_reset:
        # Only because the last acknowledgement was lost and our end has closed already, everything being delivered.
        assert world.closed in {"closed", "the application's side does not answer"}
    assert bytes(world.far.received) == world.peer.text
    assert bytes(world.peer.received) == world.far.text
    assert world.far.eof
    world.run(lambda: world.stack.open_flows == 0)
    assert world.stack.open_flows == 0


@pytest.mark.parametrize("isn", [2**32 - 70_000, 2**32 - 1, 2**31 - 70_000])
def test_numbers_wrap_in_a_long_transfer(isn: int) -> None:
    text = random.Random(isn).randbytes(300_000)
    world = make_world(1, 0.0, text, text[::-1], (isn, isn), step=20_000, gso=True)
    world.run(lambda: world.peer.is_done)
    assert (bytes(world.far.received), bytes(world.peer.received)) == (text, text[::-1])


def test_an_application_that_does_not_read_for_long() -> None:
    text = random.Random(2).randbytes(300_000)
    world = make_world(2, 0.0, b"", text, (1, 1), step=20_000, gso=True)
    while world.now < 120:
        world.step()
    assert len(world.peer.received) < 300_000
    assert world.stack.open_flows == 1
    world.run(lambda: world.peer.is_done)
    assert bytes(world.peer.received) == text
