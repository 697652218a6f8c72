"""Addresses that stand for others: one for each, and never another's too soon."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_address

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from telehelper.core.address_map import HOLD, AddressMap, Mapping

POOL = IPv4Network("198.19.192.0/29")  # six addresses
REAL = [IPv4Address(f"10.0.0.{n}") for n in range(20)]
FIRST, LAST = IPv4Address("198.19.192.1"), IPv4Address("198.19.192.6")


def full(now: float = 0.0) -> AddressMap:
    found = AddressMap(POOL)
    for n, real in enumerate(REAL[:6]):
        found.assign(real, now + n)
    return found


def test_an_address_is_given_once_and_known_both_ways() -> None:
    found = AddressMap(POOL)
    assert found.assign(REAL[0], 0.0) == FIRST
    assert found.assign(REAL[1], 1.0) == IPv4Address("198.19.192.2")
    assert found.assign(REAL[0], 2.0) == FIRST
    assert found.real(FIRST) == REAL[0]
    assert found.real(LAST) is None
    assert set(found) == {Mapping(FIRST, REAL[0]), Mapping(IPv4Address("198.19.192.2"), REAL[1])}


def test_ipv6_too() -> None:
    found = AddressMap(IPv6Network("2001:2:0:fffe::/118"))
    assert found.assign(ip_address("fd00::7"), 0.0) == ip_address("2001:2:0:fffe::1")


def test_the_pools_first_and_last_address_stay_unused() -> None:
    given = {mapping.mapped for mapping in full()}
    assert given == {POOL[n] for n in range(1, 7)}


def test_while_all_may_still_be_in_use_there_is_none_for_another() -> None:
    found = full()
    assert found.assign(REAL[6], HOLD - 0.1) is None
    assert found.assign(REAL[0], HOLD - 0.1) == FIRST


def test_then_the_one_used_longest_ago_is_given_away() -> None:
    found = full()
    found.assign(REAL[0], 100.0)
    assert found.assign(REAL[6], HOLD + 1.0) == POOL[2]
    assert found.real(POOL[2]) == REAL[6]
    assert REAL[1] not in {mapping.real for mapping in found}


def test_an_open_flow_keeps_its_address_and_its_end_starts_the_hold_anew() -> None:
    found = full()
    assert found.flow_opened(7, FIRST) == REAL[0]
    assert found.flow_opened(8, FIRST) == REAL[0]
    late = HOLD * 10
    assert found.assign(REAL[6], late) == POOL[2], "the next one"
    found.flow_closed(7, late)
    found.flow_closed(8, late + 1)
    for n in range(7, 11):
        assert found.assign(REAL[n], late + 2) not in (FIRST, None)
    assert found.assign(REAL[12], late + HOLD - 1) is None
    assert found.assign(REAL[12], late + HOLD) == POOL[2]
    assert found.assign(REAL[13], late + HOLD) is None
    assert found.assign(REAL[13], late + 1 + HOLD) == FIRST


def test_if_flows_are_open_to_all_there_is_none_however_late() -> None:
    found = full()
    for n in range(1, 7):
        found.flow_opened(n, POOL[n])
    assert found.assign(REAL[6], HOLD * 100) is None


def test_flows_of_others_are_no_concern() -> None:
    found = full()
    assert found.flow_opened(7, POOL[0]) is None
    found.flow_closed(7, 5.0)
    assert found.flow_opened(8, FIRST) == found.flow_opened(8, FIRST) == REAL[0], "counted once"
    found.flow_closed(8, 6.0)
    found.flow_closed(8, 6.0)
    assert found.assign(REAL[6], 6.0 + HOLD) is not None


class Promise(RuleBasedStateMachine):
    """A mapped address never means another real one while a flow or a recent answer may still use it."""

    def __init__(self) -> None:
        super().__init__()
        self.map = AddressMap(POOL)
        self.now = 0.0
        self.told: dict[
            object, tuple[object, float]
        ] = {}  # by mapped: the real one, and when it was last in use
        self.flows: dict[int, object] = {}

    @rule(real=st.sampled_from(REAL))
    def answer(self, real: IPv4Address) -> None:
        mapped = self.map.assign(real, self.now)
        if mapped is None:
            return
        if mapped in self.told and self.told[mapped][0] != real:
            assert self.now - self.told[mapped][1] >= HOLD
            assert mapped not in self.flows.values()
        self.told[mapped] = real, self.now

    @rule(flow=st.integers(0, 5), number=st.integers(1, 6))
    def open(self, flow: int, number: int) -> None:
        if flow not in self.flows and POOL[number] in self.told:
            assert self.map.flow_opened(flow, POOL[number]) == self.told[POOL[number]][0]
            self.flows[flow] = POOL[number]

    @rule(flow=st.integers(0, 5))
    def close(self, flow: int) -> None:
        self.map.flow_closed(flow, self.now)
        if flow in self.flows:
            mapped = self.flows.pop(flow)
            self.told[mapped] = self.told[mapped][0], self.now

    @rule(seconds=st.sampled_from([1.0, HOLD / 2, HOLD]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def both_ways_agree(self) -> None:
        for mapped, real in self.map:
            assert self.map.real(mapped) == real == self.told[mapped][0]


TestPromise = Promise.TestCase
TestPromise.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
