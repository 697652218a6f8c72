"""Ending this process's own connections into a cluster whose data plane was killed.

A data plane that ends in any other way resets them itself. After SIGKILL its device is gone with everything that could
tell a program so, and a query would wait for an answer as long as TCP does: for ever. Only this process's sockets can be
reached; what other processes have open ends by its own timeouts.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection

_FAMILIES: Final = (socket.AF_INET, socket.AF_INET6)
# struct sockaddr of AF_UNSPEC: connect(2) with it dissolves a connection, and whoever waits in it gets ECONNRESET
_NOBODY: Final = struct.pack("=H14x", socket.AF_UNSPEC)


def hang_up(addresses: Collection[str]) -> int:
    """End the TCP connections of this process that come from these addresses; returns how many there were."""
    return sum(_ended(int(name), addresses) for name in os.listdir("/proc/self/fd")) if addresses else 0


def _ended(descriptor: int, addresses: Collection[str]) -> bool:
    with contextlib.suppress(OSError), _copy(descriptor) as sock:
        if (
            sock.family in _FAMILIES
            and sock.type == socket.SOCK_STREAM
            and sock.getsockname()[0] in addresses
        ):
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.connect(sock.fileno(), _NOBODY, len(_NOBODY)):
                sock.shutdown(
                    socket.SHUT_RDWR
                )  # Linux 6.5 refuses the former while a thread waits: an end, then
            return True
    return False


def _copy(descriptor: int) -> socket.socket:
    """Make a socket of our own of a descriptor, which may be closed or used for something else at any moment."""
    copy = os.dup(descriptor)
    try:
        return socket.socket(fileno=copy)
    except OSError:  # no socket
        os.close(copy)
        raise
