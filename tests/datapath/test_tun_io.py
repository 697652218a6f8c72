"""Reading and writing packets: order and overflow on a socket pair, and once on a real TUN."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from typing import TYPE_CHECKING

import pytest
import uvloop
from telehelper.datapath import tun_io
from telehelper.datapath.tun_io import BURST, TunIo

from tests.datapath.waiting import WAIT, turns, until

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Awaitable, Callable


class Device:
    """A TUN's twin: a pair of datagram sockets, which keep packets' boundaries too. `far` is the kernel."""

    def __init__(self) -> None:
        near, self.far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # a few packets, then it must wait
        self.far.setblocking(False)
        self.bursts: list[list[bytes]] = []
        self.lost: list[str] = []
        self.fd = near.detach()
        self.tun = TunIo(self.fd, on_packets=self.bursts.append, on_lost=self.lost.append)

    def fill(self) -> int:
        """Write numbered packets until one has to wait; returns how many were taken at once."""
        number = 0
        while not self.tun._waiting:
            self.tun.write((number.to_bytes(4, "big"), b"x" * 500))
            number += 1
        return number

    def take(self) -> list[int]:
        """Take all packets that are there."""
        numbers = []
        while True:
            try:
                numbers.append(int.from_bytes(self.far.recv(65536)[:4], "big"))
            except BlockingIOError:
                return numbers


def device(work: Callable[[Device], Awaitable[None]]) -> None:
    async def run() -> None:
        async with asyncio.timeout(WAIT):
            it = Device()
            try:
                await work(it)
            finally:
                it.tun.close()
                it.far.close()

    asyncio.run(run())
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


# --- reading -----------------------------------------------------------------------------------------------------


def test_packets_come_in_bursts_in_order() -> None:
    async def work(it: Device) -> None:
        for number in range(5):
            it.far.send(bytes([number]))
        await until(lambda: it.bursts)
        assert it.bursts == [[bytes([number]) for number in range(5)]]

    device(work)


def test_a_burst_is_bounded_so_that_others_get_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tun_io, "BURST", 3)

    async def work(it: Device) -> None:
        for number in range(8):
            it.far.send(bytes([number]))
        await until(lambda: sum(map(len, it.bursts)) == 8)
        assert [len(burst) for burst in it.bursts] == [3, 3, 2]

    device(work)
    assert BURST > 3


def test_the_largest_packet_comes_whole() -> None:
    async def work(it: Device) -> None:
        it.far.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        packet = os.urandom(10 + 65535)
        it.far.send(packet)
        await until(lambda: it.bursts)
        assert it.bursts == [[packet]]

    device(work)


# --- writing -----------------------------------------------------------------------------------------------------


def test_the_parts_of_a_packet_are_one_packet() -> None:
    async def work(it: Device) -> None:
        it.tun.write((b"head", memoryview(b"+text"), bytearray(b"+more")))
        assert it.far.recv(100) == b"head+text+more"

    device(work)


def test_packets_that_wait_keep_their_order_and_later_ones_do_not_overtake() -> None:
    async def work(it: Device) -> None:
        count = it.fill()
        assert count > 1
        for number in range(count, count + 10):
            it.tun.write((number.to_bytes(4, "big"), b"y"))
        got: list[int] = []

        def all_there() -> bool:
            got.extend(it.take())
            return len(got) == count + 10

        await until(all_there)
        assert got == list(range(count + 10))
        assert it.tun.dropped == 0
        it.tun.write((b"\0\0\0\x63",))  # and directly again
        assert it.take() == [0x63]

    device(work)


def test_what_waits_is_a_copy() -> None:
    async def work(it: Device) -> None:
        count = it.fill()
        part = bytearray(b"\0\0\1\0")
        it.tun.write((part,))
        part[:] = b"\xff\xff\xff\xff"
        got: list[int] = []

        def all_there() -> bool:
            got.extend(it.take())
            return len(got) > count

        await until(all_there)
        assert got[-1] == 256

    device(work)


def test_overflow_drops_and_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tun_io, "QUEUE_LIMIT", 4)

    async def work(it: Device) -> None:
        count = it.fill()  # one waits
        for number in range(count, count + 10):
            it.tun.write((number.to_bytes(4, "big"),))
        assert it.tun.dropped == 7
        got: list[int] = []

        def all_there() -> bool:
            got.extend(it.take())
            return len(got) == count + 3

        await until(all_there)
        await turns()
        assert it.take() == []

    device(work)


def scarce(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """Make the kernel refuse the next write."""
    write = os.writev
    refusals = [OSError(code, os.strerror(code))]

    def writev(fd: int, buffers: tuple[bytes, ...]) -> int:
        if refusals:
            raise refusals.pop()
        return write(fd, buffers)

    monkeypatch.setattr(os, "writev", writev)


@pytest.mark.parametrize("code", [errno.ENOBUFS, errno.ENOMEM])
def test_a_kernel_short_of_memory_loses_nothing(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    async def work(it: Device) -> None:
        scarce(monkeypatch, code)
        it.tun.write((b"\0\0\0\1",))
        it.tun.write((b"\0\0\0\2",))
        assert it.take() == []
        got: list[int] = []
        await until(lambda: got.extend(it.take()) or got == [1, 2])
        assert (it.tun.dropped, it.lost) == (0, [])

    device(work)


def test_nor_does_it_while_packets_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(it: Device) -> None:
        count = it.fill()
        it.tun.write((b"\0\0\1\0",))
        scarce(monkeypatch, errno.ENOBUFS)
        got: list[int] = []
        await until(lambda: got.extend(it.take()) or 256 in got)
        assert got == [*range(count), 256]
        assert (it.tun.dropped, it.lost) == (0, [])

    device(work)


def test_closing_while_the_kernel_is_short_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(it: Device) -> None:
        scarce(monkeypatch, errno.ENOBUFS)
        it.tun.write((b"\0\0\0\1",))
        it.tun.close()
        await asyncio.sleep(2 * tun_io.RETRY)
        assert it.take() == []

    device(work)


# --- the end -----------------------------------------------------------------------------------------------------


def test_a_device_that_fails_is_told_once_and_closed() -> None:
    async def work(it: Device) -> None:
        it.far.close()
        it.tun.write((b"x",))
        it.tun.write((b"x",))
        await turns()
        assert it.lost == ["the TUN device failed: Connection refused"]
        with pytest.raises(OSError, match="Bad file"):
            os.fstat(it.fd)

    device(work)


def test_a_device_that_fails_while_packets_wait() -> None:
    async def work(it: Device) -> None:
        it.fill()
        it.far.close()
        await until(lambda: it.lost)
        assert len(it.lost) == 1
        assert not it.tun._waiting

    device(work)


def test_closing_is_silent_and_may_be_repeated() -> None:
    async def work(it: Device) -> None:
        it.fill()
        it.far.send(b"never read")
        it.tun.close()
        it.tun.close()
        it.tun.write((b"x",))
        await turns()
        assert (it.bursts, it.lost) == ([], [])
        with pytest.raises(OSError, match="Bad file"):
            os.fstat(it.fd)

    device(work)


# --- a real one --------------------------------------------------------------------------------------------------

REAL = """
import asyncio, fcntl, os, socket, struct
from pyroute2 import IPRoute
from telehelper.datapath.tun_io import TunIo

fd = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(fd, 0x400454CA, struct.pack("16sH22x", b"tele-test", 0x0001 | 0x1000))  # TUN, no packet information
with IPRoute() as netlink:
    (index,) = netlink.link_lookup(ifname="tele-test")
    netlink.link("set", index=index, state="up")
    netlink.addr("add", index=index, address="198.18.7.1", prefixlen=24)

def delete():
    with IPRoute() as netlink:
        netlink.link("del", index=index)

async def main():
    packets, lost = [], asyncio.Event()
    tun = TunIo(fd, on_packets=packets.extend, on_lost=lambda reason: (print(reason), lost.set()))
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("198.18.7.1", 5000))
        sock.setblocking(False)
        sock.sendto(b"ping", ("198.18.7.2", 7))
        async with asyncio.timeout(10):
            while not (mine := [p for p in packets if p[0] >> 4 == 4 and p[9] == 17 and p.endswith(b"ping")]):
                await asyncio.sleep(0.001)
        packet = bytearray(mine[0])
        packet[12:16], packet[16:20] = packet[16:20], packet[12:16]  # addresses and ports swapped: an echo
        packet[20:22], packet[22:24] = packet[22:24], packet[20:22]
        tun.write((bytes(packet[:28]), memoryview(packet)[28:]))
        async with asyncio.timeout(10):
            print((await loop.sock_recv(sock, 100)).decode())
    await asyncio.to_thread(delete)
    async with asyncio.timeout(10):
        await lost.wait()
    tun.close()

asyncio.run(main())
"""


@pytest.mark.netns
def test_a_real_tun_carries_packets_both_ways_and_tells_when_it_is_deleted(
    sandboxed_python: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    done = sandboxed_python(REAL)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[0] == "ping"
    assert done.stdout.split("\n")[1].startswith("the TUN device failed: ")
