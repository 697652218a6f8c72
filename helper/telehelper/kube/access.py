"""Where the API server is, and how to be trusted by it: from a kubeconfig, or from inside a pod."""

from __future__ import annotations

import asyncio
import base64
import os
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urlsplit

from multidict import CIMultiDict

from telehelper.errors import CredentialsRefused, KubeconfigError
from telehelper.kube.exec_plugin import LoginPlugin, PluginSpec
from telehelper.kube.kubeconfig import FIX_FILE, Context, Entry, read_context

if TYPE_CHECKING:
    from pathlib import Path

Headers = Callable[[], Mapping[str, str]]

_IMPERSONATION: Final = ("as", "as-uid", "as-groups", "as-user-extra")
_PLUGINS: Final = {
    "gcp": "gke-gcloud-auth-plugin",
    "azure": "kubelogin",
    "oidc": "kubelogin (kubectl oidc-login)",
}


@dataclass(frozen=True)
class Identity:
    """Who we are to an API server, in one request: the headers that say so, and TLS, perhaps with a certificate."""

    headers: Mapping[str, str] = field(repr=False)
    ssl_context: ssl.SSLContext | None

    def with_type(self, content_type: str) -> CIMultiDict[str]:
        """Return the headers of a request with a body of this type; empty for one without."""
        headers = CIMultiDict(self.headers)
        if content_type:
            headers["Content-Type"] = content_type
        return headers


@dataclass(frozen=True)
class Trust:
    """Whose certificates are believed: `authority` (PEM) or, without one, the system's; or anybody's."""

    authority: bytes = b""
    is_blind: bool = False

    def context(self, certificate: bytes = b"", key: bytes = b"") -> ssl.SSLContext:
        """Return TLS for a client that shows this certificate (PEM), or none. KubeconfigError if it cannot be used."""
        try:
            return _context(self, certificate, key)
        except (ssl.SSLError, OSError, ValueError) as error:
            raise KubeconfigError(
                f"a certificate of the kubeconfig cannot be used: {error}", hint=FIX_FILE
            ) from error


@dataclass(frozen=True)
class ApiAccess:
    """One API server and one identity.

    ``headers()`` returns the headers that authenticate a request; it may read files, so it blocks. ``login`` runs the
    user's login plugin, whose word goes before. ``proxy`` is the kubeconfig's ``proxy-url`` or empty. ``again()`` reads
    the same context anew; it blocks too.
    """

    server: str
    headers: Headers = field(repr=False)
    ssl_context: ssl.SSLContext | None = None
    server_hostname: str = ""
    proxy: str = field(default="", repr=False)  # may have a password in it
    context: str = ""
    namespace: str = "default"
    login: LoginPlugin | None = None
    trust: Trust = Trust()
    again: Callable[[], ApiAccess] | None = field(default=None, repr=False)

    @property
    def host(self) -> str:
        """Host name or address of the API server."""
        return urlsplit(self.server).hostname or ""

    @property
    def peer(self) -> str:
        """Host name or address of what we connect to: the proxy, or the API server itself."""
        return (urlsplit(self.proxy).hostname or "") if self.proxy else self.host

    @property
    def hung_login(self) -> str:
        """Name of the login plugin, if nobody wanted to wait for its last run any longer; else empty."""
        return self.login.spec.name if self.login is not None and self.login.was_cut else ""

    async def addresses(self) -> list[IPv4Address | IPv6Address]:
        """Return the addresses of :attr:`peer`. OSError if its name does not resolve."""
        found = await asyncio.get_running_loop().getaddrinfo(self.peer, None)
        return [ip_address(str(sockaddr[0]).partition("%")[0]) for *_, sockaddr in found]

    async def identity(self) -> Identity:
        """Return what to show the API server now. CredentialsRefused if the login plugin gives nothing."""
        headers = await asyncio.get_running_loop().run_in_executor(None, self.headers)
        if self.login is None:
            return Identity(headers, self.ssl_context)
        credential = await self.login.credential()
        if credential.token:
            headers = CIMultiDict({**headers, "Authorization": f"Bearer {credential.token}"})
        context = self.ssl_context
        if credential.certificate and context is not None:
            try:
                context = self.trust.context(credential.certificate.encode(), credential.key.encode())
            except KubeconfigError as error:
                raise CredentialsRefused(
                    f"the login plugin {self.login.spec.name!r} gave a certificate that cannot be used: {error}"
                ) from error
        return Identity(headers, context)

    @classmethod
    def from_kubeconfig(cls, kubeconfig: str, context: str = "") -> ApiAccess:
        """Read a kubeconfig. Blocks: it reads files. The user's login plugin runs at the first request.

        Parameters
        ----------
        kubeconfig
            One path, or several separated by colons as in ``KUBECONFIG``.
        context
            Name of a context; empty for the file's current one.

        Raises
        ------
        KubeconfigError
            File, context, cluster or user is missing or malformed, or asks for what we do not do.
        """
        found = read_context(kubeconfig, context)
        cluster, user = found.cluster, found.user
        server = _server(found)
        trust = Trust(
            cluster.data("certificate-authority"), bool(cluster.fields.get("insecure-skip-tls-verify"))
        )
        is_tls = server.startswith("https:")
        headers = _header_source(user)
        login = None
        if user.fields.get("exec") and not any(user.fields.get(key) for key in ("token", "tokenFile")):
            known = {**cluster.fields}
            if trust.authority:
                known["certificate-authority-data"] = base64.b64encode(trust.authority).decode()
            login = LoginPlugin(PluginSpec.read(user.fields["exec"], user.folder, known))
        return cls(
            server=server,
            headers=headers,
            ssl_context=trust.context(user.data("client-certificate"), user.data("client-key"))
            if is_tls
            else None,
            server_hostname=cluster.text("tls-server-name"),
            proxy=_proxy(cluster),
            context=found.name,
            namespace=found.namespace,
            login=login,
            trust=trust,
            again=partial(cls.from_kubeconfig, kubeconfig, found.name),
        )

    @classmethod
    def in_cluster(cls, directory: Path, host: str, port: int) -> ApiAccess:
        """Use a pod's service account: ``token`` and ``ca.crt`` in `directory`. The token is read anew each time."""
        trust = Trust((directory / "ca.crt").read_bytes())
        token = directory / "token"
        bracketed = f"[{host}]" if ":" in host else host
        return cls(
            server=f"https://{bracketed}:{port}",
            headers=lambda: {"Authorization": f"Bearer {token.read_text().strip()}"},
            ssl_context=trust.context(),
            trust=trust,
        )


def _server(context: Context) -> str:
    server = context.cluster.text("server").rstrip("/")
    if not server:
        raise KubeconfigError(f"the cluster of context {context.name!r} has no server", hint=FIX_FILE)
    parts = _split(server)
    if parts[0] not in ("http", "https") or not parts[1]:
        raise KubeconfigError(f"the server {server!r} of context {context.name!r} is no URL", hint=FIX_FILE)
    return server


def _proxy(cluster: Entry) -> str:
    proxy = cluster.text("proxy-url")
    if not proxy:
        return ""
    scheme, host = _split(proxy)
    if scheme.startswith("socks"):
        raise KubeconfigError(
            f"the kubeconfig's proxy-url {_safe(proxy)!r} is a SOCKS proxy, which telemagic does not go through",
            hint="give an http proxy in proxy-url, or forward the API server's port: ssh -L 6443:API-SERVER:6443",
        )
    if scheme not in ("http", "https") or not host:
        raise KubeconfigError(
            f"the kubeconfig's proxy-url {_safe(proxy)!r} is no URL of a proxy", hint=FIX_FILE
        )
    return proxy


def _split(url: str) -> tuple[str, str]:
    """Return scheme and host of a URL; empty if it is none."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises on nonsense
    except ValueError:
        return "", ""
    return parts.scheme, parts.hostname or ""


def _safe(url: str) -> str:
    """Return a URL without the password that it may have."""
    scheme, _, rest = url.rpartition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


def _header_source(user: Entry) -> Headers:
    """Return what makes the headers of a kubeconfig's user; a login plugin's token is not among them."""
    impersonation = _impersonation(user)
    file = user.path("tokenFile")
    if file is not None:
        # Such tokens are replaced every few minutes.
        return lambda: CIMultiDict([*impersonation, ("Authorization", f"Bearer {file.read_text().strip()}")])
    token = user.text("token") or _legacy_token(user)
    authorization = f"Bearer {token}" if token else ""
    if not token and user.text("username"):
        pair = f"{user.text('username')}:{user.text('password')}"
        authorization = f"Basic {base64.b64encode(pair.encode()).decode()}"
    headers = CIMultiDict(impersonation)
    if authorization:
        headers["Authorization"] = authorization
    return lambda: headers


def _legacy_token(user: Entry) -> str:
    """Return the token that kubectl has left in the file for an ``auth-provider``; renewing it is kubectl's."""
    provider = user.fields.get("auth-provider")
    if not provider:
        return ""
    given = provider.get("config") if isinstance(provider, dict) else None
    config = given if isinstance(given, dict) else {}
    name = str(provider.get("name") or "") if isinstance(provider, dict) else ""
    token = config.get("id-token") or config.get("access-token")
    if not isinstance(token, str):
        raise KubeconfigError(
            f"the kubeconfig logs in by auth-provider {name!r}, which kubectl gave up, and has no token from it",
            hint=f"write the kubeconfig anew with the login plugin {_PLUGINS.get(name, 'of your cluster')}",
        )
    return token


def _impersonation(user: Entry) -> list[tuple[str, str]]:
    """Return the headers that ask to act as another (Kubernetes authentication, "User impersonation")."""
    given = {key: user.fields[key] for key in _IMPERSONATION if user.fields.get(key)}
    if not given:
        return []
    groups, extra = given.get("as-groups", []), given.get("as-user-extra", {})
    if "as" not in given or not isinstance(groups, list) or not isinstance(extra, dict):
        raise KubeconfigError(
            f"kubeconfig user {user.name!r} impersonates nobody: 'as' is missing or its groups are no list",
            hint=FIX_FILE,
        )
    headers = [("Impersonate-User", user.text("as"))]
    if "as-uid" in given:
        headers.append(("Impersonate-Uid", user.text("as-uid")))
    headers += [("Impersonate-Group", str(group)) for group in groups]
    for key, values in extra.items():
        name = f"Impersonate-Extra-{quote(str(key).lower(), safe='', errors='replace')}"
        headers += [(name, str(value)) for value in (values if isinstance(values, list) else [values])]
    return headers


@lru_cache(maxsize=16)
def _context(trust: Trust, certificate: bytes, key: bytes) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=trust.authority.decode("ascii") if trust.authority else None)
    # Python 3.13 checks key-usage extensions that many clusters' own CAs lack.
    context.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)
    if trust.is_blind:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if certificate:
        # OpenSSL wants a file, and a private key in /tmp would stay there if we were killed (memfd_create(2)).
        descriptor = os.memfd_create("client-certificate")
        with open(descriptor, "wb") as file:
            file.write(certificate + b"\n" + key)
            file.flush()
            context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    return context
