from __future__ import annotations

from ipaddress import IPv4Address

from telehelper.core.flows import FiveTuple, FlowStats, FlowTable, Totals
from telehelper.core.frames import Proto

TUPLE = FiveTuple(Proto.TCP, IPv4Address("10.0.0.1"), 1, IPv4Address("10.0.0.2"), 2)


def test_first_byte_is_noted_once() -> None:
    stats = FlowStats(7, TUPLE, 1.0)
    stats.count_down(10, 2.0)
    stats.count_down(5, 3.0)
    record = stats.to_record("ESTABLISHED")
    assert (record.flow, record.bytes_down, record.first_byte_at, record.closed_at) == (7, 15, 2.0, None)


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
