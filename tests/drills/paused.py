"""The data plane, made to stop itself (SIGSTOP) at the start of one phase, so that a drill meets it exactly there.

Run as `python -P paused.py telehelper.datapath OPTIONS…`: the word makes it known as a data plane. TELEMAGIC_DRILL_PHASE names
the phase.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import TYPE_CHECKING

from telehelper.datapath import main, phases, service

if TYPE_CHECKING:
    from collections.abc import Iterator


def stop_at(phase: str) -> None:
    """Have this process stop when that phase begins."""
    run, close = phases.PhaseLog.run, service.DataPlane._close

    @contextlib.contextmanager
    def stopping(self: phases.PhaseLog, name: str) -> Iterator[phases.Phase]:
        with run(self, name) as found:
            if name == phase:
                os.kill(os.getpid(), signal.SIGSTOP)
            yield found

    async def closing(self: service.DataPlane) -> None:
        if phase == "disconnect" and self._state in ("connected", "reconnecting"):
            os.kill(os.getpid(), signal.SIGSTOP)
        await close(self)

    phases.PhaseLog.run = stopping  # type: ignore[method-assign]
    service.DataPlane._close = closing  # type: ignore[method-assign]


if __name__ == "__main__":
    stop_at(os.environ.get("TELEMAGIC_DRILL_PHASE", ""))
    sys.exit(main.main(sys.argv[2:]))
