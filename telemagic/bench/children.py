"""Programs that the runner starts, each for a `with` block, and what it needs to hear from them."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Final

from telehelper.errors import HelperError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PYTHON: Final = (sys.executable, "-P", "-m")
_END_PATIENCE: Final = 3.0  # seconds between the end of its input and SIGKILL


def in_network(namespace: int, command: Sequence[str]) -> tuple[str, ...]:
    """Return the command line that runs a command in another network namespace; it must inherit the descriptor."""
    return (*PYTHON, "telemagic.demo.enter", "--network", str(namespace), *command)


@contextlib.contextmanager
def running(command: Sequence[str], *, pass_fds: Sequence[int] = ()) -> Iterator[subprocess.Popen[str]]:
    """Run a program with pipes for input and output; at the end its input ends, which ours take as their end.

    What it says on standard error goes to ours.
    """
    with subprocess.Popen(  # noqa: S603 - our own commands; no shell, no user text
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=pass_fds, text=True
    ) as process:
        try:
            yield process
        finally:
            assert process.stdin is not None  # noqa: S101 - asked for above; for mypy
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
            try:
                process.wait(_END_PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()


def first_line(process: subprocess.Popen[str], wanted: str, within: float) -> str:
    """Wait for the line of its output that begins with `wanted`, and return what follows.

    Raises
    ------
    HelperError
        It ended, said something else, or took too long.
    """
    line = next(lines(process, within), "")
    if not line.startswith(wanted):
        raise HelperError(f"{_name(process)} did not start: {line or 'it said nothing'}")
    return line.removeprefix(wanted).strip()


def lines(process: subprocess.Popen[str], within: float) -> Iterator[str]:
    """Yield the whole lines of its output until it ends, at the latest for `within` seconds; to be called once.

    Raises
    ------
    HelperError
        The time was over first.
    """
    assert process.stdout is not None  # noqa: S101 - asked for in running(); for mypy
    output = process.stdout.fileno()
    deadline = time.monotonic() + within
    rest = b""
    while select.select([output], [], [], max(0.0, deadline - time.monotonic()))[0]:
        data = os.read(output, 1 << 16)
        if not data:
            return
        *whole, rest = (rest + data).split(b"\n")
        for line in whole:
            yield line.decode(errors="replace")
    raise HelperError(f"{_name(process)} was not done within {within:.0f} s")


def _name(process: subprocess.Popen[str]) -> str:
    words = [str(word) for word in process.args] if isinstance(process.args, list | tuple) else []
    return next((word for word in words if word.startswith("telemagic.bench.")), words[0] if words else "?")
