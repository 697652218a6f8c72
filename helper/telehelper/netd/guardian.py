"""A child that outlives a killed netd just long enough to put the resolver back.

Only what the kernel does not take back by itself needs it: the interface, its addresses and routes vanish with the
TUN's descriptor, a file does not. The child reads one end of a socket pair whose other end is netd's, until EOF: netd
was killed, or has dismissed it after doing the work itself. It restores either way, for what is restored stays so.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable


class Guardian:
    """netd's end: the child's pid, and the pair. Made when this returns: netd may be killed from then on."""

    def __init__(self, restore: Callable[[], object]) -> None:
        self._sock, theirs = socket.socketpair()
        self.pid = os.fork()
        if self.pid == 0:  # pragma: no cover  # in the child
            try:
                # Out of reach of what sudo signals when its command has ended. And let go of everything of netd's
                # but the pair: its socket above all, or the data plane would see no EOF.
                os.setsid()
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                os.dup2(theirs.detach(), 0)
                os.dup2(os.open(os.devnull, os.O_RDWR), 1)
                os.dup2(1, 2)
                os.closerange(3, os.sysconf("SC_OPEN_MAX"))
                os.write(0, b"!")
                os.read(0, 1)
                restore()
            finally:
                os._exit(0)
        theirs.close()
        self._sock.recv(1)  # EOF if it was killed, which only means that we have none

    def dismiss(self) -> None:
        """Let the child end, and reap it. It may have been killed already."""
        self._sock.close()
        os.waitpid(self.pid, 0)
