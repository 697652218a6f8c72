"""The life of a TCP flow, as a table; an unlisted cell is a bug.

Whatever changes a flow's state is in this file, and nothing else is: sequence numbers, windows and retransmission are
procedures in ``tcp_receive``, ``tcp_send`` and ``rto``. Only passive opens exist here, so RFC 9293's LISTEN and
SYN-SENT are missing, and DIALING is ours: the SYN is answered only after the cluster's side has answered.

::

    DIALING       SYN → DIALING · OPENED → SYN_RECEIVED · REJECTED → CLOSED
    SYN_RECEIVED  SYN → SYN_RECEIVED · ACK_SYN → ESTABLISHED · FAR_EOF → SYN_RECEIVED
    ESTABLISHED   FIN → CLOSE_WAIT · FAR_EOF → FIN_WAIT_1
    CLOSE_WAIT    FIN → CLOSE_WAIT · FAR_EOF → LAST_ACK
    FIN_WAIT_1    ACK_FIN → FIN_WAIT_2 · FIN → CLOSING
    FIN_WAIT_2    FIN → TIME_WAIT
    CLOSING       ACK_FIN → TIME_WAIT · FIN → CLOSING
    LAST_ACK      ACK_FIN → CLOSED · FIN → LAST_ACK
    TIME_WAIT     FIN → TIME_WAIT · EXPIRED → CLOSED
    any but CLOSED: RST, FAR_RESET, GAVE_UP → CLOSED
"""

from __future__ import annotations

import enum
from typing import Final

from telehelper.errors import LocalProtocolError


class State(enum.Enum):
    """Where a flow is; names as in RFC 9293 §3.3.2, seen from our end."""

    DIALING = "DIALING"
    SYN_RECEIVED = "SYN_RECEIVED"
    ESTABLISHED = "ESTABLISHED"
    CLOSE_WAIT = "CLOSE_WAIT"  # near has finished sending
    FIN_WAIT_1 = "FIN_WAIT_1"  # far has finished sending
    FIN_WAIT_2 = "FIN_WAIT_2"  # … and near knows it
    CLOSING = "CLOSING"  # both have, near does not know it yet
    LAST_ACK = "LAST_ACK"  # both have, near first
    TIME_WAIT = "TIME_WAIT"
    CLOSED = "CLOSED"


class Event(enum.Enum):
    """What can move a flow."""

    SYN = "SYN"  # near, the same one again
    ACK_SYN = "ACK_SYN"  # near acknowledges our SYN
    FIN = "FIN"  # near, in order
    ACK_FIN = "ACK_FIN"  # near acknowledges our FIN
    RST = "RST"  # near, validated
    OPENED = "OPENED"  # far has dialed
    REJECTED = "REJECTED"  # far could not dial
    FAR_EOF = "FAR_EOF"  # FIN frame
    FAR_RESET = "FAR_RESET"  # RST frame, or the carrier died
    EXPIRED = "EXPIRED"  # TIME_WAIT is over
    GAVE_UP = "GAVE_UP"  # near or far does not answer, or far broke the rules


_ENDS: Final = {Event.RST: State.CLOSED, Event.FAR_RESET: State.CLOSED, Event.GAVE_UP: State.CLOSED}

TABLE: Final[dict[State, dict[Event, State]]] = {
    State.DIALING: {
        Event.SYN: State.DIALING,
        Event.OPENED: State.SYN_RECEIVED,
        Event.REJECTED: State.CLOSED,
        **_ENDS,
    },
    State.SYN_RECEIVED: {
        Event.SYN: State.SYN_RECEIVED,
        Event.ACK_SYN: State.ESTABLISHED,
        # Kept until ESTABLISHED, where it is applied again.
        Event.FAR_EOF: State.SYN_RECEIVED,
        **_ENDS,
    },
    State.ESTABLISHED: {Event.FIN: State.CLOSE_WAIT, Event.FAR_EOF: State.FIN_WAIT_1, **_ENDS},
    State.CLOSE_WAIT: {Event.FIN: State.CLOSE_WAIT, Event.FAR_EOF: State.LAST_ACK, **_ENDS},
    State.FIN_WAIT_1: {Event.ACK_FIN: State.FIN_WAIT_2, Event.FIN: State.CLOSING, **_ENDS},
    State.FIN_WAIT_2: {Event.FIN: State.TIME_WAIT, **_ENDS},
    State.CLOSING: {Event.ACK_FIN: State.TIME_WAIT, Event.FIN: State.CLOSING, **_ENDS},
    State.LAST_ACK: {Event.ACK_FIN: State.CLOSED, Event.FIN: State.LAST_ACK, **_ENDS},
    State.TIME_WAIT: {Event.FIN: State.TIME_WAIT, Event.EXPIRED: State.CLOSED, **_ENDS},
    State.CLOSED: {},
}


def next_state(state: State, event: Event) -> State:
    """Look the transition up; LocalProtocolError if the table has none."""
    try:
        return TABLE[state][event]
    except KeyError:
        raise LocalProtocolError(f"a flow in {state.name} cannot take {event.name}") from None


def is_legal(state: State, event: Event) -> bool:
    """Whether the table has this cell; ask it before applying what the far side sent."""
    return event in TABLE[state]


def picture() -> str:
    """Draw the table as in the module's docstring."""
    lines = []
    for state, row in TABLE.items():
        cells = [f"{event.name} → {to.name}" for event, to in row.items() if event not in _ENDS]
        if cells:
            lines.append(f"{state.name:<14}{' · '.join(cells)}")
    ends = ", ".join(event.name for event in _ENDS)
    return "\n".join([*lines, f"any but CLOSED: {ends} → CLOSED"])
