"""One connect on its way: joins the target, the progress, who shows it, and the attempt."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from telehelper.errors import TelemagicError

from telemagic import live
from telemagic.connecting import Attempt

if TYPE_CHECKING:
    from collections.abc import Callable

    from telehelper.messages import Message, PhaseChanged

    from telemagic.connecting import Launch
    from telemagic.loop import Foreground
    from telemagic.progress import Progress
    from telemagic.target import Target


class Plan:
    """What a connect is made of; :meth:`start` begins to show it."""

    def __init__(
        self,
        target: Target,
        viewer: live.Viewer,
        progress: Progress,
        launch: Launch,
        on_event: Callable[[Message], None],
        on_lost: Callable[[str], None],
    ) -> None:
        self.target = target
        self.viewer = viewer
        self.began = time.monotonic()
        self.progress = progress
        self._launch = launch
        self._on_event = on_event
        self._on_lost = on_lost

    def start(self, foreground: Foreground) -> Attempt:
        """Return the attempt, whose phases are shown by `foreground`'s thread."""
        told = bool(self.progress.context)
        self.progress.context, self.progress.namespace = self.target.context.name, self.target.namespace
        if not told:
            self.viewer.begin(self.progress)
        asker = live.Prompt(self.viewer) if live.can_ask(live.current_shell()) else None
        return Attempt(
            self.target, self._launch, foreground, asker, self._changed, self._on_event, self._on_lost
        )

    def _changed(self, change: PhaseChanged) -> None:
        self.progress.update(change)
        self.viewer.changed(change)


def broke_off(progress: Progress, viewer: live.Viewer, error: BaseException) -> None:
    """Show that a connect has failed or was interrupted."""
    if not progress.context:  # nothing was shown yet
        return
    ours = error if isinstance(error, TelemagicError) else None
    progress.fail("interrupted" if ours is None else "")
    viewer.failed(ours)
