"""What people see of a run."""

from __future__ import annotations

import re

import pytest

from telemagic.bench.report import Report
from telemagic.bench.table import Result, quantity
from tests.bench.schema import machine

VALUES = {
    ("raw", "bulk_up_1"): 17.3e9,
    ("raw", "rr_p50"): 91e-6,
    ("raw", "idle_cpu"): None,
    ("tcp", "bulk_up_1"): 4.71e9,
    ("tcp", "rr_p50"): 112e-6,
    ("tcp", "idle_cpu"): 0.008,
    ("sshuttle", "bulk_up_1"): 280e6,
}


def result(**about: object) -> Result:
    return Result(Report.of(machine(**about), VALUES))


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (17.31e9, "bit/s", "17.3 Gbit/s"),
        (4.712e9, "bit/s", "4.71 Gbit/s"),
        (220e6, "bit/s", "220 Mbit/s"),
        (0.0, "bit/s", "0.00 bit/s"),
        (112.4e-6, "s", "112 µs"),
        (2.5e-3, "s", "2.50 ms"),
        (43.71e-3, "s", "43.7 ms"),
        (10.0, "s", "10.0 s"),
        (3e-8, "s", "0.03 µs"),
        (16384.0, "B", "16.0 KiB"),
        (-300.0, "B", "-300.00 B"),
        (5e6, "B", "4.77 MiB"),
        (12345.6, "1/s", "12,346 /s"),
        (0.0042, "fraction", "0.42 %"),
        (0.02, "fraction of a core", "2.00 %"),
        (None, "s", "-"),
    ],
)
def test_quantities(value: float | None, unit: str, text: str) -> None:
    assert quantity(value, unit) == text


def test_the_text() -> None:
    about, *lines = repr(result(notes=["tcp: something"])).splitlines()
    assert about == ("Made up, 2 cores · Linux 6.1 · Python 3.13.0 · sender own · 2026-01-02T03:04:05+00:00")
    assert lines == [
        "path      metric           value   ratio  target                                met",
        "raw       bulk_up_1  17.3 Gbit/s       1",
        "          rr_p50         91.0 µs       1",
        "          idle_cpu             -       -",
        "tcp       bulk_up_1  4.71 Gbit/s   0.272  ≥ 0.3 x raw, 10 x sshuttle (is 16.8)  no",
        "          rr_p50          112 µs    1.23  ≤ 1.5 x raw                           yes",
        "          idle_cpu        0.80 %       -  ≤ 2.00 %                              yes",
        "sshuttle  bulk_up_1   280 Mbit/s  0.0162",
        "note: tcp: something",
    ]


def test_the_card_says_the_same() -> None:
    html = result()._repr_mimebundle_()["text/html"]
    assert len(re.findall("<tr>", html)) == 1 + len(VALUES)
    for text in ("4.71 Gbit/s", "0.272", "≥ 0.3 x raw", ">no<", "Made up, 2 cores"):
        assert text in html


def test_nothing_from_outside_gets_into_terminal_or_page() -> None:
    shown = result(cpu="<b>fast</b>\x1b[2J", notes=["<script>\x1b]0;x\x07"])
    assert "\x1b" not in repr(shown)
    assert "<b>fast" not in shown.html
    assert "<script>" not in shown.html


def test_a_quick_run_says_so() -> None:
    assert "rough" in repr(result(quick=True))
    assert "rough" not in repr(result(quick=False))


def test_a_result_is_data_too() -> None:
    shown = result()
    assert len(shown.to_frame()) == len(VALUES)
    assert shown.to_json() == shown.report.to_json()


def test_an_empty_run_is_a_table_all_the_same() -> None:
    assert repr(Result(Report.of(machine(), {}))).splitlines()[1].split() == [
        "path",
        "metric",
        "value",
        "ratio",
        "target",
        "met",
    ]
