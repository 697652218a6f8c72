"""A plain TCP service: send it anything, close your writing side, and it tells how many bytes came, and their sum.

What an HTTP server cannot show: the far side goes on reading after it was told that nothing more comes, and answers
into a connection that is closed one way. Beginning with ``RESET`` makes it hang up without a word.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
import struct
from typing import Final, cast

_CHUNK: Final = 256 * 1024  # bytes
_RESET: Final = b"RESET"


class _Tally(asyncio.Protocol):
    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._count = 0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass of asyncio's

    def data_received(self, data: bytes) -> None:
        if not self._count and data.startswith(_RESET) and self._transport is not None:
            sock = self._transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close sends RST
            self._transport.abort()
        self._digest.update(data)
        self._count += len(data)

    def eof_received(self) -> bool:
        if self._transport is not None:
            answer = {"count": self._count, "sha256": self._digest.hexdigest()}
            self._transport.write(json.dumps(answer).encode() + b"\n")
            self._transport.close()
        return True  # keep writing what is queued: the other direction has its own end


async def start(port: int) -> asyncio.Server:
    """Listen on all addresses of the pod, of both families."""
    return await asyncio.get_running_loop().create_server(_Tally, None, port)
