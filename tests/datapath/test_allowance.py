"""A share of the time, with a clock that is put forward by hand."""

from __future__ import annotations

import pytest
from telehelper.datapath import allowance
from telehelper.datapath.allowance import Allowance


class Clock:
    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(allowance, "monotonic", clock)
    return clock


def test_what_is_spent_comes_back_at_its_share(clock: Clock) -> None:
    it = Allowance(share=0.1, saved=1.0)
    assert it.is_left
    with it.spending():
        clock.now += 3.0  # more than there was
    assert not it.is_left
    clock.now += 16.0
    assert not it.is_left
    clock.now += 2.0
    assert it.is_left


def test_no_more_is_saved_up_than_was_said(clock: Clock) -> None:
    it = Allowance(share=0.5, saved=1.0)
    clock.now += 1000.0
    assert it.is_left
    with it.spending():
        clock.now += 1.0
    assert it.is_left, "spending is time as well"
    with it.spending():
        clock.now += 2.0
    assert not it.is_left


def test_what_fails_has_taken_its_time_too(clock: Clock) -> None:
    it = Allowance(share=0.1, saved=1.0)

    def fail() -> None:
        with it.spending():
            clock.now += 2.0
            raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        fail()
    assert not it.is_left


def test_over_long_it_is_the_share(clock: Clock) -> None:
    it = Allowance(share=0.05, saved=0.02)
    spent = 0.0
    for _ in range(100_000):
        clock.now += 0.0005
        if it.is_left:
            with it.spending():
                clock.now += 0.003
            spent += 0.003
    assert spent / (clock.now - 50.0) == pytest.approx(0.05, rel=0.02)
