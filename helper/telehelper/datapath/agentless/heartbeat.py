"""Finds out within ten seconds that the API server has gone, and how long it takes to answer.

There is no stream of our own to it, so a small question is asked every ``INTERVAL``: ``/version``, which every API server
answers to everybody. Any answer to it, a refusal too, is a sign of life, and so is any byte of any flow.
"""

from __future__ import annotations

import asyncio
import contextlib
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Protocol

from telehelper.core.mux import RTT_GAIN
from telehelper.errors import ApiServerUnavailable, ClusterError

if TYPE_CHECKING:
    from collections.abc import Callable

INTERVAL: Final = 3.0  # seconds, the mux's
TIMEOUT: Final = 3.0  # seconds for one answer
RETRY: Final = 0.5  # seconds after a question that failed
PROBE_TIMEOUT: Final = 3.0  # seconds for a proof of life that was asked for
DEAD_AFTER: Final = 9.0  # seconds without a sign of life, the mux's
_PATH: Final = "/version"


class ApiReader(Protocol):
    """What this needs of an API client; failures are ClusterError."""

    async def get(self, path: str, **params: str) -> dict[str, Any]:
        """GET a path and return the JSON object."""


class Heartbeat:
    """Asks as long as it runs.

    Attributes
    ----------
    rtt, min_rtt
        Smoothed and least time that an answer took, in seconds; None before the first.
    """

    def __init__(self, api: ApiReader, clock: Callable[[], float] = monotonic) -> None:
        self.rtt: float | None = None
        self.min_rtt: float | None = None
        self._api = api
        self._clock = clock
        self._heard_at = clock()
        self._doubts = asyncio.Event()

    def heard(self) -> None:
        """Take note of a sign of life."""
        self._heard_at = self._clock()

    def doubt(self) -> None:
        """Ask now, and take ``PROBE_TIMEOUT`` without a sign of life for the end: the machine's network has changed."""
        self._heard_at = min(self._heard_at, self._clock() - DEAD_AFTER + PROBE_TIMEOUT)
        self._doubts.set()

    async def run(self) -> str:
        """Ask until there is no sign of life any more; return why."""
        while True:
            why = await self._ask()
            if why and self._clock() - self._heard_at >= DEAD_AFTER:
                return why
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RETRY if why else INTERVAL):
                    await self._doubts.wait()
            self._doubts.clear()

    async def _ask(self) -> str:
        """Ask once; return why there was no answer, empty if there was one."""
        began = self._clock()
        try:
            async with asyncio.timeout(TIMEOUT):
                await self._api.get(_PATH)
        except TimeoutError:
            return "the API server does not answer"
        except ApiServerUnavailable as error:
            return error.message
        except ClusterError:
            pass  # it is there, and forbids even this
        self.heard()
        sample = self._clock() - began
        self.rtt = sample if self.rtt is None else self.rtt + RTT_GAIN * (sample - self.rtt)
        self.min_rtt = sample if self.min_rtt is None else min(sample, self.min_rtt)
        return ""
