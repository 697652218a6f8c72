"""A small asyncio client of the Kubernetes API: plain JSON, and port-forwards."""

from __future__ import annotations

import asyncio
import json
import os
from typing import TYPE_CHECKING, Any, Final, Self

import aiohttp

from telehelper.errors import ApiServerUnavailable, ClusterError, CredentialsRefused
from telehelper.kube.portforward import PortForward, open_portforward

if TYPE_CHECKING:
    from types import TracebackType

    from telehelper.kube.access import ApiAccess

REQUEST_TIMEOUT: Final = 15.0  # seconds for one request; a healthy API server answers in milliseconds
MAX_ANSWER: Final = 64 * 1024 * 1024  # bytes of JSON; 10,000 pods are about 50 MiB


class ApiNotFound(ClusterError):
    """The API server has no such object or resource (404)."""

    slug = "api-not-found"


class ApiClient:
    """One session with one API server. An async context manager.

    All methods raise :class:`ApiServerUnavailable` (no answer, or a 5xx), :class:`CredentialsRefused` (401, 403) or
    :class:`ApiNotFound` (404).
    """

    def __init__(self, access: ApiAccess) -> None:
        self.access = access
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(ssl=self.access.ssl_context or True, limit=0)
        # trust_env=False: the environment's proxies are for the web, the kubeconfig names its own.
        self._session = aiohttp.ClientSession(connector=connector, auto_decompress=True, trust_env=False)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def get(self, path: str, **params: str) -> dict[str, Any]:
        """GET `path` (with a leading slash) and return the JSON object; `params` make the query."""
        try:
            async with self._open().get(
                self.access.server + path,
                params=params,
                headers=await self._headers(),
                proxy=self.access.proxy or None,
                server_hostname=self.access.server_hostname or None,
                timeout=aiohttp.ClientTimeout(total=REQUEST_TIMEOUT),
            ) as response:
                body = await response.content.read(MAX_ANSWER)
                while not response.content.at_eof() and len(body) < MAX_ANSWER:
                    body += await response.content.read(MAX_ANSWER)
                raise_for_status(response.status, body, path, self.access.server)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise unavailable(self.access.server, error) from error
        try:
            answer = json.loads(body)
        except ValueError as error:
            raise ApiServerUnavailable(
                f"{self.access.server} answered {path} with something not JSON"
            ) from error
        if not isinstance(answer, dict):
            raise ApiServerUnavailable(f"{self.access.server} answered {path} with no object")
        return answer

    async def portforward(self, namespace: str, pod: str, port: int) -> PortForward:
        """Open a byte stream to 127.0.0.1:`port` inside a pod's network namespace."""
        try:
            return await open_portforward(
                self._open(), self.access, await self._headers(), namespace, pod, port
            )
        except aiohttp.WSServerHandshakeError as error:
            path = f"port-forward to {namespace}/{pod}"
            raise_for_status(error.status, b"", path, self.access.server)
            raise unavailable(self.access.server, error) from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise unavailable(self.access.server, error) from error

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise ApiServerUnavailable(f"the connection to {self.access.server} is closed")
        return self._session

    async def _headers(self) -> dict[str, str]:
        # A login plugin may run here: never on the loop.
        try:
            return await asyncio.get_running_loop().run_in_executor(None, self.access.headers)
        except OSError as error:
            raise CredentialsRefused(f"the token cannot be read: {error}") from error


def unavailable(server: str, error: Exception) -> ApiServerUnavailable:
    """Say in one line why an API server cannot be reached."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        why = f"its certificate is not trusted: {error.certificate_error}"
    elif isinstance(error, aiohttp.ClientConnectorError):
        # asyncio puts its own words in place of the system's; name resolution has negative numbers of its own.
        number = error.os_error.errno or 0
        why = os.strerror(number) if number > 0 else error.os_error.strerror or str(error.os_error)
    elif isinstance(error, TimeoutError):
        why = "no answer in time"
    else:
        why = str(error) or type(error).__name__
    return ApiServerUnavailable(f"API server {server} cannot be reached: {why}", server=server)


def raise_for_status(status: int, body: bytes, path: str, server: str) -> None:
    """Turn an HTTP status into our error; 2xx returns."""
    if status < 300:
        return
    told = _status_message(body)
    if status == 401:
        raise CredentialsRefused(f"API server {server} refused the kubeconfig's token or certificate (401)")
    if status == 403:
        raise CredentialsRefused(f"API server {server} forbids {path}: {told or '403'}")
    if status == 404:
        raise ApiNotFound(f"API server {server} has no {path}")
    raise ApiServerUnavailable(f"API server {server} answered {path} with {status} {told}".rstrip())


def _status_message(body: bytes) -> str:
    try:
        answer = json.loads(body)
    except ValueError:
        return ""
    message = answer.get("message") if isinstance(answer, dict) else None
    return str(message)[:300] if message else ""
