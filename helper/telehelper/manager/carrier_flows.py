"""The flows of one carrier: frames in, sockets opened and fed."""

from __future__ import annotations

import asyncio
import errno
import os
from typing import TYPE_CHECKING, Final

from telehelper.core.credit import MAX_CREDIT
from telehelper.core.frames import (
    Frame,
    FrameType,
    Open,
    Proto,
    decode_coded,
    decode_open,
    decode_u32,
    encode_coded,
    encode_u32,
)
from telehelper.errors import TunnelError
from telehelper.manager.dialer import refusal
from telehelper.manager.sessions import MAX_FLOWS
from telehelper.manager.tcp_flow import TcpFlow
from telehelper.manager.udp_flow import UdpFlow

if TYPE_CHECKING:
    from collections.abc import Callable

    from telehelper.carrier import Carrier
    from telehelper.manager.dialer import Dialer
    from telehelper.manager.sessions import Session

_DATA: Final = FrameType.DATA


class CarrierFlows:
    """All flows that the near side opened on one carrier.

    Parameters
    ----------
    carrier, session
        Whose flows these are.
    dialer
        How to reach services.
    audit
        Takes one line for each dial.
    allow_loopback
        Dial the loopback too; for tests.

    Attributes
    ----------
    stray
        Frames for flows that are no more, or never were: counted and ignored.
    draining
        Open nothing new.
    """

    def __init__(
        self,
        carrier: Carrier,
        session: Session,
        dialer: Dialer,
        audit: Callable[[str], None],
        *,
        allow_loopback: bool = False,
    ) -> None:
        self.stray = 0
        self.draining = False
        self._carrier = carrier
        self._session = session
        self._dialer = dialer
        self._audit = audit
        self._allow_loopback = allow_loopback
        self._loop = asyncio.get_running_loop()
        self._tcp: dict[int, TcpFlow] = {}
        self._udp: dict[int, UdpFlow] = {}
        self._dials: dict[int, asyncio.Task[bool]] = {}
        self._waiting: set[TcpFlow] = set()  # for room in the mux

    def receive_frames(self, frames: list[Frame]) -> None:
        """Take frames in order; TunnelError if one breaks the protocol."""
        tcp = self._tcp
        for frame in frames:
            if frame.type is _DATA:
                flow = tcp.get(frame.flow)
                if flow is None:
                    self.stray += 1
                else:
                    flow.receive_data(frame.payload)
            else:
                self._receive_other(frame)

    def look_again(self) -> None:
        """Let flows go on that waited for room in the mux."""
        waiting = self._waiting
        for flow in list(waiting):
            if flow.look_again():
                waiting.discard(flow)

    def abort(self) -> None:
        """Reset everything: the carrier is lost."""
        for task in list(self._dials.values()):
            task.cancel()
        flows: list[TcpFlow | UdpFlow] = [*self._tcp.values(), *self._udp.values()]
        for flow in flows:
            flow.abort()
            self._forget(flow.flow)

    def _receive_other(self, frame: Frame) -> None:
        kind = frame.type
        if kind is FrameType.OPEN:
            self._open(frame.flow, decode_open(frame))
        elif kind in (FrameType.CREDIT, FrameType.FIN, FrameType.RST, FrameType.DATAGRAM):
            self._receive_flow(frame)
        elif kind is not FrameType.GOAWAY:  # GOAWAY: the near side opens no more, and says so by not opening
            raise TunnelError(f"{kind.name} from the near side")

    def _receive_flow(self, frame: Frame) -> None:
        kind, number, payload = frame
        flow = self._tcp.get(number) or self._udp.get(number)
        if kind is FrameType.CREDIT and isinstance(flow, TcpFlow):
            flow.receive_credit(decode_u32(frame))
        elif kind is FrameType.DATAGRAM and isinstance(flow, UdpFlow):
            flow.receive_datagram(payload)
        elif kind is FrameType.FIN and flow is not None:
            flow.receive_fin()
        elif kind is FrameType.RST:
            decode_coded(frame)  # must be well-formed
            self._receive_reset(number, flow)
        else:
            self.stray += 1

    def _receive_reset(self, number: int, flow: TcpFlow | UdpFlow | None) -> None:
        if flow is not None:
            flow.abort()
            self._carrier.drop_flow(number)
            self._forget(number)
        elif number in self._dials:
            self._dials[number].cancel()
        else:
            self.stray += 1

    # --- opening ---

    def _open(self, flow: int, what: Open) -> None:
        if flow in self._tcp or flow in self._udp or flow in self._dials:
            raise TunnelError(f"flow {flow} was opened twice")
        code, reason = self._refusal(what)
        if code:
            self._reject(flow, what, code, reason)
            return
        self._session.flows += 1
        if what.protocol is Proto.UDP:
            self._open_udp(flow, what)
        else:
            task = self._dials[flow] = self._loop.create_task(self._dial(flow, what))
            task.add_done_callback(lambda done: self._dialed(flow, done))

    def _refusal(self, what: Open) -> tuple[int, str]:
        if self.draining:
            return errno.ESHUTDOWN, "the manager is shutting down"
        if what.protocol is Proto.ICMP:
            return errno.EPROTONOSUPPORT, "ICMP is not carried"
        if self._session.flows >= MAX_FLOWS:
            return errno.EMFILE, f"the session has {MAX_FLOWS} flows already"
        reason = refusal(what.dst, allow_loopback=self._allow_loopback)
        return (errno.EACCES, reason) if reason else (0, "")

    def _open_udp(self, flow: int, what: Open) -> None:
        try:
            sock = self._dialer.associate(what.dst, what.dport)
        except OSError as error:
            self._session.flows -= 1
            self._reject_error(flow, what, error)
            return
        self._udp[flow] = udp = UdpFlow(flow, sock, self._carrier, self._forget)
        self._carrier.send(encode_u32(FrameType.OPENED, flow, 0))
        self._log(flow, what, "ok")
        udp.start()

    async def _dial(self, flow: int, what: Open) -> bool:
        """Dial and say how it went; return whether the flow is open."""
        started = self._loop.time()
        try:
            sock = await self._dialer.connect(what.dst, what.dport, what.timeout)
        except OSError as error:
            self._reject_error(flow, what, error)
            return False
        # Nothing is awaited from here on, so no cancellation can lose the socket.
        self._tcp[flow] = tcp = TcpFlow(
            flow,
            sock,
            min(what.credit, MAX_CREDIT),
            self._carrier,
            on_closed=self._forget,
            on_waiting=self._waiting.add,
        )
        self._carrier.send(encode_u32(FrameType.OPENED, flow, tcp.initial_credit))
        self._log(flow, what, f"ok {(self._loop.time() - started) * 1e3:.1f} ms")
        tcp.start()
        return True

    def _dialed(self, flow: int, task: asyncio.Task[bool]) -> None:
        del self._dials[flow]
        if task.cancelled() or not task.result():
            self._session.flows -= 1

    def _reject_error(self, flow: int, what: Open, error: OSError) -> None:
        code = error.errno or errno.EIO
        self._reject(flow, what, code, os.strerror(code))  # event loops put words of their own into strerror

    def _reject(self, flow: int, what: Open, code: int, reason: str) -> None:
        self._carrier.send(encode_coded(FrameType.REJECTED, flow, code, reason))
        self._log(flow, what, f"{errno.errorcode.get(code, code)} {reason}")

    def _log(self, flow: int, what: Open, result: str) -> None:
        where = f"[{what.dst}]" if what.dst.version == 6 else str(what.dst)
        kind = what.protocol.name.lower()
        self._audit(f"dial session={self._session.id} flow={flow} {kind} {where}:{what.dport} {result}")

    def _forget(self, flow: int) -> None:
        tcp = self._tcp.pop(flow, None)
        if tcp is not None:
            self._waiting.discard(tcp)
        else:
            self._udp.pop(flow, None)
        self._session.flows -= 1
