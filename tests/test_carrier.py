"""The carrier shell over streams in memory, and once over TCP."""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
from typing import TYPE_CHECKING

import pytest
import uvloop
from telehelper import tcp_stream
from telehelper.byte_stream import ByteStream, MemoryStream, memory_pair
from telehelper.carrier import Carrier
from telehelper.core import mux as core_mux
from telehelper.core.frames import MAX_DATA, Frame, FrameDecoder, FrameType, decode_coded, encode
from telehelper.core.mux import Mux
from telehelper.errors import TunnelError
from telehelper.tcp_stream import TcpStream, connect_tcp

from tests.streams import Listener, serve_tcp

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

WAIT = 10.0


def data(payload: bytes, flow: int = 1) -> Frame:
    return Frame(FrameType.DATA, flow, payload)


class End:
    """One end: a running carrier and what it reported."""

    def __init__(self, stream: ByteStream, *, fail: Exception | None = None) -> None:
        self.frames: asyncio.Queue[Frame] = asyncio.Queue()
        self.lost: list[str] = []
        self.taken = 0
        self._fail = fail
        mux = Mux(asyncio.get_running_loop().time())
        self.carrier = Carrier(
            stream, mux, on_frames=self._on_frames, on_lost=self._on_lost, on_taken=self._on_taken
        )
        self.task = asyncio.ensure_future(self.carrier.run())

    def _on_frames(self, carrier: Carrier, frames: list[Frame]) -> None:
        assert carrier is self.carrier
        if self._fail is not None:
            raise self._fail
        for frame in frames:
            self.frames.put_nowait(frame._replace(payload=bytes(frame.payload)))  # kept beyond the call

    def _on_lost(self, _carrier: Carrier, reason: str) -> None:
        self.lost.append(reason)

    def _on_taken(self, _carrier: Carrier) -> None:
        self.taken += 1

    async def next(self) -> Frame:
        async with asyncio.timeout(WAIT):
            return await self.frames.get()

    async def end(self) -> str:
        """Wait for the end and return why."""
        async with asyncio.timeout(WAIT):
            await self.task
        assert len(self.lost) == 1
        return self.lost[0]


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(30):
            await scenario()

    uvloop.run(main())


def test_frames_cross_both_ways_until_one_end_closes() -> None:
    async def scenario() -> None:
        near, far = (End(stream) for stream in memory_pair())
        near.carrier.send(data(b"ping"))
        assert await far.next() == data(b"ping")
        far.carrier.send(data(b"pong"))
        assert await near.next() == data(b"pong")
        assert near.taken >= 1
        near.carrier.send(data(b"the last"))
        await near.carrier.close("enough")
        assert await far.next() == data(b"the last")
        assert (await near.end(), await far.end()) == ("enough", "the far side closed the carrier")
        near.carrier.send(data(b"too late"))
        assert not near.carrier.is_open
        await near.carrier.close("again")

    run(scenario)


def test_cut_within_a_frame() -> None:
    async def scenario() -> None:
        one, two = memory_pair()
        near = End(one)
        one.deliver(encode(data(b"cut"))[:-1])
        await two.close()
        assert await near.end() == "the carrier was cut within a frame"

    run(scenario)


@pytest.mark.parametrize("fail", [None, TunnelError("flow 1 was opened twice")])
def test_garbage_is_answered_with_the_reason(fail: TunnelError | None) -> None:
    async def scenario() -> None:
        one, two = memory_pair()
        near = End(one, fail=fail)
        one.deliver(b"GET / HTTP/1.1\r\n" if fail is None else encode(data(b"x")))
        reason = await near.end()
        assert reason == ("unknown frame type 71" if fail is None else fail.message)
        (goaway,) = FrameDecoder().feed(await two.receive())
        assert goaway.type is FrameType.GOAWAY
        assert decode_coded(goaway) == (errno.EPROTO, reason)

    run(scenario)


def test_bug_in_a_callback_ends_the_carrier_and_shows() -> None:
    async def scenario() -> None:
        one, _ = memory_pair()
        near = End(one, fail=ZeroDivisionError("a bug"))
        one.deliver(encode(data(b"x")))
        with pytest.raises(ZeroDivisionError):
            await near.task
        assert near.lost == ["internal error"]
        assert one.closed

    run(scenario)


def test_failing_stream() -> None:
    async def scenario() -> None:
        stream = MemoryStream()
        stream.broken = BrokenPipeError(errno.EPIPE, "Broken pipe")
        near = End(stream)
        near.carrier.send(data(b"x"))
        assert await near.end() == "carrier lost: Broken pipe"

        class Broken(MemoryStream):
            async def receive(self) -> bytes:
                raise TunnelError("port-forward broke")

        assert await End(Broken()).end() == "carrier lost: port-forward broke"

    run(scenario)


def test_cancelled() -> None:
    async def scenario() -> None:
        one, _ = memory_pair()
        near = End(one)
        await asyncio.sleep(0)
        near.task.cancel()
        await asyncio.gather(near.task, return_exceptions=True)
        assert near.lost == ["cancelled"]
        assert one.closed

    run(scenario)


def test_closed_before_it_ran() -> None:
    async def scenario() -> None:
        one, _ = memory_pair()
        near = End(one)
        await near.carrier.close("never mind")
        assert one.closed
        assert await near.end() == "never mind"

    run(scenario)


def test_silence_is_death_and_heartbeats_are_life(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("FIRST_PING", 0.01), ("PING_INTERVAL", 0.05), ("DEAD_AFTER", 0.3)):
        monkeypatch.setattr(core_mux, name, value)

    async def scenario() -> None:
        near, far = (End(stream) for stream in memory_pair())
        lonely = End(MemoryStream())
        assert await lonely.end() == "the far side has been silent for too long"
        assert near.carrier.is_open
        assert near.carrier.mux.rtt is not None
        assert far.frames.empty()
        await near.carrier.close("done")
        await far.end()
        await near.task

    run(scenario)


def test_probed_is_dead_soon_or_lives_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core_mux, "PROBE_TIMEOUT", 0.1)

    async def scenario() -> None:
        near, far = (End(stream) for stream in memory_pair())
        lonely = End(MemoryStream())
        near.carrier.probe()  # it does not run yet: nothing to probe
        await asyncio.sleep(0)
        began = asyncio.get_running_loop().time()
        for end in (near, lonely):
            end.carrier.probe()
        assert await lonely.end() == "the far side has been silent for too long"
        assert asyncio.get_running_loop().time() - began < core_mux.PROBE_TIMEOUT + 3
        assert near.carrier.is_open
        lonely.carrier.probe()  # it has ended: nothing happens
        await near.carrier.close("done")
        await far.end()
        await near.task

    run(scenario)


def test_stream_that_takes_nothing_holds_frames_in_the_mux() -> None:
    async def scenario() -> None:
        one, two = memory_pair()
        one.may_send.clear()
        near, far = End(one), End(two)
        for _ in range(20):
            near.carrier.send(data(bytes(MAX_DATA)))
        await far.next()
        assert near.carrier.mux.queued > 10 * MAX_DATA
        near.carrier.send(Frame(FrameType.CREDIT, 2, bytes(4)))
        one.may_send.set()
        kinds = [(await far.next()).type for _ in range(20)]
        assert kinds.index(FrameType.CREDIT) < 10  # it overtook
        near.carrier.drop_flow(1)
        await near.carrier.close("done")
        assert [await near.end(), await far.end()] == ["done", "the far side closed the carrier"]

    run(scenario)


def test_over_tcp(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp_stream, "CLOSE_TIME", 0.2)

    async def scenario() -> None:
        accepted: asyncio.Queue[TcpStream] = asyncio.Queue()
        server = await serve_tcp("127.0.0.1", 0, accepted.put_nowait)
        port = server.sockets[0].getsockname()[1]
        near, far = End(await connect_tcp("127.0.0.1", port)), End(await accepted.get())
        for _ in range(300):  # more than all buffers hold
            near.carrier.send(data(bytes(MAX_DATA)))
        far.carrier.send(data(b"against the stream"))
        assert await near.next() == data(b"against the stream")
        for _ in range(300):
            assert len((await far.next()).payload) == MAX_DATA
        await near.carrier.close("done")
        assert [await near.end(), await far.end()] == ["done", "the far side closed the carrier"]
        server.close()
        await server.wait_closed()

    run(scenario)


async def tcp_pair() -> tuple[asyncio.Server, TcpStream, TcpStream]:
    """Return a server, one end and the other."""
    accepted: asyncio.Queue[TcpStream] = asyncio.Queue()
    server = await serve_tcp("127.0.0.1", 0, accepted.put_nowait)
    return server, await connect_tcp("127.0.0.1", server.sockets[0].getsockname()[1]), await accepted.get()


def test_tcp_stream_that_takes_nothing_says_so_and_closes_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tcp_stream, "CLOSE_TIME", 0.2)

    async def scenario() -> None:
        server, stream, deaf = await tcp_pair()
        heard = Listener(stream)
        assert deaf._transport is not None
        deaf._transport.pause_reading()
        sent = 0
        while stream.is_writable:
            stream.write([bytes(1024 * 1024)])
            sent += 1024 * 1024
        deaf._transport.resume_reading()
        await heard.until_writable(stream)
        assert heard.writables == 1
        assert len(await Listener(deaf).until_size(sent)) == sent

        deaf._transport.pause_reading()
        stream.write([bytes(64 * 1024 * 1024)])
        await stream.close()  # does not wait for it
        assert not stream.is_writable
        with pytest.raises(ConnectionResetError):
            stream.write([b"x"])
        assert heard.ends == []  # we closed it ourselves
        await deaf.close()
        await TcpStream().close()
        server.close()
        await server.wait_closed()

    run(scenario)


def test_what_comes_before_the_start_is_kept() -> None:
    async def scenario() -> None:
        server, stream, far = await tcp_pair()
        far.write([b"early ", b"words"])
        await far.close()
        while not stream._ended:  # noqa: ASYNC110  # nobody is told yet
            await asyncio.sleep(0.001)
        heard = Listener(stream)
        assert (bytes(heard.received), heard.ends) == (b"early words", [None])
        await stream.close()
        server.close()
        await server.wait_closed()

    run(scenario)


def test_connection_reset_is_reported() -> None:
    async def scenario() -> None:
        server, stream, far = await tcp_pair()
        heard = Listener(stream)
        assert far._transport is not None
        far._transport.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )
        far._transport.abort()
        assert isinstance(await heard.until_end(), ConnectionResetError)
        await stream.close()
        await far.close()
        server.close()
        await server.wait_closed()

    run(scenario)
