"""A small asyncio client of the Kubernetes API: plain JSON, watches, and port-forwards."""

from __future__ import annotations

import asyncio
import contextlib
import json
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Self

import aiohttp

from telehelper.errors import ApiServerUnavailable, CredentialsRefused, KubeconfigError
from telehelper.kube.answers import (
    Answer,
    ApiNotFound,
    ApiRejected,
    json_object,
    raise_for_status,
    unavailable,
)
from telehelper.kube.portforward import PortForward, open_portforward
from telehelper.kube.reviews import REVIEWS, access_review
from telehelper.kube.watch import Watch

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Mapping
    from types import TracebackType

    from telehelper.kube.access import ApiAccess, Identity

__all__ = ["ApiClient", "ApiNotFound", "ApiRejected"]

REQUEST_TIMEOUT: Final = 10.0  # seconds without a byte; a healthy API server answers in milliseconds
WHOLE_TIMEOUT: Final = 60.0  # seconds for one request: a list of 10,000 pods over a slow line
CONNECT_TIMEOUT: Final = (
    5.0  # seconds for TCP, proxy and TLS: short, so that a lost network's return is soon noticed
)
MAX_ANSWER: Final = 64 * 1024 * 1024  # bytes of JSON; 10,000 pods are about 50 MiB
PATIENCE: Final = 3.0  # seconds of Retry-After that are waited; longer ones are the user's to decide
RETRIES: Final = 2  # times that a busy server is asked again
# Seconds after credentials were renewed in vain before they are again: a login may open a browser each time
RENEWAL_PAUSE: Final = 60.0
READING_PAUSE: Final = 2.0  # the same where a renewal is nothing but reading the kubeconfig


class ApiClient:
    """One session with one API server. An async context manager.

    All methods raise :class:`ApiServerUnavailable` (no answer, none of an API server, or a 5xx),
    :class:`CredentialsRefused` (401, 403, or no credentials), :class:`ApiNotFound` (404) or :class:`ApiRejected`
    (other 4xx). When the server answers 401, the credentials are read anew, once, and the request is made again.
    """

    def __init__(self, access: ApiAccess) -> None:
        self.access = access
        # Port-forwards have one of their own: requests can be hung up on without breaking a carrier.
        self._requests: aiohttp.ClientSession | None = None
        self._forwards: aiohttp.ClientSession | None = None
        self._old: set[aiohttp.ClientSession] = set()  # with requests that were under way
        self._closing: set[asyncio.Future[None]] = set()
        self._streams: set[aiohttp.ClientResponse] = set()
        self._renewing = asyncio.Lock()
        self._renewable_at = 0.0  # monotonic

    async def __aenter__(self) -> Self:
        self._requests, self._forwards = _session(), _session(self._redirected)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        sessions = self._requests, self._forwards, *self._old
        self._requests = self._forwards = None
        self._old.clear()
        for session in sessions:
            if session is not None:
                await session.close()

    def reconnect(self) -> None:
        """Make requests on new connections: the network has changed, and those that are kept open may lead nowhere.

        Watches go on by themselves on new ones too. Requests under way have their time, and port-forwards stay.
        """
        old = self._requests
        if old is not None:
            self._requests = _session()
            self._renewable_at = 0.0
            for response in list(self._streams):
                response.close()
            self._old.add(old)
            asyncio.get_running_loop().call_later(WHOLE_TIMEOUT, self._retire, old)

    def _retire(self, old: aiohttp.ClientSession) -> None:
        if old in self._old:
            self._old.discard(old)
            closing = asyncio.ensure_future(old.close())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    # --- plain JSON

    async def get(self, path: str, **params: str) -> dict[str, Any]:
        """GET `path` (with a leading slash) and return the JSON object; `params` make the query."""
        return await self._call("GET", path, params)

    async def create(self, path: str, body: Mapping[str, Any], *, dry_run: bool = False) -> dict[str, Any]:
        """POST an object to its collection and return what became of it.

        Also for reviews (``…/selfsubjectaccessreviews``), which are made and answered in one. With `dry_run` the server
        does everything but store it. ApiRejected with ``data["reason"] == "AlreadyExists"`` if it is there.
        """
        return await self._call("POST", path, _dry(dry_run), body, "application/json")

    async def apply(
        self,
        path: str,
        body: Mapping[str, Any],
        *,
        field_manager: str,
        dry_run: bool = False,
        force: bool = False,
    ) -> dict[str, Any]:
        """Make the object at `path` as `body` says, whether it is there or not (server-side apply).

        ApiRejected with ``data["reason"] == "Conflict"`` if another field manager has a field, unless `force`.
        """
        params = {"fieldManager": field_manager, "force": "true" if force else "false", **_dry(dry_run)}
        # JSON is YAML.
        return await self._call("PATCH", path, params, body, "application/apply-patch+yaml")

    async def patch(self, path: str, body: Mapping[str, Any], *, dry_run: bool = False) -> dict[str, Any]:
        """Change fields of the object at `path` (JSON merge patch, RFC 7396)."""
        return await self._call("PATCH", path, _dry(dry_run), body, "application/merge-patch+json")

    async def delete(self, path: str, *, dry_run: bool = False) -> dict[str, Any]:
        """Delete the object at `path` and, in the background, what it owns."""
        options = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"}
        return await self._call("DELETE", path, _dry(dry_run), options, "application/json")

    async def watch(self, path: str, **params: str) -> AsyncGenerator[dict[str, Any], None]:
        """Follow the list at `path` for ever.

        Yields
        ------
        dict
            ``{"type": "LIST", "object": the list}`` first, and again whenever changes may have been missed: it replaces
            all that was known. Then ``{"type": "ADDED" | "MODIFIED" | "DELETED", "object": the object}``.

        Raises
        ------
        ApiServerUnavailable, CredentialsRefused, ApiNotFound
            It cannot be followed now. Wait, and watch anew: that begins with a LIST.
        """
        async with contextlib.aclosing(Watch(self, path, params).events()) as events:
            async for event in events:
                yield event

    async def stream(
        self, path: str, params: Mapping[str, str], idle_timeout: float
    ) -> AsyncGenerator[bytes, None]:
        """GET `path` and yield the body as it comes; its breaking in the middle is an end like any other.

        `idle_timeout` is in seconds, without a byte.
        """
        limits = aiohttp.ClientTimeout(total=None, connect=CONNECT_TIMEOUT, sock_read=idle_timeout)
        async with self._request("GET", path, params, limits=limits) as response:
            if response.status >= 300 or response.content_type == "text/html":
                raise_for_status(await _read(response), path, self.access.server)
            self._streams.add(response)
            try:
                async for data in response.content.iter_any():
                    yield data
            except (aiohttp.ClientError, TimeoutError, OSError):
                return
            finally:
                self._streams.discard(response)

    # --- port-forwards

    async def portforward(self, namespace: str, pod: str, port: int) -> PortForward:
        """Open a byte stream to 127.0.0.1:`port` inside a pod's network namespace."""
        what = f"port-forward to {namespace}/{pod}"
        for is_first in (True, False):
            identity = await self._identity()
            try:
                return await open_portforward(
                    _open(self._forwards, self.access), self.access, identity, namespace, pod, port
                )
            except aiohttp.WSServerHandshakeError as error:
                if is_first and error.status == 401 and await self._renew(identity):
                    continue
                await self._refused_upgrade(error, what, namespace)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                raise unavailable(self.access.server, error) from error
        raise AssertionError("the second round returns or raises")

    async def _redirected(self, _: object, __: object, params: aiohttp.TraceRequestRedirectParams) -> None:
        """Follow no redirect: aiohttp's WebSockets do, and have no other way to say no."""
        answer = Answer(params.response.status, params.response.headers, b"")
        raise_for_status(answer, "a port-forward", self.access.server)

    async def _refused_upgrade(
        self, error: aiohttp.WSServerHandshakeError, what: str, namespace: str
    ) -> None:
        """Raise the error that says why there is no WebSocket."""
        server = self.access.server
        if error.status == 403:
            missing = await self.missing_verbs(namespace, "pods", "portforward", ("get", "create"))
            if missing:
                raise CredentialsRefused(
                    f"API server {server} forbids {what}: you lack {' and '.join(missing)} on pods/portforward "
                    f"in namespace {namespace!r}",
                    hint=f"ask for a Role in {namespace!r} with get and create on pods/portforward",
                    status="403",
                ) from error
        answer = Answer(error.status, error.headers or {}, b"")
        if error.status in (401, 403, 404, 429, 503) or answer.is_page:
            raise_for_status(answer, what, server)
        raise ApiServerUnavailable(
            f"API server {server}, or a proxy in front of it, does not do the WebSocket of a {what} "
            f"(it answered with {error.status})",
            hint="kubectl port-forward may still work, by SPDY; a gateway that passes WebSockets on is needed here",
            status=str(error.status),
        ) from error

    async def missing_verbs(
        self, namespace: str, resource: str, subresource: str, verbs: tuple[str, ...]
    ) -> list[str]:
        """Ask the API server which of `verbs` we may not do; empty too if it does not tell."""
        missing = []
        for verb in verbs:
            review = access_review(verb, f"{resource}/{subresource}", namespace)
            try:
                answer = await self.create(REVIEWS, review)
            except (ApiServerUnavailable, CredentialsRefused, ApiNotFound, ApiRejected):
                return []
            status = answer.get("status")
            if isinstance(status, dict) and not status.get("allowed"):
                missing.append(verb)
        return missing

    # --- inside

    async def _call(
        self,
        method: str,
        path: str,
        params: Mapping[str, str],
        body: Mapping[str, Any] | None = None,
        content_type: str = "",
    ) -> dict[str, Any]:
        limits = aiohttp.ClientTimeout(
            total=WHOLE_TIMEOUT, connect=CONNECT_TIMEOUT, sock_read=REQUEST_TIMEOUT
        )
        for tries_left in reversed(range(RETRIES + 1)):
            async with self._request(method, path, params, body, content_type, limits=limits) as response:
                answer = await _read(response)
            wait = answer.retry_after
            if answer.status not in (429, 503) or wait is None or wait > PATIENCE or not tries_left:
                break
            await asyncio.sleep(wait)
        raise_for_status(answer, path, self.access.server)
        return json_object(answer, path, self.access.server)

    @contextlib.asynccontextmanager
    async def _request(
        self,
        method: str,
        path: str,
        params: Mapping[str, str],
        body: Mapping[str, Any] | None = None,
        content_type: str = "",
        *,
        limits: aiohttp.ClientTimeout,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Make one request, and once more with new credentials if the server does not know ours."""
        data = None if body is None else json.dumps(body).encode()
        identity = await self._identity()
        try:
            for is_first in (True, False):
                headers = identity.with_type(content_type)
                async with _open(self._requests, self.access).request(
                    method,
                    self.access.server + path,
                    params=params,
                    data=data,
                    headers=headers,
                    ssl=identity.ssl_context or True,
                    proxy=self.access.proxy or None,
                    server_hostname=self.access.server_hostname or None,
                    timeout=limits,
                    # A token is for this server only; and no API server redirects.
                    allow_redirects=False,
                ) as response:
                    if not (is_first and response.status == 401):
                        if response.status != 401:
                            self._renewable_at = 0.0
                        yield response
                        return
                    refused = await _read(response)
                if not await self._renew(identity):
                    raise_for_status(refused, path, self.access.server)
                identity = await self._identity()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise unavailable(self.access.server, error) from error

    async def _identity(self) -> Identity:
        try:
            return await self.access.identity()
        except OSError as error:
            raise CredentialsRefused(f"the token cannot be read: {error}") from error

    async def _renew(self, refused: Identity) -> bool:
        """Read the credentials anew that the server refused; return whether there may be others now."""
        async with self._renewing:
            if await self._identity() != refused:
                return True  # somebody else has, while we waited
            if self.access.again is None or monotonic() < self._renewable_at:
                return False
            pause = READING_PAUSE if self.access.login is None else RENEWAL_PAUSE
            self._renewable_at = monotonic() + pause
            try:
                fresh = await asyncio.get_running_loop().run_in_executor(None, self.access.again)
            except KubeconfigError as error:
                raise CredentialsRefused(
                    f"API server {self.access.server} refused our credentials (401), and there are no others: {error}"
                ) from error
            if fresh.server != self.access.server or fresh.proxy != self.access.proxy:
                return False  # the routes leave out the address of the one that we know
            self.access = fresh
            return True


def _session(*on_redirect: Any) -> aiohttp.ClientSession:  # noqa: ANN401  # aiohttp's signals take what they get
    trace = aiohttp.TraceConfig()
    trace.on_request_redirect.extend(on_redirect)
    # trust_env=False: the environment's proxies are for the web, the kubeconfig names its own.
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), trust_env=False, trace_configs=[trace]
    )


def _open(session: aiohttp.ClientSession | None, access: ApiAccess) -> aiohttp.ClientSession:
    if session is None:
        raise ApiServerUnavailable(f"the connection to {access.server} is closed")
    return session


def _dry(dry_run: bool) -> dict[str, str]:
    return {"dryRun": "All"} if dry_run else {}


async def _read(response: aiohttp.ClientResponse) -> Answer:
    body = bytearray()
    while len(body) < MAX_ANSWER and (data := await response.content.read(MAX_ANSWER)):
        body += data
    return Answer(response.status, response.headers, bytes(body))
