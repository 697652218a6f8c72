"""How long to wait before trying again."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

FIRST_DELAY: Final = 0.2  # seconds before the first try
MAX_DELAY: Final = 5.0  # seconds between tries: the tunnel is back within ten seconds of the network's return


def delays() -> Iterator[float]:
    """Yield seconds to wait before each try: doubling, bounded, with jitter so that notebooks do not come in step."""
    delay = FIRST_DELAY
    while True:
        yield delay * random.uniform(0.5, 1.0)  # noqa: S311  # spreads load, guards nothing
        delay = min(delay * 2, MAX_DELAY)
