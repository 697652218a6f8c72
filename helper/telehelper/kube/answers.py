"""What an API server's answer means, or that there is none: from HTTP, TLS and socket errors to ours, each in one sentence."""

from __future__ import annotations

import html
import json
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import aiohttp

from telehelper.errors import ApiServerUnavailable, ClusterError, CredentialsRefused, printable

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_TOLD: Final = 300  # characters of the server's own words that go into an error
_TITLE: Final = re.compile(rb"<title[^>]*>(.*?)</title", re.IGNORECASE | re.DOTALL)
_LOOKED_AT: Final = 65_536  # bytes of a page in which its title is looked for
_CLOCK: Final = "check this machine's clock (date), then the cluster's certificates"
_LOGIN_PAGE: Final = (
    "log in to the VPN or the proxy in a browser, or correct the server's address in the kubeconfig"
)
# Codes of X509_verify_cert(3), by what a user can do
_CERTIFICATE: Final = {
    9: ("is not valid yet", _CLOCK),
    10: ("has expired", _CLOCK),
    62: ("is for another host name", "see tls-server-name in the kubeconfig"),
    64: ("is for another address", "see tls-server-name in the kubeconfig"),
}
_STRANGER: Final = (
    "is not signed by the authority that the kubeconfig trusts",
    "a proxy that opens TLS, or an old kubeconfig: get it anew from your cluster's administrator",
)


class ApiNotFound(ClusterError):
    """The API server has no such object or resource (404)."""

    slug = "api-not-found"


class ApiRejected(ClusterError):
    """The API server understood a request and does not do it: 400, 405, 409, 410, 422.

    ``data["status"]`` is the HTTP status, ``data["reason"]`` Kubernetes' word for it (``AlreadyExists``, ``Invalid``),
    ``data["told"]`` the server's whole sentence.
    """

    slug = "api-rejected"


_REJECTIONS: Final = frozenset({400, 405, 409, 410, 422})


@dataclass(frozen=True, slots=True)
class Answer:
    """One whole answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def is_page(self) -> bool:
        """Whether it is for people: an API server never answers HTML."""
        is_html = self.headers.get("Content-Type", "").lower().startswith("text/html")
        return is_html or self.body.lstrip()[:1] == b"<"

    @property
    def title(self) -> str:
        """What a page calls itself, or empty."""
        found = _TITLE.search(self.body[:_LOOKED_AT]) if self.is_page else None
        return one_line(html.unescape(found[1].decode("utf-8", "replace"))) if found else ""

    @property
    def told(self) -> str:
        """The ``message`` of a Status object (Kubernetes API conventions, "Response Status Kind"), or empty."""
        return str(self._status().get("message") or "")

    @property
    def reason(self) -> str:
        """The ``reason`` of a Status object, or empty."""
        return str(self._status().get("reason") or "")

    @property
    def retry_after(self) -> float | None:
        """Seconds that the server wants us to wait (RFC 9110 §10.2.3), None if it does not say or gives a date."""
        value = self.headers.get("Retry-After", "").strip()
        return float(value) if value.isascii() and value.isdigit() else None

    def _status(self) -> dict[str, Any]:
        try:
            answer = json.loads(self.body)
        except (ValueError, RecursionError):  # UnicodeDecodeError is one of the first
            return {}
        return answer if isinstance(answer, dict) else {}


def raise_for_status(answer: Answer, what: str, server: str) -> None:
    """Turn an answer that is no success into our error; 2xx returns.

    Parameters
    ----------
    answer
        The server's.
    what
        What was asked for: a path, or words.
    server
        URL of the API server.

    Raises
    ------
    CredentialsRefused
        401 or 403; ``data["status"]`` tells which.
    ApiNotFound
        404.
    ApiRejected
        The request is at fault.
    ApiServerUnavailable
        Anything else: the server is, or what answers is none.
    """
    status = answer.status
    if 300 <= status < 400 or (answer.is_page and status < 500):
        raise login_page(answer, server)
    if status < 300:
        return
    told = one_line(answer.told) or answer.title
    if status == 401:
        raise CredentialsRefused(
            f"API server {server} refused the kubeconfig's token or certificate (401)", status="401"
        )
    if status == 403:
        raise CredentialsRefused(
            f"API server {server} forbids {what}: {told or '403'}", status="403", told=answer.told
        )
    if status == 404:
        raise ApiNotFound(f"API server {server} has no {what}")
    if status in _REJECTIONS:
        raise ApiRejected(
            f"API server {server} rejects {what}: {told or status}",
            status=str(status),
            reason=answer.reason,
            told=answer.told,
        )
    hint = "it is overloaded or starting: try again in a minute" if status in (429, 503) else ""
    raise ApiServerUnavailable(
        f"API server {server} answered {what} with {status} {told}".rstrip(), hint=hint, status=str(status)
    )


def json_object(answer: Answer, what: str, server: str) -> dict[str, Any]:
    """Return the JSON object that an answer of 2xx is; ApiServerUnavailable if it is none."""
    try:
        found = json.loads(answer.body)
    except (ValueError, RecursionError) as error:
        raise ApiServerUnavailable(
            f"API server {server} answered {what} with {_kind_of(answer.body)}",
            hint="a proxy on the way may cut or change answers; compare with kubectl get --raw /version",
        ) from error
    if not isinstance(found, dict):
        raise ApiServerUnavailable(f"API server {server} answered {what} with no object")
    return found


def _kind_of(body: bytes) -> str:
    if not body.strip():
        return "nothing"
    return "truncated JSON" if body.lstrip()[:1] in b"{[" else "something not JSON"


def login_page(answer: Answer, server: str) -> ApiServerUnavailable:
    """Say that something else answers in the API server's place, and what it calls itself."""
    where = _host_of(answer.headers.get("Location", "")) if 300 <= answer.status < 400 else ""
    names = [f"title {answer.title!r}" if answer.title else "", f"redirects to {where}" if where else ""]
    detail = ", ".join(filter(None, names)) or f"status {answer.status}"
    return ApiServerUnavailable(
        f"a proxy or login page answers instead of the API server {server} ({detail})",
        hint=_LOGIN_PAGE,
        server=server,
    )


def _host_of(url: str) -> str:
    try:
        return one_line(urlsplit(url).netloc)
    except ValueError:  # brackets that hold no address
        return "nowhere"


def unavailable(server: str, error: Exception) -> ApiServerUnavailable:
    """Say in one line why an API server cannot be reached."""
    hint = ""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        why, hint = _certificate(error.certificate_error)
    elif isinstance(error, aiohttp.ClientHttpProxyError):
        why = f"the kubeconfig's proxy-url answers {error.status} {one_line(error.message)}".rstrip()
        hint = "check proxy-url in the kubeconfig, and whether the proxy wants a login"
    elif isinstance(error, aiohttp.ClientProxyConnectionError):
        why = f"the kubeconfig's proxy-url does not answer: {_system(error.os_error)}"
        hint = "check proxy-url in the kubeconfig"
    elif isinstance(error, aiohttp.ClientConnectorSSLError):
        why = f"it does not speak TLS as an API server does ({one_line(str(error.os_error))})"
    elif isinstance(error, aiohttp.ClientConnectorError):
        why = _system(error.os_error)
    elif isinstance(error, TimeoutError):
        why = "no answer in time"
    else:
        why = one_line(str(error)) or type(error).__name__
    return ApiServerUnavailable(f"API server {server} cannot be reached: {why}", hint=hint, server=server)


def _certificate(error: Exception) -> tuple[str, str]:
    # OpenSSL's findings have a code, those of Python itself none.
    words, hint = _CERTIFICATE.get(getattr(error, "verify_code", 0), _STRANGER)
    detail = getattr(error, "verify_message", "") or str(error)
    return f"its certificate is not trusted: it {words} ({one_line(detail)})", hint


def _system(error: OSError) -> str:
    # asyncio puts its own words in place of the system's; name resolution has negative numbers of its own.
    number = error.errno or 0
    return os.strerror(number) if number > 0 else error.strerror or str(error)


def one_line(text: str) -> str:
    """Return printable text on one line, cut to what an error can show."""
    return printable(" ".join(text.split())[:MAX_TOLD])[:MAX_TOLD]
