"""The far end's sink and source: each connection has a thread, which is blocked in the kernel most of the time."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Final

from telemagic.bench.dial import BLOCK
from telemagic.bench.meter import Meter

if TYPE_CHECKING:
    import socket

LONGEST: Final = 120.0  # seconds a source sends; more is refused
_ASKED: Final = 32  # bytes at most of the line that says how long


def sink(connection: socket.socket) -> None:
    """Take all there is, then tell when it came: a line of JSON, see :class:`Meter`."""
    buffer = bytearray(BLOCK)
    meter = Meter()
    while count := connection.recv_into(buffer):
        meter.add(count, time.monotonic())
    connection.sendall(json.dumps(meter.timeline()).encode() + b"\n")


def source(connection: socket.socket) -> None:
    """Read a line with a number of seconds, and send for so long. Anything else is answered by closing."""
    seconds = _read_seconds(connection)
    if seconds is None:
        return
    block = bytes(BLOCK)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        connection.sendall(block)


def _read_seconds(connection: socket.socket) -> float | None:
    asked = b""
    while not asked.endswith(b"\n") and len(asked) < _ASKED:
        more = connection.recv(_ASKED)
        if not more:
            return None
        asked += more
    try:
        seconds = float(asked)
    except ValueError:
        return None
    return seconds if 0 < seconds <= LONGEST else None
