"""News of the machine's network, from messages made by hand and from the real kernel; and sleep, by a clock that jumps."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import TYPE_CHECKING

import pytest
import uvloop
from telehelper.datapath import outside
from telehelper.datapath.outside import NetworkNews, Outside, asleep

from tests.datapath.waiting import WAIT, turns, until

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Awaitable, Callable

LO = 1  # index of the loopback, everywhere
UP, DOWN = 0x1 | 0x40, 0x1  # IFF_UP with and without IFF_RUNNING
NEWLINK, DELLINK, NEWADDR, DELADDR, NEWROUTE, DELROUTE = 16, 17, 20, 21, 24, 25


def message(kind: int, body: bytes) -> bytes:
    padding = bytes(-len(body) % 4)
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body + padding


def link(flags: int, kind: int = NEWLINK, index: int = LO) -> bytes:
    return message(kind, struct.pack("=BxHiII", 0, 1, index, flags, 0) + b"\x05\x00\x03\x00x\x00\x00\x00")


def address(kind: int = NEWADDR, scope: int = 0, index: int = LO) -> bytes:
    return message(kind, struct.pack("=BBBBI", 2, 24, 0, scope, index))


def route(kind: int = NEWROUTE, length: int = 0, table: int = 254, way: int = 1, index: int = LO) -> bytes:
    head = struct.pack("=8BI", 2, length, 0, 0, table, 3, 0, way, 0)
    gateway = struct.pack("=HH4s", 8, 5, bytes(4))
    return message(kind, head + gateway + struct.pack("=HHi", 8, 4, index))


def own_news(*data: bytes, device: str = "lo") -> list[str]:
    own: list[str] = []
    reader = NetworkNews(lambda: device, own.append)
    assert [reader.read(each) for each in data] == [[] for _ in data]  # to all others it is none
    return own


def news(*data: bytes, device: str = "") -> list[str]:
    reader = NetworkNews(lambda: device)
    return [words for each in data for words in reader.read(each)]


# --- what is news ------------------------------------------------------------------------------------------------


def test_links_that_go_and_come() -> None:
    assert news(link(DOWN), link(UP)) == ["lo went down", "lo went up"]


def test_what_is_done_to_our_own_device_is_told_apart() -> None:
    assert own_news(link(UP), link(DOWN)) == []  # no carrier, but up
    assert own_news(link(0)) == [outside.DEVICE_DOWN]
    assert own_news(link(UP, DELLINK)) == [outside.DEVICE_DOWN]
    assert own_news(route(DELROUTE, length=16), route(length=16)) == [outside.ROUTE_GONE]
    assert own_news(route(DELROUTE, table=255), address(DELADDR)) == []


def test_our_own_device_is_known_when_its_name_is_gone() -> None:
    own: list[str] = []
    names = iter(["lo"])
    reader = NetworkNews(lambda: next(names, "another"), own.append)
    reader.read(link(UP))
    reader.read(link(UP, DELLINK))
    assert own == [outside.DEVICE_DOWN]


def test_a_link_that_is_told_again_is_no_news() -> None:
    assert news(link(UP), link(UP), link(UP)) == ["lo went up"]


def test_a_link_that_is_removed() -> None:
    assert news(link(UP), link(UP, DELLINK), link(UP)) == ["lo went up", "lo went down", "lo went up"]


def test_links_that_are_removed_are_forgotten() -> None:
    """A container's link goes down, and then away; a busy machine has a new one each second, each with another index."""
    reader = NetworkNews(lambda: "")
    for index in range(1000, 1100):
        reader.read(link(UP, index=index))
        assert reader.read(link(DOWN, index=index)) == [f"interface {index} went down"]
        assert reader.read(link(DOWN, DELLINK, index=index)) == []  # that is known already
    assert reader._running == {}


def test_addresses() -> None:
    assert news(address(), address(DELADDR)) == ["lo got an address", "lo lost an address"]


@pytest.mark.parametrize("scope", [253, 254])
def test_addresses_that_lead_nowhere_are_no_news(scope: int) -> None:
    assert news(address(scope=scope)) == []


def test_routes() -> None:
    found = news(route(), route(DELROUTE), route(length=24), route(DELROUTE, length=24))
    assert found == ["a default route came", "a default route went", "a route came", "a route went"]


@pytest.mark.parametrize(
    "other", [route(table=255), route(way=3), message(99, b""), message(NEWROUTE, b"short")]
)
def test_other_messages_are_no_news(other: bytes) -> None:
    assert news(other) == []


def test_our_own_device_is_no_news() -> None:
    assert news(link(UP), address(), route(), device="lo") == []


def test_an_interface_that_has_gone_has_a_number() -> None:
    assert news(link(UP, index=9999)) == ["interface 9999 went up"]


def test_several_messages_in_one_datagram() -> None:
    assert news(link(UP) + address() + route()) == ["lo went up", "lo got an address", "a default route came"]


@pytest.mark.parametrize("cut", range(1, 56))
def test_a_datagram_that_is_cut_yields_what_it_has(cut: int) -> None:
    whole = link(UP) + route()
    assert set(news(whole[:-cut])) <= {"lo went up", "a default route came"}


def test_a_message_without_length_ends_the_reading() -> None:
    assert news(bytes(16) + link(UP)) == []
    broken = message(NEWROUTE, struct.pack("=8BI", 2, 0, 0, 0, 254, 3, 0, 1, 0) + bytes(8))
    assert news(broken) == ["a default route came"]


# --- telling -----------------------------------------------------------------------------------------------------


class Bench:
    """An outside whose clock a test turns, and what it told."""

    def __init__(self) -> None:
        self.slept = 100.0
        self.changes: list[str] = []
        self.wakes: list[float] = []
        self.outside = Outside(self.changes.append, self.wakes.append, str, lambda: self.slept)

    def tell(self, *data: bytes) -> None:
        """Have the kernel say something."""
        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        with there:
            for each in data:
                there.send(each)
        real, self.outside._socket = self.outside._socket, here
        self.outside._readable()
        self.outside._socket = real
        here.close()


def bench(work: Callable[[Bench], Awaitable[None]]) -> None:
    async def run() -> None:
        it = Bench()
        it.outside.start()
        try:
            async with asyncio.timeout(WAIT):
                await work(it)
        finally:
            it.outside.close()
            it.outside.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outside, "TICK", 0.005)
    monkeypatch.setattr(outside, "SETTLE", 0.01)
    monkeypatch.setattr(outside, "INTERVAL", 0.02)


def test_news_that_come_together_are_told_together() -> None:
    async def work(it: Bench) -> None:
        it.tell(link(UP), address())
        it.tell(route(), route(), address())
        assert it.changes == []
        await until(lambda: it.changes)
        assert it.changes == ["lo went up, lo got an address, a default route came"]

    bench(work)


def test_a_busy_network_is_told_of_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outside, "INTERVAL", 1000.0)

    async def work(it: Bench) -> None:
        it.outside._told_at = asyncio.get_running_loop().time() - 1000.0
        it.tell(address())
        await until(lambda: len(it.changes) == 1)
        it.tell(address())
        await asyncio.sleep(0.03)  # past SETTLE
        assert len(it.changes) == 1

    bench(work)


def test_messages_that_were_lost_are_news() -> None:
    class Full:
        left = 2

        def recv(self, _: int) -> bytes:
            self.left -= 1
            if self.left:
                raise OSError(105, "No buffer space available")
            raise BlockingIOError

    async def work(it: Bench) -> None:
        real, it.outside._socket = it.outside._socket, Full()  # type: ignore[assignment]  # all that is used
        it.outside._readable()
        it.outside._socket = real
        await until(lambda: it.changes)
        assert it.changes == ["the network changed"]

    bench(work)


def test_nothing_is_told_after_closing() -> None:
    async def work(it: Bench) -> None:
        it.tell(link(UP))
        it.slept += 60
        it.outside.close()
        await asyncio.sleep(0.03)
        assert (it.changes, it.wakes) == ([], [])

    bench(work)


def test_a_clock_that_jumps_is_sleep() -> None:
    async def work(it: Bench) -> None:
        it.slept += 3600
        await until(lambda: it.wakes)
        assert it.wakes == [3600]
        await turns()
        it.slept += 5
        await until(lambda: len(it.wakes) == 2)
        assert it.wakes[1] == 5

    bench(work)


def test_a_clock_that_wavers_is_no_sleep() -> None:
    async def work(it: Bench) -> None:
        for step in (0.5, -0.3, 0.1, -50.0, 1.0):
            it.slept += step
            await asyncio.sleep(0.01)
        assert it.wakes == []

    bench(work)


def test_a_machine_that_is_awake_does_not_sleep() -> None:
    first = asleep()
    assert first > -0.1  # the two clocks are not read at once
    assert asleep() - first < 1


# --- the real kernel ---------------------------------------------------------------------------------------------

REAL = """
import asyncio, subprocess
from telehelper.datapath import outside

def ip(*words):
    subprocess.run(["ip", *words], check=True)

async def main():
    ip("tuntap", "add", "tele9", "mode", "tun")
    ip("link", "add", "wlan9", "type", "veth", "peer", "name", "peer9")
    ip("link", "set", "peer9", "up")
    told = []
    it = outside.Outside(told.append, print, lambda: "tele9")
    outside.INTERVAL = 0.0
    it.start()

    async def after(*words):
        del told[:]
        ip(*words)
        await asyncio.sleep(0.5)
        print(" | ".join(told))

    await after("link", "set", "tele9", "up")
    await after("address", "add", "10.9.0.1/24", "dev", "tele9")
    await after("route", "add", "10.10.0.0/16", "dev", "tele9")
    await after("link", "set", "wlan9", "up")
    await after("address", "add", "10.11.0.1/24", "dev", "wlan9")
    await after("route", "add", "default", "via", "10.11.0.2")
    await after("link", "set", "wlan9", "down")
    it.close()
    await after("link", "set", "wlan9", "up")

asyncio.run(main())
"""


@pytest.mark.netns
def test_what_the_kernel_tells(sandboxed_python: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = sandboxed_python(REAL)
    assert done.returncode == 0, done.stderr
    own_link, own_address, own_route, up, got, default, down, closed = done.stdout.splitlines()
    assert (own_link, own_address, own_route, closed) == ("", "", "", "")
    assert "wlan9 went up" in up
    assert "wlan9 got an address" in got
    assert default == "a default route came"
    assert "wlan9 went down" in down
