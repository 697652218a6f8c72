"""A short soak: many flows at once that end in every way there is, and nothing of them is left."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import random
import socket
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.e2e.inside import helpers, inside, wait_until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from telemagic.connection import Connection

RESET: Final = struct.pack("ii", 1, 0)  # struct linger: close(2) sends RST (socket(7))
PATTERN: Final = bytes(range(256))  # what the catalog repeats
MEBIBYTE: Final = 1024 * 1024
GROWTH: Final = (
    128 * MEBIBYTE
)  # that either process may grow by: what all flows together hold at the worst moment
SERVICES: Final = {"tally": 7000, "catalog": 8000}
ADDRESSES: Final[dict[str, tuple[str, int]]] = {}  # resolved once: asyncio would ask a thread each time


# --- what is looked at ---------------------------------------------------------------------------------------------


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


def _manager() -> int:
    """Pid of the manager of the cluster that KUBECONFIG leads to."""
    directory = str(Path(os.environ["KUBECONFIG"]).parent).encode()
    commands = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            commands[int(entry.name)] = (entry / "cmdline").read_bytes().split(b"\0")
    daemons = {pid for pid, words in commands.items() if directory in words}
    managers = [pid for pid, words in commands.items() if b"telehelper.manager" in words]
    (found,) = [pid for pid in managers if {_parent(pid), _parent(_parent(pid))} & daemons]
    return found


class Process:
    """What one process uses."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.fds_before, self.memory_before = self.fds, self.memory

    @property
    def fds(self) -> int:
        """How many descriptors are open."""
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    @property
    def memory(self) -> int:
        """Bytes resident."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    @property
    def log(self) -> str:
        """What it wrote to stderr, a file."""
        return Path(f"/proc/{self.pid}/fd/2").read_text()

    @property
    def growth(self) -> int:
        """Bytes it has grown by."""
        return self.memory - self.memory_before


# --- what flows do -------------------------------------------------------------------------------------------------


async def _connect(service: str) -> socket.socket:
    sock = socket.socket()
    sock.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(sock, ADDRESSES[service])
    except BaseException:
        sock.close()
        raise
    return sock


async def _ask(sock: socket.socket, count: int) -> None:
    request = f"GET /bytes/{count} HTTP/1.1\r\nHost: catalog\r\nConnection: close\r\n\r\n"
    await asyncio.get_running_loop().sock_sendall(sock, request.encode())


async def _receive_all(sock: socket.socket) -> bytes:
    received = bytearray()
    while data := await asyncio.get_running_loop().sock_recv(sock, MEBIBYTE):
        received += data
    return bytes(received)


async def _upload(size: int) -> None:
    """Send, end, then get the answer."""
    with await _connect("tally") as sock:
        data = random.randbytes(size)
        await asyncio.get_running_loop().sock_sendall(sock, data)
        sock.shutdown(socket.SHUT_WR)
        answer = json.loads(await _receive_all(sock))
        assert answer == {"count": size, "sha256": hashlib.sha256(data).hexdigest()}


async def _download(size: int) -> None:
    """Get all; the far side ends first."""
    with await _connect("catalog") as sock:
        await _ask(sock, size)
        body = (await _receive_all(sock)).partition(b"\r\n\r\n")[2]
        assert body == (PATTERN * (size // 256 + 1))[:size]


async def _hang_up_reading(size: int) -> None:
    """Close in the middle of a download: with a reset, or with bytes unread."""
    with await _connect("catalog") as sock:
        await _ask(sock, 50 * MEBIBYTE)
        await asyncio.get_running_loop().sock_recv(sock, size + 1)
        if size % 2:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)


async def _hang_up_writing(size: int) -> None:
    """Close in the middle of an upload: with a reset, or in peace but without waiting for the answer."""
    with await _connect("tally") as sock:
        await asyncio.get_running_loop().sock_sendall(sock, bytes(size))
        if size % 2:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)


async def _be_reset(size: int) -> None:
    """Be hung up on while sending."""
    with await _connect("tally") as sock, contextlib.suppress(ConnectionResetError, BrokenPipeError):
        await asyncio.get_running_loop().sock_sendall(sock, b"RESET" + bytes(size))
        while True:
            await asyncio.sleep(0.01)
            await asyncio.get_running_loop().sock_sendall(sock, b"more")


async def _look_up(number: int) -> None:
    loop = asyncio.get_running_loop()
    assert await loop.getaddrinfo("postgres.shop", 5432)
    with contextlib.suppress(socket.gaierror):
        await loop.getaddrinfo(f"nobody-{number % 7}.shop", 80)
        raise AssertionError("a name of nobody's resolves")


DEEDS: Final[tuple[Callable[[int], Awaitable[None]], ...]] = (
    _upload,
    _download,
    _hang_up_reading,
    _hang_up_writing,
    _be_reset,
    _look_up,
)


async def _mixed(flows: int, at_once: int) -> None:
    dice = random.Random(7)
    jobs: Iterator[Awaitable[None]] = (
        DEEDS[number % len(DEEDS)](dice.randrange(400_000)) for number in range(flows)
    )

    async def work() -> None:
        for job in jobs:
            await asyncio.wait_for(job, 20)

    await asyncio.gather(*(work() for _ in range(at_once)))


async def _stalled_readers(count: int) -> list[socket.socket]:
    """Open downloads that are read for a while, and then no more."""
    socks = [await _connect("catalog") for _ in range(count)]
    for sock in socks:
        await _ask(sock, 900 * MEBIBYTE)
        left = 2 * MEBIBYTE
        while left > 0:
            left -= len(await asyncio.get_running_loop().sock_recv(sock, MEBIBYTE))
    return socks


async def _answer_times(count: int) -> list[float]:
    """Round trips of small requests, in seconds, shortest first."""
    loop = asyncio.get_running_loop()
    times = []
    with await _connect("catalog") as sock:
        for _ in range(count):
            began = loop.time()
            await loop.sock_sendall(sock, b"GET /health HTTP/1.1\r\nHost: catalog\r\n\r\n")
            answer = b""
            while not answer.endswith(b'"ok"}'):
                answer += await loop.sock_recv(sock, 4096)
            times.append(loop.time() - began)
    return sorted(times)


async def _idle(count: int) -> None:
    """Hold many flows open, then end each with its answer."""
    loop = asyncio.get_running_loop()
    socks = [await _connect("tally") for _ in range(count)]
    for sock in socks:
        await loop.sock_sendall(sock, b"1")
        sock.shutdown(socket.SHUT_WR)
    for sock in socks:
        with sock:
            assert json.loads(await _receive_all(sock))["count"] == 1


# --- the test ------------------------------------------------------------------------------------------------------


async def _everything(check_idle: Callable[[], None]) -> None:
    await _mixed(600, at_once=60)
    stalled = await _stalled_readers(20)
    times = await _answer_times(50)
    assert times[len(times) // 2] < 0.1, "others are held up by readers that stand still"
    for sock in stalled:
        sock.close()
    check_idle()
    await _idle(300)
    for _ in range(200):
        await _upload(2)


@inside(timeout=90)
def test_nothing_is_left_of_many_flows() -> None:
    import telemagic

    with telemagic.connect() as tele:
        ADDRESSES.update(
            {name: (socket.gethostbyname(f"{name}.shop"), port) for name, port in SERVICES.items()}
        )
        processes = [Process(pid) for pid in (*helpers("telehelper.datapath"), _manager())]

        def check_memory() -> None:
            assert [each.growth // MEBIBYTE for each in processes if each.growth > GROWTH] == []

        asyncio.run(_everything(check_memory))
        _check_nothing_is_left(tele, processes)


def _check_nothing_is_left(tele: Connection, processes: list[Process]) -> None:
    assert wait_until(lambda: tele.status.to_dict()["flows_open"] == 0), tele.flows().query(
        "state != 'CLOSED'"
    )
    status = tele.status.to_dict()
    assert status["flows_total"] > 1_000
    assert (status["state"], status["carriers"], status["last_error"]) == ("connected", 2, "")
    *datapath, manager = processes
    for process in processes:
        assert wait_until(lambda process=process: process.fds <= process.fds_before + 2), process.fds
        assert process.growth < GROWTH
    assert [process.log for process in datapath] == [""] * len(datapath)
    assert manager.fds_before > 0
