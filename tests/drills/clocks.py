"""A wall clock that jumps under real processes."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final
from unittest import SkipTest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.drills.stage import Stage
    from tests.drills.table import Drill

DAY: Final = 86_400
_LIBRARY: Final = "faketime/libfaketime.so.1"


class Clock:
    """The wall clock of one kernel and of what it starts; the monotonic one goes on as it was."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.jump(0)

    def jump(self, seconds: int) -> None:
        """Set it that far ahead of the real one."""
        self._path.write_text(f"{seconds:+d}")


@contextlib.contextmanager
def own_clock(stage: Stage) -> Iterator[Clock]:
    """Have the stage's kernel and helpers, started anew, go by a clock of their own.

    libfaketime stands between them and the C library, so that this is true of OpenSSL, gRPC and uvloop as well. It cannot
    sleep (0.9.10 makes an error of clock_nanosleep), which none of these processes does.
    """
    found = [path for root in ("/usr/lib", "/usr/lib64") for path in Path(root).glob(f"*/{_LIBRARY}")]
    if not found:
        raise SkipTest("libfaketime is not installed (sudo apt-get install faketime)")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clock"
        clock = Clock(path)
        faked = {
            "LD_PRELOAD": str(found[0]),
            "FAKETIME_TIMESTAMP_FILE": str(path),
            "FAKETIME_NO_CACHE": "1",
            "DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        stage.close()
        os.environ.update(faked)
        try:
            assert stage.kernel.process.poll() is None
        finally:
            for name in faked:
                del os.environ[name]
        try:
            yield clock
        finally:
            stage.close()


def jumping_clock(drill: Drill, stage: Stage) -> None:
    """Nothing of ours goes by the wall clock while connected."""
    asked = """__import__("datetime").datetime.fromisoformat(tele.flows().attrs["telemagic"]["taken_at"]).timestamp()"""
    with own_clock(stage) as clock:
        stage.connect()
        stage.works()
        for jump in (DAY, 0, -DAY, 0):
            with stage.promised():
                clock.jump(jump)
                stage.works()
                answer = stage.kernel.run("tele.status.state")
                assert answer.value == "'connected'", answer
            told = float(stage.kernel.run(asked).value or "nan")  # the data plane's clock
            assert abs(told - time.time() - jump) < DAY / 2, (told, jump)
        stage.disconnect()
        stage.clean(drill.within)


BODIES: Final[dict[str, Callable[[Drill, Stage], None]]] = {
    "clock jumps a day ahead and back": jumping_clock,
}
