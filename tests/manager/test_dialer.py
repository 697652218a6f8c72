"""Dialing: on the loopback, and in a namespace with routes of every kind."""

from __future__ import annotations

import asyncio
import errno
import json
import resource
import shutil
import socket
import subprocess
import sys
from ipaddress import ip_address
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

import pytest
import uvloop
from telehelper.core.frames import Open, Proto
from telehelper.manager.dialer import (
    MIN_DIAL_TIME,
    NO_DESCRIPTORS,
    Dial,
    FakeDialer,
    SocketDialer,
    is_connected,
)
from telehelper.manager.poller import Poller

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

ROOT: Final = Path(__file__).parent.parent.parent
LOOPBACK: Final = ip_address("127.0.0.1")
WAIT: Final = 10.0


def what(timeout: float, dport: int = 80) -> Open:
    return Open(Proto.TCP, ip_address("10.0.0.1"), 40_000, LOOPBACK, dport, timeout, 0)


def run(scenario: Callable[[Poller], Awaitable[None]]) -> None:
    async def main() -> None:
        poller = Poller()
        try:
            async with asyncio.timeout(WAIT):
                await scenario(poller)
        finally:
            poller.close()

    uvloop.run(main())


async def connected(sock: socket.socket) -> None:
    while not is_connected(sock):  # noqa: ASYNC110  # the kernel's doing
        await asyncio.sleep(0.001)


class Outcome:
    """What a dial said."""

    def __init__(self) -> None:
        self.done: asyncio.Future[OSError | None] = asyncio.get_running_loop().create_future()

    def __call__(self, _dial: Dial, error: OSError | None) -> None:
        self.done.set_result(error)


def test_connected_and_refused() -> None:
    async def scenario(_poller: Poller) -> None:
        dialer = SocketDialer()
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            with dialer.connect(LOOPBACK, port) as sock:
                await connected(sock)
                assert not sock.getblocking()
                assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        with dialer.connect(LOOPBACK, port) as sock, pytest.raises(ConnectionRefusedError):
            await connected(sock)

    run(scenario)


def test_dial_comes_about_later() -> None:
    """A full backlog, of which one place becomes free: the kernel's second SYN, a second later, gets through."""

    async def scenario(poller: Poller) -> None:
        with socket.socket() as server, socket.socket() as one, socket.socket() as two:
            server.bind(("127.0.0.1", 0))
            server.listen(0)
            one.connect(server.getsockname())
            two.setblocking(False)
            port = server.getsockname()[1]
            two.connect_ex(("127.0.0.1", port))
            outcome = Outcome()
            sock = SocketDialer().connect(LOOPBACK, port)
            assert not is_connected(sock)
            dial = Dial(1, what(WAIT, port), sock, poller, outcome)
            accepted = [server.accept()[0]]
            server.settimeout(0)
            while not outcome.done.done():
                await asyncio.sleep(0.01)
                try:
                    accepted.append(server.accept()[0])
                except BlockingIOError:
                    continue
            assert outcome.done.result() is None
            assert dial.events
            assert is_connected(sock)
            poller.forget(sock.fileno())
            for each in (sock, *accepted):
                each.close()

    run(scenario)


def test_dial_times_out_and_closes() -> None:
    async def scenario(poller: Poller) -> None:
        for wanted, least in ((0.2, 0.2), (0.0, MIN_DIAL_TIME)):
            outcome = Outcome()
            sock = FakeDialer(silent=True).connect(LOOPBACK, 80)
            loop = asyncio.get_running_loop()
            reference: asyncio.Future[float] = loop.create_future()
            started = monotonic()
            Dial(1, what(wanted), sock, poller, outcome)
            # How late this machine is with a timer of the same length, just now.
            loop.call_later(least, lambda: reference.set_result(monotonic()))  # noqa: B023  # awaited below
            error = await outcome.done
            took = monotonic() - started
            assert isinstance(error, TimeoutError)
            assert error.errno == errno.ETIMEDOUT
            assert f"within {least:.1f} s" in error.strerror
            assert took >= least - 0.002
            assert took - (await reference - started) < 0.1
            assert sock.fileno() == -1
            assert len(poller) == 0

    run(scenario)


def test_cancelled_dial_is_silent() -> None:
    async def scenario(poller: Poller) -> None:
        outcome = Outcome()
        sock = FakeDialer(silent=True).connect(LOOPBACK, 80)
        Dial(1, what(0.05), sock, poller, outcome).cancel()
        await asyncio.sleep(0.1)
        assert not outcome.done.done()
        assert (sock.fileno(), len(poller)) == (-1, 0)

    run(scenario)


def test_last_descriptors_are_not_for_flows(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as sock:
        highest = sock.fileno()  # the next one gets the same number
    monkeypatch.setattr(resource, "getrlimit", lambda _: (highest, highest))
    dialer = SocketDialer()
    monkeypatch.undo()
    for dial in (dialer.connect, dialer.associate):
        with pytest.raises(OSError, match=NO_DESCRIPTORS) as refused:
            dial(LOOPBACK, 9)
        assert refused.value.errno == errno.EMFILE
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    SocketDialer().associate(LOOPBACK, 9).close()


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS])
def test_no_socket_to_be_had(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def fail(*_: object) -> socket.socket:
        raise OSError(code, "the kernel's words")

    dialer = SocketDialer()
    monkeypatch.setattr(socket, "socket", fail)
    with pytest.raises(
        OSError, match="kernel's words" if code == errno.ENOBUFS else NO_DESCRIPTORS
    ) as refused:
        dialer.connect(LOOPBACK, 9)
    assert refused.value.errno == code


# --- routes of every kind, in a namespace ---

PRELUDE: Final = """
import asyncio, errno, json, subprocess, sys, time
import uvloop
from telehelper.core.frames import FrameType, Proto
from tests.manager.near_side import near_side

def ip(*words):
    subprocess.run(["ip", *words], check=True)

ip("link", "set", "lo", "up")
ip("addr", "add", "198.18.0.1/24", "dev", "lo")
ip("link", "add", "near", "type", "veth", "peer", "name", "far")
ip("addr", "add", "198.18.4.1/24", "dev", "near")
ip("link", "set", "near", "up")
ip("link", "set", "far", "up")
ip("neigh", "add", "198.18.4.9", "lladdr", "02:00:00:00:00:09", "dev", "near")  # a black hole: nobody has that
ip("route", "add", "prohibit", "198.18.1.0/24")
ip("route", "add", "unreachable", "198.18.2.0/24")
with open("/proc/sys/net/ipv4/neigh/near/retrans_time_ms", "w") as file:
    file.write("20")

async def echo(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
    writer.close()

def run(scenario):
    async def main():
        server = await asyncio.start_server(echo, "198.18.0.1", 7)
        async with near_side() as near, asyncio.timeout(60):
            print(json.dumps(await scenario(near)))
        server.close()
    uvloop.run(main())
"""


def in_namespace(code: str) -> dict[str, Any]:
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        pytest.skip("needs unshare (util-linux) and ip (iproute2)")
    command = ["unshare", "-Urn", sys.executable, "-c", PRELUDE + code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    facts: dict[str, Any] = json.loads(done.stdout)
    return facts


@pytest.mark.netns
def test_errno_of_every_kind_is_kept() -> None:
    facts = in_namespace(
        """
async def scenario(near):
    carrier = await near.carrier()
    places = {
        "refused": ("198.18.0.1", 1),
        "prohibited": ("198.18.1.1", 7),
        "unreachable": ("198.18.2.1", 7),
        "no route": ("198.18.3.1", 7),
        "no such host": ("198.18.4.77", 7),
        "black hole": ("198.18.4.9", 7),
    }
    facts = {}
    for name, (dst, dport) in places.items():
        for protocol in (Proto.TCP, Proto.UDP):
            if protocol is Proto.UDP and name in ("refused", "no such host", "black hole"):
                continue
            kind, code = await carrier.open(dport, dst, protocol=protocol, timeout=0.5 if "hole" in name else 20).coded()
            assert kind is FrameType.REJECTED
            facts[f"{name} {protocol.name}"] = errno.errorcode[code]
    dials = [line.split(" tcp ")[1] for line in near.log if " tcp " in line]
    return {"codes": facts, "log": dials, "flows": near.manager.sessions.flows}
run(scenario)
"""
    )
    assert facts["codes"] == {
        "refused TCP": "ECONNREFUSED",
        "prohibited TCP": "EACCES",
        "prohibited UDP": "EACCES",
        "unreachable TCP": "EHOSTUNREACH",
        "unreachable UDP": "EHOSTUNREACH",
        "no route TCP": "ENETUNREACH",
        "no route UDP": "ENETUNREACH",
        "no such host TCP": "EHOSTUNREACH",
        "black hole TCP": "ETIMEDOUT",
    }
    assert facts["log"] == [
        "198.18.0.1:1 ECONNREFUSED Connection refused",
        "198.18.1.1:7 EACCES Permission denied",
        "198.18.2.1:7 EHOSTUNREACH No route to host",
        "198.18.3.1:7 ENETUNREACH Network is unreachable",
        "198.18.4.77:7 EHOSTUNREACH No route to host",
        "198.18.4.9:7 ETIMEDOUT no answer within 0.5 s",
    ]
    assert facts["flows"] == 0


@pytest.mark.netns
def test_thousand_dials_to_a_black_hole_keep_nobody_waiting() -> None:
    facts = in_namespace(
        """
async def times(carrier, n):
    took = []
    for _ in range(n):
        started = time.monotonic()
        flow = await carrier.open(7, "198.18.0.1").opened()
        await flow.write(b"hello")
        assert await flow.read(5) == b"hello"
        took.append(time.monotonic() - started)
        flow.fin()
    return sorted(took)

async def scenario(near):
    carrier = await near.carrier()
    before = await times(carrier, 200)
    stuck = [carrier.open(7, "198.18.4.9", timeout=30) for _ in range(1000)]
    while near.manager.sessions.flows < 1000:
        await asyncio.sleep(0.01)
    during = await times(carrier, 200)
    pending = near.manager.sessions.flows
    for flow in stuck:
        flow.reset()
    started = time.monotonic()
    while near.manager.sessions.flows:
        await asyncio.sleep(0.005)
    return {"before": before[100], "during": during[100], "pending": pending, "watched": len(near.manager._mux_server._shared.poller)}
run(scenario)
"""
    )
    assert facts["pending"] >= 1000
    assert facts["watched"] == 0
    assert facts["during"] < 5 * facts["before"] + 0.005  # medians of the same run
