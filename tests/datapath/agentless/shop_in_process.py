"""A cluster without a manager, for tests: the small API server with services and pods that are ports of this machine."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any

from aiohttp import WSMsgType, web

from tests.datapath.agentless.builders import endpoint, endpoint_slice, pod, service
from tests.kube.api_server import PROTOCOL, ApiServer, Pki, announce

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    Json = dict[str, Any]

REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
PREFIXES = {
    "services": "/api/v1",
    "pods": "/api/v1",
    "endpoints": "/api/v1",
    "endpointslices": "/apis/discovery.k8s.io/v1",
}
GONE = {"kind": "Status", "code": 410, "message": "too old resource version"}


def forbidden(what: str) -> web.Response:
    return web.json_response({"kind": "Status", "message": f"{what} is forbidden"}, status=403)


class Shop:
    """Service ``web`` (10.96.0.1:80) before pods web-0 and web-1, in namespace shop of a cluster.

    Attributes
    ----------
    lists
        Objects by plural and name; change them with `put` and `drop`, which tell those who watch.
    forbidden
        Paths, and verbs on ``pods/portforward``, that are.
    ports
        Where a pod's port leads on this machine, by pod and port; others are refused.
    """

    def __init__(self, pki: Pki) -> None:
        self.api = ApiServer(pki)
        self.lists: dict[str, dict[str, Json]] = {plural: {} for plural in PREFIXES}
        self.forbidden: set[str] = set()
        self.may_watch = True
        self.ports: dict[tuple[str, int], int] = {}
        self.sockets: list[web.WebSocketResponse] = []
        self.version = 1
        self._watchers: dict[str, list[asyncio.Queue[Json]]] = {plural: [] for plural in PREFIXES}
        for plural, prefix in PREFIXES.items():
            for path in (f"{prefix}/{plural}", f"{prefix}/namespaces/shop/{plural}"):
                self.api.answers[path] = self._lister(plural)
        self.api.answer("/version", {"gitVersion": "v1.33.0"})
        self.api.answers[REVIEWS] = self._review
        self.put("services", service("web", "10.96.0.1"))
        endpoints = endpoint("10.0.0.1", "web-0"), endpoint("10.0.0.2", "web-1")
        self.put("endpointslices", endpoint_slice("web", *endpoints))
        for number in (0, 1):
            self.add_pod(f"web-{number}", f"10.0.0.{number + 1}")

    @contextlib.asynccontextmanager
    async def run(self) -> AsyncIterator[Shop]:
        async with self.api.run():
            try:
                yield self
            finally:
                for socket in list(self.sockets):
                    await socket.close()

    # --- objects

    def put(self, plural: str, item: Json) -> None:
        name = item["metadata"]["name"]
        kind = "MODIFIED" if name in self.lists[plural] else "ADDED"
        self.lists[plural][name] = item
        self._tell(plural, kind, item)

    def drop(self, plural: str, name: str) -> None:
        self._tell(plural, "DELETED", self.lists[plural].pop(name))

    def add_pod(self, name: str, address: str, **more: Any) -> None:
        self.put("pods", pod(name, address, **more))
        path = f"/api/v1/namespaces/shop/pods/{name}/portforward"
        self.api.answers[path] = lambda request: self._forward(request, name)

    def replace_pod(self, old: str, new: str, address: str) -> None:
        """Do what a Deployment does when a pod dies: the old one is gone before anybody is told."""
        del self.api.answers[f"/api/v1/namespaces/shop/pods/{old}/portforward"]
        self.lists["pods"].pop(old)
        self.add_pod(new, address)
        self.put("endpointslices", endpoint_slice("web", endpoint(address, new)))

    def end_watches(self) -> None:
        """Have the server forget what it told, so that everything must be listed again."""
        for plural in PREFIXES:
            self._tell(plural, "ERROR", GONE)

    def _tell(self, plural: str, kind: str, item: Json) -> None:
        self.version += 1
        stamped = {**item, "metadata": {**item.get("metadata", {}), "resourceVersion": str(self.version)}}
        for queue in self._watchers[plural]:
            queue.put_nowait({"type": kind, "object": item if kind == "ERROR" else stamped})

    def _lister(self, plural: str) -> Callable[[web.Request], Any]:
        async def answer(request: web.Request) -> web.StreamResponse:
            if request.path in self.forbidden:
                return forbidden(request.path)
            if request.query.get("watch"):
                return await self._watch(request, plural) if self.may_watch else forbidden("watch")
            metadata = {"resourceVersion": str(self.version)}
            return web.json_response({"metadata": metadata, "items": list(self.lists[plural].values())})

        return answer

    async def _watch(self, request: web.Request, plural: str) -> web.StreamResponse:
        with self._watching(plural) as queue:
            response = web.StreamResponse()
            await response.prepare(request)
            # aiohttp does not cancel a handler whose client has gone.
            while request.transport is not None and not request.transport.is_closing():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.02):
                        event = await queue.get()
                        await response.write(json.dumps(event).encode() + b"\n")
                        if event["type"] == "ERROR":
                            break
            return response

    @contextlib.contextmanager
    def _watching(self, plural: str) -> Iterator[asyncio.Queue[Json]]:
        queue: asyncio.Queue[Json] = asyncio.Queue()
        self._watchers[plural].append(queue)
        try:
            yield queue
        finally:
            self._watchers[plural].remove(queue)

    @property
    def watchers(self) -> int:
        return sum(map(len, self._watchers.values()))

    async def _review(self, request: web.Request) -> web.StreamResponse:
        attributes = (await request.json())["spec"]["resourceAttributes"]
        allowed = attributes["verb"] not in self.forbidden
        return web.json_response({"status": {"allowed": allowed}}, status=201)

    # --- port-forwards

    async def _forward(self, request: web.Request, name: str) -> web.StreamResponse:
        if "get" in self.forbidden:
            return forbidden("pods/portforward")
        port = int(request.query["ports"])
        socket = web.WebSocketResponse(protocols=(PROTOCOL,), autoping=True)
        await socket.prepare(request)
        self.sockets.append(socket)
        await announce(socket, port)
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.ports.get((name, port), 9))
        except OSError:
            await socket.send_bytes(b"\1failed to connect to localhost: connect: connection refused")
            await socket.close()
            self.sockets.remove(socket)
            return socket
        up = asyncio.ensure_future(_up(socket, writer))
        try:
            while data := await reader.read(32 * 1024):
                await socket.send_bytes(b"\0" + data)
        except ConnectionError:
            pass  # the test cut one side
        finally:
            up.cancel()
            await asyncio.gather(up, return_exceptions=True)
            writer.close()
            await socket.close()
            self.sockets.remove(socket)
        return socket

    def cut(self) -> None:
        """Break all port-forwards without a goodbye, as an API server does that is killed."""
        for socket in self.sockets:
            assert socket._req is not None
            assert socket._req.transport is not None
            socket._req.transport.abort()


async def _up(socket: web.WebSocketResponse, writer: asyncio.StreamWriter) -> None:
    async for message in socket:
        if message.type is WSMsgType.BINARY and len(message.data) > 1:
            writer.write(message.data[1:])
            await writer.drain()
    writer.close()
