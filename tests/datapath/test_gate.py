"""Who may pass; the frames that go on, and those that come back."""

from __future__ import annotations

import asyncio
import errno
import os
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Any, Final

import pytest
from telehelper.core.flows import FiveTuple
from telehelper.core.frames import Frame, FrameType, Open, Proto, decode_coded, encode_open
from telehelper.datapath import gate
from telehelper.datapath.cluster_dns import OWN_FLOWS
from telehelper.datapath.gate import RECHECK, Gate, Refused
from telehelper.datapath.sock_diag import Socket

if TYPE_CHECKING:
    from collections.abc import Callable

HERE, THERE = IPv4Address("198.19.250.96"), IPv4Address("198.18.8.20")
ME, SHE, NOBODY = os.geteuid(), 54321, -1
DATA, DATAGRAM, FIN, RST = FrameType.DATA, FrameType.DATAGRAM, FrameType.FIN, FrameType.RST
FLOW: Final = 7


def five(protocol: Proto) -> FiveTuple:
    return FiveTuple(protocol, HERE, 40_000, THERE, 5432)


def opening(protocol: Proto = Proto.TCP, flow: int = FLOW) -> Frame:
    return encode_open(flow, Open(*five(protocol), 30.0, 65536))


class AnOwners:
    """Knows whose flows are by number, and whose sockets are now."""

    def __init__(self) -> None:
        self.uids = {FLOW: ME}
        self.now: Socket | None = Socket(ME, 1)
        self.asked = 0
        self.has_neighbours = True

    def uid_of(self, flow: int) -> int:
        return self.uids.get(flow, NOBODY)

    def find_socket(self, five_tuple: FiveTuple) -> Socket | None:
        assert five_tuple == five(Proto.UDP)
        self.asked += 1
        return self.now


class Tunnel:
    """Notes what it is given."""

    def __init__(self) -> None:
        self.sent: list[Frame] = []
        self.forgotten: list[int] = []

    def send(self, frame: Frame) -> None:
        self.sent.append(frame)

    def forget(self, flow: int) -> None:
        self.forgotten.append(flow)


@dataclass
class Bench:
    """A gate and all around it."""

    owners: AnOwners = field(default_factory=AnOwners)
    tunnel: Tunnel = field(default_factory=Tunnel)
    answers: list[Frame] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    now: float = 100.0

    def __post_init__(self) -> None:
        self.gate = Gate(
            self.tunnel,
            self.owners,  # type: ignore[arg-type]  # what the gate asks of owners, and no more
            lambda address: address == HERE,
            self.answers.append,
            self.refused.append,
        )

    def kinds(self) -> list[FrameType]:
        return [frame.type for frame in self.tunnel.sent]

    async def refusal(self) -> tuple[FrameType, int, str]:
        """Return the one frame that was answered; nothing was before the engine had done its own."""
        assert self.answers == []
        await asyncio.sleep(0)
        (frame,) = self.answers
        assert frame.flow == FLOW
        return frame.type, *decode_coded(frame)


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Bench], object]], None]:
    """Run a coroutine function with a bench, whose clock stands still."""

    def run(work: Callable[[Bench], object]) -> None:
        async def main() -> None:
            bench = Bench()
            monkeypatch.setattr(gate, "monotonic", lambda: bench.now)
            await work(bench)  # type: ignore[misc]  # a coroutine

        asyncio.run(main())

    return run


Play = "Callable[[Callable[[Bench], object]], None]"


@pytest.mark.parametrize("uid", [ME, 0])
@pytest.mark.parametrize("protocol", list(Proto))
def test_our_own_and_roots_flows_pass(play: Play, uid: int, protocol: Proto) -> None:
    async def work(it: Bench) -> None:
        it.owners.uids[FLOW] = uid
        frames = [opening(protocol), Frame(DATA, FLOW, b"x"), Frame(FIN, FLOW)]
        for frame in frames:
            it.gate.send(frame)
        it.gate.forget(FLOW)
        await asyncio.sleep(0)
        assert (it.tunnel.sent, it.tunnel.forgotten) == (frames, [FLOW])
        assert (it.answers, it.refused) == ([], [])

    play(work)


@pytest.mark.parametrize(("uid", "whose"), [(SHE, "uid 54321's"), (NOBODY, "nobody's who is known")])
@pytest.mark.parametrize("protocol", list(Proto))
def test_others_are_refused_and_hear_it(play: Play, uid: int, whose: str, protocol: Proto) -> None:
    async def work(it: Bench) -> None:
        it.owners.uids[FLOW] = uid
        it.gate.send(opening(protocol))
        assert await it.refusal() == (FrameType.REJECTED, errno.ECONNREFUSED, f"not yours: {whose}")
        assert it.refused == [Refused(uid, five(protocol))]
        assert it.tunnel.sent == []

    play(work)


def test_where_we_are_alone_a_datagram_of_nobody_known_passes(play: Play) -> None:
    async def work(it: Bench) -> None:
        it.owners.has_neighbours = False
        it.owners.uids[FLOW] = NOBODY
        it.gate.send(opening(Proto.UDP))
        it.gate.send(Frame(DATAGRAM, FLOW, b"a metric"))
        assert it.kinds() == [FrameType.OPEN, DATAGRAM]

    play(work)


@pytest.mark.parametrize("changed", [{"protocol": Proto.TCP}, {"protocol": Proto.ICMP}, {"src": THERE}])
def test_where_we_are_alone_tcp_echoes_and_containers_are_refused_all_the_same(
    play: Play, changed: dict[str, Any]
) -> None:
    async def work(it: Bench) -> None:
        it.owners.has_neighbours = False
        it.owners.uids[FLOW] = NOBODY
        it.gate.send(encode_open(FLOW, Open(*five(Proto.UDP)._replace(**changed), 30.0, 65536)))
        assert (await it.refusal())[0] is FrameType.REJECTED
        assert it.tunnel.sent == []

    play(work)


def test_where_we_are_alone_another_account_is_refused_all_the_same(play: Play) -> None:
    async def work(it: Bench) -> None:
        it.owners.has_neighbours = False
        it.owners.uids[FLOW] = 33  # a web server's
        it.gate.send(opening(Proto.UDP))
        assert (await it.refusal())[0] is FrameType.REJECTED

    play(work)


def test_nothing_of_a_refused_flow_goes_out_until_the_stack_has_forgotten_it(play: Play) -> None:
    async def work(it: Bench) -> None:
        it.owners.uids[FLOW] = SHE
        it.gate.send(opening(Proto.UDP))
        it.gate.send(Frame(DATAGRAM, FLOW, b"first"))  # in the same list of actions
        it.gate.send(Frame(RST, FLOW))
        it.gate.forget(FLOW)
        assert (it.tunnel.sent, it.tunnel.forgotten) == ([], [])
        it.gate.forget(FLOW)  # of one that it does not know
        assert it.tunnel.forgotten == [FLOW]

    play(work)


def test_the_data_planes_own_questions_pass(play: Play) -> None:
    async def work(it: Bench) -> None:
        frames = [opening(Proto.UDP, OWN_FLOWS), Frame(DATAGRAM, OWN_FLOWS, b"?")]
        for frame in frames:
            it.gate.send(frame)
        assert it.tunnel.sent == frames

    play(work)


def test_the_owner_of_datagrams_is_looked_at_once_a_second(play: Play) -> None:
    async def work(it: Bench) -> None:
        it.gate.send(opening(Proto.UDP))
        for _ in range(3):
            it.gate.send(Frame(DATAGRAM, FLOW, b"x"))
        assert it.owners.asked == 0
        for _ in range(2):
            it.now += RECHECK
            it.gate.send(Frame(DATAGRAM, FLOW, b"x"))
            it.gate.send(Frame(DATAGRAM, FLOW, b"x"))
        assert it.owners.asked == 2
        assert len(it.tunnel.sent) == 8
        it.gate.forget(FLOW)
        assert it.tunnel.forgotten == [FLOW]

    play(work)


def test_another_user_who_takes_over_a_port_does_not_get_the_flow_with_it(play: Play) -> None:
    async def work(it: Bench) -> None:
        it.gate.send(opening(Proto.UDP))
        it.owners.now = Socket(SHE, 2)
        it.now += RECHECK
        it.gate.send(Frame(DATAGRAM, FLOW, b"hers"))
        assert it.kinds() == [FrameType.OPEN, RST]
        assert it.tunnel.forgotten == [FLOW]
        assert await it.refusal() == (RST, errno.ECONNREFUSED, f"not yours: uid {SHE}'s")
        assert it.refused == [Refused(SHE, five(Proto.UDP))]
        it.gate.send(Frame(DATAGRAM, FLOW, b"hers"))
        it.gate.forget(FLOW)
        assert it.tunnel.forgotten == [FLOW]
        assert len(it.tunnel.sent) == 2

    play(work)


def test_a_datagram_without_a_socket_any_more_is_dropped_and_the_flow_stays(play: Play) -> None:
    async def work(it: Bench) -> None:
        it.gate.send(opening(Proto.UDP))
        it.owners.now = None
        it.now += RECHECK
        it.gate.send(Frame(DATAGRAM, FLOW, b"whose?"))
        assert it.kinds() == [FrameType.OPEN]
        it.owners.has_neighbours = False
        it.now += RECHECK
        it.gate.send(Frame(DATAGRAM, FLOW, b"ours, for we are alone"))
        assert it.kinds().pop() is DATAGRAM
        it.tunnel.sent.pop()
        it.owners.now = Socket(ME, 1)
        it.now += RECHECK
        it.gate.send(Frame(DATAGRAM, FLOW, b"mine"))
        assert it.kinds() == [FrameType.OPEN, DATAGRAM]
        assert it.refused == []

    play(work)
