"""Flows, latencies, events and routes as users ask for them: methods, magics and the command line, with a fake helper."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
from telehelper.errors import NotConnected, UsageError
from telehelper.messages import RouteRow, RouteTable
from telehelper.observing import EventRow, EventTable, FlowTable, LatencyRow, LatencyTable

import telemagic
from telemagic import frames, showing
from telemagic.control_fake import FakeLauncher, Script
from telemagic.parser import Tree
from telemagic.results import Text
from tests.kernel.flow_rows import NOON, flow, flow_table

if TYPE_CHECKING:
    from telemagic.session import Session

EVENTS = EventTable(
    (
        EventRow(1, NOON, "connected", "demo", "2 carriers", 1),
        EventRow(2, time.time(), "refused", "postgres.shop:1", "nothing listens there", 3),
    )
)
LATENCY = LatencyTable(
    NOON,
    (
        LatencyRow("tunnel", 0, 0, 0.001, 0.002, -1, -1, -1, -1, -1, -1),
        LatencyRow("postgres.shop:5432", 2, 0, 0.003, 0.004, 0.001, 0.001, 0.1, 0.2, 0.05, 0.06),
    ),
)
ROUTES = RouteTable(
    (
        RouteRow("198.18.0.0/20", "tele0", "services", "ServiceCIDR", "applied"),
        RouteRow("10.0.0.0/8", "wg0", "pods", "nodes", "conflict", "overlaps wg0"),
    )
)
FLOWS = flow_table(
    flow(1, opened_at=NOON, closed_at=NOON + 1, state="CLOSED", bytes_down=9),
    flow(2, service="catalog.shop", name="catalog.shop", dport=8000, bytes_down=99, cell=4),
)


@pytest.fixture
def launcher() -> FakeLauncher:
    return FakeLauncher(Script(flows=FLOWS, events=EVENTS, latency=LATENCY, routes=ROUTES))


@pytest.fixture
def connection(session: Session) -> telemagic.Connection:
    return telemagic.connect()


def line(session: Session, *words: str, prog: str = "%tele") -> Any:
    tree = Tree(prog)
    understood = tree.parse(words)
    return understood if isinstance(understood, Text) else tree.run(session, understood)


def test_flows_and_what_is_chosen_of_them(connection: telemagic.Connection) -> None:
    assert connection.flows()["flow"].tolist() == [1, 2]
    assert connection.flows("5m", state="open")["flow"].tolist() == [2]
    assert connection.flows(service="postgres", cell=3)["flow"].tolist() == [1]
    assert connection.flows(top=1)["flow"].tolist() == [2]
    assert connection.flows(sort="dport")["dport"].tolist() == [8000, 5432]


def test_a_newer_data_plane_may_say_more_of_a_flow(
    connection: telemagic.Connection, launcher: FakeLauncher
) -> None:
    rows = json.loads(FLOWS.rows)
    launcher.script.flows = FlowTable(NOON, json.dumps([[*row, "more", 1] for row in rows]))
    assert connection.flows()["flow"].tolist() == [1, 2]
    assert [row.flow for row in connection.flow_rows()] == [1, 2]  # of which %%tele makes its report


def test_cells_of_a_notebook_are_its_own(connection: telemagic.Connection, shell: Any) -> None:
    shell.user_ns["tele"] = connection
    for notebook, found in (("analysis.ipynb", [1]), ("other.ipynb", [])):
        shell.kernel = object()  # what tells a notebook from a terminal
        shell.user_ns["__vsc_ipynb_file__"] = f"/home/ada/{notebook}"
        assert shell.run_cell('tele.flows(cell=3)["flow"].tolist()').result == found
    del shell.kernel


def test_latencies_and_events(connection: telemagic.Connection) -> None:
    latency = connection.latency().set_index("service")
    assert latency.index.tolist() == ["tunnel", "postgres.shop:5432"]
    assert latency["connect_p50_ms"].tolist() == [1.0, 3.0]
    assert connection.events()["kind"].tolist() == ["connected", "refused"]
    assert connection.events("1h")["count"].tolist() == [3]
    assert connection.routes(conflicts=True)["cidr"].tolist() == ["10.0.0.0/8"]


@pytest.mark.parametrize(
    "name", ["flows", "latency", "events", "routes", "services", "pods", "resolve", "ping"]
)
def test_the_documentation_has_every_column_with_its_unit(name: str) -> None:
    text = getattr(telemagic.Connection, name).__doc__
    assert "    Columns\n        -------\n" in text
    if name == "flows":
        for column in frames.FLOW_SCHEMA:
            assert f"        {column.name} " in text
        assert "float64 [ms]         from the SYN until the service has answered" in text


@pytest.mark.parametrize("name", ["flows", "latency", "events", "routes", "services", "pods"])
def test_so_has_the_help(session: Session, name: str) -> None:
    said = line(session, "help", name).text
    assert "category" in said or name == "latency"
    assert "float64 [ms]" in said or name not in {"flows", "latency"}


def test_the_magics(session: Session, connection: telemagic.Connection) -> None:
    assert line(session, "flows", "--state", "open", "--since", "5m")["flow"].tolist() == [2]
    assert line(session, "flows", "--cell", "last")["cell"].tolist() == [4]
    assert line(session, "flows", "--top", "1", "--sort", "opened")["flow"].tolist() == [2]
    assert line(session, "flows", "--service=*.shop").shape == (2, len(frames.FLOW_SCHEMA))
    assert line(session, "events", "--since", "1h")["number"].tolist() == [2]
    assert line(session, "latency")["flows"].tolist() == [0, 2]
    assert line(session, "routes", "--conflicts")["state"].tolist() == ["conflict"]
    assert len(line(session, "routes")) == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("flows --sort bytes_dwn", "did you mean 'bytes_down'"),
        ("flows --state ESTABLISHD", "did you mean 'ESTABLISHED'"),
        ("flows --since noon", "since 'noon' cannot be understood"),
        ("flows --cell first", "there is no cell 'first'"),
        ("flows --top x", "invalid int value: 'x'"),
        ("flows --top 0", "the top 0 rows are none"),
        ("flows --stat open", "did you mean '--state'"),
        ("flows --wid", "did you mean '--wide'"),
        ("events --since x", "cannot be understood"),
        ("latency x", "takes no argument"),
    ],
)
def test_bad_lines(session: Session, connection: telemagic.Connection, words: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        line(session, *words.split())
    assert caught.value.hint
    assert "\n" not in caught.value.message


def test_nothing_found_is_said_beside_the_table(
    session: Session, connection: telemagic.Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    frame = line(session, "flows", "--service", "postgrs.shop")
    assert len(frame) == 0
    assert capsys.readouterr().err == (
        "note: there are no flows to postgrs.shop: did you mean 'postgres.shop'?\n"
    )


def test_on_a_terminal(session: Session, connection: telemagic.Connection) -> None:
    everything = line(session, "flows", prog="telemagic")
    assert everything.shape[1] == len(frames.FLOW_SCHEMA)
    narrow, wide = everything, line(session, "flows", "--wide", prog="telemagic")
    assert "process" in showing.lines(narrow, 0)
    assert "packets_down" not in showing.lines(narrow, 0)
    assert "packets_down" in showing.lines(wide, 0)
    (first, second) = json.loads(line(session, "flows", "--json", prog="telemagic").text)
    assert (first["service"], first["closed"]) == ("postgres.shop", "2025-06-15T15:06:41.000000Z")
    assert (second["closed"], second["connect_ms"], second["cell"]) == (None, None, 4)
    assert set(first) == {column.name for column in frames.FLOW_SCHEMA}


def test_without_a_connection(session: Session) -> None:
    for words in ("flows", "latency", "events", "routes --conflicts"):
        with pytest.raises(NotConnected):
            line(session, *words.split())


def test_filters_keep_what_is_written_on_the_table(connection: telemagic.Connection) -> None:
    frame = connection.flows(state="open", sort="service", top=5)
    assert frame.attrs["telemagic"]["units"]["connect_ms"] == "ms"
    assert frame.attrs["telemagic"]["context"] == "demo"
    pd.testing.assert_frame_equal(frame, connection.flows().iloc[[1]].reset_index(drop=True))
