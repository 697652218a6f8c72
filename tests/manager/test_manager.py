"""The manager over real sockets on the loopback, driven by frames."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import socket
import struct
from ipaddress import ip_address
from typing import TYPE_CHECKING

import grpc
import pytest
import uvloop
from telehelper.core.credit import INITIAL_WINDOW
from telehelper.core.frames import (
    MAX_DATA,
    SPOKEN,
    TIMED,
    VERSION,
    Frame,
    FrameType,
    Proto,
    decode_coded,
    encode,
)
from telehelper.manager import sessions
from telehelper.manager.dialer import FakeDialer
from telehelper.rpc import manager_pb2 as pb
from telehelper.tcp_stream import connect_tcp

from tests.streams import Listener

from .near_side import WAIT, NearSide, near_side

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
BLOCK = bytes(range(256)) * 256  # 64 KiB


async def refused(port: int) -> None:
    """Connect to a port where nobody accepts any more; OSError is expected."""
    error = await Listener(await connect_tcp("127.0.0.1", port)).until_end()
    raise error or ConnectionResetError


@contextlib.asynccontextmanager
async def service(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[int]:
    """Run a TCP service; yield its port."""
    tasks: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await serve(reader, writer)
        except ConnectionError:
            pass
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
            tasks.discard(task)

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


def unused_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT):
        while not condition():  # noqa: ASYNC110  # conditions of all kinds
            await asyncio.sleep(0.005)


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    """Run on the loop that is used in earnest."""

    async def main() -> None:
        async with asyncio.timeout(60):
            await scenario()

    uvloop.run(main())


# --- flows ---


def test_echo_half_close_and_audit() -> None:
    async def scenario() -> None:
        async with service(echo) as port, near_side() as near:
            flow = await (await near.carrier()).open(port).opened()
            await flow.write(b"hello")
            assert await flow.read(5) == b"hello"
            flow.fin()
            assert (await flow.next()).type is FrameType.FIN
            await until(lambda: near.manager.sessions.flows == 0)
            assert [line for line in near.log if f"tcp 127.0.0.1:{port} ok" in line]
            assert not [line for line in near.log if near.manager.sessions._sessions[0].token in line]

    run(scenario)


@pytest.mark.parametrize("version", SPOKEN)
def test_each_version_hears_the_times_that_it_knows(version: int) -> None:
    """The rule in frames.py: who wants version 1 gets 4 bytes of OPENED and no TIMING, and all else as ever."""

    async def scenario() -> None:
        async with service(echo) as port, near_side() as near:
            session = await near.session(protocol=version)
            carrier = await near.raw_carrier(session.token, version)
            greeting = await carrier.next_control()
            assert (greeting.type, decode_coded(greeting)[0]) == (FrameType.HELLO, version)
            flow = carrier.open(port)
            opened = await flow.next()
            assert len(opened.payload) == (8 if version >= TIMED else 4)
            await flow.write(b"hello")
            assert await flow.read(5) == b"hello"
            assert (flow.dial >= 0, flow.wait >= 0) == (version >= TIMED, version >= TIMED)
            assert flow.dial < WAIT
            assert flow.wait < WAIT

    run(scenario)


def test_reply_comes_after_half_close() -> None:
    async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(str(len(await reader.read(-1))).encode())

    async def scenario() -> None:
        async with service(count) as port, near_side() as near:
            flow = await (await near.carrier()).open(port).opened()
            await flow.write(BLOCK * 20)
            flow.fin()
            assert b"".join([part async for part in flow.read_all()]) == b"1310720"

    run(scenario)


def test_service_may_end_its_direction_first() -> None:
    got = bytearray()

    async def sink(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"bye")
        writer.write_eof()
        got.extend(await reader.read(-1))

    async def scenario() -> None:
        async with service(sink) as port, near_side() as near:
            flow = await (await near.carrier()).open(port).opened()
            assert b"".join([part async for part in flow.read_all()]) == b"bye"
            await flow.write(BLOCK)
            flow.fin()
            await until(lambda: len(got) == len(BLOCK) and near.manager.sessions.flows == 0)

    run(scenario)


@pytest.mark.parametrize("size", [200 * 1024 * 1024])
def test_bulk_up_and_down_arrives_intact(size: int) -> None:
    blocks = size // len(BLOCK)
    digest = hashlib.sha256()
    for _ in range(blocks):
        digest.update(BLOCK)

    async def digests(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.readexactly(1) == b"u":
            got = hashlib.sha256()
            while data := await reader.read(1 << 20):
                got.update(data)
            writer.write(got.digest())
            return
        for _ in range(blocks):
            writer.write(BLOCK)
            await writer.drain()

    async def scenario() -> None:
        async with service(digests) as port, near_side() as near:
            carrier = await near.carrier()
            up = await carrier.open(port).opened()
            await up.write(b"u")
            for _ in range(blocks):
                await up.write(BLOCK)
            up.fin()
            assert b"".join([part async for part in up.read_all()]) == digest.digest()
            down = await carrier.open(port).opened()
            await down.write(b"d")
            got = hashlib.sha256()
            async for part in down.read_all():
                got.update(part)
            assert got.digest() == digest.digest()

    run(scenario)


def test_refused_port_is_refused_within_a_round_trip() -> None:
    async def scenario() -> None:
        async with near_side() as near:
            carrier = await near.carrier()
            started = asyncio.get_running_loop().time()
            assert await carrier.open(unused_port(), timeout=30).coded() == (
                FrameType.REJECTED,
                errno.ECONNREFUSED,
            )
            assert asyncio.get_running_loop().time() - started < 1
            await until(lambda: near.manager.sessions.flows == 0)
            assert "ECONNREFUSED Connection refused" in near.log[-1]

    run(scenario)


def test_black_hole_times_out() -> None:
    async def scenario() -> None:
        with contextlib.ExitStack() as stack:
            # A full backlog: the kernel drops further SYNs.
            hole = stack.enter_context(socket.socket())
            hole.bind(("127.0.0.1", 0))
            hole.listen(0)
            for _ in range(4):
                filler = stack.enter_context(socket.socket())
                filler.setblocking(False)
                filler.connect_ex(hole.getsockname())
            async with near_side() as near:
                flow = (await near.carrier()).open(hole.getsockname()[1], timeout=0.2)
                assert await flow.coded() == (FrameType.REJECTED, errno.ETIMEDOUT)

    run(scenario)


def test_dial_can_be_called_off() -> None:
    async def scenario() -> None:
        async with near_side(dialer=FakeDialer(silent=True)) as near:
            flow = (await near.carrier()).open(1)
            await until(lambda: near.manager.sessions.flows == 1)
            flow.reset()
            await until(lambda: near.manager.sessions.flows == 0)
            assert not [
                line for line in near.log if line.startswith("dial ")
            ]  # nothing was dialed to the end, nothing is told

    run(scenario)


NODE = (ip_address("198.51.100.7"),)


@pytest.mark.parametrize(
    ("dst", "why"),
    [
        ("127.0.0.1", "loopback"),
        ("::1", "loopback"),
        ("0.0.0.0", "unspecified"),
        ("169.254.169.254", "link-local"),
        ("fe80::1", "link-local"),
        ("224.0.0.1", "multicast"),
        ("100.100.100.200", "metadata"),
        ("::ffff:169.254.169.254", "link-local"),
        ("198.51.100.7", "node"),
    ],
)
@pytest.mark.parametrize("protocol", [Proto.TCP, Proto.UDP])
def test_what_must_not_be_dialed(dst: str, why: str, protocol: Proto) -> None:
    async def scenario() -> None:
        async with near_side(dialer=FakeDialer(), allow_loopback=False, node_addresses=NODE) as near:
            frame = await (await near.carrier()).open(80, dst, protocol=protocol).next()
            assert frame.type is FrameType.REJECTED
            assert decode_coded(frame)[0] == errno.EACCES
            assert why in decode_coded(frame)[1]

    run(scenario)


def test_a_sessions_token_is_in_no_line_of_the_log_and_no_repr() -> None:
    async def scenario() -> None:
        async with service(echo) as port, near_side() as near:
            token = (await near.session()).token
            carrier = await near.carrier(token)
            await carrier.open(port).opened()
            await near.raw_carrier(token[:-1] + "~")
            await carrier.close()
            known = near.manager.sessions._sessions
            assert len(token) == 64
            assert token not in "\n".join([*near.log, repr(known), repr(vars(near.manager))])
            assert any("dial session=" in line for line in near.log)

    run(scenario)


def test_the_manager_does_not_dial_itself() -> None:
    async def scenario() -> None:
        async with near_side() as near:
            carrier = await near.carrier()
            for port in (near.manager.grpc_port, near.manager.carrier_port):
                frame = await carrier.open(port).next()
                assert frame.type is FrameType.REJECTED
                code, reason = decode_coded(frame)
                assert (code, "the traffic manager itself" in reason) == (errno.EACCES, True)

    run(scenario)


def test_limit_of_the_rate_of_flows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "MAX_FLOWS", 1)
    monkeypatch.setattr(sessions, "OPEN_RATE", 0)

    async def scenario() -> None:
        async with service(echo) as port, near_side() as near:
            carrier = await near.carrier()
            await carrier.open(port).opened()
            frame = await carrier.open(port).next()
            assert frame.type is FrameType.REJECTED
            code, reason = decode_coded(frame)
            assert code == errno.EMFILE
            assert "flows per second" in reason

    run(scenario)


def test_limit_of_carriers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "MAX_USERS", 1)

    async def scenario() -> None:
        async with near_side() as near:
            token = (await near.session()).token
            await near.carrier(token)
            with pytest.raises(AssertionError, match="1 carriers and watchers already"):
                await near.carrier(token)

    run(scenario)


def test_limit_of_watch_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who may port-forward to the manager may open streams, but not so many that it runs out of memory."""
    monkeypatch.setattr(sessions, "MAX_USERS", 3)

    async def scenario() -> None:
        async with near_side() as near:
            request = pb.WatchClusterInfoRequest(token=(await near.session()).token)
            watches = [near.stub.WatchClusterInfo(request) for _ in range(3)]
            for watch in watches:
                await watch.read()
            with pytest.raises(grpc.aio.AioRpcError, match="3 carriers and watchers already") as refused:
                await near.stub.WatchClusterInfo(request).read()
            assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            watches[0].cancel()
            await until(lambda: near.manager.sessions._sessions[0].users == 2)
            await near.stub.WatchClusterInfo(request).read()  # there is room again

    run(scenario)


def test_limit_of_flows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("telehelper.manager.carrier_flows.MAX_FLOWS", 2)

    async def scenario() -> None:
        async with service(echo) as port, near_side() as near:
            token = (await near.session()).token
            one, two = await near.carrier(token), await near.carrier(token)
            await one.open(port).opened()
            await two.open(port).opened()
            assert await one.open(port).coded() == (FrameType.REJECTED, errno.EMFILE)

    assert sessions.MAX_FLOWS > 10_000
    run(scenario)


def test_reset_by_the_service_comes_after_its_data() -> None:
    async def bang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(2)
        writer.write(BLOCK)
        await writer.drain()
        await reader.readexactly(1)
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    async def scenario() -> None:
        async with service(bang) as port, near_side() as near:
            flow = await (await near.carrier()).open(port).opened()
            await flow.write(b"go")
            assert await flow.read(len(BLOCK)) == BLOCK
            await flow.write(b"!")
            assert await flow.coded() == (FrameType.RST, errno.ECONNRESET)
            await until(lambda: near.manager.sessions.flows == 0)

    run(scenario)


def test_service_that_is_gone_resets_what_is_still_sent_to_it() -> None:
    async def bye(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"bye")

    async def scenario() -> None:
        async with service(bye) as port, near_side() as near:
            flow = await (await near.carrier()).open(port).opened()
            assert [part async for part in flow.read_all()] == [b"bye"]
            with contextlib.suppress(TimeoutError):
                for _ in range(100):
                    await flow.write(b"anyone?")
                    if not flow.frames.empty():
                        break
                    await asyncio.sleep(0.01)
            kind, code = await flow.coded()
            assert kind is FrameType.RST
            assert code in (errno.EPIPE, errno.ECONNRESET)

    run(scenario)


def test_reset_by_the_near_side_resets_the_service() -> None:
    outcome: asyncio.Queue[str] = asyncio.Queue()

    async def victim(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.read(-1)
            outcome.put_nowait("end")
        except ConnectionResetError:
            outcome.put_nowait("reset")

    async def scenario() -> None:
        async with service(victim) as port, near_side() as near:
            carrier = await near.carrier()
            flow = await carrier.open(port).opened()
            flow.reset()
            assert await outcome.get() == "reset"
            await flow.write(b"late")  # a stray frame: ignored
            flow.fin()
            flow.reset()
            await carrier.open(port).opened()
            await carrier.close()  # a lost carrier resets its flows too
            assert await outcome.get() == "reset"

    run(scenario)


def test_slow_target_and_slow_reader_do_not_stall_others() -> None:
    async def stuck(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(BLOCK)
                await writer.drain()

    async def deaf(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async def scenario() -> None:
        async with service(stuck) as flood, service(deaf) as sink, service(echo) as port, near_side() as near:
            carrier = await near.carrier()
            flows = [await carrier.open(flood, credit=INITIAL_WINDOW).opened() for _ in range(3)]
            for flow in flows:
                flow.keep_credit = True
                assert len(await flow.read(INITIAL_WINDOW)) == INITIAL_WINDOW  # and then it stops
            for _ in range(3):
                pushed = await carrier.open(sink).opened()
                while pushed.balance.available:  # until the kernel's buffers and the credit are full
                    await pushed.write(bytes(min(MAX_DATA, pushed.balance.available)))
                    await asyncio.sleep(0)
            quick = await carrier.open(port).opened()
            await quick.write(b"me first")
            assert await quick.read(8) == b"me first"
            assert all(flow.frames.empty() for flow in flows)

    run(scenario)


def test_two_carriers_of_one_session() -> None:
    async def scenario() -> None:
        async with service(echo) as port, near_side() as near:
            token = (await near.session()).token
            one, two = await near.carrier(token), await near.carrier(token)
            flows = [await carrier.open(port).opened() for carrier in (one, two)]
            await one.close()
            await flows[1].write(b"still here")
            assert await flows[1].read(10) == b"still here"
            assert len(near.manager.sessions) == 1

    run(scenario)


# --- UDP ---


def test_datagrams_both_ways_and_refused() -> None:
    async def scenario() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as far:
            far.bind(("127.0.0.1", 0))
            far.setblocking(False)
            loop = asyncio.get_running_loop()
            async with near_side() as near:
                carrier = await near.carrier()
                flow = carrier.open(far.getsockname()[1], protocol=Proto.UDP)
                for data in (b"one", b"", bytes(60_000)):
                    flow.datagram(data)
                await flow.opened()
                peer = ("", 0)
                for expected in (b"one", b"", bytes(60_000)):
                    data, peer = await _recvfrom(loop, far)
                    assert data == expected
                far.sendto(b"answer", peer)
                frame = await flow.next()
                assert (frame.type, frame.payload) == (FrameType.DATAGRAM, b"answer")
                flow.datagram(bytes(65_535))  # longer than IP allows: dropped
                flow.fin()
                await until(lambda: near.manager.sessions.flows == 0)
                refused = await carrier.open(unused_port(socket.SOCK_DGRAM), protocol=Proto.UDP).opened()
                refused.datagram(b"anyone?")
                assert await refused.coded() == (FrameType.RST, errno.ECONNREFUSED)
                await until(lambda: near.manager.sessions.flows == 0)
                again = await carrier.open(far.getsockname()[1], protocol=Proto.UDP).opened()
                again.reset()
                await until(lambda: near.manager.sessions.flows == 0)

    run(scenario)


async def _recvfrom(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> tuple[bytes, tuple[str, int]]:
    readable = loop.create_future()
    loop.add_reader(sock, lambda: readable.done() or readable.set_result(None))
    try:
        async with asyncio.timeout(WAIT):
            await readable
    finally:
        loop.remove_reader(sock)
    return sock.recvfrom(65_535)


def test_datagram_socket_that_cannot_be_had() -> None:
    async def scenario() -> None:
        async with near_side(
            dialer=FakeDialer(error=OSError(errno.ENETUNREACH, "Network is unreachable"))
        ) as near:
            carrier = await near.carrier()
            for protocol in (Proto.UDP, Proto.TCP):
                flow = carrier.open(53, "10.1.2.3", protocol=protocol)
                assert await flow.coded() == (FrameType.REJECTED, errno.ENETUNREACH)
            await until(lambda: near.manager.sessions.flows == 0)

    run(scenario)


# --- carriers ---


async def goodbye(near: NearSide, token: str | None, version: int = VERSION) -> tuple[int, str]:
    carrier = await near.raw_carrier(token, version)
    frame = await carrier.next_control()
    assert frame.type is FrameType.GOAWAY
    await carrier.lost
    return decode_coded(frame)


def test_bad_hellos() -> None:
    async def scenario() -> None:
        async with near_side() as near:
            token = (await near.session()).token
            assert (await goodbye(near, "wrong"))[0] == errno.EACCES
            assert (await goodbye(near, ""))[0] == errno.EACCES
            assert (await goodbye(near, token, version=99))[0] == errno.EPROTONOSUPPORT
            near.manager._mux_server.hello_time = 0.05
            assert await goodbye(near, None) == (errno.ETIMEDOUT, "no HELLO in time")

    run(scenario)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "unknown frame type 71"),
        (encode(Frame(FrameType.DATA, 1, b"x")), "the first frame is DATA, not HELLO"),
    ],
)
def test_garbage_is_answered_with_the_reason(data: bytes, reason: str) -> None:
    async def scenario() -> None:
        async with near_side() as near:
            stream = await connect_tcp("127.0.0.1", near.manager.carrier_port)
            heard = Listener(stream)
            stream.write([data])
            await heard.until_end()
            await stream.close()
            assert reason.encode() in heard.received
            await until(lambda: any(reason in line for line in near.log))

    run(scenario)


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        ([Frame(FrameType.HELLO, 0, b"\0\1")], "HELLO from the near side"),
        ([Frame(FrameType.OPENED, 7, bytes(4))], "OPENED from the near side"),
        ([Frame(FrameType.OPEN, 7, b"short")], "OPEN has 5 bytes"),
        ([Frame(FrameType.RST, 7, b"")], "RST has 0 bytes"),
    ],
)
def test_frames_that_break_the_protocol(frames: list[Frame], reason: str) -> None:
    async def scenario() -> None:
        async with near_side() as near:
            carrier = await near.carrier()
            for frame in frames:
                carrier.send(frame)
            goaway = await carrier.next_control()
            assert reason in decode_coded(goaway)[1]

    run(scenario)


@pytest.mark.parametrize("what", ["twice", "over credit", "after fin", "fin twice", "credit"])
def test_flows_that_break_the_protocol(what: str) -> None:
    async def deaf(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async def scenario() -> None:
        async with service(deaf) as port, near_side() as near:
            carrier = await near.carrier()
            flow = await carrier.open(port).opened()
            if what == "twice":
                carrier._number -= 1
                carrier.open(port)
            elif what == "over credit":
                for _ in range(200):
                    carrier.send(Frame(FrameType.DATA, flow.number, BLOCK))
            elif what == "credit":
                for _ in range(2):
                    carrier.send(Frame(FrameType.CREDIT, flow.number, b"\x7f\xff\xff\xff"))
            else:
                flow.fin()
                await asyncio.sleep(0.05)  # else our own mux objects
                carrier.send(
                    Frame(FrameType.DATA, flow.number, b"x")
                    if what == "after fin"
                    else Frame(FrameType.FIN, flow.number)
                )
            goaway = await carrier.next_control()
            assert goaway.type is FrameType.GOAWAY
            assert decode_coded(goaway)[0] == errno.EPROTO
            await until(lambda: near.manager.sessions.flows == 0)

    run(scenario)


# --- control ---


def test_sessions_are_checked() -> None:
    async def scenario() -> None:
        async with near_side() as near:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await near.session(protocol=VERSION + 1)
            assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
            with pytest.raises(grpc.aio.AioRpcError) as unknown:
                await near.stub.WatchClusterInfo(pb.WatchClusterInfoRequest(token="wrong")).read()
            assert unknown.value.code() is grpc.StatusCode.UNAUTHENTICATED
            session = await near.session()
            assert len(bytes.fromhex(session.token)) == 32
            assert session.carrier_port == near.manager.carrier_port
            assert session.token != (await near.session()).token
            health = await near.stub.Health(pb.HealthRequest())
            assert (health.sessions, health.flows) == (2, 0)

    run(scenario)


def test_too_many_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "MAX_SESSIONS", 1)

    async def scenario() -> None:
        async with near_side() as near:
            await near.session()
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await near.session()
            assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED

    run(scenario)


def test_too_many_watchers_of_one_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "MAX_USERS", 2)

    async def scenario() -> None:
        async with near_side() as near:
            request = pb.WatchClusterInfoRequest(token=(await near.session()).token)
            watches = [near.stub.WatchClusterInfo(request) for _ in range(2)]
            for watch in watches:
                await watch.read()
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await near.stub.WatchClusterInfo(request).read()
            assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "2 carriers and watchers" in (refused.value.details() or "")
            watches[0].cancel()  # who goes makes room
            await until(lambda: near.manager.sessions.find(request.token).users == 1)
            await near.stub.WatchClusterInfo(request).read()

    run(scenario)


def test_session_lives_while_watched_or_carried_and_then_expires() -> None:
    async def scenario() -> None:
        async with near_side(expiry=0.2) as near:
            watched, carried = await near.session(), await near.session()
            watch = near.stub.WatchClusterInfo(pb.WatchClusterInfoRequest(token=watched.token))
            await watch.read()
            carrier = await near.carrier(carried.token)
            await near.session()  # nobody uses this one
            await until(lambda: len(near.manager.sessions) == 2)
            watch.cancel()
            await carrier.close()
            await until(lambda: len(near.manager.sessions) == 0)
            assert (await goodbye(near, carried.token))[0] == errno.EACCES
            assert [line for line in near.log if line.endswith("expired")]

    run(scenario)


def test_drain_says_goodbye_and_lets_flows_end() -> None:
    async def scenario() -> None:
        async with service(echo) as port, near_side() as near:
            carrier = await near.carrier()
            flow = await carrier.open(port).opened()
            drained = asyncio.ensure_future(near.manager.drain(10))
            frame = await carrier.next_control()
            assert (frame.type, decode_coded(frame)[0]) == (FrameType.GOAWAY, errno.ESHUTDOWN)
            with pytest.raises(OSError):  # noqa: PT011  # refused or reset
                await refused(near.manager.carrier_port)
            assert await carrier.open(port).coded() == (FrameType.REJECTED, errno.ESHUTDOWN)
            await flow.write(b"last words")
            assert await flow.read(10) == b"last words"
            flow.fin()
            assert (await flow.next()).type is FrameType.FIN
            async with asyncio.timeout(5):
                await drained
                assert await carrier.lost == "the far side closed the carrier"

    run(scenario)


def test_port_that_is_taken() -> None:
    async def scenario() -> None:
        async with near_side() as near:
            with pytest.raises(OSError, match=r"taken|in use"):
                async with near_side(grpc_port=near.manager.grpc_port):
                    pass
            with pytest.raises(OSError, match="in use"):
                async with near_side(carrier_port=near.manager.carrier_port):
                    pass

    run(scenario)
