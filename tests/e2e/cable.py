"""A cable that tests can cut: a relay of TCP connections, in a thread of its own, each of which can break or go silent."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING, Protocol

import yaml
from telehelper.kube.access import ApiAccess
from telehelper.kube.client import ApiClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from pathlib import Path

    from telehelper.kube.portforward import PortForward


class Far(Protocol):
    """Where a connection leads."""

    async def receive(self) -> bytes | memoryview:
        """Return the next bytes, empty at the end."""

    async def send(self, data: bytes) -> None:
        """Send bytes."""

    async def close(self) -> None:
        """Close."""


class Line:
    """One connection through the cable. ``up`` and ``down`` count its bytes."""

    def __init__(self, near: asyncio.StreamWriter) -> None:
        self.up = self.down = 0
        self._loop = asyncio.get_running_loop()
        self._near = near
        self.flowing = asyncio.Event()
        self.flowing.set()
        self.is_corrupt = False  # what comes down is not what was sent

    def cut(self) -> None:
        """Break it, as a load balancer does that forgets a connection."""
        self._loop.call_soon_threadsafe(self._near.transport.abort)

    def freeze(self) -> None:
        """Let nothing through any more, and tell nobody, as a cable does that is pulled out."""
        self._loop.call_soon_threadsafe(self.flowing.clear)


class Cable:
    """The relay; listens on ``port`` of 127.0.0.1."""

    def __init__(self, dial: Callable[[], Awaitable[Far]]) -> None:
        self.port = 0
        self.lines: list[Line] = []  # open ones, the oldest first
        self.is_mute = False  # new connections are accepted, and then nothing happens
        self._dial = dial
        self._loop = asyncio.get_running_loop()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def serve(self) -> AsyncIterator[None]:
        """Relay while the block runs."""
        await self._listen()
        try:
            yield
        finally:
            self._stop_listening()
            for line in list(self.lines):
                line.flowing.set()
                line.cut()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def corrupt(self) -> None:
        """Change bytes that come down the connections there are."""
        for line in self.lines:
            line.is_corrupt = True

    def carrying(self, least: int) -> list[Line]:
        """The open connections through which at least so many bytes went up."""
        return [line for line in self.lines if line.up >= least]

    def stop(self) -> None:
        """Break all connections and take no more, as an API server that restarts."""
        self._loop.call_soon_threadsafe(self._stop_listening)
        for line in list(self.lines):
            line.cut()

    def resume(self) -> None:
        """Take connections again, on the same port."""
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    def _stop_listening(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        line = Line(writer)
        if self.is_mute:
            line.flowing.clear()
        far = await self._dial()
        self.lines.append(line)
        ups = [
            asyncio.ensure_future(self._up(line, reader, far)),
            asyncio.ensure_future(self._down(line, far, writer)),
        ]
        await asyncio.wait(ups, return_when=asyncio.FIRST_COMPLETED)
        self.lines.remove(line)
        for pump in ups:
            pump.cancel()
        await asyncio.gather(*ups, return_exceptions=True)
        writer.transport.abort()
        await far.close()

    async def _up(self, line: Line, reader: asyncio.StreamReader, far: Far) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65_536):
                await line.flowing.wait()
                line.up += len(data)
                await far.send(data)

    async def _down(self, line: Line, far: Far, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await far.receive():
                await line.flowing.wait()
                line.down += len(data)
                if line.is_corrupt:
                    data = bytes([data[0] ^ 1, *data[1:]])
                writer.write(data)
                await writer.drain()


class _Plain:
    """A TCP connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def receive(self) -> bytes:
        return await self._reader.read(65_536)

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def close(self) -> None:
        self._writer.transport.abort()


class _Forwarded:
    """A port-forward, as a service of type LoadBalancer in front of the manager would be."""

    def __init__(self, api: ApiClient, stream: PortForward) -> None:
        self._api, self._stream = api, stream

    async def receive(self) -> bytes | memoryview:
        return await self._stream.receive()

    async def send(self, data: bytes) -> None:
        await self._stream.send((data,))

    async def close(self) -> None:
        await self._stream.close()
        await self._api.close()


@contextlib.contextmanager
def laid(dial: Callable[[], Awaitable[Far]]) -> Iterator[Cable]:
    """Lay a cable that leads where `dial` does."""
    ready, over = threading.Event(), asyncio.Event()
    loops: list[asyncio.AbstractEventLoop] = []
    cables: list[Cable] = []

    async def main() -> None:
        loops.append(asyncio.get_running_loop())
        cables.append(Cable(dial))
        async with cables[0].serve():
            ready.set()
            await over.wait()

    thread = threading.Thread(target=lambda: asyncio.run(main()), name="cable")
    thread.start()
    try:
        assert ready.wait(10)
        yield cables[0]
    finally:
        loops[0].call_soon_threadsafe(over.set)
        thread.join(10)


@contextlib.contextmanager
def to_the_api_server(kubeconfig: Path, folder: Path) -> Iterator[tuple[Cable, Path]]:
    """Lay a cable to the API server; yields it, and a kubeconfig that leads through it."""
    config = yaml.safe_load(kubeconfig.read_text())
    (cluster,) = (each["cluster"] for each in config["clusters"])
    host, port = cluster["server"].removeprefix("https://").split(":")

    async def dial() -> Far:
        return _Plain(*await asyncio.open_connection(host, int(port)))

    with laid(dial) as cable:
        cluster["server"] = f"https://127.0.0.1:{cable.port}"
        path = folder / "kubeconfig"
        path.write_text(yaml.safe_dump(config))
        yield cable, path


@contextlib.contextmanager
def to_the_manager(kubeconfig: Path, port: int) -> Iterator[Cable]:
    """Lay a cable to a port of the traffic manager that has nothing to do with the data plane's own port-forwards."""
    access = ApiAccess.from_kubeconfig(str(kubeconfig), "")

    async def dial() -> Far:
        api = await ApiClient(access).__aenter__()
        pods = await api.get("/api/v1/namespaces/telemagic/pods")
        (name,) = (pod["metadata"]["name"] for pod in pods["items"])
        return _Forwarded(api, await api.portforward("telemagic", name, port))

    with laid(dial) as cable:
        yield cable
