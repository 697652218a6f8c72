"""The carrier ports: accept carriers, check their HELLO, and let them open flows."""

from __future__ import annotations

import asyncio
import contextlib
import errno
from time import monotonic
from typing import TYPE_CHECKING, Final

from telehelper.carrier import Carrier
from telehelper.core.frames import SPOKEN, Frame, FrameType, decode_coded, encode_coded
from telehelper.core.mux import Mux
from telehelper.errors import TunnelError
from telehelper.manager.carrier_flows import CarrierFlows
from telehelper.manager.listener import Listener
from telehelper.manager.shared import Shared

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Coroutine

    from telehelper.byte_stream import ByteStream
    from telehelper.manager.dial_rules import DialRules
    from telehelper.manager.dialer import Dialer
    from telehelper.manager.sessions import Session, SessionTable

HELLO_TIME: Final = 5.0  # seconds from the connection to its HELLO
MAX_CARRIERS: Final = 2048  # at once, strangers included; a further one is closed unheard

# Codes of the GOAWAYs sent here; TunnelError's is carrier.EPROTO.
WRONG_VERSION: Final = errno.EPROTONOSUPPORT
WRONG_TOKEN: Final = errno.EACCES
NO_HELLO: Final = errno.ETIMEDOUT
DRAINING: Final = errno.ESHUTDOWN
TOO_MANY: Final = errno.EMFILE


class ServedCarrier:
    """One carrier at the manager: first HELLO, then flows."""

    def __init__(self, server: MuxServer, stream: ByteStream, welcome: Callable[[], None]) -> None:
        self._server = server
        self._welcome = welcome
        self._loop = asyncio.get_running_loop()
        self.carrier = Carrier(
            stream,
            Mux(monotonic()),
            on_frames=self._on_frames,
            on_lost=self._on_lost,
            on_taken=self._on_taken,
        )
        self._session: Session | None = None
        self._flows: CarrierFlows | None = None
        self._hello_timer = self._loop.call_later(
            server.hello_time, self._refuse, NO_HELLO, "no HELLO in time"
        )

    def drain(self) -> None:
        """Announce the end: nothing new is opened here."""
        self.carrier.send(encode_coded(FrameType.GOAWAY, 0, DRAINING, "the manager is shutting down"))
        if self._flows is not None:
            self._flows.draining = True

    def _on_frames(self, _carrier: Carrier, frames: list[Frame]) -> None:
        if self._flows is None:
            self._receive_hello(frames[0])
            frames = frames[1:]
        if self._flows is not None:
            self._flows.receive_frames(frames)

    def _receive_hello(self, frame: Frame) -> None:
        if self._hello_timer.cancelled():
            return  # refused already, and being closed
        self._hello_timer.cancel()
        if frame.type is not FrameType.HELLO:
            raise TunnelError(f"the first frame is {frame.type.name}, not HELLO")
        version, token = decode_coded(frame)
        if version not in SPOKEN:
            self._refuse(
                WRONG_VERSION, f"protocol {version} is not spoken here, only {SPOKEN[-1]} to {SPOKEN[0]}"
            )
            return
        session = self._server.sessions.find(token)
        if session is None:
            self._refuse(WRONG_TOKEN, "no such session, or it has expired")
            return
        if not self._server.sessions.attach(session):
            self._refuse(TOO_MANY, f"the session has {session.users} carriers and watchers already")
            return
        self._welcome()
        self._session = session
        self._flows = self._server.make_flows(self.carrier, session, version)
        self.carrier.send(encode_coded(FrameType.HELLO, 0, version))

    def _refuse(self, code: int, reason: str) -> None:
        self._hello_timer.cancel()
        self.carrier.send(encode_coded(FrameType.GOAWAY, 0, code, reason))
        self._server.spawn(self.carrier.close(reason))

    def _on_taken(self, _carrier: Carrier) -> None:
        if self._flows is not None:
            self._flows.look_again()

    def _on_lost(self, _carrier: Carrier, reason: str) -> None:
        self._hello_timer.cancel()
        if self._flows is not None:
            self._flows.abort()
        name = "-"
        if self._session is not None:
            name = self._session.id
            self._server.sessions.detach(self._session, self._loop.time())
        self._server.audit(f"carrier session={name} ended: {reason}")


class MuxServer:
    """Listens for carriers.

    Parameters
    ----------
    sessions
        Whose tokens are good.
    dialer
        How to reach services.
    audit
        Takes one line for each dial and for each carrier that ended.
    rules
        What is not dialed.
    hello_time
        Seconds within which a carrier must say HELLO.
    """

    def __init__(
        self,
        sessions: SessionTable,
        dialer: Dialer,
        audit: Callable[[str], None],
        *,
        rules: DialRules,
        hello_time: float = HELLO_TIME,
    ) -> None:
        self.sessions = sessions
        self.audit = audit
        self.hello_time = hello_time
        self._dialer = dialer
        self.rules = rules
        self._shared = Shared()
        self._listeners: list[Listener] = []
        self._carriers: set[ServedCarrier] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def listen(self, host: str, port: int, context: ssl.SSLContext | None = None) -> int:
        """Listen on one more port and return it, for TLS if a context is given; OSError if it is taken."""
        listener = Listener(self.serve, self.spawn, self._has_room, context=context)
        bound = await listener.start(host, port)
        self._listeners.append(listener)
        self.rules.own_ports.add(bound)
        return bound

    def make_flows(self, carrier: Carrier, session: Session, version: int) -> CarrierFlows:
        """Return the flow table for a carrier that has said HELLO."""
        return CarrierFlows(
            carrier, session, self._dialer, self.audit, self._shared, self.rules, version=version
        )

    def spawn(self, work: Coroutine[object, None, None]) -> None:
        """Run something beside; :meth:`drain` waits for it."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _has_room(self) -> bool:
        return sum(listener.connections for listener in self._listeners) < MAX_CARRIERS

    async def serve(self, stream: ByteStream, welcome: Callable[[], None]) -> None:
        """Serve one carrier to its end; call `welcome` when it has said HELLO with a good token."""
        served = ServedCarrier(self, stream, welcome)
        self._carriers.add(served)
        try:
            await served.carrier.run()
        finally:
            self._carriers.discard(served)

    async def drain(self, grace: float) -> None:
        """Accept no more, tell all carriers, give their flows `grace` seconds to end, and close."""
        for listener in self._listeners:
            await listener.stop()
        for served in self._carriers:
            served.drain()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                while self._carriers and self.sessions.flows:  # noqa: ASYNC110  # flows end in many places
                    await asyncio.sleep(0.05)
        await asyncio.gather(*(served.carrier.close("the manager shut down") for served in self._carriers))
        while self._tasks:
            await asyncio.wait(self._tasks)
        self._shared.close()
