"""Our end of the socket pair to netd: ask the root part for the TUN, addresses, routes and DNS."""

from __future__ import annotations

import array
import asyncio
import socket
from typing import TYPE_CHECKING, Final, TypeVar

from telehelper.codec import MAX_NETD_MESSAGE, Decoder, Envelope, encode
from telehelper.errors import ControlError, HelperLost
from telehelper.messages import (
    PROTOCOL_VERSION,
    Configure,
    DnsSet,
    Done,
    Failed,
    Message,
    NetdReady,
    OpenVif,
    SetDns,
    Undo,
    VifOpened,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

READY_TIMEOUT: Final = 10.0  # seconds from netd's start to its first message; a fifth of one is usual
ANSWER_TIMEOUT: Final = 10.0  # seconds for one request; a thousand routes take less than one
_CHUNK: Final = 65536  # bytes

_M = TypeVar("_M", bound=Message)


class NetdClient:
    """One netd. Requests are made one at a time; the end of netd is told once by `on_lost`."""

    def __init__(self, sock: socket.socket, *, on_lost: Callable[[str], None]) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._on_lost = on_lost
        self._decoder = Decoder(MAX_NETD_MESSAGE)
        self._answers: asyncio.Queue[Envelope | None] = asyncio.Queue()
        self._fds: list[int] = []
        self._turn = asyncio.Lock()
        self._number = 0  # of the latest request
        self._closed = False
        self._leaving = False  # netd was told to exit: its end is no loss
        asyncio.get_running_loop().add_reader(sock, self._readable)

    async def wait_ready(self) -> None:
        """Wait for netd's first message. HelperLost if it ends or speaks another version."""
        ready = await self._answer(NetdReady, READY_TIMEOUT)
        if ready.version != PROTOCOL_VERSION:
            raise HelperLost(
                f"netd speaks version {ready.version} of the protocol, this is {PROTOCOL_VERSION}",
                hint="telemagic helper install, if there is a root-owned copy; else install one version of telemagic "
                "only, then restart the kernel",
            )

    async def open_vif(self, mtu: int, *, wide: bool = False) -> tuple[VifOpened, int]:
        """Have the TUN made; return what it is and our descriptor of it, which the caller closes.

        ``wide``: the user wants routes that are wider than a cluster's network usually is.
        """
        opened = await self._request(OpenVif(PROTOCOL_VERSION, mtu, wide), VifOpened)
        if len(self._fds) != 1:
            self._close_fds()
            raise ControlError("netd opened the TUN but passed no descriptor")
        return opened, self._fds.pop()

    async def configure(self, addresses: Sequence[str], routes: Sequence[str]) -> None:
        """Make addresses and routes exactly these."""
        await self._request(Configure(tuple(addresses), tuple(routes)), Done)

    async def set_dns(self, request: SetDns) -> DnsSet:
        """Point the host's resolver at us."""
        return await self._request(request, DnsSet)

    async def undo(self) -> None:
        """Take everything back; netd exits afterwards, which is not reported as a loss."""
        self._leaving = True
        await self._request(Undo(), Done)
        self.close()

    def close(self) -> None:
        """Close the socket; netd reads EOF, undoes and exits."""
        if not self._closed:
            self._closed = True
            asyncio.get_running_loop().remove_reader(self._sock)
            self._sock.close()
            self._close_fds()
            self._answers.put_nowait(None)

    async def _request(self, request: Message, expected: type[_M]) -> _M:
        async with self._turn:
            if self._closed:
                raise HelperLost("netd has gone")
            try:
                self._number += 1
                await asyncio.get_running_loop().sock_sendall(self._sock, encode(request, self._number))
            except OSError as error:
                raise HelperLost(f"netd has gone: {error.strerror}") from error
            return await self._answer(expected, ANSWER_TIMEOUT)

    async def _answer(self, expected: type[_M], timeout: float) -> _M:  # noqa: ASYNC109  # one place, one bound
        try:
            async with asyncio.timeout(timeout):
                envelope = await self._answers.get()
                while envelope is not None and envelope.id != self._number:
                    # An answer to a request whose caller was cancelled.
                    envelope = await self._answers.get()
        except TimeoutError:
            raise HelperLost(f"netd did not answer within {timeout:.0f} s") from None
        if envelope is None:
            self._answers.put_nowait(None)  # for whoever asks next
            raise HelperLost("netd ended before it answered")
        answer = envelope.body
        if isinstance(answer, Failed):
            raise answer.to_error()
        if not isinstance(answer, expected):
            raise ControlError(f"netd answered {type(answer).__name__} instead of {expected.__name__}")
        return answer

    def _readable(self) -> None:
        try:
            data, ancillary, _, _ = self._sock.recvmsg(
                _CHUNK, socket.CMSG_SPACE(4 * 4), socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return
        except OSError as error:
            self._lost(f"netd has gone: {error.strerror}")
            return
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds = array.array("i")
                fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
                self._fds.extend(fds)
        if not data:
            self._lost("netd ended")
            return
        try:
            for envelope in self._decoder.feed(data):
                self._answers.put_nowait(envelope)
        except ControlError as error:
            self._lost(f"netd broke the protocol: {error}")

    def _lost(self, reason: str) -> None:
        if not self._closed:
            self.close()
            if not self._leaving:
                self._on_lost(reason)

    def _close_fds(self) -> None:
        while self._fds:
            socket.close(self._fds.pop())
