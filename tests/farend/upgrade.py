"""An upgraded connection handed on: what the API server does with a port-forward on its way to the node.

The request's head is repeated to the container runtime, and from then on bytes are copied both ways as they are: frames,
their masks and their sizes stay the client's and the runtime's own (kubernetes
staging/src/k8s.io/apimachinery/pkg/util/proxy/upgradeaware.go).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from aiohttp import web

if TYPE_CHECKING:
    from aiohttp.abc import AbstractStreamWriter

_PASSED_ON: Final = ("Connection", "Upgrade")
_PASSED_ON_PREFIX: Final = "sec-websocket-"


class _Side(asyncio.Protocol):
    """One of the two connections; what it reads goes to the other one."""

    def __init__(self, owner: asyncio.BaseProtocol | None = None) -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.transport: asyncio.Transport | None = None
        self.other: _Side | None = None
        self._owner = owner  # who had the connection before us, and must hear that it is over

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.write(data)

    def pause_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_result(None)
        if self._owner is not None:
            self._owner.connection_lost(error)


class _Taken(web.StreamResponse):
    """What a handler returns whose connection is no longer aiohttp's: there is nothing left to answer."""

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        return None


async def hand_on(request: web.Request, url: str) -> web.StreamResponse:
    """Hand a request's connection on to a URL, until either end of it closes."""
    address = urlsplit(url)
    head = [f"GET {address.path}?{request.query_string} HTTP/1.1", f"Host: {address.netloc}"]
    head += [
        f"{name}: {value}"
        for name, value in request.headers.items()
        if name in _PASSED_ON or name.lower().startswith(_PASSED_ON_PREFIX)
    ]
    near, far = _Side(request.protocol), _Side()
    near.other, far.other = far, near
    transport = request.transport
    assert transport is not None
    near.connection_made(transport)
    await asyncio.get_running_loop().create_connection(lambda: far, address.hostname, address.port)
    try:
        transport.set_protocol(near)
        far.transport.write("\r\n".join([*head, "", ""]).encode())  # type: ignore[union-attr]
        await asyncio.wait({near.ended, far.ended}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        far.transport.close()  # type: ignore[union-attr]
        transport.close()
    return _Taken()
