from __future__ import annotations

import errno
from ipaddress import IPv4Address

import pytest
from telehelper.core.flows import (
    REFUSED,
    STRANGERS_KEPT,
    TIMED_OUT,
    UNREACHABLE,
    FiveTuple,
    FlowStats,
    FlowTable,
    Totals,
    failure_of,
)
from telehelper.core.frames import UNKNOWN, Proto

TUPLE = FiveTuple(Proto.TCP, IPv4Address("10.0.0.1"), 1, IPv4Address("10.0.0.2"), 2)


@pytest.mark.parametrize(
    ("queue", "dial", "tunnel"),
    [
        (0.25, 0.5, 1.25),  # what is left of the two seconds
        (0.25, 0.0, 1.75),
        (1.0, 1.5, 0.0),  # clocks of two machines: never less than nothing
        (0.25, UNKNOWN, 9.0),  # a far side that does not tell: the carrier's last round trip stays
        (UNKNOWN, 0.5, 9.0),
    ],
)
def test_the_way_there_and_back_is_the_flow_s_own(queue: float, dial: float, tunnel: float) -> None:
    stats = FlowStats(7, TUPLE, 1.0)
    stats.queue, stats.tunnel = queue, 9.0
    stats.far_answered(dial, 3.0)
    assert (stats.dial, stats.tunnel) == (dial, tunnel)


def test_first_byte_is_noted_once() -> None:
    stats = FlowStats(7, TUPLE, 1.0)
    stats.count_down(10, 2.0)
    stats.count_down(5, 3.0)
    record = stats.to_record("ESTABLISHED")
    assert (record.flow, record.bytes_down, record.first_byte_at, record.closed_at) == (7, 15, 2.0, None)
    assert record.last_byte_at == 3.0


def test_what_was_measured_is_in_the_record() -> None:
    stats = FlowStats(7, TUPLE, 1.0)
    assert stats.to_record("DIALING")[-8:] == (None, -1, -1, -1, -1, -1, "", False)
    stats.dns, stats.queue, stats.tunnel, stats.dial, stats.wait = 0.1, 0.2, 0.3, 0.4, 0.5
    stats.failure, stats.is_strangers = REFUSED, True
    assert stats.to_record("CLOSED")[-8:] == (None, 0.1, 0.2, 0.3, 0.4, 0.5, "refused", True)


def test_progress_grows_with_whatever_is_counted() -> None:
    stats = FlowStats(7, TUPLE, 1.0)
    seen = [stats.progress]
    for name in ("bytes_up", "bytes_down", "packets_up", "packets_down"):
        setattr(stats, name, 1)
        seen.append(stats.progress)
    assert seen == sorted(set(seen))


@pytest.mark.parametrize(
    ("code", "failure"),
    [
        (errno.ECONNREFUSED, REFUSED),
        (errno.ETIMEDOUT, TIMED_OUT),
        (errno.EHOSTUNREACH, UNREACHABLE),
        (errno.EMFILE, UNREACHABLE),
    ],
)
def test_failures_by_errno(code: int, failure: str) -> None:
    assert failure_of(code) == failure


def test_closed_flows_are_kept_bounded_and_counted_all() -> None:
    table = FlowTable(kept=2)
    for number in range(1, 4):
        stats = FlowStats(number, TUPLE, 0.0)
        stats.bytes_up = 1
        table.close(stats, "CLOSED", "closed", 9.0)
    assert [record.flow for record in table.closed] == [2, 3]
    assert table.closed[0].closed_at == 9.0
    opened = FlowStats(4, TUPLE, 0.0)
    opened.bytes_up, opened.bytes_down = 10, 20
    assert table.totals([opened]) == Totals(4, 13, 20)


def test_however_much_strangers_try_none_of_ours_is_pushed_out() -> None:
    table = FlowTable(kept=3)
    for number in range(3):
        table.close(FlowStats(number, TUPLE, 0.0), "CLOSED", "closed", 8.0)
    for number in range(1000, 1000 + 10 * STRANGERS_KEPT):
        stats = FlowStats(number, TUPLE, 0.0)
        stats.is_strangers = True
        table.close(stats, "CLOSED", "not yours", 9.0)
    taken = [record.flow for record in table.take_closed()]
    assert taken == [*range(1000 + 9 * STRANGERS_KEPT, 1000 + 10 * STRANGERS_KEPT), 0, 1, 2]
    assert table.take_closed() == []
    assert table.totals([]).flows == 3 + 10 * STRANGERS_KEPT


def test_what_is_not_kept_is_counted_all_the_same() -> None:
    table = FlowTable()
    stats = FlowStats(1, TUPLE, 0.0)
    stats.bytes_up = 7
    table.close(stats, "CLOSED", "closed", 9.0, is_kept=False)
    assert (table.take_closed(), table.totals([])) == ([], Totals(1, 7, 0))


def test_records_are_handed_over_once() -> None:
    table = FlowTable()
    table.close(FlowStats(1, TUPLE, 0.0), "CLOSED", "closed", 9.0)
    assert [record.flow for record in table.take_closed()] == [1]
    assert table.take_closed() == []
    assert table.totals([]).flows == 1
