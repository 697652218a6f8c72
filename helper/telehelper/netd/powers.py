"""Giving up what netd does not need, before it reads its first byte."""

from __future__ import annotations

import ctypes
import os
import signal
import struct
from typing import Final

PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS = 4, 38  # linux/prctl.h
CAPABILITY_VERSION_3: Final = 0x20080522  # linux/capability.h
CAP_DAC_OVERRIDE, CAP_NET_ADMIN = 1, 12
KEPT: Final = 1 << CAP_NET_ADMIN | 1 << CAP_DAC_OVERRIDE  # the second for a read-only /etc/resolv.conf
# A terminal's, and a log that nobody reads; EOF and SIGTERM end us.
IGNORED: Final = (signal.SIGHUP, signal.SIGINT, signal.SIGPIPE, signal.SIGQUIT)


def harden() -> (
    None
):  # pragma: no cover  # shrinks its own process; tests/netd/test_real.py looks at the real one
    """Shrink this process: no inherited descriptors, environment, terminal signals or spare capabilities."""
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    os.environ.clear()
    os.environ["PATH"] = "/usr/sbin:/usr/bin:/sbin:/bin"
    os.umask(0o077)
    os.chdir("/")  # the caller's directory may be on a mount that must be free to go
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    effective = effective_capabilities() & KEPT  # asking for more than there is would fail, and keep all
    # The low words of effective, permitted and inheritable, then the high ones.
    sets = struct.pack("=6I", effective, effective, 0, 0, 0, 0)
    if libc.capset(struct.pack("=Ii", CAPABILITY_VERSION_3, 0), sets):
        raise OSError(ctypes.get_errno(), "cannot drop capabilities")


def effective_capabilities() -> int:
    """Read this process's effective capability set (proc_pid_status(5))."""
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1], 16) for line in status if line.startswith("CapEff:"))
