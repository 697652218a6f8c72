"""How the tests talk to their node: packets of JSON over a Unix socket, and descriptors of sockets to listen on.

========  ================  ==============================================================================
op        fields            answer
========  ================  ==============================================================================
attach    and a descriptor  {}: the API server serves that socket
kill                        name and address of the manager's pod, whose container is being killed
replace                     the same of a new one, ready, after which the old one is gone
execute   command           said: what the command printed in the manager's container
log                         said: what the manager did
========  ================  ==============================================================================
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

Json = dict[str, Any]
API_PORT: Final = 6443  # of the API server, on 127.0.0.1 of whoever attaches
SILENT: Final = "silent"  # the namespace of a manager without a heartbeat
IDLE: Final = 5.0  # seconds; more than PING_INTERVAL, and as much less than 4 hours as a test can wait for
_NAME: Final = "control"
_PACKET: Final = 64 * 1024  # bytes
_TIMEOUT: Final = 30.0  # seconds for an answer; the longest, a new pod, takes one on two quiet cores


def ask(folder: Path, op: str, *fds: int, **fields: Any) -> Json:
    """Ask the node of this folder for something; RuntimeError if it cannot do it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
        client.settimeout(_TIMEOUT)
        client.connect(str(folder / _NAME))
        socket.send_fds(client, [json.dumps({"op": op, **fields}).encode()], fds)
        answer: Json = json.loads(client.recv(_PACKET))
    if "error" in answer:
        raise RuntimeError(answer["error"])
    return answer


@contextlib.asynccontextmanager
async def serve(folder: Path, answer: Callable[[Json, list[int]], Awaitable[Json]]) -> AsyncIterator[None]:
    """Answer requests while the block runs."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK) as listener:
        listener.bind(str(folder / _NAME))
        listener.listen()
        task = asyncio.create_task(_accept(listener, answer))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def _accept(listener: socket.socket, answer: Callable[[Json, list[int]], Awaitable[Json]]) -> None:
    loop = asyncio.get_running_loop()
    while True:
        connection, _ = await loop.sock_accept(listener)
        with connection:
            await _readable(connection)
            packet, fds, _, _ = socket.recv_fds(connection, _PACKET, 1)
            try:
                told = await answer(json.loads(packet), fds)
            except Exception as error:  # the test that asked reports it
                told = {"error": repr(error)}
            connection.send(json.dumps(told).encode())


async def _readable(connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    loop.add_reader(connection, lambda: ready.done() or ready.set_result(None))
    try:
        await ready
    finally:
        loop.remove_reader(connection)
