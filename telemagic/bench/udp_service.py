"""The far end's UDP counter: datagrams by their first eight bytes, and the counts over TCP on the same port."""

from __future__ import annotations

import socket
import struct
from typing import Final

KEY: Final = 8  # bytes; which round of which client a datagram belongs to
COUNT: Final = struct.Struct("!Q")  # an answer
KEYS: Final = 1024  # counted at a time; the oldest is forgotten
BUFFER: Final = 4 << 20  # bytes; so that a pause of the counter's loses nothing
_LARGEST: Final = 65535


class UdpCounter:
    """Counts in one thread, answers in others: :func:`telemagic.bench.accept.serve` gives it those."""

    def __init__(self) -> None:
        self.counts: dict[bytes, int] = {}

    def count(self, receiver: socket.socket) -> None:
        """Count what arrives, until the process ends."""
        grow_buffer(receiver)
        buffer = bytearray(_LARGEST)
        head = memoryview(buffer)[:KEY]
        counts = self.counts
        receive = receiver.recv_into
        while True:
            if receive(buffer) < KEY:
                continue
            key = bytes(head)
            try:
                counts[key] += 1
            except KeyError:
                counts[key] = 1
                if len(counts) > KEYS:
                    del counts[next(iter(counts))]

    def answer(self, connection: socket.socket) -> None:
        """Answer each key with how often it came."""
        while len(key := connection.recv(KEY, socket.MSG_WAITALL)) == KEY:
            connection.sendall(COUNT.pack(self.counts.get(key, 0)))


def grow_buffer(receiver: socket.socket) -> None:
    """Ask for a large receive buffer: beyond the system's limit where we may, else up to it."""
    try:
        receiver.setsockopt(socket.SOL_SOCKET, getattr(socket, "SO_RCVBUFFORCE", 33), BUFFER)
    except PermissionError:
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
