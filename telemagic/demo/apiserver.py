"""The demo cluster's API server: the part of the Kubernetes API that clients and kubectl need to look around.

Reading, watching, logs, access reviews and port-forwards. Nothing can be written, and there is no admission, no
OpenAPI, no SPDY (`kubectl port-forward` of today) and no exec.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from telemagic.demo import objects, portforward, tables
from telemagic.demo.store import KINDS, Kind, Store, selector

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import AsyncIterator, Callable, Mapping

    from telemagic.demo.kubelet import LogLine, Pod

_WATCH_TIMEOUT: Final = 1800.0  # seconds, when the client names none; the real server's --min-request-timeout
_OPEN_PATHS: Final = ("/version", "/healthz", "/livez", "/readyz")  # as system:public-info-viewer


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a token belongs to. Everybody may read; `may_forward` is the right to `pods/portforward`."""

    name: str
    may_forward: bool


@dataclass(frozen=True, slots=True)
class Target:
    """What a request path names."""

    kind: Kind
    namespace: str
    name: str
    subresource: str


def status(code: int, reason: str, message: str) -> web.Response:
    """Return a failure as the API writes it, a Status object."""
    body = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code,
    }
    return web.json_response(body, status=code)


class ApiServer:
    """Serves a store over TLS, on as many sockets as it is given.

    Parameters
    ----------
    store
        What to show.
    pods
        By namespace and name: whose logs and ports there are.
    tokens
        Who is who.
    """

    def __init__(
        self, store: Store, pods: Mapping[tuple[str, str], Pod], tokens: Mapping[str, Identity]
    ) -> None:
        self._store = store
        self._pods = pods
        self._tokens = tokens
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        # The grace is short: watches and port-forwards never end by themselves.
        self._runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1, read_bufsize=256 * 1024
        )

    async def start(self) -> None:
        """Get ready to listen."""
        await self._runner.setup()

    async def listen(self, listener: socket.socket, tls: ssl.SSLContext) -> web.SockSite:
        """Serve connections to a socket, of whichever network namespace, until `stop()` of what is returned."""
        site = web.SockSite(self._runner, listener, ssl_context=tls)
        await site.start()
        return site

    async def close(self) -> None:
        """Close all sockets and connections."""
        await self._runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        path = request.path.rstrip("/")
        if path.startswith(_OPEN_PATHS) and request.method == "GET":
            if path == "/version":
                return web.json_response(_version())
            return web.Response(text="ok")
        identity = self._tokens.get(request.headers.get("Authorization", "").removeprefix("Bearer ").strip())
        if identity is None:
            return status(401, "Unauthorized", "Unauthorized")
        if request.method == "POST" and path.endswith("/selfsubjectaccessreviews"):
            return await _review(request, identity)
        parts = path.strip("/").split("/")
        if (fixed := _discovery(parts) if request.method == "GET" else None) is not None:
            return web.json_response(fixed)
        target = _target(parts)
        if target is None:
            return status(404, "NotFound", "the server could not find the requested resource")
        return await self._serve(request, identity, target)

    async def _serve(self, request: web.Request, identity: Identity, target: Target) -> web.StreamResponse:
        if target.subresource == "portforward":
            return await self._forward(request, identity, target)
        if request.method != "GET":
            return status(405, "MethodNotAllowed", "the demo cluster is read-only")
        if target.subresource == "log":
            return await self._log(request, target)
        if target.subresource not in ("", "status"):
            return status(
                404, "NotFound", f"the demo cluster has no {target.kind.plural}/{target.subresource}"
            )
        if target.name:
            item = self._store.get(target.kind, target.namespace, target.name)
            if item is None:
                return _not_found(target)
            return self._render(request, target.kind, item, [item])
        try:
            matches = selector(request.query.get("labelSelector", ""), request.query.get("fieldSelector", ""))
        except ValueError as error:
            return status(400, "BadRequest", str(error))
        if request.query.get("watch") in ("true", "1"):
            return await self._watch(request, target, matches)
        items = [item for item in self._store.list(target.kind, target.namespace) if matches(item)]
        body = {
            "kind": f"{target.kind.kind}List",
            "apiVersion": target.kind.group_version,
            "metadata": {"resourceVersion": str(self._store.version)},
            "items": items,
        }
        return self._render(request, target.kind, body, items)

    def _render(
        self, request: web.Request, kind: Kind, body: dict[str, Any], items: list[dict[str, Any]]
    ) -> web.Response:
        if "as=Table" in request.headers.get("Accept", ""):
            body = tables.table(kind, items, str(self._store.version))
        return web.json_response(body)

    async def _watch(
        self, request: web.Request, target: Target, matches: Callable[[dict[str, Any]], bool]
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        limit = float(request.query.get("timeoutSeconds") or _WATCH_TIMEOUT)
        try:
            async with asyncio.timeout(limit):
                async for event in self._events(request, target):
                    if event["type"] in ("BOOKMARK", "ERROR") or matches(event["object"]):
                        await response.write(json.dumps(event).encode() + b"\n")
        except TimeoutError:
            pass
        await response.write_eof()
        return response

    async def _events(self, request: web.Request, target: Target) -> AsyncIterator[dict[str, Any]]:
        kind, store = target.kind, self._store
        asked = request.query.get("resourceVersion", "")
        initial = request.query.get("sendInitialEvents") == "true"
        version = store.version
        if asked in ("", "0") or initial:
            for item in store.list(kind, target.namespace):
                yield {"type": "ADDED", "object": item}
        else:
            version = int(asked)
        if initial:
            yield {
                "type": "BOOKMARK",
                "object": {
                    "kind": kind.kind,
                    "apiVersion": kind.group_version,
                    "metadata": {
                        "resourceVersion": str(version),
                        "annotations": {"k8s.io/initial-events-end": "true"},
                    },
                },
            }
        while True:
            changes = store.since(version)
            if changes is None:
                gone = {
                    "kind": "Status",
                    "apiVersion": "v1",
                    "status": "Failure",
                    "reason": "Expired",
                    "code": 410,
                }
                yield {"type": "ERROR", "object": {**gone, "message": f"too old resource version: {version}"}}
                return
            for change in changes:
                version = change.version
                where = change.object["metadata"].get("namespace", "")
                if change.kind == kind and target.namespace in ("", where):
                    yield {"type": change.type, "object": change.object}
            if version >= store.version:
                await store.wait()

    async def _log(self, request: web.Request, target: Target) -> web.StreamResponse:
        pod = self._pods.get((target.namespace, target.name))
        if pod is None:
            return _not_found(target)
        stamped = request.query.get("timestamps") in ("true", "1")
        lines = list(pod.log)
        seen = pod.lines
        if tail := request.query.get("tailLines"):
            lines = lines[-int(tail) :] if int(tail) else []
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        await response.write(_text(lines, stamped=stamped))
        while request.query.get("follow") in ("true", "1"):
            await pod.changed.wait()
            fresh = pod.lines - seen
            seen = pod.lines
            await response.write(_text(list(pod.log)[-fresh:] if fresh else [], stamped=stamped))
        await response.write_eof()
        return response

    async def _forward(self, request: web.Request, identity: Identity, target: Target) -> web.StreamResponse:
        if not identity.may_forward:
            verb = "get" if request.method == "GET" else "create"
            return status(
                403,
                "Forbidden",
                f'pods "{target.name}" is forbidden: User "{identity.name}" cannot {verb} resource '
                f'"pods/portforward" in API group "" in the namespace "{target.namespace}"',
            )
        pod = self._pods.get((target.namespace, target.name))
        if pod is None:
            return _not_found(target)
        if request.method != "GET" or request.headers.get("Upgrade", "").lower() != "websocket":
            return status(
                400,
                "BadRequest",
                f"the demo cluster forwards ports over a WebSocket with {portforward.PROTOCOL} only",
            )
        if not portforward.offers_protocol(request):
            return status(403, "Forbidden", f"unable to upgrade: only {portforward.PROTOCOL} is known here")
        try:
            ports = portforward.wanted_ports(request)
        except ValueError as error:
            return status(400, "BadRequest", str(error))
        return await portforward.serve(request, pod, ports)


def _text(lines: list[LogLine], *, stamped: bool) -> bytes:
    return "".join(
        f"{objects.timestamp(line.time)} {line.text}\n" if stamped else f"{line.text}\n" for line in lines
    ).encode()


def _not_found(target: Target) -> web.Response:
    return status(404, "NotFound", f'{target.kind.plural} "{target.name}" not found')


def _target(parts: list[str]) -> Target | None:
    """Take a path apart: api/v1/… or apis/GROUP/VERSION/…, then [namespaces/NS/]PLURAL[/NAME[/SUBRESOURCE]]."""
    depth = {"api": 2, "apis": 3}.get(parts[0], len(parts))
    group_version, rest = "/".join(parts[1:depth]), parts[depth:]
    namespace = ""
    if rest[:1] == ["namespaces"] and len(rest) > 2 and rest[2] not in ("status", "finalize"):
        namespace, rest = rest[1], rest[2:]
    for kind in KINDS:
        if rest and (kind.group_version, kind.plural) == (group_version, rest[0]) and len(rest) <= 3:
            _, name, subresource, *_ = (*rest, "", "")
            return Target(kind, namespace, name, subresource)
    return None


def _discovery(parts: list[str]) -> dict[str, Any] | None:
    """Answer a discovery path; None if it is none."""
    match parts:
        case ["api"]:
            return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}
        case ["apis"]:
            return {
                "kind": "APIGroupList",
                "apiVersion": "v1",
                "groups": [_group(name) for name in _group_names()],
            }
        case ["api", "v1"]:
            return _resources("v1")
        case ["apis", group] if group in _group_names():
            return {"kind": "APIGroup", "apiVersion": "v1", **_group(group)}
        case ["apis", group, "v1"] if group in _group_names():
            return _resources(f"{group}/v1")
    return None


def _group_names() -> list[str]:
    groups = dict.fromkeys(
        kind.group_version.partition("/")[0] for kind in KINDS if "/" in kind.group_version
    )
    return [*groups, "authorization.k8s.io"]


def _group(name: str) -> dict[str, Any]:
    version = {"groupVersion": f"{name}/v1", "version": "v1"}
    return {"name": name, "versions": [version], "preferredVersion": version}


def _resources(group_version: str) -> dict[str, Any]:
    resources = [kind.resource for kind in KINDS if kind.group_version == group_version]
    if group_version == "v1":
        for name, verbs in (("pods/log", ["get"]), ("pods/portforward", ["create", "get"])):
            kind = "Pod" if name == "pods/log" else "PodPortForwardOptions"
            resources.append(
                {"name": name, "singularName": "", "namespaced": True, "kind": kind, "verbs": verbs}
            )
    if group_version == "authorization.k8s.io/v1":
        review = Kind(
            group_version, "selfsubjectaccessreviews", "SelfSubjectAccessReview", False, verbs=("create",)
        )
        resources.append(review.resource)
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": group_version,
        "resources": resources,
    }


async def _review(request: web.Request, identity: Identity) -> web.Response:
    """Answer "may I?" by the rules of `_serve`."""
    if request.content_type != "application/json":
        return status(415, "UnsupportedMediaType", "the demo cluster reads JSON only")
    try:
        asked = (await request.json())["spec"].get("resourceAttributes", {})
    except (ValueError, KeyError, TypeError, AttributeError):
        return status(400, "BadRequest", "no SelfSubjectAccessReview")
    if (asked.get("resource"), asked.get("subresource")) == ("pods", "portforward"):
        allowed = identity.may_forward and asked.get("verb") in ("get", "create")
    else:
        allowed = asked.get("verb") in ("get", "list", "watch")
    body = {
        "kind": "SelfSubjectAccessReview",
        "apiVersion": "authorization.k8s.io/v1",
        "metadata": {},
        "spec": {"resourceAttributes": asked},
        "status": {"allowed": allowed},
    }
    return web.json_response(body, status=201)


def _version() -> dict[str, str]:
    major, minor, _ = objects.VERSION.removeprefix("v").split(".")
    return {
        "major": major,
        "minor": minor,
        "gitVersion": f"{objects.VERSION}+telemagic-demo",
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "",
        "goVersion": "",
        "compiler": "",
        "platform": "linux",
    }
