"""How long to wait before trying again."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

FIRST_DELAY: Final = 0.2  # seconds before the first try
MAX_DELAY: Final = 5.0  # seconds between tries: the tunnel is back within ten seconds of the network's return


def delays(skip: int = 0) -> Iterator[float]:
    """Yield seconds to wait before each try: doubling, bounded, with jitter so that notebooks do not come in step.

    The first `skip` are left out.
    """
    delay = min(FIRST_DELAY * 2 ** min(skip, 16), MAX_DELAY)
    while True:
        yield delay * random.uniform(0.5, 1.0)  # noqa: S311  # spreads load, guards nothing
        delay = min(delay * 2, MAX_DELAY)


class BackOff:
    """Waits between tries, unless there is news that make the next one worth while.

    Parameters
    ----------
    failures
        How many successes before this did not last: the first wait is as long as after so many failed tries.
    """

    def __init__(self, failures: int = 0) -> None:
        self._delays = delays(failures)
        self._news = asyncio.Event()

    def wake(self) -> None:
        """Make the present wait, or the next one if a try is under way, the shortest there is."""
        self._news.set()

    def reset(self) -> None:
        """Begin anew with the shortest wait: a try has succeeded."""
        self._delays = delays()

    async def wait(self) -> None:
        """Return when it is time for the next try."""
        try:
            async with asyncio.timeout(next(self._delays)):
                await self._news.wait()
        except TimeoutError:
            return
        self._news.clear()
        self._delays = delays()
        # Networks come in pieces: the link, then its address, then its routes.
        await asyncio.sleep(next(self._delays))
