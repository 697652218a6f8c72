"""How long a cut is felt, with real connections through a real relay."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from telemagic.bench import recovery
from tests.bench.test_relay import HOST, echo, through

if TYPE_CHECKING:
    from telemagic.bench.relay import Relay


def test_a_way_that_is_back_at_once() -> None:
    async def body(relay: Relay, port: int) -> None:
        found = await recovery.measure(HOST, port, relay.cut)
        assert found is not None
        assert 0 <= found < recovery.LONGEST

    through(0.0, body)


def test_a_way_that_is_back_later() -> None:
    async def run() -> None:
        server = await asyncio.start_server(echo, HOST, 0)
        port = server.sockets[0].getsockname()[1]

        def cut() -> None:
            server.close()
            asyncio.get_running_loop().call_later(0.2, lambda: back.append(asyncio.ensure_future(again())))

        async def again() -> asyncio.Server:
            return await asyncio.start_server(echo, HOST, port)

        back: list[asyncio.Future[asyncio.Server]] = []
        found = await recovery.measure(HOST, port, cut)
        (await back[0]).close()
        assert found is not None
        assert 0.2 <= found < recovery.LONGEST

    asyncio.run(run())


def test_a_way_that_stays_away() -> None:
    async def run() -> None:
        server = await asyncio.start_server(echo, HOST, 0)
        assert await recovery.measure(HOST, server.sockets[0].getsockname()[1], server.close, 0.1) is None

    asyncio.run(run())


def test_a_way_that_falls_silent() -> None:
    silent = False

    async def body(relay: Relay, port: int) -> None:
        def cut() -> None:
            nonlocal silent
            silent = True

        assert await recovery.measure(HOST, port, cut, 0.1) is None
        left = [task for task in asyncio.all_tasks() if "attempt" in str(task.get_coro())]
        assert left == []

    async def moody(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await reader.read(1)
        if not silent:
            writer.write(asked)
        await reader.read()
        writer.close()

    through(0.0, body, moody)


def test_a_way_that_never_worked_is_not_measured() -> None:
    async def run() -> None:
        server = await asyncio.start_server(echo, HOST, 0)
        port = server.sockets[0].getsockname()[1]
        server.close()
        with pytest.raises(ConnectionRefusedError):
            await recovery.measure(HOST, port, pytest.fail)

    asyncio.run(run())


@pytest.mark.parametrize("answer", [b"", b"!"])
def test_an_end_or_a_wrong_byte_is_no_answer(answer: bytes) -> None:
    async def wrong(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(answer)
        writer.close()

    async def body(_: Relay, port: int) -> None:
        with pytest.raises(ConnectionResetError):
            await recovery.request(HOST, port)

    through(0.0, body, wrong)
