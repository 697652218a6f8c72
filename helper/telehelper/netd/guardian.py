"""A child that outlives a killed netd just long enough to put the resolver back.

Only what the kernel does not take back by itself needs it: the interface, its addresses and routes vanish with the
TUN's descriptor, a file does not. The child holds one end of a socket pair. A byte means that netd did its work; EOF
without it means that netd was killed.
"""

from __future__ import annotations

import os
import signal
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

DISMISSED: Final = b"."
IN_PLACE: Final = b"!"


def keep_watch(sock: socket.socket, restore: Callable[[], object]) -> None:
    """Say that we are in place, wait for netd's word or its death; in the second case restore."""
    sock.sendall(IN_PLACE)
    if sock.recv(1) != DISMISSED:
        restore()


def _be_guardian(
    sock: socket.socket, restore: Callable[[], object]
) -> None:  # pragma: no cover  # in the child
    """Let go of everything of netd's but the pair: its socket above all, or the data plane would see no EOF."""
    os.setsid()  # out of reach of what sudo signals when its command has ended
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.dup2(sock.detach(), 3)
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.closerange(4, os.sysconf("SC_OPEN_MAX"))
    keep_watch(socket.socket(fileno=3), restore)


class Guardian:
    """netd's end: the child's pid, and the pair. Made when this returns: netd may be killed from then on."""

    def __init__(self, restore: Callable[[], object]) -> None:
        self._sock, theirs = socket.socketpair()
        self.pid = os.fork()
        if self.pid == 0:  # pragma: no cover  # in the child
            try:
                _be_guardian(theirs, restore)
            finally:
                os._exit(0)
        theirs.close()
        self._sock.recv(1)  # IN_PLACE; EOF if it was killed, which only means that we have none

    def dismiss(self) -> None:
        """Tell the child that there is nothing left to do, and reap it. It may have been killed already."""
        with suppress(BrokenPipeError, ConnectionResetError):
            self._sock.sendall(DISMISSED)
        self._sock.close()
        os.waitpid(self.pid, 0)
