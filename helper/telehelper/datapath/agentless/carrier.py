"""What the tunnel takes for a carrier where there is no manager: flows end here, each in a port-forward.

The tunnel's own rules hold: frames from the near side never block, and nothing is told from inside :meth:`send`. When
the API server does not answer any more the carrier is lost with all its flows, as any other.
"""

from __future__ import annotations

import asyncio
import errno
import os
from time import monotonic
from typing import TYPE_CHECKING, Final, Self

from telehelper.background import begin
from telehelper.core.credit import CreditPool
from telehelper.core.frames import (
    Frame,
    FrameType,
    Open,
    Proto,
    decode_open,
    decode_u32,
    encode_coded,
    encode_u32,
)
from telehelper.datapath.agentless.flow import Dialed, ForwardedFlow, NoWay
from telehelper.datapath.agentless.heartbeat import Heartbeat
from telehelper.datapath.agentless.index import Refusal
from telehelper.errors import TunnelError
from telehelper.kube.client import ApiNotFound

if TYPE_CHECKING:
    from telehelper.core.frames import Address
    from telehelper.datapath.agentless.index import Index, Target
    from telehelper.datapath.agentless.nameserver import NameServer
    from telehelper.datapath.tunnel import Tunnel
    from telehelper.kube.client import ApiClient

MAX_FLOWS: Final = (
    400  # at once; each is a WebSocket and a descriptor, and a process has 1024 of these by default
)
MAX_DIALS: Final = 16  # at once; each is a TLS handshake for the API server
TRIES: Final = 3  # pods to try, when the first have gone and the index does not know it yet
LATELY: Final = 60.0  # seconds for which a port that has answered is taken to be there
MAX_ANSWERED: Final = 1024  # ports remembered; the one that has been silent longest is forgotten
DNS_PORT: Final = 53


class AgentlessCarrier:
    """Flows by port-forward, and the cluster's names from the API.

    Parameters
    ----------
    tunnel
        Hears of frames and of the end.
    api
        With the user's own rights.
    index
        Where addresses lead.
    names
        Answers what goes to `dns_server`, port 53, by UDP.
    """

    def __init__(
        self, tunnel: Tunnel, api: ApiClient, index: Index, names: NameServer, dns_server: Address
    ) -> None:
        self.pool = CreditPool()
        self._tunnel = tunnel
        self._api = api
        self._index = index
        self._names = names
        self._dns_server = dns_server
        self._heartbeat = Heartbeat(api)
        self._flows: dict[int, tuple[ForwardedFlow, asyncio.Task[None]]] = {}
        self._half_closed: set[int] = set()  # the pod's side has ended, the near side has not
        self._dns: set[int] = set()
        self._answered: dict[Target, float] = {}  # when a port's bytes came last, the longest ago first
        self._dials = asyncio.Semaphore(MAX_DIALS)
        self._closing: set[asyncio.Task[None]] = set()  # port-forwards that say goodbye; that is bounded
        self._watch: asyncio.Task[None] | None = None
        self._is_open = True

    def start(self) -> Self:
        """Begin to watch over the API server."""
        self._watch = begin(self._watch_over())
        return self

    # --- CarrierLike

    @property
    def rtt(self) -> float | None:
        """How long the API server takes for an answer, in seconds."""
        return self._heartbeat.rtt

    @property
    def min_rtt(self) -> float | None:
        """The least that was measured."""
        return self._heartbeat.min_rtt

    @property
    def is_open(self) -> bool:
        """Whether it is neither closed nor lost."""
        return self._is_open

    def send(self, frame: Frame) -> None:
        """Take a frame from the near side."""
        if not self._is_open:
            return
        try:
            self._receive(frame)
        except TunnelError as error:
            self._reset(frame.flow, errno.EPROTO, error.message)

    def probe(self) -> None:
        """See :class:`~telehelper.datapath.tunnel.CarrierLike`."""
        self._heartbeat.doubt()

    async def close(self, reason: str) -> None:
        """Close everything; the tunnel is not told."""
        self._end()
        if self._watch is not None and self._watch is not asyncio.current_task():
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        await asyncio.gather(*(task for _, task in self._flows.values()), return_exceptions=True)
        await self._names.close()
        await asyncio.gather(*self._closing, return_exceptions=True)

    # --- frames

    def _receive(self, frame: Frame) -> None:
        kind, number, payload = frame
        flow = self._flows[number][0] if number in self._flows else None
        if kind is FrameType.OPEN:
            self._open(number, decode_open(frame))
        elif kind is FrameType.DATAGRAM and number in self._dns:
            self._names.query(bytes(payload), lambda data: self._answer(number, data))
        elif kind is FrameType.RST:
            self._forget(number)
        elif flow is None:
            self._receive_late(kind, number)
        elif kind is FrameType.DATA:
            flow.receive_data(payload)
        elif kind is FrameType.CREDIT:
            flow.receive_credit(decode_u32(frame))
        elif kind is FrameType.FIN:
            flow.receive_fin()

    def _receive_late(self, kind: FrameType, number: int) -> None:
        """Take a frame of a flow whose port-forward has ended."""
        if number not in self._half_closed:
            return
        if kind is FrameType.FIN:
            self._half_closed.discard(number)
        elif kind is FrameType.DATA:
            self._reset(number, errno.EPIPE, "the service has closed the connection")

    def _open(self, number: int, what: Open) -> None:
        if what.protocol is Proto.UDP and (what.dst, what.dport) == (self._dns_server, DNS_PORT):
            self._dns.add(number)
            self._deliver_soon(encode_u32(FrameType.OPENED, number, 0))
        elif what.protocol is not Proto.TCP:
            found = self._find(what)
            if isinstance(found, Refusal):
                self._reject(number, found.code, found.reason)
        elif len(self._flows) >= MAX_FLOWS:
            self._reject(
                number,
                errno.EMFILE,
                f"without a traffic manager {MAX_FLOWS} connections at once are the most",
            )
        else:
            flow = ForwardedFlow(number, what, self)
            task = asyncio.create_task(flow.run())
            self._flows[number] = flow, task
            task.add_done_callback(lambda done: self._ran(flow, done))

    def _find(self, what: Open) -> Target | Refusal:
        return self._index.find(what.protocol, what.src, what.dst, what.dport, monotonic())

    def _answer(self, number: int, data: bytes) -> None:
        if number in self._dns:
            self._deliver_soon(Frame(FrameType.DATAGRAM, number, data))

    def _reject(self, number: int, code: int, reason: str) -> None:
        self._deliver_soon(encode_coded(FrameType.REJECTED, number, code, reason))

    def _reset(self, number: int, code: int, reason: str) -> None:
        self._forget(number)
        self._deliver_soon(encode_coded(FrameType.RST, number, code, reason or os.strerror(code)))

    def _forget(self, number: int) -> None:
        self._half_closed.discard(number)
        self._dns.discard(number)
        if number in self._flows:
            self._flows[number][1].cancel()

    def _deliver_soon(self, frame: Frame) -> None:
        asyncio.get_running_loop().call_soon(self.deliver, frame)

    # --- for the flows

    async def dial(self, what: Open) -> Dialed:
        """See :class:`~telehelper.datapath.agentless.flow.Home`."""
        async with self._dials:
            for _ in range(TRIES):
                found = self._find(what)
                if isinstance(found, Refusal):
                    raise NoWay(found.code, found.reason)
                try:
                    forward = await self._api.portforward(found.pod.namespace, found.pod.name, found.port)
                except ApiNotFound:
                    self._index.forget_pod(found.pod)
                else:
                    is_known = monotonic() - self._answered.pop(found, -LATELY) < LATELY
                    return Dialed(forward, found, is_known)
        raise NoWay(errno.EHOSTUNREACH, f"the pods behind {what.dst} have just gone")

    def deliver(self, frame: Frame) -> None:
        """See :class:`~telehelper.datapath.agentless.flow.Home`."""
        if self._is_open:
            self._tunnel.carrier_frames([frame])

    def answered(self, target: Target) -> None:
        """See :class:`~telehelper.datapath.agentless.flow.Home`."""
        self._answered.pop(target, None)
        self._answered[target] = monotonic()
        if len(self._answered) > MAX_ANSWERED:
            del self._answered[next(iter(self._answered))]

    def heard(self) -> None:
        """See :class:`~telehelper.datapath.agentless.flow.Home`."""
        self._heartbeat.heard()

    def over(self, flow: ForwardedFlow) -> None:
        """See :class:`~telehelper.datapath.agentless.flow.Home`."""
        if self._flows.pop(flow.number, None) is None:
            return
        flow.release()
        if flow.is_half_closed:
            self._half_closed.add(flow.number)
        if flow.forward is not None:
            closing = asyncio.create_task(flow.forward.close())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    def _ran(self, flow: ForwardedFlow, task: asyncio.Task[None]) -> None:
        """Look after a flow whose task has ended, perhaps before it had begun."""
        self.over(flow)
        error = None if task.cancelled() else task.exception()
        if error is not None:  # a bug of ours must not leave a program waiting
            self.deliver(encode_coded(FrameType.RST, flow.number, errno.EIO, "internal error"))
            context = {"message": "a flow without a traffic manager failed", "exception": error, "task": task}
            asyncio.get_running_loop().call_exception_handler(context)

    # --- the API server

    async def _watch_over(self) -> None:
        why = await self._heartbeat.run()
        if self._is_open:
            self._end()
            self._tunnel.carrier_lost(self, f"{why}; without it no connection lives")

    def _end(self) -> None:
        self._is_open = False
        for _, task in self._flows.values():
            task.cancel()
