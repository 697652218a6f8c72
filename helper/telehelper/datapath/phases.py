"""The phases of connecting, told to kernels as they happen."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from telehelper.messages import PHASES, PhaseChanged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Phase:
    """A running phase; set `detail` to what people should read beside it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.detail = ""


class PhaseLog:
    """Keeps the last word on each phase, in the order of :data:`~telehelper.messages.PHASES`, and tells each change."""

    def __init__(self, tell: Callable[[PhaseChanged], None]) -> None:
        self._tell = tell
        self._last: dict[str, PhaseChanged] = {}

    @property
    def rows(self) -> tuple[PhaseChanged, ...]:
        """The phases reached so far."""
        return tuple(self._last[name] for name in PHASES if name in self._last)

    @property
    def unfinished(self) -> str:
        """The phase that takes so long: the first that has begun and is not done, or empty."""
        return next((row.phase for row in self.rows if row.state != "done"), "")

    @contextlib.contextmanager
    def run(self, name: str) -> Iterator[Phase]:
        """Tell that a phase begins, and how it ended."""
        phase = Phase(name)
        began = time.monotonic()
        self._say(PhaseChanged(name, "started", "", 0.0))
        try:
            yield phase
        except BaseException as error:
            self._say(PhaseChanged(name, "failed", str(error), time.monotonic() - began))
            raise
        self._say(PhaseChanged(name, "done", phase.detail, time.monotonic() - began))

    def _say(self, change: PhaseChanged) -> None:
        self._last[change.phase] = change
        self._tell(change)
