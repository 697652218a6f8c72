"""What is known of the cluster now, for all who watch it; followed for ever."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from telehelper.discovery.discovery import Discovered, Explorer

RETRY: Final = 1.0  # seconds after a discovery that had nothing to show: an API server may be starting too


class ClusterInfoBoard:
    """The latest discovery, and who waits for the next."""

    def __init__(self) -> None:
        self.current: Discovered | None = None
        self._changed = asyncio.Event()

    def publish(self, info: Discovered) -> None:
        """Show `info` to the watchers, if it is new."""
        if info != self.current:
            self.current = info
            self._changed.set()
            self._changed = asyncio.Event()

    async def watch(self) -> AsyncIterator[Discovered]:
        """Yield what is known at once, or as soon as something is, and then each change. Ends never."""
        shown: Discovered | None = None
        while True:
            changed = self._changed
            if self.current is not None and self.current != shown:
                shown = self.current
                yield shown
            else:
                await changed.wait()

    async def follow(self, explorer: Explorer, interval: float) -> None:
        """Look around, again soon while there are no CIDRs at all, and then follow; ends by being cancelled.

        Parameters
        ----------
        explorer
            Who looks.
        interval
            Seconds between two looks at what may not be watched.
        """
        while True:
            info = await explorer.look()
            self.publish(info)
            if info.cidrs:
                break
            await asyncio.sleep(min(RETRY, interval))
        await explorer.follow(self.publish, interval)
