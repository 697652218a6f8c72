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
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection

ADDRESS_SIZE: Final = 28  # bytes; struct sockaddr_in6, the longest that is looked at
# struct sockaddr of AF_UNSPEC: connect(2) with it dissolves a connection, and whoever waits in it gets ECONNRESET
_NOBODY: Final = struct.pack("=H14x", socket.AF_UNSPEC)


def hang_up(addresses: Collection[str]) -> int:
    """End the TCP connections of this process that come from these addresses; returns how many there were."""
    return sum(_ended(int(name), addresses) for name in os.listdir("/proc/self/fd")) if addresses else 0


def _ended(descriptor: int, addresses: Collection[str]) -> bool:
    """End what a descriptor is, if it is such a connection.

    By calls that change nothing: a `socket.socket` made of a foreign descriptor makes what is behind it non-blocking
    for everybody, once somebody has called `socket.setdefaulttimeout`.
    """
    with contextlib.suppress(OSError):
        copy = os.dup(descriptor)  # the number may be another file's at any moment, the copy's is ours
        try:
            libc = ctypes.CDLL(None, use_errno=True)
            source = _source(libc, copy)
            if not source or source not in addresses or not _is_stream(libc, copy):
                return False
            if libc.connect(copy, _NOBODY, len(_NOBODY)):
                # Linux 6.5 refuses the former while a thread waits: an end, then
                libc.shutdown(copy, socket.SHUT_RDWR)
            return True
        finally:
            os.close(copy)
    return False


def _source(libc: ctypes.CDLL, descriptor: int) -> str:
    """Return a socket's own IP address; empty for everything else."""
    name, size = ctypes.create_string_buffer(ADDRESS_SIZE), ctypes.c_uint32(ADDRESS_SIZE)
    if libc.getsockname(descriptor, name, ctypes.byref(size)):
        return ""
    family = struct.unpack_from("=H", name)[0]
    if family == socket.AF_INET:
        return socket.inet_ntop(family, name.raw[4:8])
    if family == socket.AF_INET6:
        address = ip_address(name.raw[8:24])
        return str(getattr(address, "ipv4_mapped", None) or address)
    return ""


def _is_stream(libc: ctypes.CDLL, descriptor: int) -> bool:
    kind, size = ctypes.c_int(), ctypes.c_uint32(4)
    asked = libc.getsockopt(
        descriptor, socket.SOL_SOCKET, socket.SO_TYPE, ctypes.byref(kind), ctypes.byref(size)
    )
    return asked == 0 and kind.value == socket.SOCK_STREAM
