"""Flows that never leave this machine: TCP to our own resolver is answered here, between the engine and the tunnel.

The stack stays as it is: it opens flows and sends frames, whoever answers. Everything else passes to the tunnel.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING

from telehelper.core.dns_stream import LIMIT, DnsStreams, Question, StreamClient
from telehelper.core.frames import Frame, FrameType, decode_open
from telehelper.datapath.alarm import Alarm

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from ipaddress import IPv4Address

    from telehelper.core.dns_stream import Output
    from telehelper.datapath.engine import FrameSink


class LocalFlows:
    """A :class:`~telehelper.datapath.engine.FrameSink` before another.

    Parameters
    ----------
    tunnel
        Takes all other flows.
    resolver
        Our resolver's address; TCP to its port 53 stays here. (The stack refuses all other ports by itself.)
    deliver
        Gives frames to the engine; called from the event loop, never from within `send`.
    ask
        Takes a question: its client for `answer`, the question, and how many bytes the answer may have.
    """

    def __init__(
        self,
        tunnel: FrameSink,
        resolver: IPv4Address,
        deliver: Callable[[list[Frame]], None],
        ask: Callable[[StreamClient, bytes, int], None],
    ) -> None:
        self._tunnel = tunnel
        self._resolver = resolver
        self._deliver = deliver
        self._ask = ask
        self._streams = DnsStreams()
        self._loop = asyncio.get_running_loop()
        self._waiting: list[Frame] = []
        self._alarm = Alarm(self._fire)

    def send(self, frame: Frame) -> None:
        """Take a frame of the stack's."""
        if frame.flow in self._streams:
            self._perform(self._streams.receive_frame(frame, monotonic()))
        elif frame.type is FrameType.OPEN and (what := decode_open(frame)).dst == self._resolver:
            self._perform(self._streams.open(frame.flow, what, monotonic()))
        else:
            self._tunnel.send(frame)

    def forget(self, flow: int) -> None:
        """Drop a flow that is over."""
        if flow in self._streams:
            self._streams.forget(flow)
        else:
            self._tunnel.forget(flow)

    def answer(self, client: StreamClient, data: bytes) -> None:
        """Take the resolver's answer to a question."""
        self._perform(self._streams.answer(client, data, monotonic()))

    def close(self) -> None:
        """Stop; nothing is delivered any more."""
        self._streams = DnsStreams()
        self._waiting.clear()
        self._alarm.cancel()

    def _perform(self, outputs: Sequence[Output]) -> None:
        for output in outputs:
            if isinstance(output, Question):
                self._loop.call_soon(self._ask, output.client, output.data, LIMIT)
            else:
                if not self._waiting:
                    self._loop.call_soon(self._flush)
                self._waiting.append(output)
        self._alarm.set(self._streams.next_timer())

    def _flush(self) -> None:
        frames, self._waiting = self._waiting, []
        if frames:
            self._deliver(frames)

    def _fire(self, now: float) -> None:
        self._perform(self._streams.handle_timer(now))
