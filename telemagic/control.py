"""Client of a data plane's control socket; asyncio."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
from typing import TYPE_CHECKING, Final, TypeVar

from telehelper.codec import Decoder, encode
from telehelper.errors import ControlError, HelperLost, HelperRefused
from telehelper.messages import PROTOCOL_VERSION, Failed, Hello, Message, Welcome
from telehelper.private import is_own, peer_of

from telemagic.clean import clean_message

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

M = TypeVar("M", bound=Message)

READ_SIZE: Final = 64 * 1024  # bytes per read; a status is about 2 KiB, a full flow table some MiB
HELLO_PATIENCE: Final = 5.0  # seconds for the first answer; the data plane gives it from memory


class ControlClient:
    """One connection to a data plane.

    Parameters
    ----------
    sock
        Connected to `path`, non-blocking; owned from here on.
    on_event
        Called on the loop with each message that answers no request.
    on_lost
        Called on the loop once, with one line for people, when the data plane has gone. Not called after
        :meth:`close`.
    """

    def __init__(
        self,
        sock: socket.socket,
        path: Path,
        on_event: Callable[[Message], None],
        on_lost: Callable[[str], None],
    ) -> None:
        self.socket = sock
        self.path = path
        self.peer_pid = peer_of(sock)[0]
        self.welcome = Welcome(0, 0, connected=False)
        self._on_event = on_event
        self._on_lost = on_lost
        self._numbers = itertools.count(1)
        self._pending: dict[int, asyncio.Future[Message]] = {}
        self._lost: str | None = None
        self._last_words = ""
        self._closing = False
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter
        self._task: asyncio.Task[None]

    @classmethod
    async def open(
        cls, path: Path, *, on_event: Callable[[Message], None], on_lost: Callable[[str], None]
    ) -> ControlClient:
        """Connect and introduce ourselves.

        Raises
        ------
        OSError
            Nobody listens there (`FileNotFoundError`, `ConnectionRefusedError`).
        HelperRefused
            The process behind the socket is another user's.
        HelperLost
            It closed the connection, or did not answer in time.
        ControlError
            It speaks another version.
        """
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, str(path))
            check_peer(sock, path)
            client = cls(sock, path, on_event, on_lost)
            client._reader, client._writer = await asyncio.open_unix_connection(sock=sock)
        except BaseException:
            sock.close()
            raise
        client._task = asyncio.create_task(client._receive())
        try:
            await client._greet()
        except BaseException:
            await client.close()
            raise
        return client

    async def _greet(self) -> None:
        try:
            async with asyncio.timeout(HELLO_PATIENCE):
                self.welcome = await self.request(Hello(PROTOCOL_VERSION, os.getpid()), Welcome)
        except TimeoutError:
            raise HelperLost(f"the helper (pid {self.peer_pid}) does not answer") from None
        if self.welcome.version != PROTOCOL_VERSION:
            raise ControlError(
                f"the running helper speaks version {self.welcome.version}, this kernel {PROTOCOL_VERSION}",
                hint="disconnect in the notebook that started it, or restart this kernel",
            )

    async def request(self, body: Message, expect: type[M]) -> M:
        """Send a request and await its answer.

        Raises
        ------
        TelemagicError
            The error that the data plane answered with, as the same type.
        HelperLost
            The data plane has gone, or goes before it answers.
        ControlError
            The answer is of another type than `expect`.
        """
        if self._lost is not None:
            raise HelperLost(self._lost)
        number = next(self._numbers)
        answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._pending[number] = answer
        try:
            self._writer.write(
                encode(body, number)
            )  # requests are small: no drain, the reader sees a broken socket
            reply = await answer
        finally:
            self._pending.pop(number, None)
        if isinstance(reply, Failed):
            raise reply.to_error()
        if not isinstance(reply, expect):
            raise ControlError(f"the helper answered {type(body).__name__} with {type(reply).__name__}")
        return reply

    def notify(self, body: Message) -> None:
        """Tell something that nobody answers; on the loop. Nobody is told when the data plane has gone."""
        if self._lost is None:
            self._writer.write(encode(body))

    async def close(self) -> None:
        """Leave; idempotent. For the data plane the end of the connection is a disconnect."""
        self._closing = True
        self._task.cancel()
        await asyncio.wait([self._task])
        self._writer.close()
        await asyncio.gather(self._writer.wait_closed(), return_exceptions=True)
        self._end("this kernel has closed the connection")

    async def _receive(self) -> None:
        decoder = Decoder()
        reason = f"the helper (pid {self.peer_pid}) has ended"
        try:
            while data := await self._reader.read(READ_SIZE):
                for envelope in decoder.feed(data):
                    self._dispatch(envelope.id, clean_message(envelope.body))
        except ControlError as error:
            reason = f"the helper sent nonsense: {error}"
        except OSError as error:
            reason = f"the connection to the helper broke: {error.strerror}"
        if not self._closing:
            self._writer.close()
            self._end(self._last_words or reason)

    def _dispatch(self, number: int, body: Message) -> None:
        if number:
            answer = self._pending.get(number)
            if answer is not None and not answer.done():  # the asker may have given up
                answer.set_result(body)
            return
        if isinstance(body, Failed):  # said unasked: why it is about to go
            self._last_words = body.message
        try:
            self._on_event(body)
        except Exception as error:  # a listener's fault: it is told, and answers go on arriving
            told = {"message": f"{type(body).__name__} was not taken", "exception": error}
            asyncio.get_running_loop().call_exception_handler(told)

    def _end(self, reason: str) -> None:
        if self._lost is not None:
            return
        self._lost = reason
        for answer in self._pending.values():
            if not answer.done():
                answer.set_exception(HelperLost(reason))
        if not self._closing:
            self._on_lost(reason)


def silence(client: ControlClient, seconds: float) -> HelperLost:
    """Return the error of a data plane that is there and does not answer."""
    return HelperLost(f"the helper (pid {client.peer_pid}) has not answered for {seconds:g} s")


def check_peer(sock: socket.socket, path: Path) -> None:
    """Refuse a socket that another user listens on.

    Raises
    ------
    HelperRefused
        The peer's uid is not ours.
    """
    pid, uid = peer_of(sock)
    if not is_own(uid):
        raise HelperRefused(
            f"the process behind {path} (pid {pid}) belongs to uid {uid}, not to you",
            hint="point TELEMAGIC_RUNTIME_DIR at a private directory of yours",
        )
