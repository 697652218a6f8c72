"""iperf3's command line and report; it itself, where it is installed."""

from __future__ import annotations

import json
import os
import socket
import stat
from typing import TYPE_CHECKING

import pytest

from telemagic.bench import iperf3
from telemagic.bench.dial import FarEnd
from telemagic.bench.iperf3 import Iperf3Error
from tests.bench import far

if TYPE_CHECKING:
    from pathlib import Path

HERE = FarEnd.find("127.0.0.1")


def test_the_command_line() -> None:
    up = iperf3.command("iperf3", HERE, 5, up=True, flows=4, seconds=2.1, omit=1)
    assert " ".join(up) == "iperf3 -c 127.0.0.1 -p 5 -J -t 3 -O 1 -P 4 --connect-timeout 5000"
    down = iperf3.command("iperf3", HERE, 5, up=False, flows=1, seconds=0.1, omit=0)
    assert " ".join(down) == "iperf3 -c 127.0.0.1 -p 5 -J -t 1 -O 0 -P 1 --connect-timeout 5000 -R"


def test_the_receivers_figure_counts() -> None:
    end = {"sum_sent": {"bits_per_second": 3e9}, "sum_received": {"bits_per_second": 2e9}}
    assert iperf3.received(json.dumps({"end": end})) == 2e9


@pytest.mark.parametrize(
    ("report", "said"),
    [
        ("", "no result"),
        ("{}", "no result"),
        ("[]", "no result"),
        ('{"end": {"sum_received": null}}', "no result"),
        ('{"end": {"sum_received": {"bits_per_second": 0}}}', "nothing arrived"),
        ('{"error": "the server is busy", "end": {}}', "the server is busy"),
    ],
)
def test_a_report_without_a_result_says_why(report: str, said: str) -> None:
    with pytest.raises(Iperf3Error, match=said):
        iperf3.received(report)


def test_without_iperf3_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Iperf3Error, match="not installed"):
        iperf3.transfer(HERE, 5, up=True, flows=1, seconds=1)


def test_one_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = tmp_path / "iperf3"
    script.write_text("#!/bin/sh\nexec sleep 60\n")
    script.chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(iperf3, "_LATE", 0.1)
    with pytest.raises(Iperf3Error, match="did not end"):
        iperf3.transfer(HERE, 5, up=True, flows=1, seconds=0.1, omit=0)


def test_it_measures_against_our_server_where_it_is_installed() -> None:
    with far.running() as ports:
        if iperf3.path() is None:
            assert ports.iperf3 is None
        else:
            assert ports.iperf3 is not None
            assert iperf3.transfer(HERE, ports.iperf3, up=False, flows=2, seconds=1, omit=0) > 1e6


def test_why_it_did_not_measure_is_said() -> None:
    said = "not installed" if iperf3.path() is None else "refused"
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(Iperf3Error, match=said):
            iperf3.transfer(HERE, unused.getsockname()[1], up=True, flows=1, seconds=1, omit=0)
