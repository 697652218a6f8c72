"""TCP to our own resolver stays on the machine; everything else goes on to the tunnel."""

from __future__ import annotations

import asyncio
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

from telehelper.core import dns_stream
from telehelper.core.dns_stream import LIMIT, WINDOW, StreamClient
from telehelper.core.frames import Frame, FrameType, Open, Proto, encode_open, encode_u32
from telehelper.datapath.local_flows import LocalFlows

from tests.datapath.waiting import until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import pytest

OURS, RESOLVER = IPv4Address("198.19.240.0"), IPv4Address("198.19.240.1")


def opening(flow: int, dst: IPv4Address = RESOLVER) -> Frame:
    return encode_open(flow, Open(Proto.TCP, OURS, 40000, dst, 53, 30.0, 65536))


class Bench:
    def __init__(self) -> None:
        self.sent: list[Frame] = []
        self.forgotten: list[int] = []
        self.delivered: list[Frame] = []
        self.asked: list[tuple[StreamClient, bytes, int]] = []
        self.flows = LocalFlows(self, RESOLVER, self.delivered.extend, lambda *what: self.asked.append(what))

    def send(self, frame: Frame) -> None:
        self.sent.append(frame)

    def forget(self, flow: int) -> None:
        self.forgotten.append(flow)


def run(test: Callable[[Bench], Awaitable[None]]) -> None:
    async def main() -> None:
        it = Bench()
        await test(it)
        it.flows.close()

    asyncio.run(main())


def test_other_flows_go_to_the_tunnel() -> None:
    async def test(it: Bench) -> None:
        frames = [opening(5, OURS), Frame(FrameType.DATA, 5, b"x")]
        for frame in frames:
            it.flows.send(frame)
        it.flows.forget(5)
        assert (it.sent, it.forgotten, it.delivered) == (frames, [5], [])

    run(test)


def test_a_question_is_answered_here_and_never_from_within_send() -> None:
    async def test(it: Bench) -> None:
        it.flows.send(opening(5))
        assert it.delivered == []
        await until(lambda: it.delivered)
        assert it.delivered == [encode_u32(FrameType.OPENED, 5, WINDOW)]
        it.flows.send(Frame(FrameType.DATA, 5, b"\0\3who"))
        assert it.asked == []
        await until(lambda: it.asked)
        assert it.asked == [(StreamClient(5, 1), b"who", LIMIT)]
        it.flows.answer(StreamClient(5, 1), b"me")
        await until(lambda: len(it.delivered) == 3)
        assert it.delivered[-1] == Frame(FrameType.DATA, 5, b"\0\2me")
        it.flows.forget(5)
        assert (it.sent, it.forgotten) == ([], [])

    run(test)


def test_a_silent_client_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns_stream, "IDLE", 0.05)

    async def test(it: Bench) -> None:
        it.flows.send(opening(5))
        await until(lambda: len(it.delivered) == 3)
        assert [frame.type.name for frame in it.delivered] == ["OPENED", "FIN", "RST"]

    run(test)


def test_nothing_is_delivered_after_close() -> None:
    async def test(it: Bench) -> None:
        it.flows.send(opening(5))
        it.flows.close()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert it.delivered == []

    run(test)
