"""Our end of netd's socket, against a netd that answers by script."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import TYPE_CHECKING

import pytest
import uvloop
from telehelper.codec import MAX_NETD_MESSAGE, Decoder, Envelope, encode
from telehelper.datapath import netd_client as netd_module
from telehelper.datapath.netd_client import NetdClient
from telehelper.errors import CidrConflict, ControlError, HelperLost, UndoIncomplete, VifError
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

from tests.datapath.waiting import WAIT, turns, until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

READY = NetdReady(PROTOCOL_VERSION, 4711)
OPENED = VifOpened("tele0", 7, 3, 10)
ROUTE = "198.18.0.0/16"
DNS = SetDns("auto", "198.19.240.1", ("shop.svc.cluster.local",))


class ScriptedNetd:
    """netd's end: takes requests and says what the test wants."""

    def __init__(self) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.ours.setblocking(False)
        self._decoder = Decoder(MAX_NETD_MESSAGE)
        self._envelopes: list[Envelope] = []

    async def request(self) -> Envelope:
        while not self._envelopes:
            data = await asyncio.get_running_loop().sock_recv(self.ours, 65536)
            assert data, "the client hung up"
            self._envelopes += self._decoder.feed(data)
        return self._envelopes.pop(0)

    def say(self, body: Message, request: int = 0, fds: tuple[int, ...] = ()) -> None:
        socket.send_fds(self.ours, [encode(body, request)], list(fds))

    async def answer(self, body: Message, fds: tuple[int, ...] = ()) -> Message:
        """Take one request and answer it; returns the request."""
        envelope = await self.request()
        self.say(body, envelope.id, fds)
        return envelope.body

    async def is_hung_up(self) -> bool:
        return not await asyncio.get_running_loop().sock_recv(self.ours, 1)


class Talk:
    """A client, its netd, and what was lost."""

    def __init__(self) -> None:
        self.netd = ScriptedNetd()
        self.lost: list[str] = []
        self.client = NetdClient(self.netd.theirs, on_lost=self.lost.append)

    async def exchange(self, call: Awaitable[object], *answers: Message) -> tuple[object, list[Message]]:
        """Make a call while netd answers; returns its result and the requests."""
        calling = asyncio.ensure_future(call)
        requests = [await self.netd.answer(answer) for answer in answers]
        return await calling, requests


def talk(work: Callable[[Talk], Awaitable[None]]) -> None:
    async def run() -> None:
        async with asyncio.timeout(WAIT):
            it = Talk()
            try:
                await work(it)
            finally:
                it.client.close()
                it.netd.ours.close()

    asyncio.run(run())
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


# --- what works --------------------------------------------------------------------------------------------------


def test_a_whole_conversation() -> None:
    async def work(it: Talk) -> None:
        it.netd.say(READY)
        await it.client.wait_ready()
        _, asked = await it.exchange(it.client.configure(["198.19.240.0/32"], [ROUTE]), Done())
        assert asked == [Configure(("198.19.240.0/32",), (ROUTE,))]
        answer, asked = await it.exchange(it.client.set_dns(DNS), DnsSet("resolvconf"))
        assert answer == DnsSet("resolvconf")
        assert asked == [DNS]
        _, asked = await it.exchange(it.client.undo(), Done())
        assert asked == [Undo()]
        assert await it.netd.is_hung_up()
        assert it.lost == []

    talk(work)


def test_the_descriptor_comes_along_and_is_the_callers() -> None:
    async def work(it: Talk) -> None:
        read_end, write_end = os.pipe()
        opening = asyncio.ensure_future(it.client.open_vif(1500))
        assert await it.netd.answer(OPENED, (write_end,)) == OpenVif(PROTOCOL_VERSION, 1500)
        os.close(write_end)
        opened, fd = await opening
        assert opened == OPENED
        assert not os.get_inheritable(fd)
        os.write(fd, b"through")
        assert os.read(read_end, 100) == b"through"
        it.client.close()
        assert is_open(fd)
        os.close(fd)
        os.close(read_end)

    talk(work)


def test_requests_are_made_one_at_a_time_in_order() -> None:
    async def work(it: Talk) -> None:
        calls = [asyncio.ensure_future(it.client.configure([], [str(n)])) for n in range(5)]
        for number in range(5):
            request = await it.netd.request()
            assert request.body == Configure((), (str(number),))
            await turns()
            assert sum(call.done() for call in calls) == number
            it.netd.say(Done(), request.id)
        await asyncio.gather(*calls)

    talk(work)


def test_an_answer_may_come_in_pieces() -> None:
    async def work(it: Talk) -> None:
        ready = asyncio.ensure_future(it.client.wait_ready())
        for byte in encode(READY):
            it.netd.ours.send(bytes([byte]))
            await turns(2)
        await ready

    talk(work)


# --- netd says no ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        CidrConflict.of("198.18.0.0/16", "198.18.5.0/24", "tun7"),
        VifError("no", hint="load the module"),
        UndoIncomplete("left", left="/etc/resolv.conf"),
    ],
)
def test_netds_errors_come_out_as_the_same_type(error: VifError) -> None:
    async def work(it: Talk) -> None:
        with pytest.raises(type(error)) as caught:
            await it.exchange(it.client.configure([], []), Failed.of(error))
        assert (caught.value.message, caught.value.hint, caught.value.data) == (
            error.message,
            error.hint,
            error.data,
        )
        assert it.lost == []
        await it.exchange(it.client.configure([], []), Done())

    talk(work)


def test_an_answer_of_the_wrong_type() -> None:
    async def work(it: Talk) -> None:
        with pytest.raises(ControlError, match="netd answered DnsSet instead of Done"):
            await it.exchange(it.client.configure([], []), DnsSet("none"))

    talk(work)


def test_another_version() -> None:
    async def work(it: Talk) -> None:
        it.netd.say(NetdReady(PROTOCOL_VERSION + 1, 1))
        with pytest.raises(HelperLost, match="speaks version") as caught:
            await it.client.wait_ready()
        assert "one version" in caught.value.hint

    talk(work)


@pytest.mark.parametrize("count", [0, 2])
def test_no_descriptor_or_too_many(count: int) -> None:
    async def work(it: Talk) -> None:
        before = set(os.listdir("/proc/self/fd"))
        opening = asyncio.ensure_future(it.client.open_vif(1500))
        fds = tuple(os.dup(0) for _ in range(count))
        await it.netd.answer(OPENED, fds)
        for fd in fds:
            os.close(fd)
        with pytest.raises(ControlError, match="passed no descriptor"):
            await opening
        assert set(os.listdir("/proc/self/fd")) == before

    talk(work)


# --- netd goes, or is silent -------------------------------------------------------------------------------------


def test_the_end_of_netd_is_told_once_and_ends_all_calls() -> None:
    async def work(it: Talk) -> None:
        calls = [asyncio.ensure_future(it.client.configure([], [])) for _ in range(3)]
        await it.netd.request()
        it.netd.ours.close()
        for call in calls:
            with pytest.raises(HelperLost):
                await call
        assert it.lost == ["netd ended"]
        with pytest.raises(HelperLost, match="has gone"):
            await it.client.configure([], [])
        with pytest.raises(HelperLost):
            await it.client.undo()
        assert it.lost == ["netd ended"]

    talk(work)


def test_netd_may_end_before_it_is_ready() -> None:
    async def work(it: Talk) -> None:
        ready = asyncio.ensure_future(it.client.wait_ready())
        it.netd.ours.close()
        with pytest.raises(HelperLost, match="ended before it answered"):
            await ready
        assert it.lost == ["netd ended"]

    talk(work)


def test_netd_may_end_while_nobody_asks() -> None:
    async def work(it: Talk) -> None:
        it.netd.ours.close()
        await until(lambda: it.lost)
        with pytest.raises(HelperLost):
            await it.client.wait_ready()

    talk(work)


def test_netd_ending_right_after_undoing_is_no_loss() -> None:
    async def work(it: Talk) -> None:
        undoing = asyncio.ensure_future(it.client.undo())
        await it.netd.answer(Done())
        it.netd.ours.close()
        await undoing
        await turns()
        assert it.lost == []

    talk(work)


def test_undo_that_netd_does_not_survive() -> None:
    async def work(it: Talk) -> None:
        undoing = asyncio.ensure_future(it.client.undo())
        await it.netd.request()
        it.netd.ours.close()
        with pytest.raises(HelperLost):
            await undoing

    talk(work)


@pytest.mark.parametrize("garbage", [b"\0\0\0\2{}", b"\xff\xff\xff\xff", b"\0\0\0\1x"])
def test_garbage_from_netd_is_its_end(garbage: bytes) -> None:
    async def work(it: Talk) -> None:
        ready = asyncio.ensure_future(it.client.wait_ready())
        it.netd.ours.send(garbage)
        with pytest.raises(HelperLost):
            await ready
        assert len(it.lost) == 1
        assert it.lost[0].startswith("netd broke the protocol")
        assert await it.netd.is_hung_up()

    talk(work)


def test_a_silent_netd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(netd_module, "READY_TIMEOUT", 0.01)
    monkeypatch.setattr(netd_module, "ANSWER_TIMEOUT", 0.01)

    async def work(it: Talk) -> None:
        with pytest.raises(HelperLost, match="did not answer"):
            await it.client.wait_ready()
        with pytest.raises(HelperLost, match="did not answer"):
            await it.client.configure([], [])

    talk(work)


def test_the_answer_to_a_cancelled_request_is_nobodys() -> None:
    async def work(it: Talk) -> None:
        before = set(os.listdir("/proc/self/fd"))
        opening = asyncio.ensure_future(it.client.open_vif(1500))
        request = await it.netd.request()
        opening.cancel()
        await asyncio.gather(opening, return_exceptions=True)
        it.netd.say(OPENED, request.id, (0,))
        await it.exchange(it.client.undo(), Done())  # not: VifOpened instead of Done
        assert len(set(os.listdir("/proc/self/fd")) - before) == 0  # and its descriptor is closed

    talk(work)


def test_a_socket_that_netd_does_not_read() -> None:
    async def work(it: Talk) -> None:
        routes = [f"198.18.{n // 256}.{n % 256}/32" for n in range(60_000)]
        call = asyncio.ensure_future(it.client.configure([], routes))
        await turns()
        assert not call.done()
        it.netd.ours.close()
        with pytest.raises(HelperLost):
            await call

    talk(work)


def test_closing_is_no_loss_and_may_be_repeated() -> None:
    async def work(it: Talk) -> None:
        waiting = asyncio.ensure_future(it.client.wait_ready())
        await turns()
        it.client.close()
        it.client.close()
        with pytest.raises(HelperLost):
            await waiting
        assert await it.netd.is_hung_up()
        assert it.lost == []

    talk(work)
