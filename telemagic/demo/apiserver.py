"""The demo cluster's API server: enough of the Kubernetes API for clients, installers and kubectl.

Reading, watching, writing, logs, access reviews and port-forwards, each request judged by the cluster's roles. There
is no admission but that of services, no OpenAPI, no owner of a field, no SPDY (`kubectl port-forward` of today) and no
exec.
"""

from __future__ import annotations

import asyncio
import json
import re
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from telemagic.demo import objects, portforward, rbac, requests, reviews, tables, watching
from telemagic.demo.faults import PAGE, Faults
from telemagic.demo.kinds import KIND, Kind, Kinds, Target
from telemagic.demo.listening import Listeners
from telemagic.demo.rbac import Attributes, Authorizer
from telemagic.demo.refusals import (
    Refused,
    bad_request,
    forbidden,
    invalid,
    not_allowed,
    not_found,
    unauthorized,
    unknown_path,
)
from telemagic.demo.service_addresses import ServiceAddresses
from telemagic.demo.store import selector
from telemagic.demo.writer import Writer

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

    from telemagic.demo.kubelet import LogLine, Pod
    from telemagic.demo.listening import Listener
    from telemagic.demo.plan import Network
    from telemagic.demo.rbac import User
    from telemagic.demo.store import Store
    from telemagic.demo.writer import Written

Json = dict[str, Any]
_WATCH_TIMEOUT: Final = 1800.0  # seconds, when the client names none; the real server's --min-request-timeout
_OPEN_PATHS: Final = ("/version", "/healthz", "/livez", "/readyz")  # as system:public-info-viewer
_LARGEST_BODY: Final = 3 * 1024 * 1024  # bytes; the real server's limit
_BOTH_VERBS: Final = (1, 35)  # from here on a WebSocket needs the right to create as well (kubernetes#134577)
# Whose deletion is answered with the object; others' with a Status (the API reference, "Delete").
_ANSWER_DELETED: Final = frozenset({"pods", "services", "serviceaccounts", "namespaces"})
_PATCH_OPTIONS: Final = Kind("meta.k8s.io/v1", "patchoptions", "PatchOptions")


class ApiServer:
    """Serves a store over TLS, on as many sockets as it is given.

    Parameters
    ----------
    store
        What to show and to change.
    pods
        By namespace and name: whose logs and ports there are.
    tokens
        Who is who; looked at with every request.
    version
        Kubernetes', as `/version` shows it; some answers depend on it.
    services
        The service CIDRs.
    missing
        Resources that this cluster does not have, as group/version/plural.
    faults
        What goes wrong at the moment.
    forward
        Copies bytes between an upgraded request and ports of a pod, in place of what does.
    """

    def __init__(
        self,
        store: Store,
        pods: Mapping[tuple[str, str], Pod],
        tokens: Mapping[str, User],
        *,
        version: str = objects.VERSION,
        services: Sequence[Network] = (),
        missing: Collection[str] = (),
        faults: Faults | None = None,
        forward: Callable[[web.Request, Pod, Sequence[int]], Awaitable[web.StreamResponse]] | None = None,
    ) -> None:
        self._store = store
        self._pods = pods
        self._tokens = tokens
        self._version = version
        self._release = release_of(version)
        self._faults = faults or Faults()
        self._forward_to = forward or partial(portforward.serve, passage=self._faults.passage)
        self.kinds = Kinds(missing, lambda: store.list(KIND["customresourcedefinitions"]))
        self.authorizer = Authorizer(lambda plural: store.list(KIND[plural]))
        self.writer = Writer(store, self.authorizer, ServiceAddresses(services, self._release))
        app = web.Application(client_max_size=_LARGEST_BODY)
        app.router.add_route("*", "/{path:.*}", self._handle)
        # The grace is short: watches and port-forwards never end by themselves.
        self._runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1, read_bufsize=256 * 1024
        )
        self.listeners = Listeners(self._runner)

    async def start(self) -> None:
        """Get ready to listen."""
        await self._runner.setup()

    async def listen(self, listener: socket.socket, tls: ssl.SSLContext | None) -> Listener:
        """Serve connections to a socket, of whichever network namespace, until it is removed from `listeners`."""
        return await self.listeners.add(listener, tls)

    async def close(self) -> None:
        """Close all sockets and connections."""
        await self.listeners.close()
        await self._runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        if self._faults.page:
            return web.Response(text=PAGE, content_type="text/html")
        try:
            return await self._answer(request)
        except Refused as refused:
            return self._json(refused.status, refused.code)
        except web.HTTPRequestEntityTooLarge:
            large = Refused(413, "RequestEntityTooLarge", f"limit is {_LARGEST_BODY}")
            return self._json(large.status, large.code)

    def _json(self, body: Json, code: int = 200) -> web.Response:
        data = self._faults.shorten(json.dumps(body).encode())
        return web.Response(body=data, status=code, content_type="application/json")

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        path = request.path.rstrip("/")
        if path.startswith(_OPEN_PATHS) and request.method == "GET":
            return self._json(version(self._version)) if path == "/version" else web.Response(text="ok")
        user = self._authenticate(request)
        parts = path.strip("/").split("/")
        if request.method == "POST" and (review := reviews.review_of(parts)):
            body = requests.parse(request.headers.get("Content-Type", ""), await request.read())
            return self._json(
                reviews.answer(review, body, user, self.authorizer, self._faults.is_forbidden), 201
            )
        fixed = self.kinds.discovery(parts) if request.method == "GET" else None
        if fixed is not None:
            return self._json(fixed)
        target = self.kinds.target(parts)
        if target is None:
            raise unknown_path()
        asked = requests.attributes(request.method, target, request.query)
        self._authorize(user, target, asked)
        if not target.subresource and asked.verb not in target.kind.verbs:
            raise not_allowed()
        return await self._serve(request, user, target)

    def _authenticate(self, request: web.Request) -> User:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ").strip()
        user = None if token in self._faults.expired else self._tokens.get(token)
        if user is None:
            raise unauthorized()
        return user

    def _authorize(self, user: User, target: Target, asked: Attributes) -> None:
        self._faults.check(target, asked, user)
        if not self.authorizer.allows(user, asked):
            raise forbidden(target.kind, target.name, rbac.refusal(user, asked))

    async def _serve(self, request: web.Request, user: User, target: Target) -> web.StreamResponse:
        if target.subresource == "portforward" and target.kind == KIND["pods"]:
            return await self._forward(request, user, target)
        if target.subresource == "log" and target.kind == KIND["pods"] and request.method == "GET":
            return await self._log(request, target)
        if target.subresource not in ("", "status") or (target.subresource and request.method != "GET"):
            message = f"the demo cluster has no {target.kind.plural}/{target.subresource}"
            raise Refused(404, "NotFound", message)
        if request.method != "GET":
            return await self._write(request, user, target)
        if target.name:
            item = self._store.get(target.kind, target.namespace, target.name)
            if item is None:
                raise not_found(target.kind, target.name)
            return self._render(request, target, item, [item])
        matches = _selected(request)
        if requests.is_true(request.query, "watch"):
            return await self._watch(request, target, matches)
        items = [item for item in self._store.list(target.kind, target.namespace) if matches(item)]
        return self._render(request, target, self._list(target, items), items)

    def _list(self, target: Target, items: list[Json]) -> Json:
        return {
            "kind": f"{target.kind.kind}List",
            "apiVersion": target.kind.group_version,
            "metadata": {"resourceVersion": str(self._store.version)},
            "items": items,
        }

    def _render(self, request: web.Request, target: Target, body: Json, items: list[Json]) -> web.Response:
        if "as=Table" in request.headers.get("Accept", ""):
            body = tables.table(target.kind, items, str(self._store.version))
        return self._json(body)

    async def _write(self, request: web.Request, user: User, target: Target) -> web.Response:
        dry_run = requests.is_dry_run(request.query)
        body = requests.parse(request.headers.get("Content-Type", ""), await request.read())
        if request.method == "DELETE":
            return self._delete(request, target, body, dry_run=dry_run)
        if (request.method == "POST") is bool(target.name):
            raise not_allowed()
        written = self._change(request, user, target, body, dry_run=dry_run)
        return self._json(written.object, 201 if written.created else 200)

    def _change(
        self, request: web.Request, user: User, target: Target, body: Json, *, dry_run: bool
    ) -> Written:
        writer = self.writer
        if request.method == "POST":
            return writer.create(target, body, user, dry_run=dry_run)
        if request.method == "PUT":
            return writer.replace(target, body, user, dry_run=dry_run)
        match request.content_type:
            case requests.APPLY:
                if not request.query.get("fieldManager"):
                    problem = ("fieldManager", "Required value", "is required for apply patch")
                    raise invalid(_PATCH_OPTIONS, "", [problem])
                if self._store.get(target.kind, target.namespace, target.name) is None:
                    self._authorize(user, target, requests.attributes("POST", target, {}))
                return writer.apply(target, body, user, dry_run=dry_run)
            case requests.MERGE:
                return writer.merge(target, body, user, dry_run=dry_run)
            case requests.STRATEGIC:
                return writer.merge_strategic(target, body, user, dry_run=dry_run)
        raise Refused(415, "UnsupportedMediaType", f"patches of {request.content_type} are not known here")

    def _delete(self, request: web.Request, target: Target, options: Json, *, dry_run: bool) -> web.Response:
        if policy := request.query.get("propagationPolicy"):
            options = {**options, "propagationPolicy": policy}
        if not target.name:
            matches = _selected(request)
            going = [item for item in self._store.list(target.kind, target.namespace) if matches(item)]
            for item in going:
                metadata = item["metadata"]
                one = Target(target.kind, metadata.get("namespace", ""), metadata["name"])
                self.writer.delete(one, options, dry_run=dry_run)
            return self._json(self._list(target, going))
        last = self.writer.delete(target, options, dry_run=dry_run).object
        if target.kind.plural in _ANSWER_DELETED and not target.kind.group:
            return self._json(last)
        uid = last["metadata"].get("uid", "")
        details = {"name": target.name, "group": target.kind.group, "kind": target.kind.plural, "uid": uid}
        done = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
        return self._json(done)

    async def _watch(
        self, request: web.Request, target: Target, matches: Callable[[Json], bool]
    ) -> web.StreamResponse:
        limit = _seconds(request)
        watching.since(request.query)
        events = watching.events(self._store, target, request.query)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        try:
            async with asyncio.timeout(limit):
                async for event in events:
                    if event["type"] in ("BOOKMARK", "ERROR") or matches(event["object"]):
                        await response.write(json.dumps(event).encode() + b"\n")
        except TimeoutError:
            pass
        await response.write_eof()
        return response

    def _running(self, target: Target) -> Pod:
        pod = self._pods.get((target.namespace, target.name))
        if pod is not None:
            return pod
        if self._store.get(target.kind, target.namespace, target.name) is None:
            raise not_found(target.kind, target.name)
        raise bad_request(f"pod {target.name} is not running")

    async def _log(self, request: web.Request, target: Target) -> web.StreamResponse:
        pod = self._running(target)
        stamped = requests.is_true(request.query, "timestamps")
        lines = list(pod.log)
        seen = pod.lines
        if tail := request.query.get("tailLines"):
            lines = lines[-int(tail) :] if tail.isdecimal() and int(tail) else []
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        await response.write(_text(lines, stamped=stamped))
        while requests.is_true(request.query, "follow"):
            await pod.changed.wait()
            fresh = pod.lines - seen
            seen = pod.lines
            await response.write(_text(list(pod.log)[-fresh:] if fresh else [], stamped=stamped))
        await response.write_eof()
        return response

    async def _forward(self, request: web.Request, user: User, target: Target) -> web.StreamResponse:
        pod = self._running(target)
        if request.method != "GET" or request.headers.get("Upgrade", "").lower() != "websocket":
            raise bad_request(
                f"the demo cluster forwards ports over a WebSocket with {portforward.PROTOCOL} only"
            )
        if self._release >= _BOTH_VERBS:
            self._authorize(user, target, requests.attributes("POST", target, {}))
        self._faults.check_upgrade()
        if not portforward.offers_protocol(request):
            message = f"unable to upgrade: only {portforward.PROTOCOL} is known here"
            raise Refused(403, "Forbidden", message)
        try:
            ports = portforward.wanted_ports(request)
        except ValueError as error:
            raise bad_request(str(error)) from None
        return await self._forward_to(request, pod, ports)


def _selected(request: web.Request) -> Callable[[Json], bool]:
    try:
        return selector(request.query.get("labelSelector", ""), request.query.get("fieldSelector", ""))
    except ValueError as error:
        raise bad_request(str(error)) from None


def _seconds(request: web.Request) -> float:
    try:
        return float(request.query.get("timeoutSeconds") or _WATCH_TIMEOUT)
    except ValueError as error:
        raise bad_request(f"timeoutSeconds: {error}") from None


def _text(lines: list[LogLine], *, stamped: bool) -> bytes:
    return "".join(
        f"{objects.timestamp(line.time)} {line.text}\n" if stamped else f"{line.text}\n" for line in lines
    ).encode()


def release_of(text: str) -> tuple[int, int]:
    """Return the major and minor version in Kubernetes' own, v1.33.4-eks-3abbec1 or so."""
    found = re.match(r"v(\d+)\.(\d+)", text)
    if found is None:
        raise ValueError(f"{text!r} is no version of Kubernetes")
    return int(found[1]), int(found[2])


def version(text: str) -> dict[str, str]:
    """Return the answer to `/version`."""
    major, minor = release_of(text)
    return {
        "major": str(major),
        "minor": str(minor),
        "gitVersion": text,
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "",
        "goVersion": "",
        "compiler": "",
        "platform": "linux",
    }
