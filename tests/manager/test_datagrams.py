"""The manager's flows of datagrams, over real sockets: UDP on the loopback, and ICMP in a namespace where pings may be."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from select import EPOLLIN
from typing import TYPE_CHECKING, Final

import pytest
import uvloop
from telehelper.core.echo import decode_echo, encode_echo
from telehelper.core.frames import Frame, FrameType, Proto, decode_coded
from telehelper.core.mux import Mux
from telehelper.manager import datagram_flow
from telehelper.manager.poller import Poller
from telehelper.manager.udp_flow import UdpFlow

from .near_side import WAIT, NearFlow, near_side

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

ROOT: Final = Path(__file__).parent.parent.parent
SILENT: Final = {4: "198.18.5.2", 6: "fd00:198:5::2"}  # nobody, on a link of ours


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    """Run on the loop that is used in earnest."""

    async def main() -> None:
        async with asyncio.timeout(60):
            await scenario()

    uvloop.run(main())


def in_namespace(scenario: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    """Make a test of a scenario: as root of namespaces of its own, with a link on which nobody answers."""

    @pytest.mark.netns
    @functools.wraps(scenario)
    def test() -> None:
        if shutil.which("unshare") is None:
            pytest.skip("needs unshare (util-linux)")
        code = f"from {scenario.__module__} import {scenario.__name__} as test, enter; enter(test.scenario)"
        command = ["unshare", "-Urn", sys.executable, "-c", code]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr

    test.scenario = scenario  # type: ignore[attr-defined]  # where the namespace finds it
    return test


def enter(scenario: Callable[[], Awaitable[None]]) -> None:
    """Prepare the namespace that this process is in, and run."""
    for line in (
        "link set lo up",
        "link add a0 type veth peer name b0",
        "link set a0 up",
        "link set b0 up",
        "addr add 198.18.5.1/24 dev a0",
        "addr add fd00:198:5::1/64 dev a0 nodad",
    ):
        subprocess.run(["ip", *line.split()], check=True)
    for family in ("ipv4", "ipv6"):  # who is not there is to be found out soon
        for name, value in (("mcast_solicit", "1"), ("retrans_time_ms", "50")):
            Path(f"/proc/sys/net/{family}/neigh/a0/{name}").write_text(value)
    run(scenario)


def allow_pings() -> None:
    Path("/proc/sys/net/ipv4/ping_group_range").write_text("0 0")


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT):
        while not condition():  # noqa: ASYNC110  # conditions of all kinds
            await asyncio.sleep(0.005)


@contextlib.contextmanager
def service(host: str = "127.0.0.1") -> Iterator[int]:
    """Give back what comes; yield the port. A plain socket, because uvloop's transports swallow empty datagrams."""
    loop = asyncio.get_running_loop()

    def echo() -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                sock.sendto(*sock.recvfrom(65_535))

    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((host, 0))
        sock.setblocking(False)
        loop.add_reader(sock, echo)
        yield sock.getsockname()[1]
        loop.remove_reader(sock)


async def answer(flow: NearFlow) -> bytes:
    frame = await flow.next()
    assert frame.type is FrameType.DATAGRAM, frame
    return bytes(frame.payload)


@pytest.mark.parametrize(("host", "longest"), [("127.0.0.1", 65_507), ("::1", 65_527)])
def test_every_length_there_and_back(host: str, longest: int) -> None:
    async def scenario() -> None:
        with service(host) as port:
            async with near_side() as near:
                flow = await (await near.carrier()).open(port, host, protocol=Proto.UDP).opened()
                for size in (0, 1, 1472, 1473, 60_000, longest):
                    flow.datagram(b"z" * size)
                    assert await answer(flow) == b"z" * size
                flow.datagram(bytes(longest + 1))  # dropped: the socket refuses it, the flow lives
                flow.datagram(b"still here")
                assert await answer(flow) == b"still here"

    run(scenario)


def test_a_thousand_flows_keep_boundaries_and_order() -> None:
    async def scenario() -> None:
        with service() as port:
            async with near_side() as near:
                carrier = await near.carrier()
                flows = [carrier.open(port, protocol=Proto.UDP) for _ in range(1000)]
                for flow in flows:
                    await flow.opened()
                for at in range(0, 1000, 25):  # as much at once as the service's socket keeps
                    sent = [[bytes([turn]) * (at + n + turn) for turn in range(2)] for n in range(25)]
                    for flow, datagrams in zip(flows[at:], sent, strict=False):
                        for data in datagrams:
                            flow.datagram(data)
                    for flow, datagrams in zip(flows[at:], sent, strict=False):
                        assert [await answer(flow) for _ in datagrams] == datagrams
                assert near.manager.sessions.flows == 1000

    run(scenario)


def test_idle_flows_are_closed_by_the_manager_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datagram_flow, "IDLE", 0.2)

    async def scenario() -> None:
        with service() as port:
            async with near_side() as near:
                flow = await (await near.carrier()).open(port, protocol=Proto.UDP).opened()
                flow.datagram(b"x")
                assert await answer(flow) == b"x"
                frame = await flow.next()
                assert (frame.type, decode_coded(frame)) == (FrameType.RST, (0, "idle"))
                assert near.manager.sessions.flows == 0

    run(scenario)


class Home:
    """A carrier that is never emptied, and room as the test says."""

    def __init__(self, room: int = 1) -> None:
        self.carrier = self  # type: ignore[assignment]  # all it is asked for is here
        self.mux = Mux(0.0)
        self.poller = Poller()
        self.closed: list[int] = []
        self._room = room

    def send(self, frame: Frame) -> None:
        self.mux.send(frame)

    def room(self, _flow: int) -> int:
        return self._room

    def forget(self, flow: int) -> None:
        self.closed.append(flow)


@contextlib.contextmanager
def flow_and_peer(home: Home) -> Iterator[tuple[UdpFlow, socket.socket]]:
    ours, peer = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ours.setblocking(False)
    peer.setblocking(False)
    flow = UdpFlow(1, ours, home)  # type: ignore[arg-type]  # home.carrier
    flow.start()
    with peer:
        yield flow, peer
        flow.abort()
    home.poller.close()


def test_what_cannot_be_taken_is_dropped_and_counted() -> None:
    async def scenario() -> None:
        home = Home()
        with flow_and_peer(home) as (flow, peer):
            while not flow.dropped:  # until the socket is full
                flow.receive_datagram(b"x")
            for _ in range(20):
                peer.send(bytes(20_000))
                flow.ready(EPOLLIN)
            assert home.mux.dropped_datagrams  # its own bound: one flow's share
            assert home.mux.queued < 300_000
        full = Home(room=0)
        with flow_and_peer(full) as (flow, peer):
            peer.send(b"x")
            await until(lambda: flow.dropped == 1)
            assert full.mux.queued == 0

    run(scenario)


@pytest.mark.parametrize("code", [errno.EMSGSIZE, errno.ENOBUFS, errno.EREMOTEIO])
def test_passing_errors_cost_one_datagram(code: int) -> None:
    async def scenario() -> None:
        home = Home()
        with flow_and_peer(home) as (flow, _peer):
            flow._failed(code, b"")
            assert (flow.dropped, home.closed) == (1, [])
            flow._failed(errno.EHOSTUNREACH, b"")
            flow._failed(errno.EHOSTUNREACH, b"")  # one more in the queue
            assert (flow.dropped, home.closed) == (1, [1])

    run(scenario)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_closed_port_is_refused(host: str) -> None:
    async def scenario() -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.bind((host, 0))
            port = sock.getsockname()[1]
        async with near_side() as near:
            flow = await (await near.carrier()).open(port, host, protocol=Proto.UDP).opened()
            flow.datagram(b"anyone?")
            assert await flow.coded() == (FrameType.RST, errno.ECONNREFUSED)
            await until(lambda: near.manager.sessions.flows == 0)

    run(scenario)


@in_namespace
async def test_a_host_that_is_not_there() -> None:
    """What the kernel finds out later, by asking for the neighbour, is heard too."""
    async with near_side() as near:
        carrier = await near.carrier()
        for host in SILENT.values():
            flow = await carrier.open(99, host, protocol=Proto.UDP).opened()
            flow.datagram(b"anyone?")
            assert await flow.coded() == (FrameType.RST, errno.EHOSTUNREACH)
        for host in ("203.0.113.1", "2001:db8::1"):  # no route
            assert await carrier.open(99, host, protocol=Proto.UDP).coded() == (
                FrameType.REJECTED,
                errno.ENETUNREACH,
            )
        await until(lambda: near.manager.sessions.flows == 0)


@in_namespace
async def test_real_pings() -> None:
    allow_pings()
    async with near_side() as near:
        carrier = await near.carrier()
        flows = [await carrier.open(0, host, protocol=Proto.ICMP).opened() for host in ("127.0.0.1", "::1")]
        for flow in flows * 2:
            for sequence, size in ((0, 0), (7, 56), (65_535, 60_000)):
                flow.datagram(encode_echo(sequence, b"p" * size))
                assert decode_echo(await answer(flow)) == (0, sequence, b"p" * size)
        assert [line for line in near.log if "icmp 127.0.0.1:0 ok" in line]
        for flow in flows:
            flow.fin()
        await until(lambda: near.manager.sessions.flows == 0)


@in_namespace
async def test_each_ping_that_cannot_arrive_is_told_of() -> None:
    allow_pings()
    async with near_side() as near:
        carrier = await near.carrier()
        for host in SILENT.values():
            flow = await carrier.open(0, host, protocol=Proto.ICMP).opened()
            for sequence in (1, 2):
                flow.datagram(encode_echo(sequence, b"hello"))
            found = [decode_echo(await answer(flow)) for _ in range(2)]
            assert sorted(found) == [(errno.EHOSTUNREACH, sequence, b"") for sequence in (1, 2)]
            flow.reset()
        for host in ("203.0.113.1", "2001:db8::1"):  # no route
            assert (await carrier.open(0, host, protocol=Proto.ICMP).coded())[1] == errno.ENETUNREACH
        await until(lambda: near.manager.sessions.flows == 0)


@in_namespace
async def test_a_pod_that_may_not_ping_says_so() -> None:
    """A new namespace allows it to nobody, as Linux does by default."""
    async with near_side() as near:
        for host in ("127.0.0.1", "::1"):
            frame = await (await near.carrier()).open(0, host, protocol=Proto.ICMP).next()
            assert frame.type is FrameType.REJECTED
            code, reason = decode_coded(frame)
            assert code == errno.EPROTONOSUPPORT
            assert "ping_group_range" in reason
        assert near.manager.sessions.flows == 0


@in_namespace
async def test_garbage_for_a_ping_ends_the_carrier() -> None:
    allow_pings()
    async with near_side() as near:
        carrier = await near.carrier()
        flow = await carrier.open(0, protocol=Proto.ICMP).opened()
        flow.datagram(b"abc")
        frame = await carrier.next_control()
        assert (frame.type, decode_coded(frame)[1]) == (FrameType.GOAWAY, "an echo of 3 bytes")
        await until(lambda: near.manager.sessions.flows == 0)


@pytest.mark.parametrize("dst", ["169.254.169.254", "fe80::1", "127.0.0.1", "224.0.0.1", "::"])
def test_what_must_not_be_dialed_is_not_pinged_either(dst: str) -> None:
    async def scenario() -> None:
        async with near_side(allow_loopback=False) as near:
            flow = (await near.carrier()).open(0, dst, protocol=Proto.ICMP)
            assert await flow.coded() == (FrameType.REJECTED, errno.EACCES)

    run(scenario)
