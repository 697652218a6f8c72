"""The long way: nothing early, nothing lost, nothing out of order; bounded; and it can be cut."""

from __future__ import annotations

import asyncio
import hashlib
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from telemagic.bench import relay
from telemagic.bench.relay import DelayLine, Relay

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

HOST = "127.0.0.1"
PATIENCE = 30.0  # seconds; what takes longer, even on a busy machine, hangs


# --- the line, on a made-up clock


def test_a_chunk_is_not_early() -> None:
    line = DelayLine(0.010)
    line.put(b"a", 1.000)
    line.put(b"b", 1.004)
    assert line.next_due() == pytest.approx(1.010)
    assert line.take(1.0099) == []
    assert line.take(1.012) == [b"a"]
    assert line.next_due() == pytest.approx(1.014)
    assert line.take(1.014) == [b"b"]
    assert line.next_due() is None


def test_the_end_comes_after_what_was_before_it() -> None:
    line = DelayLine(0.010)
    line.put(b"a", 0.0)
    line.put(b"", 0.001)
    assert line.take(0.010) == [b"a"]
    assert line.take(0.011) == [b""]


def test_what_is_on_its_way_counts_until_it_has_arrived() -> None:
    line = DelayLine(1.0, capacity=10)
    line.put(bytes(6), 0.0)
    assert (line.size, line.is_full) == (6, False)
    line.put(bytes(6), 0.5)
    assert (line.size, line.is_full) == (12, True)
    line.take(1.0)
    assert (line.size, line.is_full) == (6, False)


def test_the_delay_does_not_limit_the_rate() -> None:
    """What may be on its way is more than 10 ms at 10 Gbit/s."""
    line = DelayLine(0.010)
    for step in range(100):
        line.put(bytes(125_000), step * 1e-4)
    assert not line.is_full
    assert sum(map(len, line.take(0.02))) == 12_500_000


@given(
    st.lists(st.tuples(st.binary(min_size=1, max_size=20), st.floats(0, 0.1)), max_size=30),
    st.floats(0.0, 0.5),
)
def test_all_bytes_arrive_in_order_and_on_time(chunks: list[tuple[bytes, float]], delay: float) -> None:
    line = DelayLine(delay)
    now, sent, arrived = 0.0, [], []
    for chunk, pause in chunks:
        now += pause
        line.put(chunk, now)
        sent.append((now + delay, chunk))
        for found in line.take(now):
            assert sent[len(arrived)][0] <= now
            arrived.append(found)
    while (due := line.next_due()) is not None:
        arrived += line.take(due)
    assert arrived == [chunk for _, chunk in sent]
    assert line.size == 0


# --- the relay, on loopback


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 20):
        writer.write(data)
        await writer.drain()
    writer.close()


def reset(writer: asyncio.StreamWriter) -> None:
    relay._reset_on_close(writer.transport)
    writer.transport.abort()


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - sockets tell nobody but the relay
        await asyncio.sleep(0.002)


def through(
    delay: float,
    body: Callable[[Relay, int], Awaitable[None]],
    service: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]] = echo,
) -> None:
    """Run `body` with a relay to a service, and the relay's port."""

    async def run() -> None:
        server = await asyncio.start_server(service, HOST, 0)
        found = Relay(HOST, server.sockets[0].getsockname()[1], delay)
        port = await found.listen(HOST)
        try:
            async with asyncio.timeout(PATIENCE):
                await body(found, port)
        finally:
            await found.close()
            server.close()

    uvloop.run(run())


def test_there_and_back_takes_twice_the_delay() -> None:
    async def body(_: Relay, port: int) -> None:
        reader, writer = await asyncio.open_connection(HOST, port)
        writer.write(b"warm")
        await reader.readexactly(4)
        took = []
        for _ in range(10):
            began = time.perf_counter()
            writer.write(b"x")
            await reader.readexactly(1)
            took.append(time.perf_counter() - began)
        writer.close()
        assert min(took) >= 0.040  # never early; a busy machine may be late, but hardly ten times
        assert min(took) < 0.1

    through(0.020, body)


def test_much_arrives_whole_while_the_far_side_reads_slowly_and_memory_stays_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    capacity = 256 * 1024
    monkeypatch.setattr(relay, "CAPACITY", capacity)
    monkeypatch.setattr(relay, "_SOCKET_BUFFER", capacity)
    monkeypatch.setattr(relay.DelayLine.__init__, "__defaults__", (capacity,))
    most = 0
    block = bytes(range(256)) * 1024

    async def slow_sum(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        digest = hashlib.sha256()
        while data := await reader.read(64 * 1024):
            digest.update(data)
            await asyncio.sleep(0)
        writer.write(digest.digest())
        writer.close()

    async def body(found: Relay, port: int) -> None:
        nonlocal most
        reader, writer = await asyncio.open_connection(HOST, port)
        for _ in range(64):
            writer.write(block)
            await writer.drain()
            most = max(most, *(end._line.size for end in found._ends))
        writer.write_eof()
        assert await reader.read() == hashlib.sha256(block * 64).digest()
        writer.close()

    through(0.002, body, slow_sum)
    assert 0 < most <= capacity + (1 << 20)  # one read beyond the bound


def test_a_reader_that_stops_stops_the_sender(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay.DelayLine.__init__, "__defaults__", (128 * 1024,))
    monkeypatch.setattr(relay, "_SOCKET_BUFFER", 128 * 1024)
    stop = asyncio.Event()

    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await stop.wait()
        writer.transport.abort()

    async def body(_: Relay, port: int) -> None:
        _, writer = await asyncio.open_connection(HOST, port)
        writer.write(bytes(64 << 20))
        left = -1
        while (now := writer.transport.get_write_buffer_size()) != left:
            left = now
            await asyncio.sleep(0.2)
        assert left > 32 << 20
        writer.transport.abort()
        stop.set()

    through(0.001, body, deaf)


def test_a_half_close_goes_on_in_the_other_direction() -> None:
    async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await reader.read()
        for _ in range(5):
            writer.write(asked)
            await asyncio.sleep(0.01)
        writer.close()

    async def body(_: Relay, port: int) -> None:
        reader, writer = await asyncio.open_connection(HOST, port)
        writer.write(b"question")
        writer.write_eof()
        assert await reader.read() == b"question" * 5
        writer.close()

    through(0.005, body, late)


def test_both_ends_closing_at_once_lose_nothing() -> None:
    got: list[bytes] = []

    async def talker(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"far")
        writer.write_eof()
        got.append(await reader.read())
        writer.close()

    async def body(found: Relay, port: int) -> None:
        reader, writer = await asyncio.open_connection(HOST, port)
        writer.write(b"near")
        writer.write_eof()
        assert await reader.read() == b"far"
        writer.close()
        await until(lambda: all(end._is_over for end in found._ends))

    through(0.005, body, talker)
    assert got == [b"near"]


def test_a_cut_resets_both_sides_and_new_connections_are_welcome() -> None:
    far_saw: list[str] = []

    async def watcher(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await echo(reader, writer)
        except ConnectionResetError:
            far_saw.append("reset")

    async def body(found: Relay, port: int) -> None:
        reader, writer = await asyncio.open_connection(HOST, port)
        writer.write(b"a")
        assert await reader.read(1) == b"a"
        found.cut()
        with pytest.raises(ConnectionResetError):
            await reader.readexactly(1)
        await until(lambda: bool(far_saw))
        reader, again = await asyncio.open_connection(HOST, port)
        again.write(b"b")
        assert await reader.read(1) == b"b"
        again.close()

    through(0.0, body, watcher)


def test_a_reset_of_one_side_reaches_the_other() -> None:
    async def rude(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        reset(writer)

    async def body(_: Relay, port: int) -> None:
        reader, writer = await asyncio.open_connection(HOST, port)
        writer.write(b"x")
        with pytest.raises(ConnectionResetError):
            await reader.readexactly(1)
        writer.close()

    through(0.001, body, rude)


def test_a_target_that_refuses_is_a_reset() -> None:
    async def run() -> None:
        closed = await asyncio.start_server(echo, HOST, 0)
        port = closed.sockets[0].getsockname()[1]
        closed.close()
        found = Relay(HOST, port, 0.0)
        reader, writer = await asyncio.open_connection(HOST, await found.listen(HOST))
        async with asyncio.timeout(PATIENCE):
            with pytest.raises(ConnectionResetError):
                await reader.readexactly(1)
        writer.close()
        await found.close()

    uvloop.run(run())


def test_who_leaves_before_the_target_is_dialled_is_forgotten() -> None:
    async def body(found: Relay, port: int) -> None:
        _, writer = await asyncio.open_connection(HOST, port)
        reset(writer)
        await until(lambda: bool(found._dials))
        await asyncio.gather(*found._dials)
        assert all(end._is_over for end in found._ends)

    through(0.020, body)


def test_the_command_line_until_the_end_of_its_input() -> None:
    async def run() -> None:
        server = await asyncio.start_server(echo, HOST, 0)
        port = str(server.sockets[0].getsockname()[1])
        command = [
            sys.executable,
            "-m",
            "telemagic.bench.relay",
            "--host",
            HOST,
            "--port",
            port,
            "--delay",
            "0.005",
        ]
        process = await asyncio.create_subprocess_exec(
            *command, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert process.stdin
        assert process.stdout
        async with asyncio.timeout(PATIENCE):
            word, _, own = (await process.stdout.readline()).decode().partition(" ")
            assert word == "ready"
            reader, writer = await asyncio.open_connection(HOST, int(own))
            writer.write(b"x")
            assert await reader.read(1) == b"x"
            process.stdin.write(b"cut\n")
            with pytest.raises(ConnectionResetError):
                await reader.readexactly(1)
            writer.close()
            process.stdin.close()
            assert await process.wait() == 0
        server.close()

    asyncio.run(run())
