"""What flows do to services of the demo, each way to end that there is; every byte is checked."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import random
import socket
import struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

RESET: Final = struct.pack("ii", 1, 0)  # struct linger: close(2) sends RST (socket(7))
PATTERN: Final = bytes(range(256))  # what the catalog repeats
MEBIBYTE: Final = 1024 * 1024
SERVICES: Final = {"tally": 7000, "catalog": 8000}
ADDRESSES: Final[dict[str, tuple[str, int]]] = {}  # resolved once: asyncio would ask a thread each time


def resolve() -> None:
    """Look the services up, once connected."""
    ADDRESSES.update({name: (socket.gethostbyname(f"{name}.shop"), port) for name, port in SERVICES.items()})


async def connect(service: str) -> socket.socket:
    sock = socket.socket()
    sock.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(sock, ADDRESSES[service])
    except BaseException:
        sock.close()
        raise
    return sock


async def ask(sock: socket.socket, count: int) -> None:
    request = f"GET /bytes/{count} HTTP/1.1\r\nHost: catalog\r\nConnection: close\r\n\r\n"
    await asyncio.get_running_loop().sock_sendall(sock, request.encode())


async def receive_all(sock: socket.socket) -> bytes:
    received = bytearray()
    while data := await asyncio.get_running_loop().sock_recv(sock, MEBIBYTE):
        received += data
    return bytes(received)


async def upload(size: int) -> None:
    """Send, end, then get the answer."""
    with await connect("tally") as sock:
        data = random.randbytes(size)
        await asyncio.get_running_loop().sock_sendall(sock, data)
        sock.shutdown(socket.SHUT_WR)
        answer = json.loads(await receive_all(sock))
        assert answer == {"count": size, "sha256": hashlib.sha256(data).hexdigest()}


async def download(size: int) -> None:
    """Get all; the far side ends first."""
    with await connect("catalog") as sock:
        await ask(sock, size)
        body = (await receive_all(sock)).partition(b"\r\n\r\n")[2]
        assert body == (PATTERN * (size // 256 + 1))[:size]


async def hang_up_reading(size: int) -> None:
    """Close in the middle of a download: with a reset, or with bytes unread."""
    with await connect("catalog") as sock:
        await ask(sock, 50 * MEBIBYTE)
        await asyncio.get_running_loop().sock_recv(sock, size + 1)
        if size % 2:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)


async def hang_up_writing(size: int) -> None:
    """Close in the middle of an upload: with a reset, or in peace but without waiting for the answer."""
    with await connect("tally") as sock:
        await asyncio.get_running_loop().sock_sendall(sock, bytes(size))
        if size % 2:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)


async def be_reset(size: int) -> None:
    """Be hung up on while sending."""
    with await connect("tally") as sock, contextlib.suppress(ConnectionResetError, BrokenPipeError):
        await asyncio.get_running_loop().sock_sendall(sock, b"RESET" + bytes(size))
        while True:
            await asyncio.sleep(0.01)
            await asyncio.get_running_loop().sock_sendall(sock, b"more")


async def look_up(number: int) -> None:
    loop = asyncio.get_running_loop()
    assert await loop.getaddrinfo("postgres.shop", 5432)
    with contextlib.suppress(socket.gaierror):
        await loop.getaddrinfo(f"nobody-{number % 7}.shop", 80)
        raise AssertionError("a name of nobody's resolves")


DEEDS: Final[tuple[Callable[[int], Awaitable[None]], ...]] = (
    upload,
    download,
    hang_up_reading,
    hang_up_writing,
    be_reset,
    look_up,
)


async def mixed(flows: int, at_once: int) -> None:
    dice = random.Random(7)
    jobs: Iterator[Awaitable[None]] = (
        DEEDS[number % len(DEEDS)](dice.randrange(400_000)) for number in range(flows)
    )

    async def work() -> None:
        for job in jobs:
            await asyncio.wait_for(job, 20)

    await asyncio.gather(*(work() for _ in range(at_once)))


async def stalled_readers(count: int) -> list[socket.socket]:
    """Open downloads that are read for a while, and then no more."""
    socks = [await connect("catalog") for _ in range(count)]
    for sock in socks:
        await ask(sock, 900 * MEBIBYTE)
        left = 2 * MEBIBYTE
        while left > 0:
            left -= len(await asyncio.get_running_loop().sock_recv(sock, MEBIBYTE))
    return socks


async def answer_times(count: int) -> list[float]:
    """Round trips of small requests, in seconds, shortest first."""
    loop = asyncio.get_running_loop()
    times = []
    with await connect("catalog") as sock:
        for _ in range(count):
            began = loop.time()
            await loop.sock_sendall(sock, b"GET /health HTTP/1.1\r\nHost: catalog\r\n\r\n")
            answer = b""
            while not answer.endswith(b'"ok"}'):
                answer += await loop.sock_recv(sock, 4096)
            times.append(loop.time() - began)
    return sorted(times)


async def idle(count: int) -> None:
    """Hold many flows open, then end each with its answer."""
    loop = asyncio.get_running_loop()
    socks = [await connect("tally") for _ in range(count)]
    for sock in socks:
        await loop.sock_sendall(sock, b"1")
        sock.shutdown(socket.SHUT_WR)
    for sock in socks:
        with sock:
            assert json.loads(await receive_all(sock))["count"] == 1
