"""Starts a run in a process of its own, shows how far it is, and brings its report home.

The run ends when its standard input does: closing it, or our own end, even by ``kill -9``, leaves nothing behind.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final

from telehelper.errors import HelperLost, from_wire

from telemagic.bench.report import Report

if TYPE_CHECKING:
    from collections.abc import Sequence

    from telemagic.bench.bar import Bar

RUNNER: Final = (sys.executable, "-P", "-m", "telemagic.bench.runner")
_TAIL: Final = 4096  # bytes of what it said, of which the last line goes into an error
_END_PATIENCE: Final = 10.0  # seconds; the kernel ends the place in well under one


def run(options: Sequence[str], bar: Bar, command: Sequence[str] = RUNNER) -> Report:
    """Run the measurement to its end; an interrupt ends it, and everything it made.

    Raises
    ------
    TelemagicError
        It could not be made, in the words of the run.
    """
    log = os.memfd_create("telemagic-bench", os.MFD_CLOEXEC)
    # A session of its own: a terminal's interrupt is for us, and the end of the run is then an ordinary one.
    process = subprocess.Popen(  # noqa: S603 - our own module with options that argparse has checked
        [*command, *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None  # noqa: S101 - asked for; for mypy
    report: Report | None = None
    try:
        with bar:
            for line in process.stdout:
                report = _take(json.loads(line), bar) or report
        if report is None:
            _end(process)
            raise HelperLost(f"the measurement ended without a result: {_last_line(log)}")
        return report
    finally:
        _end(process)
        os.close(log)


def _take(event: dict[str, Any], bar: Bar) -> Report | None:
    match event:
        case {"at": int(at), "of": int(of), "doing": str(doing)}:
            bar.show(at, of, doing)
        case {"report": body}:
            return Report.from_dict(body)
        case {"failed": {"slug": str(slug), "message": str(message), "hint": str(hint)}}:
            raise from_wire(slug, message, hint, {})
    return None


def _end(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None  # noqa: S101 - asked for; for mypy
    assert process.stdout is not None  # noqa: S101
    process.stdin.close()
    try:
        process.wait(_END_PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdout.close()


def _last_line(log: int) -> str:
    size = os.fstat(log).st_size
    lines = os.pread(log, _TAIL, max(0, size - _TAIL)).decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"
