"""Run a command in a sandbox with the demo cluster's API server in it: `python -m telemagic.demo.shell`."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from telehelper.errors import TelemagicError

from telemagic.demo import namespaces, sandbox
from telemagic.paths import runtime_path

if TYPE_CHECKING:
    from collections.abc import Sequence

DEFAULT_NAME: Final = "demo"
_LEFTOVER_GRACE: Final = 5.0  # seconds; what the helpers promise to need after their kernel is gone
_PASSED_ON: Final = (signal.SIGTERM, signal.SIGHUP)


def shell(name: str = DEFAULT_NAME, argv: Sequence[str] = (), *, cluster: bool = True) -> int:
    """Run a command in a sandbox, with a demo cluster behind its API server's address there.

    The process enters the sandbox itself and cannot leave it again: call this last. It must have one thread.

    Parameters
    ----------
    name
        Of the demo. If it is not up, it is started, and ends with the command.
    argv
        The command; empty for ``$SHELL``.
    cluster
        False for the sandbox alone.

    Returns
    -------
    int
        The command's exit status, or 128 and the number of the signal that ended it.
    """
    command = list(argv) or [os.environ.get("SHELL", "/bin/sh")]
    # Named before entering: everybody is uid 0 inside, and the directory's name may have the uid in it.
    environment = {**os.environ, "TELEMAGIC_RUNTIME_DIR": str(runtime_path())}
    if not cluster:
        sandbox.enter()
        return _run(command, environment)
    from telemagic.demo import client

    # One more owner: what keeps it up otherwise still does.
    with client.ensure(name=name, owned=True) as demo:
        sandbox.enter()
        demo.attach()
        result = _run(command, {**environment, "KUBECONFIG": str(demo.kubeconfig)})
        is_last = demo.is_last_owner()
    if is_last:
        client.wait_gone(demo)
    return result


def _run(command: list[str], environment: dict[str, str]) -> int:
    namespaces.adopt_orphans()
    try:
        child = subprocess.Popen(command, env=environment, preexec_fn=_follow_parent)  # noqa: S603 - the user's own command; preexec_fn is safe with one thread
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr)  # noqa: T201 - a command's own message
        return 127
    # The terminal sends an interrupt to the command as well; only the command decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in _PASSED_ON:
        signal.signal(number, lambda signum, _frame: child.send_signal(signum))
    child.returncode = _wait_for(child.pid)
    _end_leftovers()
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


def _wait_for(wanted: int) -> int:
    """Wait for one process and bury, meanwhile, the orphans we have adopted."""
    while True:
        pid, status = os.wait()
        if pid == wanted:
            return os.waitstatus_to_exitcode(status)


def _follow_parent() -> None:
    namespaces.die_with_parent(signal.SIGKILL)


def _end_leftovers() -> None:
    """Wait for what the command left running, then end it: a sandbox leaves nothing behind."""
    deadline = time.monotonic() + _LEFTOVER_GRACE
    while children := _children():
        if time.monotonic() > deadline:
            for pid in children:
                print(f"telemagic: ending leftover process {pid}: {_command_of(pid)}", file=sys.stderr)  # noqa: T201 - a command's own message
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(0.02)


def _children() -> list[int]:
    return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


def _command_of(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").strip()
    return "?"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line `[--name NAME] [--no-cluster] [--] [COMMAND…]`."""
    parser = argparse.ArgumentParser(prog="python -m telemagic.demo.shell", description=__doc__)
    parser.add_argument("--name", default=DEFAULT_NAME, help="of the demo cluster (default: %(default)s)")
    parser.add_argument("--no-cluster", action="store_true", help="the sandbox alone")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="default: $SHELL")
    options = parser.parse_args(arguments)
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    try:
        return shell(options.name, command, cluster=not options.no_cluster)
    except TelemagicError as error:
        print("\n".join(error._render_traceback_()), file=sys.stderr)  # noqa: T201 - a command's own message
        return 1


if __name__ == "__main__":
    sys.exit(main())
