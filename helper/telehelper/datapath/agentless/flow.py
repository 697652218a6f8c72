"""One TCP flow over a port-forward of its own, seen from the tunnel like a flow at a manager.

Opening. The WebSocket is there before the pod's side has dialed, and only a failure is ever told: on the error channel,
right after the ports were announced. So OPENED goes out when the pod's first bytes come, or when ``GRACE`` has passed
after the announcement without an error; ``SHORT_GRACE``, if the very port has answered lately. A refused port is refused;
the price is that a program which speaks first waits so long for its connection.

Bytes. What comes from the pod is passed on within the near side's credit; without credit the WebSocket is not read,
which holds up this flow only. What comes from the near side is bounded by the credit that we gave, and credit goes back
for what the WebSocket took.

End. A port-forward cannot close one direction. The near side's FIN is kept to ourselves, and reading goes on: a service
that answers what it was sent is heard to the end. One that waits for the end before it answers waits in vain, so after
``LINGER`` without a byte the port-forward is closed; that is also how a connection ends that the program has closed for
good, which looks the same from here. The pod's end of file closes both directions (a second late, the container runtime's
grace), and reaches the near side as FIN. A WebSocket that ends without a goodbye is no end of file but a reset.
"""

from __future__ import annotations

import asyncio
import errno
from collections import deque
from time import monotonic
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from telehelper.core.credit import MAX_CREDIT, CreditBalance, CreditIssuer, CreditPool, growth_time
from telehelper.core.frames import MAX_DATA, Frame, FrameType, encode_coded, encode_u32
from telehelper.errors import ClusterError, CredentialsRefused, TunnelError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from telehelper.core.frames import Open
    from telehelper.datapath.agentless.index import Target

GRACE: Final = 0.05  # seconds after the announcement in which a failed dial is told; measured: 0.4 ms, of a busy server 40
SHORT_GRACE: Final = 0.01  # seconds, where a failure is not to be expected
SLACK: Final = (
    0.001  # seconds to take in what came while this process was busy: timers come before what was received
)
LINGER: Final = 10.0  # seconds without a byte after the near side's FIN
LARGEST_MESSAGE: Final = 256 * 1024  # bytes of one message to the pod; the servers take 32 MiB

Buffer = bytes | bytearray | memoryview


class Forward(Protocol):
    """What a flow needs of a port-forward."""

    @property
    def announced(self) -> asyncio.Event:
        """Set when the server has announced the port: from now on it dials."""

    @property
    def said_goodbye(self) -> bool:
        """Whether the server has closed it properly."""

    async def close(self) -> None:
        """Close it; bounded."""

    async def receive(self) -> bytes | memoryview:
        """Return the next bytes, empty at the end; OSError if it broke or the server told an error."""

    async def send(self, buffers: Sequence[Buffer]) -> None:
        """Send bytes; OSError if it broke."""


class Dialed(NamedTuple):
    """A port-forward, where it leads, and whether that has answered lately."""

    forward: Forward
    target: Target
    is_known: bool


class NoWay(Exception):
    """The flow cannot be opened; never leaves this package."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class Home(Protocol):
    """What a flow shares with the others of its carrier."""

    pool: CreditPool

    @property
    def min_rtt(self) -> float | None:
        """The least time that the API server took for an answer, in seconds."""

    async def dial(self, what: Open) -> Dialed:
        """Open a port-forward to where a flow goes; NoWay or a ClusterError if that fails."""

    def deliver(self, frame: Frame) -> None:
        """Pass a frame to the near side."""

    def heard(self) -> None:
        """Learn that the API server lives."""

    def answered(self, target: Target) -> None:
        """Learn that bytes came from a pod's port."""

    def over(self, flow: ForwardedFlow) -> None:
        """Learn that a flow is over; its :attr:`ForwardedFlow.forward` is to be closed."""


class ForwardedFlow:
    """One flow. Its work is :meth:`run`; frames from the near side come by the other methods, which never deliver.

    Attributes
    ----------
    forward
        Its port-forward, once there is one.
    is_half_closed
        The pod's side has ended, and the near side has not.
    """

    def __init__(self, number: int, what: Open, home: Home) -> None:
        self.number = number
        self.forward: Forward | None = None
        self.is_half_closed = False
        self._what = what
        self._home = home
        self._balance = CreditBalance(min(what.credit, MAX_CREDIT))
        self._issuer = CreditIssuer(pool=home.pool)
        self._unsent: deque[bytes] = deque()
        self._near_done = False  # FIN received
        self._news_from_near = asyncio.Event()  # something to send, or FIN
        self._credit_came = asyncio.Event()
        self._heard_at = 0.0  # when the pod's last bytes came, monotonic

    # --- from the near side

    def receive_data(self, data: Buffer) -> None:
        """Take a DATA frame's payload; TunnelError if it was over its credit or after FIN."""
        if self._near_done:
            raise TunnelError(f"DATA after FIN on flow {self.number}")
        self._issuer.received(len(data))
        self._unsent.append(bytes(data))
        self._news_from_near.set()

    def receive_credit(self, n: int) -> None:
        """Take a CREDIT frame; TunnelError if it is nonsense."""
        self._balance.grant(n)
        self._credit_came.set()

    def receive_fin(self) -> None:
        """Take a FIN frame."""
        self._near_done = True
        self._news_from_near.set()

    # --- the work

    async def run(self) -> None:
        """Open, copy until the end, and say how it ended; cancelling ends it without a word."""
        try:
            end = await self._run()
            self._home.deliver(end)
            self.is_half_closed = end.type is FrameType.FIN and not self._near_done
        finally:
            self._home.over(self)

    def release(self) -> None:
        """Give back what it holds of the pool; a second call does nothing."""
        self._unsent.clear()
        self._issuer.close()

    async def _run(self) -> Frame:
        try:
            async with asyncio.timeout(self._what.timeout):
                dialed = await self._home.dial(self._what)
                self.forward = dialed.forward
                first = await self._confirm(dialed)
        except TimeoutError:
            return self._coded(
                FrameType.REJECTED, errno.EHOSTUNREACH, "the API server took too long to forward a port"
            )
        except NoWay as error:
            return self._coded(FrameType.REJECTED, error.code, error.reason)
        except CredentialsRefused as error:
            return self._coded(FrameType.REJECTED, errno.EACCES, error.message)
        except ClusterError as error:
            return self._coded(FrameType.REJECTED, errno.EHOSTUNREACH, error.message)
        self._home.heard()
        self._home.deliver(encode_u32(FrameType.OPENED, self.number, self._issuer.initial))
        self._heard_at = monotonic()
        return await self._copy(dialed, first)

    async def _confirm(self, dialed: Dialed) -> asyncio.Task[bytes | memoryview]:
        """Wait until the dial cannot be refused any more; return the receiving that has begun by then.

        Raises
        ------
        NoWay
            It was refused.
        """
        first = asyncio.ensure_future(dialed.forward.receive())
        announced = asyncio.ensure_future(dialed.forward.announced.wait())
        try:
            await asyncio.wait((first, announced), return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait((first,), timeout=SHORT_GRACE if dialed.is_known else GRACE)
            await asyncio.wait((first,), timeout=SLACK)
            if first.done():
                first.result()
            return first
        except OSError as error:
            raise _refusal(error.strerror or str(error)) from error
        except BaseException:
            await _cancel(first)
            raise
        finally:
            await _cancel(announced)

    async def _copy(self, dialed: Dialed, first: asyncio.Task[bytes | memoryview]) -> Frame:
        """Copy both ways until one has ended; return the frame that says so."""
        up = asyncio.ensure_future(self._copy_up(dialed.forward))
        down = asyncio.ensure_future(self._copy_down(dialed, first))
        try:
            await asyncio.wait((up, down), return_when=asyncio.FIRST_COMPLETED)
            return (down if down.done() else up).result()
        except OSError as error:
            return self._coded(FrameType.RST, errno.ECONNRESET, error.strerror or str(error))
        finally:
            await _cancel(up)
            await _cancel(down)
            await _cancel(first)

    async def _copy_down(self, dialed: Dialed, first: asyncio.Task[bytes | memoryview]) -> Frame:
        forward = dialed.forward
        data = await first
        if data:
            self._home.answered(dialed.target)
        while data:
            self._home.heard()
            self._heard_at = monotonic()
            await self._pass_down(data)
            data = await forward.receive()
        if not forward.said_goodbye:
            raise ConnectionResetError(errno.ECONNRESET, "the connection to the API server broke")
        return Frame(FrameType.FIN, self.number)

    async def _pass_down(self, data: Buffer) -> None:
        view, balance = memoryview(data), self._balance
        while view:
            size = min(len(view), balance.available, MAX_DATA)
            if not size:
                self._credit_came.clear()
                await self._credit_came.wait()
                continue
            balance.spend(size)
            self._home.deliver(Frame(FrameType.DATA, self.number, view[:size]))
            view = view[size:]

    async def _copy_up(self, forward: Forward) -> Frame:
        """Send what comes, and after FIN wait for the pod to fall silent."""
        issuer = self._issuer
        while not self._near_done or self._unsent:
            await self._news_from_near.wait()
            self._news_from_near.clear()
            while self._unsent:
                buffers = self._take()
                await forward.send(buffers)
                if not self._near_done:
                    issuer.growth_time = growth_time(self._home.min_rtt)
                    grant = issuer.consumed(sum(map(len, buffers)), monotonic())
                    if grant:
                        self._home.deliver(encode_u32(FrameType.CREDIT, self.number, grant))
        self._heard_at = monotonic()
        await self._fall_silent()
        return Frame(FrameType.FIN, self.number)

    async def _fall_silent(self) -> None:
        left = LINGER
        while left > 0:
            await asyncio.sleep(left)  # a time is waited for, which each byte puts off
            left = self._heard_at + LINGER - monotonic()

    def _take(self) -> list[bytes]:
        buffers = [self._unsent.popleft()]
        size = len(buffers[0])
        while self._unsent and size + len(self._unsent[0]) <= LARGEST_MESSAGE:
            buffers.append(self._unsent.popleft())
            size += len(buffers[-1])
        return buffers

    def _coded(self, kind: FrameType, code: int, reason: str) -> Frame:
        return encode_coded(kind, self.number, code, reason)


def _refusal(told: str) -> NoWay:
    """Say why a dial failed: container runtimes tell it in words only."""
    if "refused" in told:
        return NoWay(errno.ECONNREFUSED, "connection refused")
    return NoWay(errno.EHOSTUNREACH, told)


async def _cancel(task: asyncio.Future[object] | asyncio.Task[object]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
