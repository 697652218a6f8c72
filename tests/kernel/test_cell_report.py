from __future__ import annotations

import math
from dataclasses import replace

import pytest
from telehelper.observing import FlowRow

from telemagic.cell_report import SHOWN, CellReport, of_cell, remark

BEGAN = 1_750_000_000.0
ROW = FlowRow(
    flow=1,
    protocol="TCP",
    src="198.19.240.1",
    sport=40000,
    dst="198.18.0.9",
    dport=5432,
    name="postgres.shop",
    state="ESTABLISHED",
    opened_at=BEGAN + 1,
    dns=0.004,
    connect=0.002,
    first_byte=0.010,
    bytes_up=500,
    bytes_down=2_000,
    service="postgres.shop",
    pid=7,
    notebook="a.ipynb",
    cell=3,
)


def flow(number: int, **changes: object) -> FlowRow:
    return replace(ROW, flow=number, opened_at=BEGAN + number / 10, **changes)  # type: ignore[arg-type]  # its fields


# --- whose flows -------------------------------------------------------------------------------------------------


def numbers(rows: list[FlowRow]) -> list[int]:
    return [row.flow for row in rows]


def test_only_this_cell_of_this_notebook_and_this_run() -> None:
    rows = [
        flow(3),
        flow(1),
        flow(4, cell=2),
        flow(5, notebook="b.ipynb"),
        flow(6, notebook="", cell=-1),  # a known process that is no notebook's
        replace(flow(7), opened_at=BEGAN - 1),  # cell 3 of the kernel before the restart
    ]
    found, by_time = of_cell(rows, 3, "a.ipynb", BEGAN)
    assert (numbers(found), by_time) == ([1, 3], 0)


def test_what_is_nobody_s_is_counted_by_its_time_and_that_is_said() -> None:
    unknown = {"cell": -1, "pid": -1, "notebook": ""}
    rows = [flow(1), flow(2, **unknown), replace(flow(3, **unknown), opened_at=BEGAN - 1)]
    found, by_time = of_cell(rows, 3, "a.ipynb", BEGAN)
    assert (numbers(found), by_time) == ([1, 2], 1)
    assert remark(by_time, kept=True).startswith("1 flow is counted by time alone")
    assert "2 flows are counted" in remark(2, kept=True)
    assert numbers(of_cell(rows, 0, "a.ipynb", BEGAN)[0]) == [
        2
    ]  # a cell without a number has no flows of its own


@pytest.mark.parametrize(("kept", "said"), [(True, ""), (False, "disconnected again")])
def test_the_end_of_the_connection_is_said(kept: bool, said: str) -> None:
    assert remark(0, kept=kept) == said


# --- what it shows -----------------------------------------------------------------------------------------------


def test_by_service_the_most_bytes_first() -> None:
    report = CellReport(
        3,
        1.5,
        (
            flow(1, connect=0.001),
            flow(2, connect=0.003, dns=-1.0),
            flow(3, service="", name="", dst="198.18.16.4", dport=80, bytes_up=9_000_000),
            flow(4, service="", name="x.com", dport=443, bytes_up=0, bytes_down=0),
        ),
    )
    first, second, third = report.lines
    assert (first.service, second.service, third.service) == (
        "198.18.16.4:80",
        "postgres.shop:5432",
        "x.com:443",
    )
    assert (second.flows, second.failed, second.up, second.down) == (2, 0, 1_000, 4_000)
    assert second.times == pytest.approx((0.004, 0.002, 0.010))  # medians; an unknown one does not count


def test_text() -> None:
    report = CellReport(
        3, 0.42, (flow(1), flow(2, connect=-1.0, closed_at=BEGAN + 2, first_byte=-1.0)), "demo", "a note"
    )
    lines = repr(report).splitlines()
    assert lines[0] == "Cell [3]: 2 flows in 0.42 s, 1.0 kB up, 4.0 kB down"
    assert lines[1].split() == ["service", "flows", "failed", "up", "down", "DNS", "connect", "first", "byte"]
    assert lines[2].split() == [
        "postgres.shop:5432",
        "2",
        "1",
        "1.0",
        "kB",
        "4.0",
        "kB",
        "4.00",
        "ms",
        "2.00",
        "ms",
        "10.00",
        "ms",
    ]
    assert lines[3] == "  note: a note"
    assert len({len(line) for line in lines[1:3]}) == 1  # aligned


def test_the_column_of_failures_is_there_when_there_are_some() -> None:
    assert "failed" not in repr(CellReport(3, 1.0, (flow(1),)))
    failed = CellReport(3, 1.0, (flow(1), flow(2, connect=-1.0, closed_at=BEGAN + 2)))
    assert '<span class="tm-chip tm-failed">1</span>' in failed._repr_mimebundle_()["text/html"]


def test_nothing_happened() -> None:
    report = CellReport(0, 12.3, ())
    assert repr(report) == "This cell: no flows in 12 s"
    assert "<table" not in report._repr_mimebundle_()["text/html"]
    assert len(report.frame) == 0


def test_what_comes_from_outside_can_neither_steer_a_page_nor_a_terminal() -> None:
    row = flow(1, service="<b>\x1b[2J", connect=-1.0, closed_at=BEGAN + 1)
    shown = CellReport(3, 1.0, (row,), "<i>", "<u>")._repr_mimebundle_()
    assert not [tag for tag in ("<b>\x1b", "<i>", "<u>") if tag in shown["text/html"]]
    assert "&lt;b&gt;" in shown["text/html"]
    assert "\x1b" not in shown["text/plain"]
    assert "tm-bad" in shown["text/html"]  # a flow has failed


def test_ipv6_and_many_services() -> None:
    rows = tuple(flow(n, service="", name="", dst=f"fd00::{n}", bytes_up=n) for n in range(SHOWN + 3))
    lines = repr(CellReport(3, 1.0, rows)).splitlines()
    assert lines[2].split()[0] == f"[fd00::{SHOWN + 2:x}]:5432".replace(f"{SHOWN + 2:x}", str(SHOWN + 2))
    assert lines[-1] == "  note: 3 more services"
    assert len(lines) == 1 + 1 + SHOWN + 1


def test_udp_does_not_fail_for_want_of_a_connect() -> None:
    (line,) = CellReport(3, 1.0, (flow(1, protocol="UDP", connect=-1.0, closed_at=BEGAN + 1),)).lines
    assert line.failed == 0
    assert line.times[1] is None


def test_frame() -> None:
    frame = CellReport(3, 1.0, (flow(1), flow(2, service="a.b", dns=-1.0))).frame
    assert [(name, str(dtype)) for name, dtype in frame.dtypes.items()] == [
        ("service", "str"),
        ("flows", "Int64"),
        ("failed", "Int64"),
        ("bytes_up", "Int64"),
        ("bytes_down", "Int64"),
        ("dns_ms", "float64"),
        ("connect_ms", "float64"),
        ("first_byte_ms", "float64"),
    ]
    assert frame["service"].tolist() == ["a.b:5432", "postgres.shop:5432"]
    assert math.isnan(frame["dns_ms"][0])
    assert frame["first_byte_ms"][1] == pytest.approx(10.0)
