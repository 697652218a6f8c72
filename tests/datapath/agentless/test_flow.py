"""One flow over one port-forward: how it opens, what passes, how it ends. The port-forward is in memory."""

from __future__ import annotations

import asyncio
import errno
import functools
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest
from telehelper.core.credit import INITIAL_WINDOW, MAX_CREDIT, CreditPool
from telehelper.core.frames import MAX_DATA, Frame, FrameType, Open, Proto, decode_coded, decode_u32
from telehelper.datapath.agentless import flow as flow_module
from telehelper.datapath.agentless.flow import Dialed, ForwardedFlow, NoWay
from telehelper.datapath.agentless.index import Target
from telehelper.datapath.agentless.objects import Key
from telehelper.errors import ApiServerUnavailable, CredentialsRefused, TunnelError

from tests.datapath.waiting import turns, until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

FLOW = 7
TARGET = Target(Key("shop", "web-0"), 8080)
END = b""


class MemoryForward:
    """A port-forward whose far end is the test."""

    def __init__(self) -> None:
        self.announced = asyncio.Event()
        self.said_goodbye = False
        self.sent: list[bytes] = []
        self.closed = False
        self.may_send = asyncio.Event()
        self.may_send.set()
        self.broken: OSError | None = None
        self._inbox: asyncio.Queue[bytes | OSError] = asyncio.Queue()

    def bring(self, what: bytes | OSError) -> None:
        self._inbox.put_nowait(what)

    def say_goodbye(self) -> None:
        self.said_goodbye = True
        self.bring(END)

    @property
    def unread(self) -> int:
        return self._inbox.qsize()

    async def receive(self) -> bytes | memoryview:
        what = await self._inbox.get()
        if isinstance(what, OSError):
            raise what
        return what

    async def send(self, buffers: Sequence[bytes | bytearray | memoryview]) -> None:
        await self.may_send.wait()
        if self.broken is not None:
            raise self.broken
        self.sent.append(b"".join(buffers))

    async def close(self) -> None:
        self.closed = True


class Bench:
    """A flow, its port-forward, and what it told the near side."""

    def __init__(self, credit: int = 65536, timeout: float = 10.0) -> None:
        self.pool = CreditPool()
        self.min_rtt: float | None = 0.01
        self.forward = MemoryForward()
        self.dial_error: Exception | None = None
        self.may_dial = asyncio.Event()
        self.may_dial.set()
        self.told: list[Frame] = []
        self.is_over = False
        self.signs_of_life = 0
        self.answers = 0
        self.is_known = False
        source, target = ip_address("198.19.240.1"), ip_address("10.96.0.1")
        self.flow = ForwardedFlow(FLOW, Open(Proto.TCP, source, 40000, target, 80, timeout, credit), self)
        self.task = asyncio.create_task(self.flow.run())

    # --- Home

    async def dial(self, what: Open) -> Dialed:
        await self.may_dial.wait()
        if self.dial_error is not None:
            raise self.dial_error
        return Dialed(self.forward, TARGET, self.is_known)

    def answered(self, target: Target) -> None:
        assert target is TARGET
        self.answers += 1

    def deliver(self, frame: Frame) -> None:
        assert frame.flow == FLOW
        self.told.append(frame._replace(payload=bytes(frame.payload)))

    def heard(self) -> None:
        self.signs_of_life += 1

    def over(self, flow: ForwardedFlow) -> None:
        assert flow is self.flow
        flow.release()
        flow.release()
        self.is_over = True

    # --- looking

    @property
    def kinds(self) -> list[str]:
        return [frame.type.name for frame in self.told]

    @property
    def data(self) -> bytes:
        return b"".join(bytes(frame.payload) for frame in self.told if frame.type is FrameType.DATA)

    @property
    def credit(self) -> int:
        """What the near side has been granted, with OPENED."""
        grants = (FrameType.OPENED, FrameType.CREDIT)
        return sum(decode_u32(frame) for frame in self.told if frame.type in grants)

    def has_granted(self, size: int) -> bool:
        return self.credit >= size

    def coded(self) -> tuple[str, int, str]:
        """The last word, if it has a code."""
        frame = self.told[-1]
        return (frame.type.name, *decode_coded(frame))

    async def opened(self) -> Bench:
        self.forward.announced.set()
        await until(lambda: "OPENED" in self.kinds, "OPENED")
        return self

    async def ended(self) -> None:
        async with asyncio.timeout(20):
            await self.task
        assert self.is_over
        assert self.pool.taken == 0
        assert len(asyncio.all_tasks()) == 1, asyncio.all_tasks()


def run(body: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await body()

    asyncio.run(bounded())


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow_module, "GRACE", 0.01)
    monkeypatch.setattr(flow_module, "LINGER", 0.02)


# --- opening -----------------------------------------------------------------------------------------------------


def test_it_is_open_when_nothing_is_refused_after_the_announcement() -> None:
    async def body() -> None:
        bench = Bench()
        await asyncio.sleep(0.03)
        assert bench.kinds == [], "the far side has not dialed yet"
        await bench.opened()
        assert bench.credit == INITIAL_WINDOW
        assert bench.signs_of_life
        bench.forward.say_goodbye()
        bench.flow.receive_fin()
        await bench.ended()

    run(body)


def test_it_is_open_at_once_when_the_service_speaks_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow_module, "GRACE", 1000.0)

    async def body() -> None:
        bench = Bench()
        bench.forward.announced.set()
        bench.forward.bring(b"220 hello")
        await until(lambda: bench.data, "its words")
        assert bench.kinds == ["OPENED", "DATA"]
        bench.forward.say_goodbye()
        await bench.ended()

    run(body)


def test_a_port_that_has_answered_lately_is_trusted_sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow_module, "GRACE", 1000.0)

    async def body() -> None:
        bench = Bench()
        bench.is_known = True
        await bench.opened()
        assert not bench.answers
        bench.forward.bring(b"hello")
        bench.forward.bring(b"again")
        bench.forward.say_goodbye()
        await bench.ended()
        assert bench.answers == 1

    run(body)


@pytest.mark.parametrize("is_known", [False, True])
def test_a_refused_port_is_refused(is_known: bool) -> None:
    async def body() -> None:
        bench = Bench()
        bench.is_known = is_known
        bench.forward.announced.set()
        bench.forward.bring(
            ConnectionResetError(104, "port-forward broke: dial tcp4 127.0.0.1:9: connection refused")
        )
        await bench.ended()
        assert bench.kinds == ["REJECTED"]
        assert bench.coded() == ("REJECTED", errno.ECONNREFUSED, "connection refused")

    run(body)


def test_another_failure_of_the_dial_says_which() -> None:
    async def body() -> None:
        bench = Bench()
        bench.forward.bring(
            ConnectionResetError(104, "port-forward broke: network namespace for sandbox is closed")
        )
        await bench.ended()
        kind, code, reason = bench.coded()
        assert (kind, code) == ("REJECTED", errno.EHOSTUNREACH)
        assert "network namespace" in reason

    run(body)


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (NoWay(errno.ECONNREFUSED, "service web.shop has no ready endpoint"), errno.ECONNREFUSED, "no ready"),
        (CredentialsRefused("forbids port-forward to shop/web-0"), errno.EACCES, "forbids"),
        (ApiServerUnavailable("cannot be reached"), errno.EHOSTUNREACH, "cannot be reached"),
    ],
)
def test_where_there_is_no_way_the_flow_says_why(error: Exception, code: int, words: str) -> None:
    async def body() -> None:
        bench = Bench()
        bench.dial_error = error
        await bench.ended()
        kind, told, reason = bench.coded()
        assert (kind, told) == ("REJECTED", code)
        assert words in reason
        assert not bench.signs_of_life

    run(body)


@pytest.mark.parametrize("what_hangs", ["dial", "announcement"])
def test_a_dial_that_takes_too_long_is_given_up(what_hangs: str) -> None:
    async def body() -> None:
        bench = Bench(timeout=0.03)
        if what_hangs == "dial":
            bench.may_dial.clear()
        await bench.ended()
        assert bench.coded()[:2] == ("REJECTED", errno.EHOSTUNREACH)
        assert bench.flow.forward is (None if what_hangs == "dial" else bench.forward)

    run(body)


def test_a_credit_beyond_all_bounds_is_cut() -> None:
    async def body() -> None:
        bench = await Bench(credit=MAX_CREDIT + 5).opened()
        bench.forward.say_goodbye()
        await bench.ended()

    run(body)


# --- bytes -------------------------------------------------------------------------------------------------------


def test_what_comes_is_passed_on_as_far_as_the_credit_goes() -> None:
    async def body() -> None:
        bench = await Bench(credit=10).opened()
        for piece in (b"0123456", b"789abc", b"def"):
            bench.forward.bring(piece)
        await until(lambda: len(bench.data) == 10, "ten bytes")
        await turns()
        assert bench.data == b"0123456789"
        assert bench.forward.unread == 1, "without credit it is not read on"
        bench.flow.receive_credit(2)
        await until(lambda: len(bench.data) == 12, "two more")
        bench.flow.receive_credit(100)
        await until(lambda: bench.data.endswith(b"f"), "the rest")
        assert bench.data == b"0123456789abcdef"
        bench.forward.say_goodbye()
        await bench.ended()

    run(body)


def test_a_large_message_is_cut_into_frames() -> None:
    async def body() -> None:
        bench = await Bench(credit=1 << 20).opened()
        bench.forward.bring(bytes(range(256)) * 1024)
        await until(lambda: len(bench.data) == 1 << 18, "all of it")
        assert max(len(frame.payload) for frame in bench.told if frame.type is FrameType.DATA) <= MAX_DATA
        assert bench.data == bytes(range(256)) * 1024
        bench.forward.say_goodbye()
        await bench.ended()

    run(body)


def test_what_is_sent_arrives_in_order_and_credit_comes_back() -> None:
    async def body() -> None:
        bench = await Bench().opened()
        pieces = [bytes([number]) * 32768 for number in range(16)]
        for number, piece in enumerate(pieces, start=1):
            await until(functools.partial(bench.has_granted, number * len(piece)), "credit")
            bench.flow.receive_data(memoryview(piece))
        await until(lambda: sum(map(len, bench.forward.sent)) == sum(map(len, pieces)), "everything")
        assert b"".join(bench.forward.sent) == b"".join(pieces)
        assert bench.credit > INITIAL_WINDOW
        bench.forward.say_goodbye()
        await bench.ended()

    run(body)


def test_a_pod_that_takes_nothing_holds_up_no_more_than_the_window() -> None:
    async def body() -> None:
        bench = await Bench().opened()
        bench.forward.may_send.clear()
        left = bench.credit
        while left:
            bench.flow.receive_data(bytes(min(left, MAX_DATA)))
            left -= min(left, MAX_DATA)
        await turns()
        assert bench.credit == INITIAL_WINDOW, "no credit for what is not sent"
        with pytest.raises(TunnelError):
            bench.flow.receive_data(b"x")
        bench.forward.may_send.set()
        await until(lambda: sum(map(len, bench.forward.sent)) == INITIAL_WINDOW, "everything")
        assert max(map(len, bench.forward.sent)) <= flow_module.LARGEST_MESSAGE
        bench.forward.say_goodbye()
        await bench.ended()

    run(body)


def test_what_breaks_the_rules_is_an_error() -> None:
    async def body() -> None:
        bench = await Bench().opened()
        bench.flow.receive_fin()
        with pytest.raises(TunnelError, match="DATA after FIN"):
            bench.flow.receive_data(b"x")
        with pytest.raises(TunnelError, match="over the limit"):
            bench.flow.receive_credit(MAX_CREDIT)
        bench.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await bench.ended()

    run(body)


# --- the end -----------------------------------------------------------------------------------------------------


def test_the_services_end_is_a_fin_after_its_last_bytes() -> None:
    async def body() -> None:
        bench = await Bench().opened()
        bench.forward.bring(b"bye")
        bench.forward.say_goodbye()
        await bench.ended()
        assert bench.kinds == ["OPENED", "DATA", "FIN"]
        assert bench.flow.is_half_closed
        assert bench.flow.forward is bench.forward

    run(body)


@pytest.mark.parametrize("how", ["no goodbye", "error told"])
def test_an_end_that_is_none_is_a_reset(how: str) -> None:
    async def body() -> None:
        bench = await Bench().opened()
        bench.forward.bring(b"half of it")
        bench.forward.bring(
            END if how == "no goodbye" else ConnectionResetError(104, "port-forward broke: lost")
        )
        await bench.ended()
        assert bench.kinds == ["OPENED", "DATA", "RST"]
        kind, code, reason = bench.coded()
        assert (kind, code) == ("RST", errno.ECONNRESET)
        assert reason == (
            "the connection to the API server broke" if how == "no goodbye" else "port-forward broke: lost"
        )
        assert not bench.flow.is_half_closed

    run(body)


def test_sending_that_fails_is_a_reset() -> None:
    async def body() -> None:
        bench = await Bench().opened()
        bench.forward.broken = ConnectionResetError(104, "Cannot write to closing transport")
        bench.flow.receive_data(b"x")
        await bench.ended()
        assert bench.coded() == ("RST", errno.ECONNRESET, "Cannot write to closing transport")

    run(body)


def test_after_the_programs_fin_the_answer_is_still_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow_module, "LINGER", 1000.0)

    async def body() -> None:
        bench = await Bench().opened()
        bench.flow.receive_data(b"question")
        bench.flow.receive_fin()
        await until(lambda: bench.forward.sent, "the question")
        bench.forward.bring(b"answer")
        await until(lambda: bench.data, "the answer")
        bench.forward.say_goodbye()
        await bench.ended()
        assert bench.kinds[-1] == "FIN"
        assert bench.data == b"answer"
        assert not bench.flow.is_half_closed, "both directions are over"

    run(body)


def test_a_service_that_stays_silent_after_the_programs_fin_is_left() -> None:
    async def body() -> None:
        bench = await Bench().opened()
        bench.flow.receive_data(b"last words")
        bench.flow.receive_fin()
        await bench.ended()
        assert bench.forward.sent == [b"last words"]
        assert bench.kinds == ["OPENED", "FIN"]
        assert not bench.flow.is_half_closed

    run(body)


def test_each_byte_puts_the_leaving_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow_module, "LINGER", 0.5)  # much longer than a pause, for a machine that is busy

    async def body() -> None:
        bench = await Bench().opened()
        bench.flow.receive_fin()
        began = asyncio.get_running_loop().time()
        for _ in range(6):
            await asyncio.sleep(0.1)
            bench.forward.bring(b".")
        await bench.ended()
        assert bench.data == b"......"
        assert asyncio.get_running_loop().time() - began > 0.6 + 0.49

    run(body)


@pytest.mark.parametrize("when", ["dialing", "confirming", "open", "without credit"])
def test_a_flow_that_is_cancelled_says_nothing_and_leaves_nothing(when: str) -> None:
    async def body() -> None:
        bench = Bench(credit=0)
        if when == "dialing":
            bench.may_dial.clear()
        elif when != "confirming":
            await bench.opened()
        if when == "without credit":
            bench.forward.bring(b"x")
        await turns()
        before = list(bench.told)
        bench.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await bench.ended()
        await until(lambda: len(asyncio.all_tasks()) == 1, "nothing left")
        assert bench.is_over
        assert bench.told == before

    run(body)
