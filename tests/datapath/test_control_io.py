"""The control socket over real Unix sockets: who is let in, who counts as gone, and when it is over."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Self

import pytest
import uvloop
from telehelper.codec import Decoder, Envelope, encode
from telehelper.datapath import control_io
from telehelper.datapath.control_io import ControlServer, Kernel
from telehelper.errors import (
    CidrConflict,
    ControlError,
    HelperMissing,
    NotConnected,
    TelemagicError,
    from_wire,
)
from telehelper.messages import (
    PROTOCOL_VERSION,
    Connect,
    Disconnect,
    Done,
    Failed,
    GetRoutes,
    GetStatus,
    Hello,
    Message,
    PhaseChanged,
    RouteTable,
    Welcome,
)
from telehelper.observing import CellEnded, CellStarted, GetFlows, SnapshotChanged

from tests.datapath.waiting import WAIT, turns, until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

HELLO = Hello(PROTOCOL_VERSION, 0)
EVENT = PhaseChanged("TUN", "started", "", 0.0)


class RecordingService:
    """Answers at once, except what a test holds back."""

    def __init__(self) -> None:
        self.is_connected = False
        self.requests: list[Message] = []
        self.cancelled = 0
        self.may_answer = asyncio.Event()
        self.were_last: list[bool] = []
        self.left: list[Kernel] = []

    async def handle(self, request: Message, kernel: Kernel) -> Message:
        self.requests.append(request)
        match request:
            case GetStatus():
                raise NotConnected("there is no connection")
            case GetRoutes():
                return RouteTable(())
            case Connect():
                raise CidrConflict.of("198.18.0.0/16", "198.18.1.0/24", "tun9")
            case GetFlows():
                await self._held()
            case Disconnect():
                self.were_last.append(kernel.is_last)
            case CellStarted() | CellEnded():
                pass
            case _:
                raise ZeroDivisionError("a bug")
        return Done()

    def kernel_left(self, kernel: Kernel) -> None:
        self.left.append(kernel)

    async def _held(self) -> None:
        try:
            await self.may_answer.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise


class Client:
    """A kernel's end, in this process."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self._decoder = Decoder()
        self._envelopes: list[Envelope] = []

    @classmethod
    async def dial(cls, path: Path) -> Self:
        return cls(*await asyncio.open_unix_connection(path))

    @classmethod
    async def greet(cls, path: Path) -> Self:
        client = cls(*await asyncio.open_unix_connection(path))
        client.send(HELLO, 1)
        welcome = await client.next()
        assert isinstance(welcome.body, Welcome)
        return client

    def send(self, body: Message, request: int) -> None:
        self.writer.write(encode(body, request))

    async def next(self) -> Envelope:
        while not self._envelopes:
            data = await self.reader.read(65536)
            assert data, "the server hung up"
            self._envelopes += self._decoder.feed(data)
        return self._envelopes.pop(0)

    async def ask(self, body: Message, request: int = 2) -> Message:
        self.send(body, request)
        envelope = await self.next()
        assert envelope.id == request
        return envelope.body

    async def is_hung_up(self) -> bool:
        with contextlib.suppress(ConnectionResetError):  # as above
            return not self._envelopes and not await self.reader.read(1)
        return True

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):  # the server hung up with something of ours unread
            await self.writer.wait_closed()

    async def refusal(self) -> TelemagicError:
        failed = (await self.next()).body
        assert isinstance(failed, Failed)
        assert await self.is_hung_up()
        return failed.to_error()


class Bench:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.service = RecordingService()
        self.server = ControlServer(path, self.service)
        self.clients: list[Client] = []
        self.bugs: list[BaseException] = []

    async def kernel(self) -> Client:
        """Connect a kernel that says Hello."""
        self.clients.append(await Client.greet(self.path))
        return self.clients[-1]

    async def stranger(self) -> Client:
        """Connect, and say nothing yet."""
        self.clients.append(await Client.dial(self.path))
        return self.clients[-1]


def bench(path: Path, work: Callable[[Bench], Awaitable[None]], *, bugs: int = 0) -> None:
    async def run() -> None:
        async with asyncio.timeout(WAIT):
            it = Bench(path)
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(lambda _, context: it.bugs.append(context["exception"]))
            await it.server.start()
            try:
                await work(it)
            finally:
                for client in it.clients:
                    await client.close()
                await it.server.close()
            await turns()
            assert len(it.bugs) == bugs

    asyncio.run(run())
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())
    assert not path.exists()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s"


# --- coming in ---------------------------------------------------------------------------------------------------


def test_hello_is_answered_with_who_we_are(path: Path) -> None:
    async def work(it: Bench) -> None:
        it.service.is_connected = True
        client = await it.stranger()
        assert await client.ask(HELLO, 7) == Welcome(PROTOCOL_VERSION, os.getpid(), True)
        assert it.service.requests == []

    bench(path, work)


def test_the_socket_is_ours_alone(path: Path) -> None:
    async def work(_: Bench) -> None:
        assert os.stat(path).st_mode & 0o777 == 0o600

    before = os.umask(0)
    os.umask(before)
    bench(path, work)
    assert os.umask(before) == before  # and the process's own mask is as it was


def test_a_directory_that_others_may_enter_is_refused(path: Path) -> None:
    path.parent.chmod(0o755)

    async def work() -> None:
        with pytest.raises(HelperMissing, match="open to other users"):
            await ControlServer(path, RecordingService()).start()

    asyncio.run(work())
    assert not path.exists()


def test_another_version_is_refused(path: Path) -> None:
    async def work(it: Bench) -> None:
        client = await it.stranger()
        client.send(Hello(PROTOCOL_VERSION + 1, 1), 1)
        error = await client.refusal()
        assert isinstance(error, ControlError)
        assert f"speaks version {PROTOCOL_VERSION}" in error.message
        assert "disconnect all notebooks" in error.hint
        assert it.server.kernels == []

    bench(path, work)


def test_a_request_before_hello_is_refused(path: Path) -> None:
    async def work(it: Bench) -> None:
        client = await it.stranger()
        client.send(GetStatus(), 1)
        assert (await client.refusal()).message == "GetStatus before Hello"
        assert it.service.requests == []

    bench(path, work)


@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.1\r\n\r\n", b"\0\0\0\1x", b"\0\0\0\2{}", b"\xff" * 8])
@pytest.mark.parametrize("greeted", [False, True])
def test_garbage_ends_the_connection(path: Path, garbage: bytes, greeted: bool) -> None:
    async def work(it: Bench) -> None:
        client = await (it.kernel() if greeted else it.stranger())
        client.writer.write(garbage)
        assert isinstance(await client.refusal(), ControlError)
        assert it.server.gone.is_set() is greeted

    bench(path, work)


def test_a_request_over_the_limit_is_refused(path: Path) -> None:
    async def work(it: Bench) -> None:
        client = await it.kernel()
        client.writer.write((control_io.MAX_REQUEST + 1).to_bytes(4, "big"))
        assert "over the limit" in (await client.refusal()).message

    bench(path, work)


def test_a_stranger_of_another_user_gets_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_io, "peer_of", lambda _: (os.getpid(), os.geteuid() + 1))

    async def work(it: Bench) -> None:
        client = await it.stranger()
        client.send(HELLO, 1)
        assert await client.is_hung_up()
        assert not it.server.gone.is_set()  # it never was a kernel

    bench(path, work)


def test_a_message_may_come_in_pieces_and_several_at_once(path: Path) -> None:
    async def work(it: Bench) -> None:
        client = await it.stranger()
        for byte in encode(HELLO, 1):
            client.writer.write(bytes([byte]))
            await turns(2)
        assert isinstance((await client.next()).body, Welcome)
        client.writer.write(b"".join(encode(GetRoutes(), number) for number in range(2, 7)))
        assert sorted([(await client.next()).id for _ in range(5)]) == [2, 3, 4, 5, 6]

    bench(path, work)


# --- requests ----------------------------------------------------------------------------------------------------


def test_answers_carry_their_requests_number(path: Path) -> None:
    async def work(it: Bench) -> None:
        client = await it.kernel()
        client.send(GetFlows(), 10)  # held back
        assert await client.ask(GetRoutes(), 11) == RouteTable(())
        it.service.may_answer.set()
        assert await client.next() == Envelope(10, Done())

    bench(path, work)


def test_notifications_are_handled_in_order_and_never_answered(path: Path) -> None:
    async def work(it: Bench) -> None:
        client = await it.kernel()
        told = [CellStarted(1, 10.0), CellEnded(1, 11.0), CellStarted(2, 12.0)]
        for message in told:
            client.send(message, 0)
        client.send(GetStatus(), 0)  # which fails
        assert await client.ask(GetRoutes(), 11) == RouteTable(())
        assert it.service.requests == [*told, GetStatus(), GetRoutes()]

    bench(path, work)


def test_a_bug_with_a_notification_is_logged_only(path: Path) -> None:
    async def work(it: Bench) -> None:
        client = await it.kernel()
        client.send(HELLO, 0)
        assert await client.ask(GetRoutes(), 11) == RouteTable(())
        await until(lambda: it.bugs)

    bench(path, work, bugs=1)


def test_what_a_kernel_has_not_read_is_known(path: Path) -> None:
    async def work(it: Bench) -> None:
        client = await it.kernel()
        (kernel,) = it.server._kernels
        assert kernel.unsent == 0
        client.reader._transport.pause_reading()  # type: ignore[attr-defined]  # as a kernel does that computes
        for _ in range(100):
            kernel.send(SnapshotChanged(1, "x" * 100_000))
        assert kernel.unsent > 1_000_000

    bench(path, work)


def test_the_service_hears_of_each_kernel_that_leaves(path: Path) -> None:
    async def work(it: Bench) -> None:
        first, stranger = await it.kernel(), await it.stranger()
        (kernel,) = it.server._kernels
        await stranger.close()
        await first.close()
        await it.server.gone.wait()
        assert it.service.left == [kernel]

    bench(path, work)


def test_errors_are_answered_with_their_type_and_the_connection_stays(path: Path) -> None:
    async def work(it: Bench) -> None:
        client = await it.kernel()
        failed = await client.ask(GetStatus())
        assert isinstance(failed, Failed)
        assert isinstance(failed.to_error(), NotConnected)
        failed = await client.ask(Connect("k", "", "", 1.0), 3)
        assert isinstance(failed, Failed)
        error = from_wire(failed.slug, failed.message, failed.hint, failed.data)
        assert error.data == {"wanted": "198.18.0.0/16", "existing": "198.18.1.0/24", "device": "tun9"}
        assert await client.ask(GetRoutes(), 4) == RouteTable(())

    bench(path, work)


def test_a_bug_is_answered_and_logged(path: Path) -> None:
    async def work(it: Bench) -> None:
        client = await it.kernel()
        failed = await client.ask(HELLO, 9)  # the service divides by zero on it
        assert isinstance(failed, Failed)
        assert failed.message == "internal error of the data plane: ZeroDivisionError('a bug')"
        assert await client.ask(GetRoutes(), 10) == RouteTable(())
        assert [type(bug) for bug in it.bugs] == [ZeroDivisionError]

    bench(path, work, bugs=1)


def test_events_go_to_all_kernels_and_to_nobody_else(path: Path) -> None:
    async def work(it: Bench) -> None:
        it.server.broadcast(EVENT)  # nobody there: nothing happens
        one, two, stranger = await it.kernel(), await it.kernel(), await it.stranger()
        it.server.broadcast(EVENT)
        assert [await one.next(), await two.next()] == [Envelope(0, EVENT)] * 2
        stranger.send(HELLO, 1)
        assert isinstance((await stranger.next()).body, Welcome)

    bench(path, work)


def test_a_kernel_knows_whether_it_is_the_last(path: Path) -> None:
    async def work(it: Bench) -> None:
        one, two = await it.kernel(), await it.kernel()
        await one.ask(Disconnect())
        await one.close()
        await until(lambda: len(it.server.kernels) == 1)
        await two.ask(Disconnect())
        assert it.service.were_last == [False, True]

    bench(path, work)


# --- leaving -----------------------------------------------------------------------------------------------------


def test_it_is_over_when_the_last_kernel_has_left(path: Path) -> None:
    async def work(it: Bench) -> None:
        one, two = await it.kernel(), await it.kernel()
        assert it.server.kernels == [os.getpid()] * 2
        await one.close()
        await until(lambda: it.server.kernels == [os.getpid()])
        await turns()
        assert not it.server.gone.is_set()
        await two.close()
        await it.server.gone.wait()
        assert it.server.kernels == []

    bench(path, work)


def test_strangers_that_leave_are_no_kernels(path: Path) -> None:
    async def work(it: Bench) -> None:
        kernel, stranger = await it.kernel(), await it.stranger()
        await stranger.close()
        assert await kernel.ask(GetRoutes()) == RouteTable(())
        assert it.server.kernels == [os.getpid()]
        assert not it.server.gone.is_set()

    bench(path, work)


def test_it_is_over_when_no_kernel_comes_in_time(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_io, "FIRST_KERNEL_TIMEOUT", 0.01)

    async def work(it: Bench) -> None:
        await it.stranger()
        await it.server.gone.wait()

    bench(path, work)


def test_a_kernel_that_came_in_time_may_stay(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_io, "FIRST_KERNEL_TIMEOUT", 0.02)

    async def work(it: Bench) -> None:
        await it.kernel()
        await asyncio.sleep(0.04)  # past the time for the first
        assert not it.server.gone.is_set()

    bench(path, work)


def test_a_kernel_that_leaves_cancels_what_it_asked_for(path: Path) -> None:
    async def work(it: Bench) -> None:
        client = await it.kernel()
        client.send(GetFlows(), 2)
        await until(lambda: it.service.requests)
        await client.close()
        await it.server.gone.wait()
        assert it.service.cancelled == 1

    bench(path, work)


# A kernel whose forked child keeps the connection open, as a `!sleep 1000 &` in a cell does.
FORKING_KERNEL = """
import os, socket, sys, time
sock = socket.socket(socket.AF_UNIX)
sock.connect(sys.argv[1])
sock.sendall(bytes.fromhex(sys.argv[2]))
sock.recv(65536)
child = os.fork()
if child:
    print(child, flush=True)
time.sleep(1000)
"""


def test_a_killed_kernel_has_gone_although_a_child_holds_its_connection(path: Path) -> None:
    async def work(it: Bench) -> None:
        kernel = await asyncio.create_subprocess_exec(
            sys.executable, "-c", FORKING_KERNEL, path, encode(HELLO, 1).hex(), stdout=subprocess.PIPE
        )
        assert kernel.stdout is not None
        child = int(await kernel.stdout.readline())
        try:
            assert not it.server.gone.is_set()
            assert it.server.kernels == [kernel.pid]
            kernel.kill()
            await it.server.gone.wait()
            assert it.server.kernels == []
            os.kill(child, 0)  # it does live, and does hold it
        finally:
            os.kill(child, signal.SIGKILL)
            await kernel.wait()
            await kernel.stdout.read()  # until the child has gone too

    async def run() -> None:
        async with asyncio.timeout(WAIT):
            it = Bench(path)
            await it.server.start()
            try:
                await work(it)
            finally:
                await it.server.close()

    asyncio.run(run())
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


def test_watching_a_process_leaves_no_descriptor(path: Path) -> None:
    async def work(it: Bench) -> None:
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(5):
            client = await it.kernel()
            await client.close()
            await until(lambda: not it.server._tasks)
        await turns()
        assert len(os.listdir("/proc/self/fd")) <= before

    bench(path, work)


# --- closing -----------------------------------------------------------------------------------------------------


def test_closing_hangs_up_on_everybody(path: Path) -> None:
    async def work(it: Bench) -> None:
        kernel, stranger = await it.kernel(), await it.stranger()
        await until(lambda: len(it.server._tasks) == 2)
        await it.server.close()
        assert await kernel.is_hung_up()
        assert await stranger.is_hung_up()
        with pytest.raises(OSError, match="No such file"):
            await asyncio.open_unix_connection(path)

    bench(path, work)


def test_closing_lets_answers_under_way_go_out(path: Path) -> None:
    async def work(it: Bench) -> None:
        client = await it.kernel()
        client.send(GetFlows(), 5)
        await until(lambda: it.service.requests)
        closing = asyncio.ensure_future(it.server.close())
        await turns()
        it.service.may_answer.set()
        await closing
        assert await client.next() == Envelope(5, Done())
        assert await client.is_hung_up()
        assert it.service.cancelled == 0

    bench(path, work)


def test_closing_waits_for_answers_only_so_long(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_io, "ANSWER_GRACE", 0.01)

    async def work(it: Bench) -> None:
        client = await it.kernel()
        client.send(GetFlows(), 5)
        await until(lambda: it.service.requests)
        await it.server.close()
        assert it.service.cancelled == 1
        assert await client.is_hung_up()

    bench(path, work)


def test_a_path_that_cannot_be_bound(tmp_path: Path) -> None:
    async def run() -> None:
        server = ControlServer(tmp_path / "nowhere" / "s", RecordingService())
        with pytest.raises(OSError, match="No such file"):
            await server.start()
        await server.close()

    asyncio.run(run())
