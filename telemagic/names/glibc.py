"""glibc's resolver settings of one thread, for C libraries that call getaddrinfo themselves.

glibc keeps what it read of /etc/resolv.conf in a structure of each thread, ``_res`` (resolver(3)). A program may change
it; from then on glibc leaves it alone in that thread. We set one nameserver, ours, which passes on what is not the
cluster's. Only the thread that calls is reached: in a notebook, the one that runs the cells.
"""

from __future__ import annotations

import ctypes
import socket
import struct
import sys
import threading
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

# struct __res_state up to the first nameserver (resolv/bits/types/res_state.h, unchanged since glibc 2.0 on 64 bits):
# retrans, retry, options, nscount, then a sockaddr_in.
_HEAD: Final = struct.Struct("=iiQi")
_SERVER: Final = struct.Struct("=H2s4s8x")
_OPTIONS: Final = struct.Struct("=Q")
_OPTIONS_AT, _COUNT_AT, _SERVER_AT = 8, 16, 20
RES_INIT: Final = 1
DNS_PORT: Final = 53


class ThreadResolver:
    """The settings of one thread, changed and put back."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._thread = 0  # where they are changed
        self._former: tuple[int, bytes, bytes] | None = (
            None  # where the settings are, count and first server of before
        )
        self._glibc: _Glibc | None = None

    def point(self) -> bool:
        """Point this thread at our resolver; False where there is no glibc of 64 bits, or it is not as we know it."""
        libc = _glibc()
        if libc is None or libc.res_init() != 0:
            return False
        state = libc.res_state()
        (options,) = _OPTIONS.unpack(ctypes.string_at(state + _OPTIONS_AT, 8))
        count = int.from_bytes(ctypes.string_at(state + _COUNT_AT, 4), "little")
        if not options & RES_INIT or not 0 <= count <= 3:
            return False
        size = _SERVER.size
        self._former = (
            state,
            ctypes.string_at(state + _COUNT_AT, 4),
            ctypes.string_at(state + _SERVER_AT, size),
        )
        server = _SERVER.pack(socket.AF_INET, DNS_PORT.to_bytes(2, "big"), socket.inet_aton(self._server))
        ctypes.memmove(state + _SERVER_AT, server, len(server))
        ctypes.memmove(state + _COUNT_AT, (1).to_bytes(4, "little"), 4)
        self._glibc, self._thread = libc, threading.get_native_id()
        return True

    def restore(self) -> None:
        """Have the thread read /etc/resolv.conf anew.

        From another thread, as when the helper is lost, what was there is put back by hand: a resolver that is gone
        must not stay. Only for the main thread, which lives as long as the process, and its settings with it.
        """
        libc, self._glibc = self._glibc, None
        if libc is None or self._former is None:
            return
        if self._thread == threading.get_native_id():
            libc.res_init()
        elif self._thread == threading.main_thread().native_id:
            state, count, server = self._former
            ctypes.memmove(state + _SERVER_AT, server, len(server))
            ctypes.memmove(state + _COUNT_AT, count, len(count))


class _Glibc:
    """The two functions that are needed."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.res_init: Callable[[], int] = library["__res_init"]
        self.res_state: Callable[[], int] = library["__res_state"]
        self.res_state.restype = ctypes.c_void_p


def _glibc() -> _Glibc | None:
    if struct.calcsize("P") != 8 or sys.byteorder != "little":
        return None
    library = ctypes.CDLL(None)
    try:
        return _Glibc(library) if hasattr(library, "gnu_get_libc_version") else None
    except AttributeError:
        return None
