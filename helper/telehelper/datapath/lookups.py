"""How long names took to resolve, until a flow follows the lookup."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from telehelper.core.frames import UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Iterable

    from telehelper.core.frames import Address

FRESH: Final = 10.0  # seconds after which a flow does not belong to the lookup any more
KEPT: Final = 1024  # addresses; the oldest goes


class Lookups:
    """Of each address the lookup that led there last, until a flow takes it."""

    def __init__(self) -> None:
        self._known: OrderedDict[Address, tuple[float, float]] = (
            OrderedDict()
        )  # how long, and until when fresh

    def note(self, addresses: Iterable[Address], seconds: float, now: float) -> None:
        """Take note that a lookup of so many seconds has just led to these addresses."""
        for address in addresses:
            self._known.pop(address, None)
            self._known[address] = seconds, now + FRESH
        while len(self._known) > KEPT:
            self._known.popitem(last=False)

    def take(self, address: Address, now: float) -> float:
        """Return the seconds of the lookup that a flow follows which opens now; -1 if there was none."""
        seconds, until = self._known.pop(address, (UNKNOWN, now))
        return seconds if now <= until else UNKNOWN
