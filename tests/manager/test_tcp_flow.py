"""One flow on a socket pair, its carrier held up as a test needs."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from typing import TYPE_CHECKING

import uvloop
from telehelper.carrier import Carrier, MemoryStream, memory_pair
from telehelper.core.frames import MAX_DATA, Frame, FrameType, decode_coded
from telehelper.core.mux import Mux
from telehelper.manager.tcp_flow import FLOW_QUEUE, TcpFlow

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

MIB = 1024 * 1024
WAIT = 10.0


class Rig:
    """A flow between a service's socket and a carrier to `far`."""

    def __init__(self, credit: int) -> None:
        self.near_stream, self.far_stream = memory_pair()
        now = asyncio.get_running_loop().time()
        self.frames: list[Frame] = []
        self.closed: list[int] = []
        self.waiting: set[TcpFlow] = set()
        self.carrier = Carrier(
            self.near_stream,
            Mux(now),
            on_frames=lambda *_: None,
            on_lost=lambda *_: None,
            on_taken=lambda _: self._look_again(),
        )
        self.far = Carrier(
            self.far_stream,
            Mux(now),
            on_frames=lambda _, frames: self.frames.extend(frames),
            on_lost=lambda *_: None,
        )
        self.tasks = [asyncio.ensure_future(carrier.run()) for carrier in (self.carrier, self.far)]
        ours, self.service = socket.socketpair()
        ours.setblocking(False)
        self.service.setblocking(False)
        self.flow = TcpFlow(
            1, ours, credit, self.carrier, on_closed=self.closed.append, on_waiting=self.waiting.add
        )
        self.flow.start()

    def _look_again(self) -> None:
        for flow in list(self.waiting):
            if flow.look_again():
                self.waiting.discard(flow)

    @property
    def stream(self) -> MemoryStream:
        return self.near_stream

    @property
    def received(self) -> int:
        return sum(len(frame.payload) for frame in self.frames if frame.type is FrameType.DATA)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT):
            while not condition():  # noqa: ASYNC110  # conditions of all kinds
                await asyncio.sleep(0.002)


@contextlib.asynccontextmanager
async def rig(credit: int = 16 * MIB) -> AsyncIterator[Rig]:
    made = Rig(credit)
    try:
        yield made
    finally:
        made.stream.may_send.set()
        made.flow.abort()
        made.flow.abort()  # harmless
        made.service.close()
        await made.carrier.close("done")
        await asyncio.gather(*made.tasks)


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    uvloop.run(scenario())  # type: ignore[arg-type]  # every scenario is a coroutine


def test_held_up_carrier_stops_the_reading_of_the_service_only() -> None:
    async def scenario() -> None:
        async with rig() as r:
            r.stream.may_send.clear()
            loop = asyncio.get_running_loop()
            sender = asyncio.ensure_future(loop.sock_sendall(r.service, bytes(4 * MIB)))
            await r.until(lambda: bool(r.waiting))
            assert r.carrier.mux.queued_of(1) <= FLOW_QUEUE + MAX_DATA + 8 * 10
            assert not sender.done()
            r.stream.may_send.set()
            await sender
            await r.until(lambda: r.received == 4 * MIB)

    run(scenario)


def test_reading_stops_without_credit_and_goes_on_with_it() -> None:
    async def scenario() -> None:
        async with rig(credit=1000) as r:
            r.service.send(bytes(3000))
            await r.until(lambda: r.received == 1000)
            assert not r.waiting
            r.flow.receive_credit(2000)
            await r.until(lambda: r.received == 3000)

    run(scenario)


def test_reset_waits_for_the_data_before_it() -> None:
    async def scenario() -> None:
        async with rig() as r:
            r.stream.may_send.clear()
            r.carrier.send(Frame(FrameType.DATA, 2, b"this holds the writer up"))
            await r.until(lambda: not r.carrier.mux.queued)
            r.service.send(bytes(50_000))
            await r.until(lambda: r.carrier.mux.queued_of(1) > 50_000)
            r.flow.receive_data(b"never read")
            r.service.close()  # with something unread: a reset, on Unix sockets too
            await r.until(lambda: bool(r.waiting))
            assert r.closed == []
            r.stream.may_send.set()
            await r.until(lambda: r.closed == [1])
            await r.until(lambda: r.frames[-1].type is FrameType.RST)
            assert r.received == 50_000 + len(b"this holds the writer up")
            assert decode_coded(r.frames[-1])[0] == errno.ECONNRESET

    run(scenario)


def test_what_was_sent_before_is_still_read_after_writing_failed() -> None:
    async def scenario() -> None:
        async with rig(credit=0) as r:
            r.service.send(b"an answer nobody waited for")
            r.service.close()
            r.flow.receive_data(b"fails")
            r.flow.receive_data(b"goes nowhere")
            r.flow.receive_fin()
            assert r.closed == []
            r.flow.receive_credit(1000)
            await r.until(lambda: r.closed == [1])
            await r.until(lambda: r.frames[-1].type is FrameType.RST)
            assert [frame.type for frame in r.frames] == [FrameType.DATA, FrameType.RST]

    run(scenario)


def test_service_that_reads_slowly_gets_everything_and_then_the_end() -> None:
    async def scenario() -> None:
        async with rig() as r:
            for _ in range(4):
                r.flow.receive_data(bytes(MAX_DATA))
            r.flow.receive_fin()
            got = 0
            async with asyncio.timeout(WAIT):
                while data := await asyncio.get_running_loop().sock_recv(r.service, 10_000):
                    got += len(data)
            assert got == 4 * MAX_DATA
            r.service.close()
            await r.until(lambda: r.closed == [1])
            await r.until(lambda: r.frames[-1].type is FrameType.FIN)

    run(scenario)


def test_service_that_dies_while_data_waits_for_it() -> None:
    async def scenario() -> None:
        async with rig() as r:
            for _ in range(4):
                r.flow.receive_data(bytes(MAX_DATA))
            r.service.close()
            await r.until(lambda: r.closed == [1])
            await r.until(lambda: r.frames[-1].type is FrameType.RST)

    run(scenario)
