"""What all carriers of a manager share."""

from __future__ import annotations

from telehelper.core.credit import CreditPool
from telehelper.manager.backlog import Backlog
from telehelper.manager.poller import Poller


class Shared:
    """One of each for a process, because what they bound or watch is the process's. Needs a running loop."""

    def __init__(self) -> None:
        self.poller = Poller()
        self.pool = CreditPool()  # of what is granted up
        self.backlog = Backlog()  # of what is queued down

    def close(self) -> None:
        """Watch nothing any more."""
        self.poller.close()
