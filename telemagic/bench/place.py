"""Where a measurement happens: namespaces of its own, of which nothing is left when process 1 in them has ended."""

from __future__ import annotations

import os
import resource
import sys
import tempfile
import threading

from telehelper.errors import HelperMissing

from telemagic.demo import namespaces, sandbox
from telemagic.paths import runtime_dir

_DISK = "size=2g,mode=0700"  # tmpfs: a limit, not a reservation
_DESCRIPTORS = (
    65536  # 10,000 flows are as many sockets in one process; not more: some programs go through all
)


def enter() -> None:
    """Go there; returns only in a new process, number 1 of the place. The caller must have one thread.

    The caller's process stays outside, waits, and exits as that one does. When the caller's standard input, a pipe
    that whoever wants the measurement holds, comes to its end, process 1 ends, and the kernel ends everything in the
    place with it. What is written, to the runtime directory and to TMPDIR, is memory that goes away then.

    Raises
    ------
    HelperMissing
        The machine does not let the user make namespaces, or mount /proc in them.
    """
    runtime = runtime_dir()
    sandbox.enter()
    namespaces.mount(
        "tmpfs", runtime, "tmpfs", namespaces.MS_NOSUID | namespaces.MS_NODEV, _DISK
    )  # hides the user's own sockets, too
    os.environ["TELEMAGIC_RUNTIME_DIR"] = os.environ["TMPDIR"] = str(runtime)
    tempfile.tempdir = None  # it may be known from before
    namespaces.unshare(namespaces.PID | namespaces.IPC)
    first = os.fork()
    if first:
        _, status = os.waitpid(first, 0)
        code = os.waitstatus_to_exitcode(status)
        os._exit(code if code >= 0 else 128 - code)
    _number_anew()
    threading.Thread(target=_end_with_input, name="lifeline", daemon=True).start()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if most == resource.RLIM_INFINITY else min(most, _DESCRIPTORS)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))  # inherited by all that is started here


def _number_anew() -> None:
    """Show the processes under the numbers they have here; netd and the measuring look for themselves and others."""
    flags = namespaces.MS_NOSUID | namespaces.MS_NODEV | namespaces.MS_NOEXEC
    try:
        namespaces.mount("proc", "/proc", "proc", flags)
    except OSError as error:
        raise HelperMissing(
            f"this machine refuses to mount /proc in a namespace ({os.strerror(error.errno or 0)})",
            hint="in a container show all of it (docker run --security-opt systempaths=unconfined), or run on the host",
        ) from error


def _end_with_input() -> None:
    while os.read(sys.stdin.fileno(), 1024):
        pass
    os._exit(1)
