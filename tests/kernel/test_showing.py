"""Our tables in notebooks and terminals: short, rounded, whole where that is asked for; other people's as ever."""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
from telehelper.observing import EventRow, EventTable
from telehelper.views import PodRow, PodTable, PortRow, ServiceRow, ServiceTable

import telemagic
from telemagic import cluster_frames, frames, showing
from telemagic.ping import Try
from tests.kernel.flow_rows import NOON, flow, flow_table

if TYPE_CHECKING:
    from telemagic.session import Session

FLOWS = [
    "flow",
    "service",
    "dport",
    "state",
    "cell",
    "connect_ms",
    "first_byte_ms",
    "bytes_up",
    "bytes_down",
    "process",
]


class Headings(HTMLParser):
    """What stands in a table's first row."""

    def __init__(self, text: str | None) -> None:
        super().__init__()
        self.found: list[str] = []
        self._open = False
        assert text is not None
        self.feed(text.partition("</thead>")[0])

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._open = tag == "th"

    def handle_data(self, data: str) -> None:
        if self._open and data.strip():
            self.found.append(data.strip())


def headings(frame: pd.DataFrame) -> list[str]:
    return Headings(showing.html(frame)).found


def some_flows() -> pd.DataFrame:
    return frames.flows(flow_table(flow(connect=0.0123456789), flow(8, service="a.shop")), "demo")


def some_services() -> pd.DataFrame:
    row = ServiceRow(
        name="postgres",
        namespace="shop",
        type="ClusterIP",
        cluster_ip="198.18.8.20",
        ports=(PortRow("postgresql", 5432, "TCP"),),
        endpoints_ready=1,
        endpoints_total=2,
        selector="app=postgres",
        external_name="",
    )
    return cluster_frames.services(ServiceTable((row,)), "demo")


def pings(*connects: float) -> pd.DataFrame:
    tries = [
        Try(n, "2001:2::14", 5432, "connected", took, -1.0, 0.0004, -1.0) for n, took in enumerate(connects)
    ]
    return cluster_frames.pings(tries, "demo", ())


def test_a_notebook_shows_what_people_look_for_and_names_the_rest() -> None:
    flows = some_flows()
    assert headings(flows) == FLOWS
    said = showing.html(flows)
    assert said is not None
    assert "22 more columns, with --wide: notebook, protocol, opened," in said
    assert headings(some_services()) == ["dns_name", "url", "ports", "type", "ready", "cluster_ip"]


def test_all_columns_where_that_is_asked_for() -> None:
    wide = showing.wide(some_flows())
    assert headings(wide) == [column.name for column in frames.FLOW_SCHEMA]
    assert "more columns" not in (showing.html(wide) or "")
    assert "packets_down" in showing.text(wide)
    assert "packets_down" in showing.lines(wide, 40)
    assert "wide" not in some_flows().attrs["telemagic"]


def test_a_choice_of_columns_is_shown_as_it_was_made() -> None:
    flows = some_flows()
    assert headings(flows[["service", "pod"]]) == ["service", "pod"]
    without = flows.drop(columns=["reason"])
    assert "packets_down" in showing.text(without)  # folded below each other, as pandas does
    assert "packets_down" in showing.lines(without, 80)
    flows["slow"] = flows["connect_ms"] > 10
    assert headings(flows) == [*FLOWS, "slow"]  # what was added is seen


def test_digits_without_meaning_are_not_shown_and_not_lost() -> None:
    tries = pings(0.0123456789, 0.002)
    for said in (
        showing.html(tries),
        showing.text(tries),
        showing.lines(tries, 0),
        repr(showing._short(tries)),
    ):
        assert said is not None
        assert "12.346" in said
        assert "12.3456" not in said
    assert tries["connect_ms"][0] == pytest.approx(12.3456789, abs=1e-6)
    summary = tries.describe()
    assert "7.173" in (showing.html(summary) or "")
    assert "7.1728" not in (showing.html(summary) or "")


def test_other_numbers_keep_their_digits() -> None:
    tries = pings(0.5)
    tries["share"] = 0.123456
    assert "0.123456" in showing.text(tries[["address", "share"]])
    assert "0.123456" in (showing.html(tries) or "")


def test_as_many_columns_as_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    services = some_services()
    for width in (40, 60, 80, 120):
        table, _, note = showing.lines(services, width).partition("\n5 more")
        rows = showing.lines(services, width).splitlines()
        assert max(map(len, rows)) <= max(width, 46), rows  # two columns are shown in any case
        assert bool(note) == (width == 120), table
    assert "cluster_ip" in showing.lines(services, 120)
    assert "cluster_ip" not in showing.lines(services, 60).splitlines()[0]
    with pd.option_context("display.width", 60):
        rows = showing.text(services).splitlines()
    assert max(map(len, rows)) <= 60
    assert not any(row.endswith("\\") for row in rows)  # pandas' way to go on below
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "120")
    assert "cluster_ip" in showing.text(services).splitlines()[0]


def test_a_pipe_gets_every_column_that_is_no_detail() -> None:
    rows = showing.lines(some_services(), 0).splitlines()
    assert rows[0].split() == ["dns_name", "url", "ports", "type", "ready", "cluster_ip"]
    assert len(rows) == 2
    assert showing.lines(some_services()[:0], 80) == "no rows"


def test_every_table_fits_a_narrow_terminal() -> None:
    pod = PodRow(
        "postgres-1ad86a515-szftj",
        "shop",
        "198.18.0.12",
        "demo-node",
        "Running",
        1,
        1,
        0,
        NOON,
        "postgres:16",
        "",
    )
    event = EventRow(1, NOON, "DNS failed", "postgrs.shop", "no such name", 3)
    tables = (
        cluster_frames.pods(PodTable((pod,)), "demo"),
        frames.events(EventTable((event,)), "demo"),
        some_flows(),
        pings(1.0),
    )
    for table in tables:
        rows = showing.lines(table, 80).splitlines()
        assert max(map(len, rows)) <= 80, rows
        assert len(rows[0].split()) >= 4


def test_what_comes_from_outside_is_escaped() -> None:
    flows = some_flows()
    flows["process"] = "<script>"
    assert "<script>" not in (showing.html(flows) or "")
    assert "<script>" not in (showing.html(flows.rename(columns={"pod": "<script>"})) or "")


def test_pandas_options_are_obeyed() -> None:
    many = pd.concat([some_flows()] * 60, ignore_index=True)
    many.attrs = some_flows().attrs
    assert "120 rows" in (showing.html(many) or "")
    assert len(showing.text(many).splitlines()) < 30
    with pd.option_context("display.notebook_repr_html", False):  # pandas' signature
        assert showing.html(many) is None


def test_in_a_shell(shell: Any) -> None:
    shell.user_ns |= {"ours": some_flows(), "other": pd.DataFrame({"a": [0.123456]})}
    form = shell.display_formatter.format
    data, _ = form(shell.user_ns["ours"])
    assert "22 more columns" in data["text/html"]
    assert "more columns" in data["text/plain"]
    other = shell.user_ns["other"]
    data, _ = form(other)
    assert data["text/html"] == other._repr_html_()
    assert data["text/plain"] == repr(other)
    shell.run_cell("%unload_ext telemagic").raise_error()
    data, _ = form(shell.user_ns["ours"])
    assert data["text/html"] == shell.user_ns["ours"]._repr_html_()
    assert data["text/plain"] == repr(shell.user_ns["ours"])


def test_connecting_without_the_magics_shows_tables_so_as_well(session: Session, shell: Any) -> None:
    shell.run_cell("%unload_ext telemagic").raise_error()
    telemagic.connect()
    data, _ = shell.display_formatter.format(some_flows())
    assert "22 more columns" in data["text/html"]


def test_who_shows_all_tables_in_a_way_of_his_own_goes_first(shell: Any) -> None:
    formatter = shell.display_formatter.formatters["text/html"]
    formatter.for_type(pd.DataFrame, lambda _frame: "mine")
    assert shell.display_formatter.format(some_flows())[0]["text/html"] == "mine"
    shell.run_cell("%unload_ext telemagic").raise_error()
    assert shell.display_formatter.format(some_flows())[0]["text/html"] == "mine"
