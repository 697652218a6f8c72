"""How much of the event loop's time something may take that others can ask for as often as they like."""

from __future__ import annotations

from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class Allowance:
    """A share of the time, and some that is saved up while there is quiet.

    Parameters
    ----------
    share
        Of the time, over long.
    saved
        Seconds that are saved up at most. One deed may take more than is left; what comes next waits the longer.
    """

    def __init__(self, share: float, saved: float) -> None:
        self._share = share
        self._most = self._left = saved
        self._at = monotonic()

    @property
    def is_left(self) -> bool:
        """Whether there is time for one more."""
        now = monotonic()
        self._left = min(self._most, self._left + self._share * (now - self._at))
        self._at = now
        return self._left > 0

    @contextmanager
    def spending(self) -> Iterator[None]:
        """Count what is done within."""
        began = monotonic()
        try:
            yield
        finally:
            self._left -= monotonic() - began
