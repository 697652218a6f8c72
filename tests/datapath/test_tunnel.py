"""The tunnel against uplinks that do as they are told: which flows are lost when, and how it comes back."""

from __future__ import annotations

import asyncio
import errno
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

import pytest
import uvloop
from telehelper.core.frames import Frame, FrameType, Open, Proto, decode_coded, encode_coded, encode_open
from telehelper.datapath import backoff
from telehelper.datapath.tunnel import LASTING, WAITING_OPENS, Tunnel
from telehelper.datapath.tunnel_fake import FakeCarrier, FakeManagers, FakeUplink, RecordingUser
from telehelper.errors import ApiServerUnavailable, ManagerUnavailable
from telehelper.rpc.manager_pb2 import ClusterInfo

from tests.datapath.waiting import WAIT, turns, until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backoff, "FIRST_DELAY", 0.001)
    monkeypatch.setattr(backoff, "MAX_DELAY", 0.004)


class Bench:
    """A tunnel, its managers and its user."""

    def __init__(self, carriers: int) -> None:
        self.managers = FakeManagers(carriers)
        self.user = RecordingUser()
        self.tunnel = Tunnel(self.managers.connect, self.user)

    @property
    def uplink(self) -> FakeUplink:
        """The latest uplink."""
        return self.managers.uplinks[-1]

    def carrier(self, number: int) -> FakeCarrier:
        found = self.uplink.carriers[number]
        assert isinstance(found, FakeCarrier)
        return found

    def open(self, *flows: int, timeout: float = 10.0) -> None:
        for flow in flows:
            self.tunnel.send(open_frame(flow, timeout))

    def opened_on(self, number: int) -> list[int]:
        return [frame.flow for frame in self.carrier(number).sent if frame.type is FrameType.OPEN]

    def refused(self) -> dict[int, tuple[int, str]]:
        return {f.flow: decode_coded(f) for f in self.user.frames if f.type is FrameType.REJECTED}


def open_frame(flow: int, timeout: float = 10.0) -> Frame:
    here, there = IPv4Address("198.18.0.1"), IPv4Address("198.18.0.2")
    return encode_open(flow, Open(Proto.TCP, here, 40000, there, 80, timeout, 65536))


def data(flow: int) -> Frame:
    return Frame(FrameType.DATA, flow, b"x")


def bench(work: Callable[[Bench], Awaitable[None]], carriers: int = 2, *, start: bool = True) -> None:
    """Run `work` on a started tunnel; on both loops, whose timers differ."""

    async def run() -> None:
        async with asyncio.timeout(WAIT):
            it = Bench(carriers)
            if start:
                await it.tunnel.start()
            try:
                await work(it)
            finally:
                await it.tunnel.close()

    asyncio.run(run())
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


# --- up ----------------------------------------------------------------------------------------------------------


def test_starting_opens_one_uplink() -> None:
    async def work(it: Bench) -> None:
        assert (it.tunnel.is_up, it.tunnel.carriers, it.managers.asked) == (True, 2, 1)
        assert it.user.changes == []  # the first time, whoever started it knows

    bench(work)


def test_the_first_failure_is_the_callers_and_is_not_tried_again() -> None:
    async def work(it: Bench) -> None:
        it.managers.errors.append(ManagerUnavailable("none"))
        with pytest.raises(ManagerUnavailable):
            await it.tunnel.start()
        await turns()
        assert (it.tunnel.is_up, it.managers.asked) == (False, 1)

    bench(work, start=False)


def test_flows_are_spread_over_the_carriers_and_stay_on_theirs() -> None:
    async def work(it: Bench) -> None:
        it.open(1, 2, 3, 4)
        assert (it.opened_on(0), it.opened_on(1)) == ([1, 3], [2, 4])
        for flow in (4, 3, 2, 1):
            it.tunnel.send(data(flow))
        assert [f.flow for f in it.carrier(0).sent[2:]] == [3, 1]
        assert [f.flow for f in it.carrier(1).sent[2:]] == [4, 2]

    bench(work)


def test_a_new_flow_goes_where_the_fewest_are() -> None:
    async def work(it: Bench) -> None:
        it.open(1, 2, 3, 4)
        it.tunnel.forget(2)
        it.tunnel.forget(4)
        it.open(5, 6)
        assert it.opened_on(1) == [2, 4, 5, 6]

    bench(work)


def test_whoever_measures_hears_when_an_open_leaves_and_of_the_round_trip_then() -> None:
    async def work(it: Bench) -> None:
        sent: list[tuple[int, float | None]] = []
        it.tunnel.open_sent = lambda flow, rtt: sent.append((flow, rtt))
        it.open(1)
        assert sent == [(1, None)]
        lose_all(it)
        it.open(2)
        assert sent == [(1, None)]  # it waits for the tunnel
        await until(lambda: it.tunnel.is_up)
        assert [flow for flow, _ in sent] == [1, 2]

    bench(work)


def test_frames_of_unknown_flows_go_nowhere() -> None:
    async def work(it: Bench) -> None:
        it.open(1)
        it.tunnel.forget(1)
        it.tunnel.forget(1)
        it.tunnel.forget(99)
        it.tunnel.send(data(1))
        assert [f.type for f in it.carrier(0).sent] == [FrameType.OPEN]
        assert it.carrier(1).sent == []

    bench(work)


def test_frames_from_carriers_reach_the_user_in_order() -> None:
    async def work(it: Bench) -> None:
        opened = Frame(FrameType.OPENED, 1, b"\0\0\0\1")
        it.tunnel.carrier_frames([opened, data(1)])
        assert it.user.frames == [opened, data(1)]

    bench(work)


def test_the_shortest_round_trip_counts() -> None:
    async def work(it: Bench) -> None:
        assert it.tunnel.rtt is None
        it.carrier(0).rtt = 0.02
        assert it.tunnel.rtt == 0.02
        it.carrier(1).rtt = 0.01
        assert it.tunnel.rtt == 0.01
        assert it.tunnel.min_rtt is None
        it.carrier(0).min_rtt = 0.005
        assert it.tunnel.min_rtt == 0.005
        it.carrier(1).min_rtt = 0.001
        assert it.tunnel.min_rtt == 0.001

    bench(work)


def test_news_of_the_cluster_are_passed_on() -> None:
    async def work(it: Bench) -> None:
        it.tunnel.info_changed(ClusterInfo(dns_server="198.18.0.10"))
        assert [info.dns_server for info in it.user.infos] == ["198.18.0.10"]

    bench(work)


# --- one carrier dies --------------------------------------------------------------------------------------------


def test_a_lost_carrier_takes_only_its_flows_along_and_is_replaced() -> None:
    async def work(it: Bench) -> None:
        it.open(1, 2, 3)
        it.tunnel.carrier_lost(it.carrier(0), "cut")
        assert it.user.lost == [({1, 3}, "cut")]
        assert it.tunnel.carriers == 1
        it.tunnel.send(data(1))
        it.tunnel.send(data(2))
        assert [f.type for f in it.carrier(0).sent] == [FrameType.OPEN] * 2
        assert it.carrier(1).sent[-1] == data(2)
        await until(lambda: it.tunnel.carriers == 2)
        it.open(4)
        assert it.opened_on(2) == [4]
        assert it.user.changes == []  # it was up all the time

    bench(work)


def test_a_carrier_without_flows_dies_silently() -> None:
    async def work(it: Bench) -> None:
        it.tunnel.carrier_lost(it.carrier(0), "cut")
        assert (it.user.lost, it.user.changes) == ([], [])
        await until(lambda: it.tunnel.carriers == 2)

    bench(work)


def test_replacing_is_tried_until_it_succeeds() -> None:
    async def work(it: Bench) -> None:
        it.uplink.errors.extend([ApiServerUnavailable("busy"), ConnectionResetError(errno.ECONNRESET, "cut")])
        it.tunnel.carrier_lost(it.carrier(0), "cut")
        await until(lambda: it.tunnel.carriers == 2)
        assert it.uplink.asked == 3
        assert it.tunnel.last_error == "cut"  # while it was being tried: what it failed on

    bench(work)


def test_both_carriers_may_be_replaced_in_turn() -> None:
    async def work(it: Bench) -> None:
        for number in range(4):
            it.tunnel.carrier_lost(it.carrier(number), "cut")
            await until(lambda: it.tunnel.carriers == 2)
        assert it.managers.asked == 1

    bench(work)


def test_a_flow_opened_by_the_user_while_it_hears_of_a_loss_survives() -> None:
    async def work(it: Bench) -> None:
        it.open(1, 2)

        def flows_lost(flows: set[int], _: str) -> None:
            assert flows == {1}
            it.open(3)

        it.user.flows_lost = flows_lost  # type: ignore[method-assign]  # as an application that redials at once
        it.tunnel.carrier_lost(it.carrier(0), "cut")
        assert it.opened_on(1) == [2, 3]

    bench(work)


# --- the last carrier, the control connection, the session -------------------------------------------------------


def lose_all(it: Bench) -> None:
    for carrier in list(it.uplink.carriers):
        it.tunnel.carrier_lost(carrier, "cut")


def test_the_last_carrier_takes_all_flows_along_and_the_tunnel_comes_back() -> None:
    async def work(it: Bench) -> None:
        it.open(1)
        it.tunnel.carrier_lost(it.carrier(0), "cable")
        assert not it.tunnel.is_up
        assert it.user.lost == [({1}, "cable")]
        assert it.user.changes == [(False, "cable")]
        await until(lambda: it.user.changes[-1][0])
        assert it.managers.uplinks[0].close_reasons == ["cable"]
        assert (it.tunnel.is_up, it.managers.asked) == (True, 2)
        it.open(2)
        assert it.opened_on(0) == [2]

    bench(work, carriers=1)


def test_losing_the_control_connection_disturbs_no_flow() -> None:
    async def work(it: Bench) -> None:
        it.open(1, 2)
        it.tunnel.control_lost(it.uplink, "the API server restarts")
        assert it.tunnel.last_error == "the API server restarts; flows go on"
        it.open(3)
        it.tunnel.send(data(1))
        assert it.carrier(0).sent[-1] == data(1)
        it.tunnel.carrier_lost(it.carrier(1), "cut")  # a carrier needs no control connection
        await until(lambda: it.tunnel.carriers == 2)
        assert it.user.lost == [({2}, "cut")]
        assert (it.user.changes, it.managers.asked) == ([], 1)

    bench(work)


def test_losing_the_session_resets_all_flows() -> None:
    async def work(it: Bench) -> None:
        it.open(1, 2, 3)
        it.tunnel.session_lost(it.uplink, "session expired")
        assert it.user.lost == [({1, 2, 3}, "session expired")]
        assert not it.tunnel.is_up
        await until(lambda: it.tunnel.is_up)
        assert it.user.changes == [
            (False, "session expired"),
            (True, "reconnected"),
        ]
        assert it.tunnel.last_error == "session expired"

    bench(work)


def test_late_news_of_an_old_uplink_are_ignored() -> None:
    async def work(it: Bench) -> None:
        old, first, second = it.uplink, it.carrier(0), it.carrier(1)
        it.tunnel.session_lost(old, "cut")
        await until(lambda: it.tunnel.is_up)
        it.open(7, 8)
        it.tunnel.control_lost(old, "again")
        it.tunnel.session_lost(old, "again")
        it.tunnel.carrier_lost(first, "again")
        it.tunnel.carrier_leaving(second)
        it.tunnel.carrier_lost(second, "again")
        await turns()
        assert it.user.lost == []
        assert (it.tunnel.carriers, it.uplink.asked, it.managers.asked) == (2, 0, 2)
        assert it.tunnel.last_error == "cut"

    bench(work)


def test_carriers_and_control_connection_dying_together_is_one_loss() -> None:
    async def work(it: Bench) -> None:
        it.open(1, 2)
        uplink = it.uplink
        lose_all(it)
        it.tunnel.session_lost(uplink, "gone too")
        assert [up for up, _ in it.user.changes] == [False]
        await until(lambda: it.tunnel.is_up)
        await turns(50)
        assert it.managers.asked == 2

    bench(work)


def test_reconnecting_is_tried_until_it_succeeds() -> None:
    async def work(it: Bench) -> None:
        it.managers.errors.extend(
            [ApiServerUnavailable("1"), ManagerUnavailable("2"), OSError(errno.ENETDOWN, "3")] * 3
        )
        lose_all(it)
        await until(lambda: it.tunnel.is_up)
        assert it.managers.asked == 11
        assert it.user.changes == [(False, "cut"), (True, "reconnected")]

    bench(work)


def test_a_carrier_that_was_being_added_to_a_lost_uplink_is_closed_with_it() -> None:
    async def work(it: Bench) -> None:
        old = it.uplink
        old.may_add.clear()
        it.tunnel.carrier_lost(it.carrier(0), "cut")
        await until(lambda: old.asked)
        it.tunnel.session_lost(old, "session expired")
        await until(lambda: it.tunnel.is_up)
        assert len(old.close_reasons) == 1
        old.may_add.set()
        await until(lambda: len(old.close_reasons) == 2, "closing the late carrier")
        assert it.tunnel.carriers == 2

    bench(work)


def test_replacing_ends_when_the_uplink_is_lost() -> None:
    async def work(it: Bench) -> None:
        old = it.uplink
        old.errors.extend([ManagerUnavailable("no")] * 1000)
        it.tunnel.carrier_lost(it.carrier(0), "cut")
        await until(lambda: old.asked)
        it.tunnel.session_lost(old, "session expired")
        await until(lambda: it.tunnel.is_up)
        tries = old.asked
        await asyncio.sleep(0.02)  # several times the longest delay
        assert old.asked <= tries + 1

    bench(work)


# --- OPENs while it is down --------------------------------------------------------------------------------------


def test_opens_wait_for_the_tunnel() -> None:
    async def work(it: Bench) -> None:
        it.managers.may_connect.clear()
        lose_all(it)
        it.open(1, 2, 3)
        await turns()
        it.managers.may_connect.set()
        await until(lambda: it.tunnel.is_up)
        assert (it.opened_on(0), it.opened_on(1)) == ([1, 3], [2])
        assert it.user.frames == []

    bench(work)


def test_opens_are_refused_when_their_own_time_is_over() -> None:
    async def work(it: Bench) -> None:
        it.managers.may_connect.clear()
        lose_all(it)
        it.open(*range(1, 20), timeout=0.007)
        it.open(99)
        await until(lambda: len(it.refused()) == 19)
        assert set(it.refused().values()) == {(errno.EHOSTUNREACH, "the tunnel is down: cut")}
        it.managers.may_connect.set()
        await until(lambda: it.tunnel.is_up)
        assert it.opened_on(0) + it.opened_on(1) == [99]

    bench(work)


def test_the_refusal_says_what_reconnecting_fails_on() -> None:
    async def work(it: Bench) -> None:
        it.managers.errors.extend([ManagerUnavailable("no manager is ready")] * 10_000)
        lose_all(it)
        await until(lambda: it.managers.asked > 1)
        it.open(1, timeout=0.001)
        await until(it.refused)
        assert it.refused()[1] == (errno.EHOSTUNREACH, "the tunnel is down: no manager is ready")

    bench(work)


def test_a_flow_given_up_while_waiting_is_never_opened() -> None:
    async def work(it: Bench) -> None:
        it.managers.may_connect.clear()
        lose_all(it)
        it.open(1, 2)
        it.tunnel.send(encode_coded(FrameType.RST, 1, errno.ECONNRESET))
        it.tunnel.forget(1)
        it.managers.may_connect.set()
        await until(lambda: it.tunnel.is_up)
        assert it.opened_on(0) + it.opened_on(1) == [2]
        assert it.user.frames == []

    bench(work)


def test_too_many_waiting_opens_are_refused_at_once_but_not_from_inside_send() -> None:
    async def work(it: Bench) -> None:
        it.managers.may_connect.clear()
        lose_all(it)
        it.open(*range(1, WAITING_OPENS + 3))
        assert it.user.frames == []
        await turns()
        assert sorted(it.refused()) == [WAITING_OPENS + 1, WAITING_OPENS + 2]

    bench(work)


# --- GOAWAY ------------------------------------------------------------------------------------------------------


def test_goaway_lets_flows_end_in_peace_and_opens_no_new_ones_there() -> None:
    async def work(it: Bench) -> None:
        it.open(1, 2)
        it.tunnel.carrier_leaving(it.carrier(0))
        it.open(3)
        assert it.opened_on(1) == [2, 3]
        it.tunnel.send(data(1))
        assert it.carrier(0).sent[-1] == data(1)
        await until(lambda: it.tunnel.carriers == 2)
        it.tunnel.forget(1)
        it.tunnel.carrier_lost(it.carrier(0), "drained")
        await turns(50)
        assert (it.user.lost, it.user.changes) == ([], [])
        assert (it.tunnel.carriers, it.uplink.asked) == (2, 1)

    bench(work)


def test_flows_left_when_a_drained_carrier_ends_are_lost() -> None:
    async def work(it: Bench) -> None:
        it.open(1, 2)
        it.tunnel.carrier_leaving(it.carrier(0))
        it.tunnel.carrier_leaving(it.carrier(0))
        it.tunnel.carrier_lost(it.carrier(0), "drained")
        assert it.user.lost == [({1}, "drained")]
        await until(lambda: it.tunnel.carriers == 2)
        assert it.uplink.asked == 1  # two GOAWAYs are one

    bench(work)


def test_a_drained_manager_keeps_its_flows_until_it_ends_and_new_ones_wait_for_another() -> None:
    async def work(it: Bench) -> None:
        it.open(1, 2)
        it.managers.may_connect.clear()
        old, carriers = it.uplink, [it.carrier(0), it.carrier(1)]
        for carrier in carriers:
            it.tunnel.carrier_leaving(carrier)
        assert it.user.changes == [(False, "the traffic manager is going away")]
        await until(lambda: it.managers.asked == 2)
        assert old.close_reasons == ["the traffic manager is going away"]
        assert set(old.kept) == set(carriers)
        it.open(3)
        it.tunnel.send(data(1))
        assert carriers[0].sent[-1] == data(1)
        assert [frame.flow for carrier in carriers for frame in carrier.sent] == [1, 1, 2]
        it.managers.may_connect.set()
        await until(lambda: it.tunnel.is_up)
        assert it.opened_on(0) == [3]
        it.tunnel.send(data(2))
        assert carriers[1].sent[-1] == data(2)
        it.tunnel.forget(2)
        for carrier in carriers:
            it.tunnel.carrier_lost(carrier, "the far side closed the carrier")
        assert it.user.lost == [({1}, "the far side closed the carrier")]
        assert it.tunnel.carriers == 2
        await turns(50)
        assert (it.managers.asked, it.uplink.asked) == (2, 0)

    bench(work)


def test_the_last_carrier_dying_leaves_those_alone_that_are_drained() -> None:
    async def work(it: Bench) -> None:
        it.open(1, 2)
        it.managers.may_connect.clear()
        leaving, old = it.carrier(0), it.uplink
        old.may_add.clear()
        it.tunnel.carrier_leaving(leaving)
        it.tunnel.carrier_lost(it.carrier(1), "cut")
        assert it.user.lost == [({2}, "cut")]
        await until(lambda: old.close_reasons)
        assert old.kept == [leaving]
        it.tunnel.send(data(1))
        assert leaving.sent[-1] == data(1)

    bench(work)


def test_the_session_being_lost_leaves_those_alone_that_are_drained() -> None:
    async def work(it: Bench) -> None:
        it.open(1, 2)
        it.tunnel.carrier_leaving(it.carrier(0))
        it.tunnel.session_lost(it.uplink, "session expired")
        assert it.user.lost == [({2}, "session expired")]

    bench(work)


def test_closing_closes_drained_carriers_too() -> None:
    async def work(it: Bench) -> None:
        it.open(1, 2)
        carriers = [it.carrier(0), it.carrier(1)]
        for carrier in carriers:
            it.tunnel.carrier_leaving(carrier)
        await until(lambda: it.tunnel.is_up)
        await it.tunnel.close()
        assert [carrier.close_reasons for carrier in carriers] == [["disconnected"], ["disconnected"]]
        assert it.user.lost == []

    bench(work)


# --- closing -----------------------------------------------------------------------------------------------------


def test_closing_closes_the_uplink_and_tells_nothing() -> None:
    async def work(it: Bench) -> None:
        it.open(1)
        uplink = it.uplink
        await it.tunnel.close()
        assert uplink.close_reasons == ["disconnected"]
        lose_all(it)
        it.tunnel.session_lost(uplink, "late")
        await turns()
        assert (it.user.lost, it.user.changes, it.user.frames) == ([], [], [])
        assert not it.tunnel.is_up
        await it.tunnel.close()
        assert uplink.close_reasons == ["disconnected"]

    bench(work)


def test_closing_while_reconnecting_stops_it() -> None:
    async def work(it: Bench) -> None:
        it.managers.may_connect.clear()
        lose_all(it)
        it.open(1, timeout=0.05)
        await until(lambda: it.managers.asked == 2)
        await it.tunnel.close()
        it.managers.may_connect.set()
        await asyncio.sleep(0.06)  # past the time of the OPEN
        assert len(it.managers.uplinks) == 1
        assert it.user.changes == [(False, "cut")]
        assert it.user.frames == []  # not even a refusal

    bench(work)


def test_closing_waits_until_a_lost_uplink_is_closed() -> None:
    async def work(it: Bench) -> None:
        uplink = it.uplink
        uplink.may_close.clear()
        lose_all(it)
        await turns()
        closing = asyncio.ensure_future(it.tunnel.close())
        await turns()
        assert not closing.done()
        uplink.may_close.set()
        await closing
        assert uplink.close_reasons == ["cut"]
        assert it.managers.asked == 1

    bench(work)


def test_closing_in_the_very_turn_of_the_loss_closes_the_lost_uplink() -> None:
    async def work(it: Bench) -> None:
        uplink = it.uplink
        lose_all(it)
        await it.tunnel.close()
        assert uplink.close_reasons == ["cut"]
        assert it.managers.asked == 1

    bench(work)


def test_closing_while_replacing_stops_it() -> None:
    async def work(it: Bench) -> None:
        uplink = it.uplink
        uplink.may_add.clear()
        it.tunnel.carrier_lost(it.carrier(0), "cut")
        await until(lambda: uplink.asked)
        await it.tunnel.close()
        assert uplink.close_reasons == ["disconnected"]
        assert len(uplink.carriers) == 2

    bench(work)


def test_a_tunnel_that_never_started_closes() -> None:
    async def work(it: Bench) -> None:
        await it.tunnel.close()
        assert it.managers.asked == 0

    bench(work, start=False)


# --- what happens to the machine ---------------------------------------------------------------------------------


def test_a_changed_network_has_carriers_probed_and_the_uplink_woken() -> None:
    async def work(it: Bench) -> None:
        it.open(1)
        it.tunnel.carrier_leaving(it.carrier(1))
        it.tunnel.network_changed()
        assert [it.carrier(number).probes for number in (0, 1)] == [1, 1]
        assert it.uplink.wakes == 1
        assert (it.user.lost, it.user.changes) == ([], [])

    bench(work)


def test_a_changed_network_ends_the_wait_for_the_next_try(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backoff, "MAX_DELAY", 1000.0)

    async def work(it: Bench) -> None:
        monkeypatch.setattr(backoff, "FIRST_DELAY", 100.0)
        lose_all(it)
        await until(lambda: it.tunnel._back_offs)
        await turns(50)
        assert it.managers.asked == 1
        monkeypatch.setattr(backoff, "FIRST_DELAY", 0.001)
        it.tunnel.network_changed()
        await until(lambda: it.tunnel.is_up and not it.tunnel._back_offs)

    bench(work)


def test_a_changed_network_ends_the_wait_for_a_carrier(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backoff, "MAX_DELAY", 1000.0)

    async def work(it: Bench) -> None:
        monkeypatch.setattr(backoff, "FIRST_DELAY", 100.0)
        it.tunnel.carrier_lost(it.carrier(0), "cut")
        await turns(50)
        assert it.tunnel.carriers == 1
        monkeypatch.setattr(backoff, "FIRST_DELAY", 0.001)
        it.tunnel.network_changed()
        await until(lambda: it.tunnel.carriers == 2)

    bench(work)


def test_a_machine_that_slept_long_loses_all_flows_at_once_and_comes_back() -> None:
    async def work(it: Bench) -> None:
        it.open(1, 2)
        it.tunnel.machine_woke(3600.4)
        reason = "this machine was asleep for 3600 s"
        assert it.user.lost == [({1, 2}, reason)]
        assert it.user.changes == [(False, reason)]
        await until(lambda: it.tunnel.is_up)
        assert it.tunnel.last_error == reason
        assert it.managers.uplinks[0].close_reasons == [reason]

    bench(work)


def test_a_machine_that_slept_shortly_is_only_looked_at() -> None:
    async def work(it: Bench) -> None:
        it.open(1)
        it.tunnel.machine_woke(5.0)
        assert it.user.lost == []
        assert it.carrier(0).probes == 1

    bench(work)


def test_a_machine_that_slept_while_there_was_no_tunnel() -> None:
    async def work(it: Bench) -> None:
        it.managers.may_connect.clear()
        lose_all(it)
        await until(lambda: it.managers.asked == 2)
        it.tunnel.machine_woke(3600.0)
        assert len(it.user.changes) == 1
        it.managers.may_connect.set()
        await until(lambda: it.tunnel.is_up)
        assert it.managers.asked == 2

    bench(work)


def test_what_does_not_last_is_opened_again_ever_more_slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    skipped: list[int] = []
    monkeypatch.setattr(backoff, "delays", lambda skip=0: iter((skipped.append(skip), 0.0)[1:] * 9))

    async def work(it: Bench) -> None:
        del skipped[:]
        for _ in range(3):
            lose_all(it)
            await until(lambda: it.tunnel.is_up)
        assert skipped == [0, 1, 2]
        monkeypatch.setattr(it.tunnel, "_opened_at", it.tunnel._opened_at - LASTING)
        lose_all(it)
        await until(lambda: it.tunnel.is_up)
        assert skipped[-1] == 0

    bench(work, carriers=1)
