"""The port-forward's channel protocol, over a real WebSocket."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import pytest
from aiohttp import WSMsgType, web
from telehelper.errors import ApiServerUnavailable
from telehelper.kube import portforward
from telehelper.kube.client import ApiClient

from tests.demo.clusters import open_files
from tests.kube.api_server import PROTOCOL, WAIT, ApiServer, Pki, announce, announcement
from tests.kube.test_client import access_to

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from telehelper.kube.portforward import PortForward

Side = "Callable[[web.WebSocketResponse, int], Awaitable[None]]"


def forward(pki: Pki, pod: Side | None, work: Callable[[PortForward], Awaitable[None]]) -> ApiServer:
    """Open a port-forward to port 8082, whose other end is `pod`, and run `work` with it."""
    server = ApiServer(pki)
    if pod is not None:
        server.port_forward = pod

    async def run() -> None:
        async with asyncio.timeout(WAIT), server.run(), ApiClient(access_to(server)) as api:
            stream = await api.portforward("telemagic", "manager-0", 8082)
            try:
                await work(stream)
            finally:
                await stream.close()

    asyncio.run(run())
    return server


def pod_that_sends(*messages: bytes) -> Side:
    async def pod(socket: web.WebSocketResponse, port: int) -> None:
        for message in messages:
            await socket.send_bytes(message)
        await socket.receive()  # until the client closes

    return pod


async def breaks(stream: PortForward) -> str:
    with pytest.raises(ConnectionResetError) as caught:
        await stream.receive()
    return str(caught.value)


DATA, ERROR = announcement(0, 8082), announcement(1, 8082)


def test_bytes_go_both_ways_and_the_request_is_right(pki: Pki) -> None:
    async def work(stream: PortForward) -> None:
        await stream.send((b"he", bytearray(b"ll"), memoryview(b"o")))
        assert bytes(await stream.receive()) == b"hello"

    (request,) = forward(pki, None, work).requests
    assert request.path == "/api/v1/namespaces/telemagic/pods/manager-0/portforward"
    assert dict(request.query) == {"ports": "8082"}
    assert request.headers["Sec-WebSocket-Protocol"] == PROTOCOL
    assert "Sec-WebSocket-Extensions" not in request.headers  # no compression


def test_a_server_that_sends_a_message_without_end_fills_no_memory(
    pki: Pki, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(portforward, "MAX_MESSAGE", 70_000)

    async def work(stream: PortForward) -> None:
        got = 0
        while got < 60_000:
            got += len(await stream.receive())
        assert got == 60_000
        assert "70000" in await breaks(stream)

    forward(pki, pod_that_sends(DATA, ERROR, b"\0" + bytes(60_000), b"\0" + bytes(80_000)), work)


def test_a_megabyte_arrives_whole(pki: Pki) -> None:
    sent = os.urandom(1024 * 1024)

    async def work(stream: PortForward) -> None:
        async def write() -> None:
            for at in range(0, len(sent), 50_000):
                await stream.send((memoryview(sent)[at : at + 50_000],))

        writer = asyncio.create_task(write())
        got = bytearray()
        while len(got) < len(sent):
            got += await stream.receive()
        await writer
        assert bytes(got) == sent

    forward(pki, None, work)


def test_channels_may_be_announced_in_any_order_and_late(pki: Pki) -> None:
    async def work(stream: PortForward) -> None:
        assert bytes(await stream.receive()) == b"one"
        assert bytes(await stream.receive()) == b"two"

    forward(pki, pod_that_sends(ERROR, DATA, b"\0one", b"\0two"), work)
    forward(pki, pod_that_sends(DATA, b"\0one", ERROR, b"\0two"), work)


def test_empty_messages_are_no_end(pki: Pki) -> None:
    async def work(stream: PortForward) -> None:
        assert bytes(await stream.receive()) == b"x"

    forward(pki, pod_that_sends(DATA, ERROR, b"\0", b"\0x"), work)


def test_an_error_of_the_server_is_told(pki: Pki) -> None:
    async def work(stream: PortForward) -> None:
        assert "an error occurred forwarding 8082: connection refused" in await breaks(stream)

    text = b"\1an error occurred forwarding 8082: connection refused\n"
    forward(pki, pod_that_sends(DATA, ERROR, text), work)


def test_data_before_an_error_is_not_lost(pki: Pki) -> None:
    async def work(stream: PortForward) -> None:
        assert bytes(await stream.receive()) == b"last words"
        assert "gone" in await breaks(stream)

    forward(pki, pod_that_sends(DATA, ERROR, b"\0last words", b"\1gone"), work)


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ((b"\0early data",), "not announced"),
        ((b"\1early error",), "not announced"),
        ((DATA, b"\1boo!"), "not announced"),
        ((DATA, ERROR, b"\2x"), "unknown channel 2"),
        ((b"",), "unknown channel -1"),
    ],
)
def test_a_server_that_breaks_the_protocol(pki: Pki, messages: tuple[bytes, ...], words: str) -> None:
    async def work(stream: PortForward) -> None:
        assert words in await breaks(stream)

    forward(pki, pod_that_sends(*messages), work)


def test_text_is_the_end(pki: Pki) -> None:
    async def pod(socket: web.WebSocketResponse, port: int) -> None:
        await announce(socket, port)
        await socket.send_str("hello?")
        await socket.receive()

    async def work(stream: PortForward) -> None:
        assert await stream.receive() == b""

    forward(pki, pod, work)


def test_the_servers_close_is_the_end_and_stays_it(pki: Pki) -> None:
    async def pod(socket: web.WebSocketResponse, port: int) -> None:
        await announce(socket, port)
        await socket.send_bytes(b"\0bye")
        await socket.close()

    async def work(stream: PortForward) -> None:
        assert bytes(await stream.receive()) == b"bye"
        assert await stream.receive() == b""
        assert await stream.receive() == b""
        with pytest.raises(OSError, match="clos"):
            await stream.send((b"too late",))

    forward(pki, pod, work)


def test_a_connection_that_breaks(pki: Pki) -> None:
    async def pod(socket: web.WebSocketResponse, port: int) -> None:
        await announce(socket, port)
        socket._req.transport.abort()  # type: ignore[union-attr]  # no other way to break it

    async def work(stream: PortForward) -> None:
        assert await stream.receive() == b""

    forward(pki, pod, work)


def test_our_close_reaches_the_pod(pki: Pki) -> None:
    heard: list[WSMsgType] = []

    async def pod(socket: web.WebSocketResponse, port: int) -> None:
        await announce(socket, port)
        heard.append((await socket.receive()).type)

    async def work(stream: PortForward) -> None:
        await stream.close()
        await stream.close()
        assert await stream.receive() == b""

    forward(pki, pod, work)
    assert heard == [WSMsgType.CLOSE]


def test_a_server_that_never_answers_our_close_holds_no_socket(
    pki: Pki, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(portforward, "CLOSE_TIMEOUT", 0.05)
    ours_is_gone = asyncio.Event()

    async def pod(socket: web.WebSocketResponse, port: int) -> None:
        await announce(socket, port)
        transport = socket._req.transport  # type: ignore[union-attr]  # no other way to stop reading
        transport.pause_reading()  # type: ignore[union-attr]
        await ours_is_gone.wait()
        transport.abort()  # type: ignore[union-attr]

    async def work(stream: PortForward) -> None:
        before = open_files()
        try:
            await stream.close()
            async with asyncio.timeout(WAIT / 2):
                while open_files() >= before:  # noqa: ASYNC110 - the transport tells nobody when it is done
                    await asyncio.sleep(0.005)
        finally:
            ours_is_gone.set()

    forward(pki, pod, work)


def test_closing_wakes_who_receives(pki: Pki) -> None:
    async def work(stream: PortForward) -> None:
        waiting = asyncio.create_task(stream.receive())  # type: ignore[arg-type]  # it is a coroutine
        await asyncio.sleep(0)
        await stream.close()
        assert await waiting == b""

    forward(pki, None, work)


def test_a_server_that_never_upgrades(pki: Pki, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(portforward, "CONNECT_TIMEOUT", 0.05)
    server = ApiServer(pki)

    async def silence(_: web.Request) -> web.Response:
        await asyncio.Event().wait()
        raise AssertionError

    server.answers["/api/v1/namespaces/ns/pods/pod/portforward"] = silence

    async def run() -> None:
        async with asyncio.timeout(WAIT), server.run(), ApiClient(access_to(server)) as api:
            with pytest.raises(ApiServerUnavailable, match="no answer in time"):
                await api.portforward("ns", "pod", 1)

    asyncio.run(run())
