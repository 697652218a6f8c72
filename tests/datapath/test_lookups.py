"""Lookups wait for their flow, and not for long."""

from __future__ import annotations

from ipaddress import IPv4Address

from telehelper.datapath.lookups import FRESH, KEPT, Lookups

THERE, ELSEWHERE = IPv4Address("198.18.0.9"), IPv4Address("198.18.0.10")


def test_the_first_flow_after_a_lookup_takes_it() -> None:
    lookups = Lookups()
    lookups.note([THERE, ELSEWHERE], 0.02, 100.0)
    assert lookups.take(THERE, 101.0) == 0.02
    assert lookups.take(THERE, 101.0) == -1
    assert lookups.take(ELSEWHERE, 100.0 + FRESH) == 0.02


def test_a_lookup_of_long_ago_belongs_to_no_flow() -> None:
    lookups = Lookups()
    lookups.note([THERE], 0.02, 100.0)
    assert lookups.take(THERE, 100.1 + FRESH) == -1


def test_the_last_lookup_counts() -> None:
    lookups = Lookups()
    lookups.note([THERE], 0.02, 100.0)
    lookups.note([THERE], 0.03, 109.0)
    assert lookups.take(THERE, 118.0) == 0.03


def test_it_is_bounded() -> None:
    lookups = Lookups()
    lookups.note([THERE + i for i in range(KEPT + 1)], 0.02, 100.0)
    assert lookups.take(THERE, 100.0) == -1
    assert lookups.take(THERE + 1, 100.0) == 0.02
