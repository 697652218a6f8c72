"""Giving up what netd does not need, before it reads its first byte: in two steps, for between them files are read.

:func:`shed` lets go of what was inherited. What follows, imports above all, may be in a directory that only its owner
can read, and root without capabilities is not he. :func:`drop` then gives up the rest, for good: every capability but
``CAP_NET_ADMIN``, the bounding set too, and the right to get any by running a program.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import struct
from typing import Final

PR_SET_DUMPABLE, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 4, 24, 38  # linux/prctl.h
CAPABILITY_VERSION_3: Final = 0x20080522  # linux/capability.h
CAP_NET_ADMIN: Final = 12
# A terminal's, and a log that nobody reads; EOF and SIGTERM end us.
IGNORED: Final = (signal.SIGHUP, signal.SIGINT, signal.SIGPIPE, signal.SIGQUIT)
# No core dumps, no crowd of descriptors, and files no longer than a resolv.conf may get
LIMITS: Final = ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_NOFILE, 64), (resource.RLIMIT_FSIZE, 1 << 20))


def shed() -> None:  # pragma: no cover  # shrinks its own process; see tests/netd/test_real.py
    """Let go of inherited descriptors, environment, directory, terminal signals and limits."""
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    os.environ.clear()
    os.umask(0o077)
    os.chdir("/")  # the caller's directory may be on a mount that must be free to go
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    # What sudo hands on of its caller's: a guardian could not be reaped, SIGTERM not come
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for what, most in LIMITS:
        resource.setrlimit(what, (most, most))


def drop() -> None:  # pragma: no cover  # as above
    """Give up what is not needed from here on; OSError if the kernel refuses."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    for number in range(64):
        libc.prctl(PR_CAPBSET_DROP, number, 0, 0, 0)
    # Asking for more than there is would fail, and keep all.
    kept = effective_capabilities() & 1 << CAP_NET_ADMIN
    # The low words of effective, permitted and inheritable, then the high ones.
    sets = struct.pack("=6I", kept, kept, 0, 0, 0, 0)
    if libc.capset(struct.pack("=Ii", CAPABILITY_VERSION_3, 0), sets):
        raise OSError(ctypes.get_errno(), "cannot drop capabilities")


def effective_capabilities() -> int:
    """Read this process's effective capability set (proc_pid_status(5))."""
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1], 16) for line in status if line.startswith("CapEff:"))
