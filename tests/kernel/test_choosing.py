"""Which rows are chosen, and what is said about values that cannot be."""

from __future__ import annotations

import datetime
import os
import time
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
from telehelper.core.tcp_state import State
from telehelper.errors import UsageError
from telehelper.messages import RouteRow, RouteTable
from telehelper.observing import EventRow, EventTable

from telemagic import choosing, frames
from tests.kernel.flow_rows import NOON, flow, flow_table

if TYPE_CHECKING:
    from telehelper.observing import FlowRow

ROWS = (
    flow(1, opened_at=NOON, closed_at=NOON + 10, state="CLOSED", bytes_up=5, bytes_down=500, connect=0.004),
    flow(2, opened_at=NOON + 1, bytes_up=900, connect=0.001, cell=4),
    flow(
        3,
        service="catalog.shop",
        name="catalog",
        dport=8000,
        dst="198.18.0.8",
        state="FIN_WAIT_1",
        bytes_down=7,
    ),
    flow(
        4,
        service="",
        name="db.example",
        dst="fd00::9",
        closed_at=NOON + 60,
        state="CLOSED",
        cell=-1,
        notebook="",
    ),
    flow(
        5, service="postgres.other", name="", pod="postgres-5d8-x", notebook="other.ipynb", pid=7, connect=0.2
    ),
)


def numbers(*rows: FlowRow, **chosen: Any) -> list[int]:
    frame = choosing.flows(frames.flows(flow_table(*(rows or ROWS)), "demo"), **chosen)
    assert list(frame.index) == list(range(len(frame)))
    assert frame.attrs["telemagic"]["context"] == "demo"
    return frame["flow"].tolist()


def said(**chosen: Any) -> tuple[str, ...]:
    frame = choosing.flows(frames.flows(flow_table(*ROWS), "demo"), **chosen)
    return tuple(frame.attrs["telemagic"]["notices"])


def test_nothing_chosen_is_everything() -> None:
    assert numbers() == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("service", "expected"),
    [
        ("postgres.shop", [1, 2]),
        ("postgres", [1, 2, 5]),
        ("postgres:5432", [1, 2, 5]),
        ("postgres:5433", []),
        ("catalog.shop", [3]),
        ("catalog", [3]),
        ("db.example", [4]),
        ("*.shop", [1, 2, 3]),
        ("198.18.0.8:8000", [3]),
        ("fd00::9", [4]),
        ("postgres-5d8-x", [5]),
        ("post", []),
    ],
)
def test_of_a_service(service: str, expected: list[int]) -> None:
    assert numbers(service=service) == expected


def test_a_service_that_has_no_flows() -> None:
    assert said(service="postgrs.shop") == (
        "there are no flows to postgrs.shop: did you mean 'postgres.shop'?",
    )
    assert said(service="postgres.shop:1") == ("there are no flows to postgres.shop:1",)
    assert said(service="postgres.shop") == ()


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("open", [2, 3, 5]),
        ("closed", [1, 4]),
        ("CLOSED", [1, 4]),
        ("established", [2, 5]),
        ("fin-wait-1", [3]),
    ],
)
def test_in_a_state(state: str, expected: list[int]) -> None:
    assert numbers(state=state) == expected


def test_all_states_are_known() -> None:
    assert {state.name for state in State} | {"OPEN"} == set(choosing.STATES)
    assert numbers(flow(1, state="NEW_ONE"), state="NEW_ONE") == [1]  # of a newer data plane


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("ESTABLISHD", "did you mean 'ESTABLISHED'"),
        ("opn", "did you mean 'OPEN'"),
        ("xyzzy", "no state 'xyzzy'"),
    ],
)
def test_no_such_state(state: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        numbers(state=state)
    assert caught.value.hint.startswith("one of: open, closed, DIALING")


def test_of_a_cell() -> None:
    assert numbers(cell=3) == numbers(cell="3") == [1, 3, 5]
    assert numbers(cell=3, kernel=4242) == [1, 3]  # cells are those of our notebook
    assert numbers(cell="last") == [5]  # whichever notebook ran last
    assert numbers(cell="last", kernel=4242) == [1, 3]
    assert numbers(cell=3, notebook="analysis.ipynb") == [1, 3]
    assert (
        numbers(cell=3, notebook="idle.ipynb") == []
    )  # it has opened none, and another's In[3] is not its own
    assert numbers(cell="last", kernel=1, notebook="idle.ipynb") == []
    assert numbers(cell=3, kernel=4242, notebook="renamed.ipynb") == [
        1,
        3,
    ]  # the data plane knows it as before
    assert numbers(cell=99) == []
    assert said(cell=99) == ("In[99] has opened no flow that is known",)
    assert numbers(flow(1, cell=-1), cell="last") == []


@pytest.mark.parametrize("cell", ["lst", "-1", 0, "3.5", ""])
def test_no_such_cell(cell: Any) -> None:
    with pytest.raises(UsageError, match="no cell") as caught:
        numbers(cell=cell)
    assert "last" in caught.value.hint


def test_the_top_of_what() -> None:
    assert numbers(top=2) == [2, 1]  # by bytes
    assert numbers(top=99) == [2, 1, 3, 4, 5]
    assert numbers(sort="connect_ms") == [5, 1, 2, 3, 4]  # unknown last
    assert numbers(sort="connect_ms", top=1) == [5]
    assert numbers(sort="opened") == [5, 4, 3, 2, 1]  # latest first
    assert numbers(sort="service") == [3, 4, 5, 1, 2]  # from A to Z
    assert numbers(sort="closed", state="closed") == [4, 1]


def test_no_such_top() -> None:
    for top in (0, -3, True):
        with pytest.raises(UsageError, match="rows are none"):
            numbers(top=top)
    with pytest.raises(UsageError, match="no column 'conect_ms': did you mean 'connect_ms'") as caught:
        numbers(sort="conect_ms")
    assert caught.value.hint == "%tele help flows"
    with pytest.raises(UsageError, match=r"no column 'xyzzy'\n") as caught:
        numbers(sort="xyzzy")
    assert "first_byte_ms" in caught.value.hint


def test_since_keeps_what_was_there_then() -> None:
    """Also what was opened before and is open, or was closed after."""
    at = datetime.datetime.fromtimestamp(NOON + 30, datetime.UTC)
    assert numbers(since=at) == [2, 3, 4, 5]
    assert numbers(since=at + datetime.timedelta(hours=1)) == [2, 3, 5]
    assert numbers(since=time.time() - NOON + 1000) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("since", "ago"),
    [
        ("5m", 300),
        ("90s", 90),
        ("1h30m", 5400),
        ("2d", 172800),
        ("250ms", 0.25),
        ("1.5h", 5400),
        ("90", 90),
        (90, 90),
        (0.5, 0.5),
        (datetime.timedelta(minutes=5), 300),
        (" 5m ", 300),
    ],
)
def test_so_long_ago(since: Any, ago: float) -> None:
    assert choosing.moment(since, now=NOON) == NOON - ago
    assert choosing.moment(since) == pytest.approx(time.time() - ago, abs=5)


def test_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    aware = datetime.datetime.fromtimestamp(NOON, datetime.timezone(datetime.timedelta(hours=2)))
    assert choosing.moment(aware) == NOON
    assert choosing.moment(aware.isoformat()) == NOON
    assert choosing.moment(pd.Timestamp(NOON, unit="s", tz="UTC")) == NOON
    monkeypatch.setitem(os.environ, "TZ", "Asia/Tokyo")
    time.tzset()
    try:  # without a time zone it is by this machine's clock
        assert choosing.moment("2025-06-16T00:06:40") == NOON
        assert choosing.moment(datetime.datetime(2025, 6, 16, 0, 6, 40)) == NOON  # that is the point
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    "since", ["", "5 minutes", "yesterday", "5x", "-5m", "m", float("nan"), float("inf"), True, "1" * 400]
)
def test_no_moment(since: Any) -> None:
    with pytest.raises(UsageError, match="cannot be understood") as caught:
        numbers(since=since)
    assert "5m" in caught.value.hint


def test_events_since() -> None:
    rows = tuple(EventRow(n, NOON + n, "refused", "x", "y", 1) for n in range(3))
    frame = frames.events(EventTable(rows), "demo")
    assert choosing.events(frame).equals(frame)
    later = choosing.events(frame, datetime.datetime.fromtimestamp(NOON + 1, datetime.UTC))
    assert later["number"].tolist() == [1, 2]
    assert later.index.tolist() == [0, 1]
    assert later.attrs == frame.attrs


def test_routes_that_this_machine_has_too() -> None:
    rows = (
        RouteRow("10.0.0.0/16", "tele0", "pods", "x", "applied"),
        RouteRow("10.1.0.0/16", "wg0", "pods", "x", "conflict", "overlaps wg0"),
        RouteRow("10.2.0.0/16", "", "pods", "x", "skipped", "never-proxy"),
        RouteRow("10.3.0.0/16", "docker0", "pods", "x", "skipped", "stays: docker0"),
        RouteRow("10.4.0.0/16", "", "pods", "x", "mapped", "names get other addresses"),
    )
    frame = frames.routes(RouteTable(rows), "demo")
    assert choosing.routes(frame).equals(frame)
    found = choosing.routes(frame, conflicts=True)
    assert found["cidr"].tolist() == ["10.1.0.0/16", "10.3.0.0/16", "10.4.0.0/16"]
    assert found.index.tolist() == [0, 1, 2]
