"""A session's part of what all flows of the manager may be granted."""

from __future__ import annotations

from typing import Final

from telehelper.core.credit import POOL_SIZE, CreditPool

SESSION_SIZE: Final = POOL_SIZE // 2  # bytes; one session, whatever it does, leaves as much to all others


class SessionPool(CreditPool):
    """A pool within a pool: what it gives, it takes from the one that all sessions share."""

    __slots__ = ("_shared",)

    def __init__(self, shared: CreditPool, size: int = SESSION_SIZE) -> None:
        super().__init__(size)
        self._shared = shared

    def take_first(self, wanted: int) -> int:
        """See :class:`CreditPool`; the smaller of what the two pools would give."""
        mine = super().take_first(wanted)
        window = self._shared.take_first(mine)
        super().give_back(mine - window, 0)
        return window

    def take_growth(self, wanted: int) -> int:
        """As :meth:`take_first`."""
        mine = super().take_growth(wanted)
        extra = self._shared.take_growth(mine)
        super().give_back(0, mine - extra)
        return extra

    def give_back(self, first: int, growth: int) -> None:
        """Return to both."""
        super().give_back(first, growth)
        self._shared.give_back(first, growth)
