"""One flow on a socket pair, its carrier held up as a test needs."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import struct
import tracemalloc
from typing import TYPE_CHECKING

import pytest
import uvloop
from telehelper.byte_stream import MemoryStream, memory_pair
from telehelper.carrier import Carrier
from telehelper.core.credit import CreditPool
from telehelper.core.frames import MAX_DATA, Frame, FrameType, decode_coded, decode_timing
from telehelper.core.mux import Mux
from telehelper.manager import tcp_flow
from telehelper.manager.backlog import FLOW_BACKLOG, Backlog, CarrierBacklog
from telehelper.manager.poller import Poller
from telehelper.manager.tcp_flow import TcpFlow

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

MIB = 1024 * 1024
WAIT = 10.0


class Rig:
    """A flow between a service's socket and a carrier to `far`."""

    def __init__(
        self,
        credit: int,
        pair: tuple[socket.socket, socket.socket] | None = None,
        *,
        tells_times: bool = False,
    ) -> None:
        self.tells_times = tells_times
        self.near_stream, self.far_stream = memory_pair()
        now = asyncio.get_running_loop().time()
        self.frames: list[Frame] = []
        self.closed: list[int] = []
        self.waiting: dict[TcpFlow, None] = {}
        self.poller = Poller()
        self.pool = CreditPool()
        self.forget = self.closed.append
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
        ours, self.service = pair or socket.socketpair()
        ours.setblocking(False)
        self.service.setblocking(False)
        self.backlog = CarrierBacklog(Backlog(), self.carrier.mux)
        self.flow = TcpFlow(1, ours, credit, self)
        self.flow.start()

    def room(self, flow: int) -> int:
        return self.backlog.room(flow)

    def wait(self, flow: TcpFlow) -> None:
        self.waiting[flow] = None

    def _look_again(self) -> None:
        waiting, self.waiting = self.waiting, {}
        for flow in waiting:
            flow.look_again()

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
async def rig(
    credit: int = 16 * MIB,
    pair: tuple[socket.socket, socket.socket] | None = None,
    *,
    tells_times: bool = False,
) -> AsyncIterator[Rig]:
    made = Rig(credit, pair, tells_times=tells_times)
    try:
        yield made
    finally:
        made.stream.may_send.set()
        made.flow.abort()
        made.flow.abort()  # harmless
        made.service.close()
        await made.carrier.close("done")
        await asyncio.gather(*made.tasks)
        assert len(made.poller) == 0
        assert made.pool.taken == 0
        made.poller.close()


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Return a TCP connection's two ends: only TCP has resets that overtake."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        return ours, server.accept()[0]


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    uvloop.run(scenario())  # type: ignore[arg-type]  # every scenario is a coroutine


class Clock:
    """The flow's clock, put forward by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(tcp_flow, "monotonic", lambda: self.now)


@pytest.mark.parametrize("asked", [True, False])
def test_the_service_s_time_is_told_before_its_first_byte(
    monkeypatch: pytest.MonkeyPatch, asked: bool
) -> None:
    async def scenario() -> None:
        clock = Clock(monkeypatch)
        async with rig(tells_times=True) as r:
            if asked:
                for _ in range(2):  # the last of the request counts
                    clock.now += 1.0
                    r.flow.receive_data(b"question")
            clock.now += 0.25
            r.service.send(b"answer")
            await r.until(lambda: len(r.frames) == 2)
            clock.now += 1.0
            r.flow.receive_data(b"another")
            r.service.send(b"more")
            await r.until(lambda: len(r.frames) == 3)
            kinds = [frame.type for frame in r.frames]
            assert kinds == [FrameType.TIMING, FrameType.DATA, FrameType.DATA]
            assert decode_timing(r.frames[0]) == 0.25

    run(scenario)


def test_the_end_of_a_request_is_a_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        clock = Clock(monkeypatch)
        async with rig(tells_times=True) as r:
            r.flow.receive_data(b"question")
            clock.now += 1.0
            r.flow.receive_fin()
            clock.now += 0.25
            r.service.send(b"answer")
            await r.until(lambda: len(r.frames) == 2)
            assert decode_timing(r.frames[0]) == 0.25

    run(scenario)


def test_no_times_are_told_to_who_does_not_know_them() -> None:
    async def scenario() -> None:
        async with rig() as r:
            r.flow.receive_data(b"question")
            r.service.send(b"answer")
            await r.until(lambda: bool(r.frames))
            assert [frame.type for frame in r.frames] == [FrameType.DATA]

    run(scenario)


def test_held_up_carrier_stops_the_reading_of_the_service_only() -> None:
    async def scenario() -> None:
        async with rig() as r:
            r.stream.may_send.clear()
            loop = asyncio.get_running_loop()
            sender = asyncio.ensure_future(loop.sock_sendall(r.service, bytes(4 * MIB)))
            await r.until(lambda: bool(r.waiting))
            assert r.carrier.mux.queued_of(1) <= FLOW_BACKLOG + MAX_DATA + 8 * 10
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


def test_reset_is_noticed_without_credit_but_what_came_before_it_is_still_read() -> None:
    async def scenario() -> None:
        async with rig(credit=1000, pair=tcp_pair()) as r:
            r.service.send(bytes(3000))
            await r.until(lambda: r.received == 1000)
            reset(r.service)
            await r.until(lambda: r.flow._failed == errno.ECONNRESET)
            assert r.closed == []
            r.flow.receive_data(b"goes nowhere")
            r.flow.receive_credit(10_000)
            await r.until(lambda: r.closed == [1])
            await r.until(lambda: r.frames[-1].type is FrameType.RST)
            assert decode_coded(r.frames[-1])[0] == errno.ECONNRESET
            assert r.received == 3000

    run(scenario)


def test_near_side_that_gives_no_credit_learns_of_the_reset_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tcp_flow, "PATIENCE", 0.02)

    async def scenario() -> None:
        async with rig(credit=1000, pair=tcp_pair()) as r:
            r.service.send(bytes(3000))
            await r.until(lambda: r.received == 1000)
            reset(r.service)
            await r.until(lambda: r.closed == [1])
            await r.until(lambda: r.frames[-1].type is FrameType.RST)
            assert r.received == 1000

    run(scenario)


def test_patience_lasts_while_only_the_carrier_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp_flow, "PATIENCE", 0.01)

    async def scenario() -> None:
        async with rig(credit=0, pair=tcp_pair()) as r:
            r.stream.may_send.clear()
            r.carrier.send(Frame(FrameType.DATA, 2, b"this holds the writer up"))
            await r.until(lambda: not r.carrier.mux.queued)
            r.service.send(bytes(FLOW_BACKLOG + 2 * MAX_DATA))
            reset(r.service)
            r.flow.receive_credit(16 * MIB)
            await r.until(lambda: bool(r.waiting))
            await asyncio.sleep(0.05)
            assert r.closed == []
            r.stream.may_send.set()
            await r.until(lambda: r.closed == [1])
            await r.until(lambda: r.frames[-1].type is FrameType.RST)

    run(scenario)


def test_reset_after_the_services_end_is_noticed_without_writing() -> None:
    async def scenario() -> None:
        async with rig(pair=tcp_pair()) as r:
            r.service.shutdown(socket.SHUT_WR)
            await r.until(lambda: r.frames and r.frames[-1].type is FrameType.FIN)
            reset(r.service)
            await r.until(lambda: r.closed == [1])
            await r.until(lambda: r.frames[-1].type is FrameType.RST)

    run(scenario)


def test_end_of_file_that_came_with_the_last_bytes() -> None:
    async def scenario() -> None:
        async with rig(pair=tcp_pair()) as r:
            r.service.send(b"last words")
            r.service.close()
            await r.until(lambda: r.frames and r.frames[-1].type is FrameType.FIN)
            assert r.received == 10
            r.flow.receive_fin()
            assert r.closed == [1]

    run(scenario)


def test_urgent_data_does_not_hide_what_follows() -> None:
    async def scenario() -> None:
        async with rig(pair=tcp_pair()) as r:
            r.service.send(b"before")
            r.service.send(b"!", socket.MSG_OOB)
            r.service.send(b"after")
            await r.until(lambda: r.received == len("beforeafter"))

    run(scenario)


def test_idle_flow_is_small() -> None:
    """What ten thousand of them cost Python; the kernel's share is its own."""

    async def scenario() -> None:
        async with rig() as r:
            pairs = [socket.socketpair() for _ in range(200)]
            flows: list[TcpFlow] = []
            r.poller.watch(r.service.fileno(), r.flow)  # its tables exist
            tracemalloc.start()
            before = tracemalloc.get_traced_memory()[0]
            for i, (ours, _) in enumerate(pairs):
                flow = TcpFlow(2 + i, ours, 1 << 20, r)
                flow.start()
                flows.append(flow)
            await asyncio.sleep(0)
            grown = tracemalloc.get_traced_memory()[0] - before
            tracemalloc.stop()
            assert grown / len(pairs) < 1024
            r.poller.forget(r.service.fileno())
            for flow, (_, theirs) in zip(flows, pairs, strict=True):
                flow.abort()
                theirs.close()

    run(scenario)
