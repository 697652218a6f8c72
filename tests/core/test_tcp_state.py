from __future__ import annotations

import pytest
from telehelper.core import tcp_state
from telehelper.core.tcp_state import TABLE, Event, State, is_legal, next_state, picture
from telehelper.errors import LocalProtocolError

RESETS = {Event.RST, Event.FAR_RESET, Event.GAVE_UP}


def reachable(start: State, without: set[Event]) -> set[State]:
    found, todo = {start}, [start]
    while todo:
        for event, to in TABLE[todo.pop()].items():
            if event not in without and to not in found:
                found.add(to)
                todo.append(to)
    return found


def test_counts() -> None:
    assert (len(State), len(Event), sum(map(len, TABLE.values()))) == (10, 11, 46)
    assert set(TABLE) == set(State)


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("event", Event)
def test_every_cell_is_legal_or_refused(state: State, event: Event) -> None:
    if is_legal(state, event):
        assert next_state(state, event) is TABLE[state][event]
    else:
        with pytest.raises(LocalProtocolError, match=f"{state.name} cannot take {event.name}"):
            next_state(state, event)


def test_all_states_are_reached_and_all_can_end_without_a_reset() -> None:
    assert reachable(State.DIALING, set()) == set(State)
    for state in State:
        assert State.CLOSED in reachable(state, RESETS)


def test_a_reset_ends_every_state() -> None:
    for state in set(State) - {State.CLOSED}:
        assert {next_state(state, event) for event in RESETS} == {State.CLOSED}


def test_the_docstring_shows_the_table() -> None:
    assert tcp_state.__doc__ is not None
    shown = [line.strip() for line in tcp_state.__doc__.splitlines()]
    for line in picture().splitlines():
        assert line in shown
