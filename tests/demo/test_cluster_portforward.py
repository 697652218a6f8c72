"""The port-forward's channel protocol, message by message, as a real containerd speaks it."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
import pytest
import yaml
from telehelper.errors import UsageError

from tests.demo.clusters import GONE_WITHIN, open_files, pod_pids, processes, settled, start, wait_until
from tests.demo.test_cluster_api import trust

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from telemagic.demo.client import Demo

pytestmark = pytest.mark.netns

GRACE = 1.0  # seconds
GONE = 2.0  # seconds for the pod's side to be closed after its client has gone


@asynccontextmanager
async def forward(
    demo: Demo, query: str, protocols: tuple[str, ...] = ("v4.channel.k8s.io",)
) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    before = open_files()
    config = yaml.safe_load(demo.kubeconfig.read_text())
    server = config["clusters"][0]["cluster"]["server"]
    headers = {"Authorization": f"Bearer {config['users'][0]['user']['token']}"}
    tls = trust(demo.kubeconfig)
    async with aiohttp.ClientSession(headers=headers) as session:
        async with session.get(
            f"{server}/api/v1/namespaces/shop/pods?labelSelector=app%3Dcatalog", ssl=tls
        ) as reply:
            pod = (await reply.json())["items"][0]["metadata"]["name"]
        url = f"{server}/api/v1/namespaces/shop/pods/{pod}/portforward{query}"
        async with session.ws_connect(url, ssl=tls, protocols=protocols, max_msg_size=0) as web_socket:
            yield web_socket
    await settled(before)


async def rest(web_socket: aiohttp.ClientWebSocketResponse) -> list[bytes]:
    """Return what comes until the server's close, which says that all is well."""
    found = []
    while (message := await web_socket.receive()).type is aiohttp.WSMsgType.BINARY:
        found.append(message.data)
    # Not the socket's own `close_code`: a server that hangs up right after its close takes no answer to it.
    assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, 1000)
    return found


def test_each_channel_is_announced_with_its_port(demo: Demo) -> None:
    async def run() -> None:
        async with forward(demo, "?ports=8000,9999") as web_socket:
            assert web_socket.protocol == "v4.channel.k8s.io"
            found = [(await web_socket.receive_bytes()) for _ in range(4)]
            assert found == [b"\x00\x40\x1f", b"\x01\x40\x1f", b"\x02\x0f\x27", b"\x03\x0f\x27"]

    asyncio.run(run())


def test_a_refused_port_is_an_error_text_and_an_end_at_once(demo: Demo) -> None:
    async def run() -> None:
        async with forward(demo, "?ports=9999") as web_socket:
            began = time.monotonic()
            *_, error = await rest(web_socket)
            assert error[:1] == b"\x01"
            assert b"error forwarding port 9999 to pod " in error
            assert b"connection refused" in error
            assert time.monotonic() - began < GRACE

    asyncio.run(run())


def test_after_the_applications_end_comes_a_grace_then_the_close(demo: Demo) -> None:
    async def run() -> None:
        async with forward(demo, "?ports=8000") as web_socket:
            began = time.monotonic()
            await web_socket.send_bytes(
                b"\x00GET /bytes/100000 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
            )
            messages = [data for data in await rest(web_socket) if data[0] == 0][1:]
            assert GRACE <= time.monotonic() - began < 10 * GRACE  # less than any timeout
            assert max(map(len, messages)) <= 32 * 1024 + 1
            body = b"".join(data[1:] for data in messages).partition(b"\r\n\r\n")[2]
            assert body == (bytes(range(256)) * 400)[:100_000]

    asyncio.run(run())


def test_a_port_that_is_refused_beside_another_stays_silent(demo: Demo) -> None:
    async def run() -> None:
        async with forward(demo, "?ports=9999&ports=8000") as web_socket:
            for _ in range(4):
                await web_socket.receive_bytes()
            await web_socket.send_bytes(b"\x00lost")
            await web_socket.send_bytes(b"\x02GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            channels = [(await web_socket.receive_bytes())[0] for _ in range(2)]
            assert sorted(channels) == [1, 2]
            assert not web_socket.closed

    asyncio.run(run())


def test_a_large_message_arrives_whole(demo: Demo) -> None:
    async def run() -> None:
        size = 32 * 1024 * 1024 - 200
        async with forward(demo, "?ports=8000") as web_socket:
            head = (
                b"\x00POST /sink HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
                % size
            )
            await web_socket.send_bytes(head + bytes(size))
            answer = b"".join(data[1:] for data in await rest(web_socket))
            assert b'"count": %d' % size in answer

    asyncio.run(run())


@pytest.mark.parametrize("protocols", [("v5.channel.k8s.io",), ("SPDY/3.1+portforward.k8s.io",)])
def test_other_subprotocols_are_refused(demo: Demo, protocols: tuple[str, ...]) -> None:
    async def run() -> None:
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            async with forward(demo, "?ports=8000", protocols):
                pass
        assert caught.value.status == 403

    asyncio.run(run())


@pytest.mark.parametrize("query", ["", "?ports=0", "?ports=65536", "?ports=x"])
def test_bad_ports_are_a_bad_request(demo: Demo, query: str) -> None:
    async def run() -> None:
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            async with forward(demo, query):
                pass
        assert caught.value.status == 400

    asyncio.run(run())


def test_a_client_that_leaves_closes_the_applications_connection(demo: Demo) -> None:
    async def run() -> None:
        async with forward(demo, "?ports=8000") as web_socket:
            await web_socket.send_bytes(b"\x00GET /slow?seconds=60 HTTP/1.1\r\nHost: x\r\n\r\n")
            await web_socket.receive_bytes()
            began = time.monotonic()
            await web_socket.close()
            assert time.monotonic() - began < GRACE

    asyncio.run(run())


def pod_sockets() -> int:
    """How many connections into the catalog's pod are open on the API server's side; those it has closed do not count."""
    (pid, *_) = pod_pids(Path(os.environ["TELEMAGIC_RUNTIME_DIR"]), "telemagic.demo.catalog")
    rows = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    established, close_wait = "01", "08"  # Linux include/net/tcp_states.h
    return sum(row[2].endswith(":1F40") and row[3] in (established, close_wait) for row in rows)


def transport_of(web_socket: aiohttp.ClientWebSocketResponse) -> asyncio.Transport:
    connection = web_socket._response.connection  # no other way to break it
    assert connection is not None
    assert connection.transport is not None
    return connection.transport


async def closes(web_socket: aiohttp.ClientWebSocketResponse) -> None:
    await web_socket.close()


async def aborts(web_socket: aiohttp.ClientWebSocketResponse) -> None:
    transport_of(web_socket).abort()


async def closes_and_aborts(web_socket: aiohttp.ClientWebSocketResponse) -> None:
    transport = transport_of(web_socket)
    closing = asyncio.create_task(web_socket.close())
    await asyncio.sleep(0)  # the close message is on its way
    transport.abort()
    await closing


async def reads_all_the_while(web_socket: aiohttp.ClientWebSocketResponse) -> None:
    async for _ in web_socket:
        pass


async def reads_nothing(_web_socket: aiohttp.ClientWebSocketResponse) -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize("reads", [reads_all_the_while, reads_nothing])
@pytest.mark.parametrize("goes", [closes, aborts, closes_and_aborts])
def test_a_client_that_goes_under_load_closes_the_pods_side(
    demo: Demo,
    reads: Callable[[aiohttp.ClientWebSocketResponse], Coroutine[None, None, None]],
    goes: Callable[[aiohttp.ClientWebSocketResponse], Coroutine[None, None, None]],
) -> None:
    async def one() -> None:
        async with forward(demo, "?ports=8000") as web_socket:
            await web_socket.send_bytes(b"\x00GET /bytes/4000000000 HTTP/1.1\r\nHost: x\r\n\r\n")
            await web_socket.receive_bytes()
            reading = asyncio.create_task(reads(web_socket))
            await asyncio.sleep(0.1)  # as much as fits is under way
            reading.cancel()
            await asyncio.wait([reading])
            await goes(web_socket)

    async def run() -> None:
        async with asyncio.TaskGroup() as clients:
            for _ in range(8):
                clients.create_task(one())

    asyncio.run(run())
    assert wait_until(lambda: pod_sockets() == 0, GONE), pod_sockets()


def test_a_client_that_says_goodbye_and_then_hangs_closes_the_pods_side(demo: Demo) -> None:
    async def run() -> None:
        async with forward(demo, "?ports=8000") as web_socket:
            await web_socket.send_bytes(b"\x00GET /bytes/4000000000 HTTP/1.1\r\nHost: x\r\n\r\n")
            await web_socket.receive_bytes()
            await asyncio.sleep(0.1)  # as much as fits is under way, and nobody reads it
            assert pod_sockets() == 1
            await web_socket._writer.close()  # the message alone; the connection stays
            assert await asyncio.to_thread(wait_until, lambda: pod_sockets() == 0, GONE)
            transport_of(web_socket).abort()

    asyncio.run(run())


# --- broken on purpose -------------------------------------------------------------------------------------------

REQUEST = b"\x00GET /health HTTP/1.1\r\nHost: x\r\n\r\n"


async def announced(web_socket: aiohttp.ClientWebSocketResponse) -> None:
    for _ in range(2):
        assert len(await web_socket.receive_bytes()) == 3


def test_a_frozen_one_is_silent_old_or_new_and_goes_on(demo: Demo) -> None:
    async def run() -> None:
        async with forward(demo, "?ports=8000") as old:
            await announced(old)
            demo.fault("carriers-frozen")
            async with forward(demo, "?ports=8000") as new:
                await old.send_bytes(REQUEST)
                for each in (old, new):
                    with pytest.raises(TimeoutError):
                        await each.receive_bytes(timeout=0.2)
                demo.fault("clear")
                await announced(new)
                assert b"200 OK" in await old.receive_bytes(timeout=GONE)

    asyncio.run(run())


def test_a_frozen_one_whose_client_goes_leaves_nothing(demo: Demo) -> None:
    async def run() -> None:
        async with forward(demo, "?ports=8000") as web_socket:
            await announced(web_socket)
            demo.fault("carriers-frozen", seconds=30)
            await web_socket.send_bytes(REQUEST)
            transport_of(web_socket).abort()

    asyncio.run(run())
    try:
        assert wait_until(lambda: pod_sockets() == 0, GONE), pod_sockets()
    finally:
        demo.fault("clear")


@pytest.mark.parametrize(
    ("fault", "is_right"), [("carriers-slow", True), ("carriers-dribble", True), ("carriers-corrupt", False)]
)
def test_what_comes_through_a_bad_one(demo: Demo, fault: str, is_right: bool) -> None:
    async def run() -> None:
        async with forward(demo, "?ports=8000") as web_socket:
            await announced(web_socket)
            demo.fault(fault, seconds=30)
            await web_socket.send_bytes(REQUEST)
            first = (await web_socket.receive_bytes(timeout=GONE))[1:]
            assert first
            assert b"HTTP/1.1 200 OK".startswith(first[:15]) is is_right, first

    try:
        asyncio.run(run())
    finally:
        demo.fault("clear")


def test_all_are_cut_if_there_are_some(demo: Demo) -> None:
    async def run() -> None:
        async with forward(demo, "?ports=8000") as one, forward(demo, "?ports=8000") as other:
            for web_socket in (one, other):
                await announced(web_socket)
            demo.fault("carriers-cut")
            for web_socket in (one, other):
                message = await web_socket.receive(timeout=GONE)
                assert message.type is not aiohttp.WSMsgType.BINARY
                assert message.data != 1000  # no goodbye

    asyncio.run(run())
    assert wait_until(lambda: pod_sockets() == 0, GONE), pod_sockets()
    with pytest.raises(UsageError, match="no port is forwarded"):
        demo.fault("carriers-cut")


def test_a_frozen_manager_goes_on_by_itself_or_when_told(demo: Demo) -> None:
    (pid,) = pod_pids(Path(os.environ["TELEMAGIC_RUNTIME_DIR"]), "telehelper.manager")

    def is_frozen() -> bool:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"

    demo.fault("manager-frozen", seconds=0.3)
    assert wait_until(is_frozen, GONE)
    assert wait_until(lambda: not is_frozen(), GONE)
    demo.fault("manager-frozen")
    assert wait_until(is_frozen, GONE)
    demo.fault("clear")
    assert wait_until(lambda: not is_frozen(), GONE)


def test_a_demo_that_ends_while_all_is_frozen_leaves_nothing(runtime: Path) -> None:
    own = start(owned=True)

    async def run() -> None:
        async with forward(own, "?ports=8000") as web_socket:
            await announced(web_socket)
            for fault in ("carriers-frozen", "manager-frozen"):
                own.fault(fault)
            await web_socket.send_bytes(REQUEST)
            own.close()
            assert await asyncio.to_thread(wait_until, lambda: not processes(runtime), GONE_WITHIN)

    asyncio.run(run())
