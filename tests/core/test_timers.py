from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from telehelper.core.timers import SLACK, Timers


def test_nothing_to_wait_for() -> None:
    timers = Timers()
    assert timers.next_timer() is None
    assert timers.pop_due(1e9) == []


def test_moved_later_cancelled_and_moved_earlier() -> None:
    timers = Timers()
    timers.arm(1, 10.0)
    timers.arm(1, 20.0)
    timers.arm(2, 11.0)
    timers.arm(2, None)
    timers.arm(3, 30.0)
    timers.arm(3, 5.0)
    assert timers.next_timer() == 5.0
    assert timers.pop_due(12.0) == [3]
    assert timers.next_timer() == 20.0
    assert timers.pop_due(20.0) == [1]
    assert timers.pop_due(99.0) == []
    assert timers.next_timer() is None


def test_flows_that_ended_are_not_kept_until_their_time() -> None:
    timers = Timers()
    timers.arm(0, 50.0)
    timers.arm(0, 60.0)
    for flow in range(1, 10 * SLACK):
        timers.arm(flow, 35.0)  # dialing
        timers.arm(flow, 0.2)
        timers.arm(flow, None)
        assert len(timers._heap) <= SLACK + 4
        assert len(timers._queued) <= SLACK + 4
    assert timers.pop_due(59.0) == []
    assert timers.pop_due(60.0) == [0]


@given(st.lists(st.tuples(st.integers(0, 3), st.none() | st.integers(0, 50))), st.lists(st.integers(0, 60)))
def test_equals_a_dictionary(arms: list[tuple[int, int | None]], times: list[int]) -> None:
    timers, oracle = Timers(), dict[int, int]()
    for flow, when in arms:
        timers.arm(flow, when)
        if when is None:
            oracle.pop(flow, None)
        else:
            oracle[flow] = when
    for now in sorted(times):
        due = {flow for flow, when in oracle.items() if when <= now}
        assert set(timers.pop_due(now)) == due
        oracle = {flow: when for flow, when in oracle.items() if flow not in due}
        first = timers.next_timer()
        assert first is not None if oracle else True
        assert first is None or first <= min(oracle.values(), default=10**9)
