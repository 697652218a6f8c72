"""Thousands of flows on carriers that stall, over real sockets on the loopback."""

from __future__ import annotations

import asyncio
import contextlib
import resource
from typing import TYPE_CHECKING

import pytest
import uvloop
from telehelper.core.credit import INITIAL_WINDOW
from telehelper.core.frames import MAX_DATA, FrameType
from telehelper.manager.backlog import CARRIER_BACKLOG, PIECE
from telehelper.manager.dialer import FakeDialer

from .near_side import NearCarrier, NearFlow, near_side

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from telehelper.manager.shared import Shared

    from .near_side import NearSide

FLOWS = 2000
WAIT = 60.0


@pytest.fixture
def descriptors() -> object:
    """Two ends of each flow are in this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 3 * FLOWS:
        pytest.skip(f"needs {3 * FLOWS} file descriptors (ulimit -Hn)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Talker(asyncio.Protocol):
    """Answers a number with so many bytes, a pattern that begins with the number; echoes anything else."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self.transport.write(pattern(int(data)) if data.isdigit() else data)


def pattern(number: int) -> bytes:
    return f"{number:08} ".encode() * (number // 9)


@contextlib.asynccontextmanager
async def talker() -> AsyncIterator[int]:
    server = await asyncio.get_running_loop().create_server(Talker, "127.0.0.1", 0, backlog=FLOWS)
    yield server.sockets[0].getsockname()[1]
    server.close()


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(WAIT):
            await scenario()

    uvloop.run(main())


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110  # conditions of all kinds
        await asyncio.sleep(0.005)


def shared_of(near: NearSide) -> Shared:
    return near.manager._mux_server._shared


def queued_by(near: NearSide) -> int:
    return sum(served.carrier.mux.queued for served in near.manager._mux_server._carriers)


@contextlib.contextmanager
def unread(carrier: NearCarrier):  # type: ignore[no-untyped-def]  # noqa: ANN201
    """Stop reading a carrier, as a network that has gone does."""
    transport = carrier.carrier._stream._transport  # type: ignore[attr-defined]
    transport.pause_reading()
    yield
    transport.resume_reading()


async def echoes(flow: NearFlow, data: bytes) -> None:
    await flow.write(data)
    assert await flow.read(len(data)) == data


async def opened(carrier: NearCarrier, port: int, n: int) -> list[NearFlow]:
    flows = [carrier.open(port, timeout=30, credit=MAX_DATA * 4) for _ in range(n)]
    return [await flow.opened() for flow in flows]


def test_carrier_that_stalls_under_2000_flows_is_bounded_and_goes_on(descriptors: None) -> None:
    async def scenario() -> None:
        async with talker() as port, near_side() as near:
            stalled, other = await near.carrier(), await near.carrier()
            flows = await opened(stalled, port, FLOWS)
            (quick,) = await opened(other, port, 1)
            sizes = [50_000 + i for i in range(FLOWS)]
            for flow, size in zip(flows, sizes, strict=True):
                await flow.write(str(size).encode())
            with unread(stalled):  # 100 MB are on their way
                await until(lambda: queued_by(near) > CARRIER_BACKLOG)
                most = 0
                for _ in range(100):
                    await echoes(quick, b"me first")  # another session's carrier goes on
                    most = max(most, queued_by(near))
                assert most <= 2 * CARRIER_BACKLOG + PIECE
            for flow, size in zip(flows, sizes, strict=True):
                expected = pattern(size)
                assert await flow.read(len(expected)) == expected
            await until(lambda: queued_by(near) == 0)
            for served in near.manager._mux_server._carriers:
                assert served._flows is not None
                assert not served._flows._waiting
                served._flows._backlog.settle()
            assert shared_of(near).backlog.queued == 0

    run(scenario)


def test_small_flows_of_the_same_carrier_get_their_turn() -> None:
    async def scenario() -> None:
        async with talker() as port, near_side() as near:
            carrier = await near.carrier()
            bulk = await opened(carrier, port, 20)
            (quick,) = await opened(carrier, port, 1)
            for flow in bulk:
                await flow.write(b"4000000")
            received = [0] * len(bulk)

            async def download(i: int) -> None:
                async for part in parts(bulk[i], len(pattern(4_000_000))):
                    received[i] += part

            tasks = [asyncio.ensure_future(download(i)) for i in range(len(bulk))]
            overtaken = 0
            for _ in range(20):
                await echoes(quick, b"a small question")
                overtaken += any(not task.done() for task in tasks)
            assert overtaken  # some of the 80 MB came after some of the answers
            await asyncio.gather(*tasks)
            assert received == [len(pattern(4_000_000))] * len(bulk)

    run(scenario)


async def parts(flow: NearFlow, size: int) -> AsyncIterator[int]:
    """Yield the sizes of DATA until there are so many bytes."""
    while size > 0:
        frame = await flow.next()
        assert frame.type is FrameType.DATA
        size -= len(frame.payload)
        yield len(frame.payload)


def test_everything_is_given_back() -> None:
    async def scenario() -> None:
        async with talker() as port, near_side() as near:
            shared = shared_of(near)
            carrier, kept = await near.carrier(), await near.carrier()
            flows = await opened(carrier, port, 60)
            await opened(kept, port, 1)
            assert (len(shared.poller), near.manager.sessions.flows) == (61, 61)
            for flow in flows[:20]:
                flow.reset()
            for flow in flows[20:40]:
                await flow.write(b"900000")
                await flow.read(1)
            await until(lambda: near.manager.sessions.flows == 41)
            with unread(carrier):
                for flow in flows[40:]:
                    await flow.write(b"900000")
                await until(lambda: queued_by(near) > 0)
                transport = carrier.carrier._stream._transport  # type: ignore[attr-defined]
                transport.abort()
                await carrier.lost
                await until(lambda: near.manager.sessions.flows == 1)
                assert len(shared.poller) == 1
                assert shared.pool.taken <= INITIAL_WINDOW  # of the one that is kept
                assert shared.backlog.queued == 0

    run(scenario)


def test_carrier_that_is_lost_ends_its_dials() -> None:
    async def scenario() -> None:
        async with near_side(dialer=FakeDialer(silent=True)) as near:
            carrier = await near.carrier()
            for _ in range(20):
                carrier.open(7)
            await until(lambda: len(shared_of(near).poller) == 20)
            await carrier.close()
            await until(lambda: near.manager.sessions.flows == 0)
            assert len(shared_of(near).poller) == 0
            assert not [line for line in near.log if line.startswith("dial ")]

    run(scenario)


def test_late_dial_is_announced_and_carries() -> None:
    async def scenario() -> None:
        """A service's first words, sent before anybody saw that it was connected, arrive."""
        far: list[object] = []

        def serve(sock: object) -> None:
            far.append(sock)
            sock.send(b"220 hello")  # type: ignore[attr-defined]

        async with near_side(dialer=FakeDialer(serve)) as near:
            flow = await (await near.carrier()).open(25).opened()
            assert await flow.read(9) == b"220 hello"
            far[0].close()  # type: ignore[attr-defined]
            assert (await flow.next()).type is FrameType.FIN

    run(scenario)
