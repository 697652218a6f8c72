"""The flows of one carrier: frames in, sockets opened and fed."""

from __future__ import annotations

import errno
from collections import OrderedDict
from time import monotonic
from typing import TYPE_CHECKING, Final

from telehelper.core.credit import MAX_CREDIT
from telehelper.core.frames import (
    SPOKEN,
    TIMED,
    UNKNOWN,
    Frame,
    FrameType,
    Open,
    Opened,
    Proto,
    decode_coded,
    decode_open,
    decode_u32,
    encode_coded,
    encode_opened,
    encode_u32,
)
from telehelper.errors import TunnelError
from telehelper.manager.backlog import CarrierBacklog
from telehelper.manager.dialer import Dial, is_connected, text_of
from telehelper.manager.echo_flow import EchoFlow, open_echo_socket
from telehelper.manager.sessions import MAX_FLOWS, OPEN_RATE
from telehelper.manager.tcp_flow import TcpFlow
from telehelper.manager.udp_flow import UdpFlow

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from telehelper.carrier import Carrier
    from telehelper.manager.datagram_flow import DatagramFlow
    from telehelper.manager.dial_rules import DialRules
    from telehelper.manager.dialer import Dialer
    from telehelper.manager.sessions import Session
    from telehelper.manager.shared import Shared

LOOKS: Final = 64  # flows that look for room each time the carrier has taken something; it costs little, then

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
    shared
        What all carriers share.
    rules
        What is not dialed.
    version
        Of the protocol, as the near side wants it.

    Attributes
    ----------
    tells_times
        Whether the near side is to hear what was measured.
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
        shared: Shared,
        rules: DialRules,
        *,
        version: int = SPOKEN[0],
    ) -> None:
        self.tells_times = version >= TIMED
        self.stray = 0
        self.draining = False
        self.carrier = carrier
        self.poller = shared.poller
        self.pool = shared.pool_of(session)
        self._backlog = CarrierBacklog(shared.backlog, carrier.mux)
        self.room = self._backlog.room
        self._session = session
        self._dialer = dialer
        self._audit = audit
        self._rules = rules
        self._tcp: dict[int, TcpFlow] = {}
        self._datagrams: dict[int, DatagramFlow] = {}
        self._dials: dict[int, Dial] = {}
        self._waiting: OrderedDict[TcpFlow, None] = OrderedDict()  # for room in the mux, the first come first

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

    def wait(self, flow: TcpFlow) -> None:
        """See :class:`~telehelper.manager.tcp_flow.Home`."""
        self._waiting[flow] = None

    def look_again(self) -> None:
        """Let flows go on that waited for room in the mux, in turn."""
        waiting, mux = self._waiting, self.carrier.mux
        for looks in range(len(waiting)):
            if mux.queued and (looks >= LOOKS or not self._backlog.has_room()):
                return  # the carrier will take more, and this be called again
            waiting.popitem(last=False)[0].look_again()
        self._backlog.settle()

    def abort(self) -> None:
        """Reset everything: the carrier is lost."""
        for dial in self._dials.values():
            dial.cancel()
        flows: list[TcpFlow | DatagramFlow] = [*self._tcp.values(), *self._datagrams.values()]
        for flow in flows:
            flow.abort()
        self._session.flows -= len(self._dials) + len(flows)
        for table in (self._dials, self._tcp, self._datagrams, self._waiting):
            table.clear()
        self._backlog.close()

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
        flow = self._tcp.get(number) or self._datagrams.get(number)
        if kind is FrameType.CREDIT and isinstance(flow, TcpFlow):
            flow.receive_credit(decode_u32(frame))
        elif kind is FrameType.DATAGRAM and flow is not None and not isinstance(flow, TcpFlow):
            flow.receive_datagram(payload)
        elif kind is FrameType.FIN and flow is not None:
            flow.receive_fin()
        elif kind is FrameType.RST:
            decode_coded(frame)  # must be well-formed
            self._receive_reset(number, flow)
        else:
            self.stray += 1

    def _receive_reset(self, number: int, flow: TcpFlow | DatagramFlow | None) -> None:
        if flow is not None:
            flow.abort()
            self.carrier.drop_flow(number)
            self.forget(number)
        elif number in self._dials:
            self._dials.pop(number).cancel()
            self._session.flows -= 1
        else:
            self.stray += 1

    # --- opening ---

    def _open(self, flow: int, what: Open) -> None:
        if flow in self._tcp or flow in self._datagrams or flow in self._dials:
            raise TunnelError(f"flow {flow} was opened twice")
        code, reason = self._refusal(what)
        if code:
            self._reject(flow, what, code, reason)
            return
        self._session.flows += 1
        if what.protocol is Proto.TCP:
            self._open_tcp(flow, what)
        else:
            self._open_datagrams(flow, what)

    def _refusal(self, what: Open) -> tuple[int, str]:
        if self.draining:
            return errno.ESHUTDOWN, "the manager is shutting down"
        if self._session.flows >= MAX_FLOWS:
            return errno.EMFILE, f"the session has {MAX_FLOWS} flows already"
        if not self._session.may_open(monotonic()):
            return errno.EMFILE, f"the session opens more than {OPEN_RATE} flows per second"
        reason = self._rules.refusal(what.dst, what.dport)
        return (errno.EACCES, reason) if reason else (0, "")

    def _open_datagrams(self, flow: int, what: Open) -> None:
        datagrams: DatagramFlow
        try:
            if what.protocol is Proto.UDP:
                datagrams = UdpFlow(flow, self._dialer.associate(what.dst, what.dport), self)
            else:
                datagrams = EchoFlow(flow, open_echo_socket(what.dst), self)
        except OSError as error:
            self._fail(flow, what, error)
            return
        self._datagrams[flow] = datagrams
        self.carrier.send(encode_u32(FrameType.OPENED, flow, 0))
        self._log(flow, what, "ok")
        datagrams.start()

    def _open_tcp(self, flow: int, what: Open) -> None:
        started = monotonic()
        try:
            sock = self._dialer.connect(what.dst, what.dport)
        except OSError as error:
            self._fail(flow, what, error)
            return
        try:
            connected = is_connected(sock)  # on the same node it often is by now
        except OSError as error:
            sock.close()
            self._fail(flow, what, error)
            return
        if connected:
            self._start(flow, what, sock, started)
        else:
            self._dials[flow] = Dial(flow, what, sock, self.poller, self._dialed)

    def _dialed(self, dial: Dial, error: OSError | None) -> None:
        del self._dials[dial.flow]
        if error is not None:
            self._fail(dial.flow, dial.what, error)
        else:
            self._start(dial.flow, dial.what, dial.sock, dial.started).ready(dial.events)

    def _start(self, flow: int, what: Open, sock: socket.socket, started: float) -> TcpFlow:
        tcp = self._tcp[flow] = TcpFlow(flow, sock, min(what.credit, MAX_CREDIT), self)
        dial = monotonic() - started
        told = dial if self.tells_times else UNKNOWN
        self.carrier.send(encode_opened(flow, Opened(tcp.initial_credit, told)))
        self._log(flow, what, f"ok {dial * 1e3:.1f} ms")
        tcp.start()
        return tcp

    def _fail(self, flow: int, what: Open, error: OSError) -> None:
        self._session.flows -= 1
        code = error.errno or errno.EIO
        self._reject(flow, what, code, error.strerror or str(error))

    def _reject(self, flow: int, what: Open, code: int, reason: str) -> None:
        self.carrier.send(encode_coded(FrameType.REJECTED, flow, code, reason))
        self._log(flow, what, f"{errno.errorcode.get(code, code)} {reason}")

    def _log(self, flow: int, what: Open, result: str) -> None:
        where = text_of(what.dst)
        if what.dst.version == 6:
            where = f"[{where}]"
        kind = what.protocol.name.lower()
        self._audit(f"dial session={self._session.id} flow={flow} {kind} {where}:{what.dport} {result}")

    def forget(self, flow: int) -> None:
        """See :class:`~telehelper.manager.tcp_flow.Home`."""
        tcp = self._tcp.pop(flow, None)
        if tcp is not None:
            self._waiting.pop(tcp, None)
        else:
            self._datagrams.pop(flow, None)
        self._session.flows -= 1
