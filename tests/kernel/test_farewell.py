"""What remains when a connection ends, from what the data plane tells, all of it, some of it, or nothing."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from telehelper.errors import HelperLost
from telehelper.messages import Failed
from telehelper.observing import (
    FLOW_COLUMNS,
    EventRow,
    EventTable,
    FlowRow,
    FlowTable,
    GetEvents,
    GetLatency,
    LatencyRow,
    LatencyTable,
)

from telemagic import farewell
from telemagic.control_fake import STATUS, FakeLauncher, Script
from telemagic.target import ConnectOptions

if TYPE_CHECKING:
    from collections.abc import Callable

    from telehelper.messages import Message

    from telemagic.session import Session

AT = STATUS.connected_at


def flow(number: int, service: str, dport: int, **more: Any) -> FlowRow:
    return FlowRow(
        number, "tcp", "198.19.240.1", 40000, "198.18.0.9", dport, "", "CLOSED", AT, service=service, **more
    )


def table(*rows: FlowRow, extra: tuple[object, ...] = ()) -> FlowTable:
    return FlowTable(
        AT, json.dumps([[*(getattr(row, name) for name in FLOW_COLUMNS), *extra] for row in rows])
    )


def latency(service: str, failed: int, connect: float, first_byte: float) -> LatencyRow:
    return LatencyRow(service, 1, failed, connect, -1, -1, -1, first_byte, -1, -1, -1)


FLOWS = table(
    flow(1, "catalog.shop", 8000, bytes_up=300, bytes_down=8_000, cell=5, notebook="a.ipynb"),
    flow(2, "postgres.shop", 5432, bytes_up=500, bytes_down=61_000, cell=4, notebook="a.ipynb"),
    flow(3, "postgres.shop", 5432, bytes_up=500, bytes_down=1_000, cell=7, notebook="a.ipynb"),
    flow(4, "broken.shop", 80),
)
LATENCIES = LatencyTable(
    AT,
    (
        latency("tunnel", 0, 0.001, -1),
        latency("postgres.shop:5432", 0, 0.00314, 0.0412),
        latency("broken.shop:80", 1, -1, -1),
    ),
)
EVENTS = EventTable(
    (
        EventRow(1, AT, "connected", "demo", "", 1),
        EventRow(2, AT, "refused", "broken.shop:80", "connection refused", 3),
        EventRow(3, AT, "tunnel down", "", "no route", 1),
        EventRow(4, AT, "tunnel up", "", "", 1),
        EventRow(5, AT, "refused", "broken.shop:80", "connection refused", 1),
        EventRow(6, AT, "DNS failed", "", "", 1),
    )
)


def test_flows_are_summed_up_by_service_and_by_cell() -> None:
    summary = farewell.sum_up(STATUS, AT + 60, FLOWS, LATENCIES, EVENTS)
    assert summary.talks == (
        farewell.Talk("postgres.shop:5432", 2, 0, 1_000, 62_000, 0.00314, 0.0412),
        farewell.Talk("catalog.shop:8000", 1, 0, 300, 8_000),
        farewell.Talk("broken.shop:80", 1, 1),
    )
    assert [(cell.number, cell.flows, cell.bytes) for cell in summary.cells] == [
        (4, 1, 61_500),
        (5, 1, 8_300),
        (7, 1, 1_500),
    ]
    assert {cell.notebook for cell in summary.cells} == {""}
    assert summary.failures == (("broken.shop:80 refused", 4), ("DNS failed", 1))
    assert summary.reconnects == 1


def test_the_text_of_it() -> None:
    text = farewell.card(farewell.sum_up(STATUS, AT + 60, FLOWS, LATENCIES, EVENTS)).text
    assert text.splitlines() == [
        "Disconnected from demo: 3 flows, 5.1 kB up, 1.4 MB down in 60 s",
        "  postgres.shop:5432  2 flows · 63.0 kB · connect 3.14 ms · first byte 41.2 ms",
        "  catalog.shop:8000   1 flow · 8.3 kB",
        "  broken.shop:80      1 flow (1 failed) · 0 B",
        "  In [4]  1 flow · 61.5 kB",
        "  In [5]  1 flow · 8.3 kB",
        "  In [7]  1 flow · 1.5 kB",
        "  failed  broken.shop:80 refused, 4 times",
        "  failed  DNS failed",
        "  reconnected once",
    ]


def test_the_card_says_the_same() -> None:
    html = farewell.card(farewell.sum_up(STATUS, AT + 60, FLOWS, LATENCIES, EVENTS)).html
    for said in ("postgres.shop:5432", "41.2 ms", "(1 failed)", "In [4]", "broken.shop:80 refused, 4 times"):
        assert said in html
    assert "width:100.0%" in html
    assert html.count('<td class="tm-share"></td>') == 1  # nothing was sent to broken.shop


def test_a_service_without_a_name_goes_by_its_address_and_a_newer_data_plane_may_say_more() -> None:
    rows = table(
        flow(1, "", 443),
        replace(flow(2, "", 53), name="api.example", protocol="udp"),
        replace(flow(3, "", 443), dst="fd00::9"),
        replace(flow(4, "", 0), protocol="icmp"),
        extra=("something new", 7),
    )
    summary = farewell.sum_up(STATUS, AT, rows, None, EVENTS)
    assert [talk.service for talk in summary.talks] == [
        "198.18.0.9",
        "198.18.0.9:443",
        "[fd00::9]:443",
        "api.example:53",
    ]


WORDS = [
    ("DIALING", "", -1.0, "dialing"),
    ("SYN_RECEIVED", "", -1.0, "dialing"),
    ("ESTABLISHED", "", 0.1, "open"),
    ("OPEN", "", -1.0, "open"),  # datagrams
    ("FIN_WAIT_2", "", 0.1, "closing"),
    ("CLOSED", "", 0.1, "closed"),
    ("CLOSED", "idle", -1.0, "closed"),
    ("CLOSED", "replaced", 0.1, "closed"),
    ("CLOSED", "Connection refused", -1.0, "refused"),
    ("CLOSED", "No route to host", -1.0, "unreachable"),
    ("CLOSED", "Network is unreachable", -1.0, "unreachable"),
    ("CLOSED", "Connection timed out", -1.0, "timed out"),
    ("CLOSED", "the service did not answer", -1.0, "timed out"),
    ("CLOSED", "Connection reset by peer", 0.1, "reset"),
    ("CLOSED", "not yours: uid 1001", -1.0, "failed"),
    ("CLOSED", "something new", 0.1, "closed"),
]


@pytest.mark.parametrize(("state", "reason", "connect", "word"), WORDS)
def test_the_words_for_a_flow(state: str, reason: str, connect: float, word: str) -> None:
    row = replace(flow(1, "a.b", 80), state=state, reason=reason, connect=connect)
    assert farewell.kind_of(row) == word
    if word in {"refused", "unreachable", "timed out", "reset"}:
        assert word in farewell.FAILURES  # an event of that kind is told, too


def test_cells_of_several_notebooks_are_told_apart() -> None:
    rows = table(flow(1, "a.b", 1, cell=2, notebook="x.ipynb"), flow(2, "a.b", 1, cell=2, notebook="y.ipynb"))
    summary = farewell.sum_up(STATUS, AT, rows, None, None)
    assert [cell.notebook for cell in summary.cells] == ["x.ipynb", "y.ipynb"]
    assert "In [2] of x.ipynb  1 flow" in farewell.card(summary).text


def test_long_lists_are_cut() -> None:
    rows = table(*(flow(n, f"s{n}.shop", 80, cell=n, bytes_up=n) for n in range(20)))
    events = EventTable(tuple(EventRow(n, AT, "reset", f"s{n}", "", 1) for n in range(20)))
    card = farewell.card(farewell.sum_up(STATUS, AT, rows, None, events))
    for shown in (card.text, card.html):
        assert f"and {20 - farewell.SERVICES_SHOWN} more services" in shown
        assert f"and {20 - farewell.CELLS_SHOWN} more cells" in shown
    assert card.text.count("failed  s") == farewell.FAILURES_SHOWN
    assert f"and {20 - farewell.FAILURES_SHOWN} more failures" in card.html


def test_what_is_not_known_is_not_shown() -> None:
    alone = farewell.card(farewell.sum_up(STATUS, AT, None, None, None))
    assert "did not say in time" in alone.text
    assert "reconnects" not in alone.html
    nothing = farewell.card(farewell.sum_up(STATUS, AT, table(), LATENCIES, EventTable(())))
    assert nothing.text.splitlines() == ["Disconnected from demo: 3 flows, 5.1 kB up, 1.4 MB down in 0 s"]
    assert "reconnects" in nothing.html
    half = farewell.card(farewell.sum_up(STATUS, AT, FLOWS, None, None))
    assert "reconnects" not in half.html
    assert "did not say" not in half.text
    one = farewell.Summary(replace(STATUS, flows_total=1), AT, (), reconnects=2)
    assert "1 flow," in farewell.card(one).text
    assert farewell.card(one).text.endswith("reconnected 2 times")


class Client:
    """Answers with what it has; hangs where that is None, and fails where it has nothing."""

    def __init__(self, answers: dict[type[Message], Message | None]) -> None:
        self.answers = answers

    async def request(self, body: Message, expect: type[Message]) -> Message:
        if type(body) not in self.answers:
            raise HelperLost("gone")
        answer = self.answers[type(body)]
        if answer is None:
            await asyncio.Event().wait()
        assert isinstance(answer, expect)
        return answer


def ask(answers: dict[type[Message], Message | None]) -> farewell.Summary | None:
    told = asyncio.run(farewell.ask(Client(answers)))  # type: ignore[arg-type]  # asked for nothing else
    return None if told is None else farewell.sum_up(*told)


def test_a_data_plane_that_hangs_delays_leaving_by_no_more_than_promised(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(farewell, "PATIENCE", 0.1)
    hanging: dict[type[Message], Message | None] = dict.fromkeys(
        (farewell.GetStatus, farewell.GetFlows, GetLatency, GetEvents)
    )
    began = time.monotonic()
    assert ask(hanging) is None
    assert time.monotonic() - began < 5
    some = ask({**hanging, farewell.GetStatus: STATUS, GetEvents: EVENTS})
    assert some is not None
    assert (some.reconnects, some.talks) == (1, None)
    assert ask({}) is None


def test_disconnect_shows_what_the_data_plane_told(make_session: Callable[[FakeLauncher], Session]) -> None:
    script = Script(flows=FLOWS, answers={GetLatency: LATENCIES, GetEvents: EVENTS})
    session = make_session(FakeLauncher(script))
    session.connect(ConnectOptions(context="demo"))
    text = session.disconnect().text
    assert "postgres.shop:5432  2 flows · 63.0 kB · connect 3.14 ms" in text
    assert "reconnected once" in text


def test_disconnect_from_an_older_data_plane_is_shorter(
    make_session: Callable[[FakeLauncher], Session],
) -> None:
    unknown = Failed("helper-refused", "no such request")
    session = make_session(FakeLauncher(Script(answers={GetLatency: unknown, GetEvents: unknown})))
    session.connect(ConnectOptions(context="demo"))
    card = session.disconnect()
    assert card.text.startswith("Disconnected from demo: 3 flows")
    assert "reconnects" not in card.html


def test_disconnect_does_not_wait_for_a_mute_one(
    session: Session, launcher: FakeLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    from telemagic import connection

    session.connect(ConnectOptions(context="demo"))
    launcher.script.mute = True
    monkeypatch.setattr(farewell, "PATIENCE", 0.1)
    monkeypatch.setattr(connection, "UNDO_PATIENCE", 0.1)
    with pytest.raises(HelperLost, match=r"has not answered for 0\.1 s"):
        session.disconnect()
    assert session.connection is None
