"""Phases: what is told when, and what is remembered."""

from __future__ import annotations

import asyncio

import pytest
from telehelper.datapath.phases import PhaseLog
from telehelper.errors import VifError
from telehelper.messages import PHASES, PhaseChanged


def test_a_phase_is_told_at_its_start_and_its_end() -> None:
    told: list[PhaseChanged] = []
    log = PhaseLog(told.append)
    with log.run("TUN") as phase:
        assert [(t.phase, t.state) for t in told] == [("TUN", "started")]
        phase.detail = "tele0"
    assert [(t.phase, t.state, t.detail) for t in told] == [("TUN", "started", ""), ("TUN", "done", "tele0")]
    assert told[0].seconds == 0
    assert 0 <= told[1].seconds < 5


@pytest.mark.parametrize("error", [VifError("no device"), asyncio.CancelledError("no device")])
def test_a_failure_is_told_and_goes_on(error: BaseException) -> None:
    told: list[PhaseChanged] = []
    log = PhaseLog(told.append)
    with pytest.raises(type(error)), log.run("TUN"):
        raise error
    assert (told[-1].state, told[-1].detail) == ("failed", "no device")


def test_rows_hold_the_last_word_in_the_order_of_connecting() -> None:
    log = PhaseLog(lambda _: None)
    assert log.rows == ()
    with log.run("tunnel"), log.run("TUN"):
        pass
    with log.run("elevate"):
        assert [(row.phase, row.state) for row in log.rows] == [
            ("elevate", "started"),
            ("TUN", "done"),
            ("tunnel", "done"),
        ]


def test_unfinished_names_the_first_that_is_not_done() -> None:
    log = PhaseLog(lambda _: None)
    assert log.unfinished == ""
    with log.run("elevate"):
        assert log.unfinished == "elevate"
    assert log.unfinished == ""
    with log.run("tunnel"):
        assert log.unfinished == "tunnel"
        with log.run("TUN"):
            assert log.unfinished == "TUN"
        assert log.unfinished == "tunnel"
    with pytest.raises(VifError), log.run("routes"):
        raise VifError("no")
    assert log.unfinished == "routes"


def test_all_phases_in_a_row() -> None:
    told: list[PhaseChanged] = []
    log = PhaseLog(told.append)
    for name in PHASES:
        with log.run(name):
            pass
    assert tuple(row.phase for row in log.rows) == PHASES
    assert len(told) == 2 * len(PHASES)
