"""Blocking sockets with the kernel's own time-outs: Python's would add a poll(2) before every call.

The bench does not use asyncio: what it measures is the path, so its two ends must cost as little as Python can.
"""

from __future__ import annotations

import resource
import socket
import struct
from dataclasses import dataclass
from typing import Any, Final

from telehelper.errors import UsageError

BLOCK: Final = 1 << 20  # bytes; of sending and receiving in bulk
DESCRIPTORS: Final = 65536  # more than one address has ephemeral ports for
PATIENCE: Final = 10.0  # seconds without a byte; then a measurement is given up


@dataclass(frozen=True, slots=True)
class FarEnd:
    """The far end's host, looked up once: a name's lookup is no part of a connection's time."""

    family: socket.AddressFamily
    address: str

    @classmethod
    def find(cls, host: str) -> FarEnd:
        """Look a name or an address up.

        Raises
        ------
        UsageError
            It means nothing here.
        """
        try:
            found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except OSError as error:
            raise UsageError(f"--host {host}: {error.strerror}", hint="an address, or a name") from error
        family, _, _, _, address = found[0]
        return cls(family, str(address[0]))

    def at(self, port: int) -> tuple[Any, ...]:
        """Return the socket address of one service."""
        return (self.address, port)

    def dial(self, port: int) -> socket.socket:
        """Connect over TCP, with `TCP_NODELAY` and time-outs."""
        connection = socket.socket(self.family, socket.SOCK_STREAM)
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            be_patient(connection, PATIENCE)
            connection.connect(self.at(port))
        except OSError:
            connection.close()
            raise
        return connection


def be_patient(connection: socket.socket, seconds: float) -> None:
    """Let blocking calls fail with ``BlockingIOError`` after so long; connect(2) too."""
    whole, part = divmod(seconds, 1)
    timeval = struct.pack("ll", int(whole), int(part * 1e6))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval)


def why(error: Exception) -> str:
    """Say what went wrong in a measurement, for a note."""
    if isinstance(error, BlockingIOError):
        return f"no answer within {PATIENCE:g} s"
    said = error.strerror if isinstance(error, OSError) else ""
    return said or str(error) or type(error).__name__


def raise_descriptor_limit() -> int:
    """Allow ourselves as many descriptors as we may, up to `DESCRIPTORS`, and return how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return soft
