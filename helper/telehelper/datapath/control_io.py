"""The Unix socket on which kernels talk to the data plane.

Who may: processes of our own uid (checked by SO_PEERCRED; the directory must be private as well). A kernel counts as gone when
its connection closes, or when the process dies although a forked child still holds the connection (pidfd). When the
last one has gone, the data plane ends.
"""

from __future__ import annotations

import asyncio
import os
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from telehelper.codec import Decoder, Envelope, encode
from telehelper.errors import ControlError, TelemagicError
from telehelper.messages import PROTOCOL_VERSION, Failed, Hello, Message, Welcome
from telehelper.private import check_directory, is_own, peer_of

if TYPE_CHECKING:
    from pathlib import Path

MAX_REQUEST: Final = 1024 * 1024  # bytes; requests are small, answers are not
# Seconds for the first kernel to say Hello; then there is none, and we end
FIRST_KERNEL_TIMEOUT: Final = 30.0
ANSWER_GRACE: Final = 1.0  # seconds at closing for requests under way to be answered


class Service(Protocol):
    """What carries out a kernel's requests."""

    @property
    def is_connected(self) -> bool:
        """Whether the tunnel is configured."""

    async def handle(self, request: Message, kernel: Kernel) -> Message:
        """Carry out one request; errors that the kernel shall see are TelemagicErrors.

        Also for notifications, in the order in which they came as long as nothing is awaited; nobody sees the answer.
        """

    def kernel_left(self, kernel: Kernel) -> None:
        """Learn that a kernel has gone, once for each that said Hello."""


class Kernel:
    """One connected kernel."""

    def __init__(self, writer: asyncio.StreamWriter, pid: int, peers: set[Kernel]) -> None:
        self.pid = pid
        self._writer = writer
        self._peers = peers

    @property
    def is_last(self) -> bool:
        """Whether no other kernel is connected."""
        return self._peers <= {self}

    @property
    def unsent(self) -> int:
        """Bytes that wait for the kernel to read."""
        transport: asyncio.WriteTransport = self._writer.transport
        return transport.get_write_buffer_size()

    def send(self, body: Message, request: int = 0) -> None:
        """Send a reply or, without `request`, an event. To a kernel that has gone it goes nowhere."""
        if not self._writer.is_closing():
            self._writer.write(encode(body, request))


class ControlServer:
    """Listens for kernels. `gone` is set when the last kernel has left, or none came in time."""

    def __init__(self, path: Path, service: Service) -> None:
        self._path = path
        self._service = service
        self._server: asyncio.Server | None = None
        self._kernels: set[Kernel] = set()
        self._tasks: set[asyncio.Task[None]] = set()  # one for each connection
        self._requests: set[asyncio.Task[None]] = set()
        self.gone = asyncio.Event()

    @property
    def kernels(self) -> list[int]:
        """Pids of the kernels that are connected."""
        return sorted(kernel.pid for kernel in self._kernels)

    async def start(self) -> None:
        """Listen. OSError if the path cannot be bound, HelperMissing if its directory is not private."""
        check_directory(self._path.parent)
        old_mask = os.umask(0o177)
        try:
            self._server = await asyncio.start_unix_server(self._accept, self._path)
        finally:
            os.umask(old_mask)
        asyncio.get_running_loop().call_later(FIRST_KERNEL_TIMEOUT, self._check_alone)

    async def close(self) -> None:
        """Stop listening, hang up on all kernels, remove the socket file."""
        if self._server is not None:
            self._server.close()
        if self._requests:
            # What ended us is often a request itself: its answer shall go out.
            await asyncio.wait(self._requests, timeout=ANSWER_GRACE)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._path.unlink(missing_ok=True)

    def broadcast(self, event: Message) -> None:
        """Send an event to all kernels."""
        for kernel in self._kernels:
            kernel.send(event)

    def _check_alone(self) -> None:
        if not self._kernels:
            self.gone.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None:
            raise AssertionError("a connection is always served by a task")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        pid, uid = peer_of(writer.get_extra_info("socket"))
        kernel = Kernel(writer, pid, self._kernels)
        watch = _watch_process(pid, task) if is_own(uid) else -1
        try:
            if is_own(uid):
                await self._serve(reader, kernel)
        except ControlError as error:
            kernel.send(Failed.of(error))
        except (ConnectionError, asyncio.CancelledError):
            return  # the kernel has gone, or we are closing: `finally` does all there is to do
        finally:
            _unwatch(watch)
            writer.close()
            if kernel in self._kernels:
                self._kernels.discard(kernel)
                self._service.kernel_left(kernel)
                self._check_alone()

    async def _serve(self, reader: asyncio.StreamReader, kernel: Kernel) -> None:
        decoder = Decoder(MAX_REQUEST)
        running: set[asyncio.Task[None]] = set()
        try:
            while data := await reader.read(65536):
                for envelope in decoder.feed(data):
                    if kernel not in self._kernels:
                        if not self._greet(envelope, kernel):
                            return
                        continue
                    task = asyncio.create_task(self._handle(envelope, kernel))
                    for tasks in (running, self._requests):
                        tasks.add(task)
                        task.add_done_callback(tasks.discard)
                    task.add_done_callback(partial(_tell_bug, kernel, envelope.id))
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    def _greet(self, envelope: Envelope, kernel: Kernel) -> bool:
        """Take the first message; False if the kernel was refused."""
        hello = envelope.body
        if not isinstance(hello, Hello):
            raise ControlError(f"{type(hello).__name__} before Hello")
        if hello.version != PROTOCOL_VERSION:
            error = ControlError(
                f"the running data plane speaks version {PROTOCOL_VERSION} of the protocol, the kernel {hello.version}",
                hint="disconnect all notebooks, then connect again",
            )
            kernel.send(Failed.of(error), envelope.id)  # as the answer: said unasked, it would be a loss
            return False
        self._kernels.add(kernel)
        kernel.send(Welcome(PROTOCOL_VERSION, os.getpid(), self._service.is_connected), envelope.id)
        return True

    async def _handle(self, envelope: Envelope, kernel: Kernel) -> None:
        try:
            answer = await self._service.handle(envelope.body, kernel)
        except TelemagicError as error:
            answer = Failed.of(error)
        if envelope.id:  # else it was a notification
            kernel.send(answer, envelope.id)


def _tell_bug(kernel: Kernel, request: int, task: asyncio.Task[None]) -> None:
    # The exception itself goes to the log by the loop's handler; the kernel must not wait for ever meanwhile.
    if not task.cancelled() and (error := task.exception()) is not None:
        if request:
            kernel.send(
                Failed.of(TelemagicError(f"internal error of the data plane: {error!r:.300}")), request
            )
        raise error


def _watch_process(pid: int, task: asyncio.Task[None]) -> int:
    """Cancel `task` when the process dies; return the pidfd (pidfd_open(2))."""
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        return (
            -1
        )  # it has died already, or is out of sight in another pid namespace: the connection must tell
    loop = asyncio.get_running_loop()

    def died() -> None:
        loop.remove_reader(fd)  # it stays readable; once is enough
        task.cancel()

    loop.add_reader(fd, died)
    return fd


def _unwatch(fd: int) -> None:
    if fd >= 0:
        asyncio.get_running_loop().remove_reader(fd)
        os.close(fd)
