"""Every (state, event) pair, as it really comes in: a segment, a frame, or time."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

import pytest
from telehelper.core.frames import FrameType
from telehelper.core.tcp_state import TABLE, Event, State

from tests.core.builders import BUILDERS, TCP, TCP6, Talk, credit_taken

if TYPE_CHECKING:
    from collections.abc import Callable

    from telehelper.core.flows import FiveTuple

NEAR_FINISHED: Final = {"CLOSE_WAIT", "CLOSING", "LAST_ACK", "TIME_WAIT"}
FIN_KNOWN: Final = {"FIN_WAIT_2", "TIME_WAIT"}  # near has acknowledged our FIN


def ack(talk: Talk) -> int:
    return 2 if talk.state in FIN_KNOWN else 1


def fresh(talk: Talk) -> int:
    return 2 if talk.state in NEAR_FINISHED else 1


CAUSES: Final[dict[Event, Callable[[Talk], list[str]]]] = {
    Event.SYN: lambda talk: talk.syn(),
    Event.ACK_SYN: lambda talk: talk.near("A", fresh(talk), ack(talk)),
    Event.FIN: lambda talk: talk.near("FA", 1, ack(talk)),
    Event.ACK_FIN: lambda talk: talk.near("A", fresh(talk), 2),
    Event.RST: lambda talk: talk.near("R", fresh(talk)),
    Event.OPENED: lambda talk: talk.opened(),
    Event.REJECTED: lambda talk: talk.coded(FrameType.REJECTED, errno.ECONNREFUSED),
    Event.FAR_EOF: lambda talk: talk.eof(),
    Event.FAR_RESET: lambda talk: talk.coded(FrameType.RST, errno.ECONNRESET),
    Event.EXPIRED: lambda talk: talk.wait(2.1),
    Event.GAVE_UP: lambda talk: talk.far(FrameType.DATAGRAM, b"x"),  # the far side breaks the rules
}
FAR_ONLY: Final = {Event.OPENED, Event.REJECTED, Event.FAR_EOF}  # unasked for, they break the rules
# "ACK before FIN": the segment with FIN acknowledges our SYN first, and then it is taken.
BOTH_AT_ONCE: Final = {(State.SYN_RECEIVED, Event.FIN): State.CLOSE_WAIT}


@pytest.mark.parametrize("five_tuple", [TCP, TCP6], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("event", Event)
@pytest.mark.parametrize("name", BUILDERS)
def test_every_pair(name: str, event: Event, five_tuple: FiveTuple) -> None:
    """It goes where the table says; what is not in it is ignored from near, and resets the flow from far."""
    talk, state = BUILDERS[name](five_tuple=five_tuple), State[name]
    lines = CAUSES[event](talk)
    ignored = State.CLOSED if event in FAR_ONLY else state
    expected = BOTH_AT_ONCE.get((state, event), TABLE[state].get(event, ignored))
    assert talk.state == expected.name
    is_error = any("protocol error" in line for line in lines)
    assert is_error == (event is Event.GAVE_UP or (event in FAR_ONLY and event not in TABLE[state]))
    assert talk.stack.open_flows == (expected is not State.CLOSED)
    if expected is State.CLOSED:
        assert credit_taken(talk.stack) == 0


def test_no_event_reaches_a_closed_flow() -> None:
    for event, cause in CAUSES.items():
        talk = BUILDERS["ESTABLISHED"]()
        talk.near("R")
        closed = talk.stack.snapshot(talk.now)[0]
        assert (talk.state, talk.stack.open_flows) == ("CLOSED", 0)
        cause(talk)
        assert talk.stack.snapshot(talk.now)[0] == closed
        assert talk.stack.open_flows == (event is Event.SYN)  # another flow


@pytest.mark.parametrize("name", ["SYN_RECEIVED", "FIN_WAIT_1", "CLOSING", "LAST_ACK"])
def test_a_near_side_that_falls_silent_is_given_up(name: str) -> None:
    talk = BUILDERS[name]()
    started = talk.now
    while talk.stack.open_flows:
        talk.tick()
    assert talk.stack.snapshot(talk.now)[0].reason == "the application's side does not answer"
    assert 20 < talk.now - started < 35


@pytest.mark.parametrize("name", ["ESTABLISHED", "CLOSE_WAIT", "FIN_WAIT_2"])
def test_a_flow_that_is_idle_needs_no_timer_and_stays(name: str) -> None:
    talk = BUILDERS[name]()
    assert talk.wait(100_000) == []
    assert talk.stack.next_timer() is None
    assert talk.state == name


@pytest.mark.parametrize("name", BUILDERS)
def test_credit_is_given_back_by_every_way_of_ending(name: str) -> None:
    ends: list[Callable[[Talk], list[str]]] = [
        CAUSES[Event.RST],
        CAUSES[Event.FAR_RESET],
        CAUSES[Event.GAVE_UP],
        lambda talk: talk.take(talk.stack.reset_flows(None, "tunnel lost", talk.now)),
    ]
    for end in ends:
        talk = BUILDERS[name]()
        if name in {"ESTABLISHED", "CLOSE_WAIT"}:
            talk.near("A", fresh(talk), window=0)
            talk.data(b"never read")
        end(talk)
        assert (talk.stack.open_flows, credit_taken(talk.stack)) == (0, 0)


@pytest.mark.parametrize("name", ["FIN_WAIT_2", "TIME_WAIT"])
def test_a_flow_with_nothing_more_to_come_holds_no_credit(name: str) -> None:
    assert credit_taken(BUILDERS[name]().stack) == 0


def test_a_reset_in_time_wait_is_not_passed_on() -> None:
    """Both directions are over; the mux may still hold their last frames, which a RST frame would drop."""
    talk = BUILDERS["TIME_WAIT"]()
    assert talk.near("R", 2) == ["closed 1: reset by the application"]
