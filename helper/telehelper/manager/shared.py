"""What all carriers of a manager share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from telehelper.core.credit import CreditPool
from telehelper.manager.backlog import Backlog
from telehelper.manager.poller import Poller
from telehelper.manager.session_pool import SessionPool

if TYPE_CHECKING:
    from telehelper.manager.sessions import Session


class Shared:
    """One of each for a process, because what they bound or watch is the process's. Needs a running loop."""

    def __init__(self) -> None:
        self.poller = Poller()
        self.pool = CreditPool()  # of what is granted up
        self.backlog = Backlog()  # of what is queued down

    def pool_of(self, session: Session) -> CreditPool:
        """Return the part of the pool that a session's flows have together."""
        if session.pool is None:
            session.pool = SessionPool(self.pool)
        return session.pool

    def close(self) -> None:
        """Watch nothing any more."""
        self.poller.close()
