"""Where the time of a real flow went, and what is told of failures, through the whole chain."""

from __future__ import annotations

import json
import socket
import time
from typing import Any

import pytest
from telehelper.messages import Done
from telehelper.observing import (
    FLOW_COLUMNS,
    EventTable,
    FlowTable,
    GetEvents,
    GetFlows,
    GetLatency,
    LatencyTable,
    Snapshot,
    Unwatch,
    Watch,
)

from tests.e2e.inside import inside, tally, wait_until

THINKING = 0.3  # seconds that the program takes before it ends its request


def flow(tele: Any, dport: int) -> dict[str, Any]:
    rows = json.loads(tele._ask(GetFlows(), FlowTable).rows)
    (row,) = (row for row in rows if row[FLOW_COLUMNS.index("dport")] == dport)
    return dict(zip(FLOW_COLUMNS, row, strict=True))


@inside()
def test_where_the_time_of_a_flow_went() -> None:
    import telemagic

    with telemagic.connect() as tele:
        assert wait_until(lambda: tele._rtt() > 0)  # the first heartbeat's answer
        with socket.create_connection(("tally.shop", 7000), timeout=30) as sock:
            sock.sendall(b"1")
            time.sleep(THINKING)
            tally(sock)
        assert wait_until(lambda: flow(tele, 7000)["closed_at"] > 0)
        row = flow(tele, 7000)
        assert 0 < row["dns"] < 10
        assert 0 <= row["queue"] <= row["connect"]
        assert 0 < row["tunnel"] < 10
        assert 0 <= row["dial"] < row["connect"]
        assert row["queue"] + row["tunnel"] + row["dial"] == pytest.approx(row["connect"], abs=1e-5)
        assert row["first_byte"] > THINKING  # with the program's own time
        assert 0 < row["wait"] < row["first_byte"]
        assert row["wait"] < row["first_byte"] - THINKING / 2  # without it
        assert 0 <= row["transfer"] < THINKING
        table = tele._ask(GetLatency(), LatencyTable)
        assert table.rows[0].service == "tunnel"
        assert [each.flows for each in table.rows if each.service.endswith(":7000")] == [1]


@inside()
def test_failures_are_told() -> None:
    import telemagic

    with telemagic.connect() as tele:
        address = socket.gethostbyname("tally.shop")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((address, 9), timeout=10)
        with pytest.raises(socket.gaierror):
            socket.gethostbyname("nosuch.shop")
        snapshot = tele._ask(Watch(0.5), Snapshot)
        assert json.loads(snapshot.text)["status"]["state"] == "connected"
        assert tele._ask(Unwatch(), Done) == Done()
        events = tele._ask(GetEvents(), EventTable).rows
        told = {(row.kind, row.subject) for row in events}
        assert ("refused", "tally.shop:9") in told
        assert ("DNS failed", "nosuch.shop") in told
