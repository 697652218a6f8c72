"""Who is registered, until when: sessions, their tokens and their expiry. No I/O; the clock comes in."""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from telehelper.core.credit import CreditPool

MAX_SESSIONS: Final = 1000  # registered at once; a session without a user expires
# Open at once in one session: ten thousand, and those that are on their way in or out meanwhile
MAX_FLOWS: Final = 12_000
MAX_USERS: Final = 64  # carriers and watch streams of one session; two and one are usual
# Flows that a session may open per second, after a first MAX_FLOWS at once; telemagic bench reaches 2,200 alone
OPEN_RATE: Final = 5000


@dataclass(slots=True, eq=False)
class Session:
    """One client's registration.

    Attributes
    ----------
    users
        How many watch streams and carriers it has.
    flows
        How many flows are open or being dialed, all carriers together.
    idle_since
        When the last user left, in monotonic seconds; meaningless while there are users.
    pool
        Its part of what all flows may be granted; None before its first carrier.
    """

    id: str
    token: str = field(repr=False)
    client: str
    idle_since: float
    users: int = 0
    flows: int = 0
    pool: CreditPool | None = field(default=None, repr=False)
    _openings: float = MAX_FLOWS  # how many flows it may open at once
    _counted_at: float = 0.0  # when that was so, in monotonic seconds

    def may_open(self, now: float) -> bool:
        """Whether one more flow may be opened now; counts it if so."""
        self._openings = min(MAX_FLOWS, self._openings + (now - self._counted_at) * OPEN_RATE)
        self._counted_at = now
        if self._openings < 1:
            return False
        self._openings -= 1
        return True


class SessionTable:
    """All sessions of one manager.

    Parameters
    ----------
    expiry
        Seconds a session lives after its last user left.
    make_id, make_token
        Sources of randomness: a short name for people, and a secret of at least 256 bits.
    """

    def __init__(self, expiry: float, make_id: Callable[[], str], make_token: Callable[[], str]) -> None:
        self.expiry = expiry
        self._make_id = make_id
        self._make_token = make_token
        self._sessions: list[Session] = []

    def __len__(self) -> int:
        return len(self._sessions)

    @property
    def flows(self) -> int:
        """Flows of all sessions."""
        return sum(session.flows for session in self._sessions)

    def open(self, client: str, now: float) -> Session | None:
        """Register a client; None if there are too many."""
        if len(self._sessions) >= MAX_SESSIONS:
            return None
        session = Session(self._make_id(), self._make_token(), client, idle_since=now)
        self._sessions.append(session)
        return session

    def find(self, token: str) -> Session | None:
        """Return the session of a token.

        Every token is compared, each in constant time, so the time taken says nothing about any.
        """
        given, found = token.encode(), None
        for session in self._sessions:
            if hmac.compare_digest(session.token.encode(), given):
                found = session
        return found

    def attach(self, session: Session) -> bool:
        """Note one more watch stream or carrier; False if the session has too many already."""
        if session.users >= MAX_USERS:
            return False
        session.users += 1
        return True

    def detach(self, session: Session, now: float) -> None:
        """Note that a watch stream or carrier has ended."""
        session.users -= 1
        session.idle_since = now

    def expire(self, now: float) -> list[Session]:
        """Forget, and return, the sessions that have been without a user for too long.

        They have no flows: a flow lives on a carrier, and is reset when that is lost.
        """
        gone = [s for s in self._sessions if not s.users and now - s.idle_since >= self.expiry]
        for session in gone:
            self._sessions.remove(session)
        return gone
