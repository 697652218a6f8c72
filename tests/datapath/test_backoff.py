"""Delays between tries."""

from __future__ import annotations

import itertools

from telehelper.datapath.backoff import FIRST_DELAY, MAX_DELAY, delays


def test_delays_double_with_jitter_up_to_a_bound() -> None:
    assert (FIRST_DELAY, MAX_DELAY) == (0.2, 5.0)
    found = list(itertools.islice(delays(), 12))
    whole = [0.2, 0.4, 0.8, 1.6, 3.2, *[5.0] * 7]
    for delay, most in zip(found, whole, strict=True):
        assert most / 2 <= delay <= most
    assert sum(found[:4]) < 5  # several tries before anybody starts to wonder


def test_two_do_not_come_in_step() -> None:
    one, two = (list(itertools.islice(delays(), 20)) for _ in range(2))
    assert one != two
