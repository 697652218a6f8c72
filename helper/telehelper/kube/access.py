"""Where the API server is, and how to be trusted by it: from a kubeconfig, or from inside a pod."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import yaml

from telehelper.errors import CredentialsRefused, KubeconfigError

Headers = Callable[[], dict[str, str]]

_FIX_FILE: Final = "check it with: kubectl config view"


@dataclass(frozen=True)
class ApiAccess:
    """One API server and one identity.

    ``headers()`` returns the headers that authenticate a request. It may run a login plugin, so it blocks and must
    not be called on an event loop. ``proxy`` is the kubeconfig's ``proxy-url`` or empty.
    """

    server: str
    headers: Headers
    ssl_context: ssl.SSLContext | None = None
    server_hostname: str = ""
    proxy: str = ""
    context: str = ""
    namespace: str = "default"

    @property
    def host(self) -> str:
        """Host name or address of the API server."""
        return urlsplit(self.server).hostname or ""

    @classmethod
    def from_kubeconfig(cls, kubeconfig: str, context: str = "") -> ApiAccess:
        """Read a kubeconfig. Blocks: it reads files and may run the user's login plugin.

        Parameters
        ----------
        kubeconfig
            One path, or several separated by colons as in ``KUBECONFIG``.
        context
            Name of a context; empty for the file's current one.

        Raises
        ------
        KubeconfigError
            File, context, cluster or user is missing or malformed, or asks for what we do not do (impersonation).
        CredentialsRefused
            The login plugin gave no credentials.
        """
        # 0.3 s to import, and only this side of the edge needs it.
        from kubernetes.client import Configuration
        from kubernetes.config import ConfigException, kube_config

        raw = _read(kubeconfig)
        name = context or str(raw.get("current-context") or "")
        chosen = _named(raw, "contexts", "context", name)
        user = _named(raw, "users", "user", str(chosen.get("user") or "")) if chosen.get("user") else {}
        cluster = _named(raw, "clusters", "cluster", str(chosen.get("cluster") or ""))
        _refuse_impersonation(user, name)
        if not cluster.get("server"):  # the official client would ask localhost
            raise KubeconfigError(f"the cluster of context {name!r} has no server", hint=_FIX_FILE)
        config = type.__call__(Configuration)  # past the class-wide default, which is another's
        kube_config._create_temp_file_with_content = _in_memory
        try:
            kube_config.load_kube_config(
                config_file=kubeconfig, context=name, client_configuration=config, persist_config=False
            )
        except (ConfigException, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise KubeconfigError(
                f"kubeconfig context {name!r} cannot be used: {error}", hint=_FIX_FILE
            ) from error
        headers = _header_source(config, user)
        if _wants_token(user) and not config.cert_file and not headers():
            raise CredentialsRefused(
                f"the login of kubeconfig user {chosen.get('user')!r} gave no credentials",
                hint="log in to the cluster again; kubectl get pods must work",
            )
        return cls(
            server=str(config.host).rstrip("/"),
            headers=headers,
            ssl_context=_ssl_context(config),
            server_hostname=str(cluster.get("tls-server-name") or ""),
            proxy=str(cluster.get("proxy-url") or ""),
            context=name,
            namespace=str(chosen.get("namespace") or "default"),
        )

    @classmethod
    def in_cluster(cls, directory: Path, host: str, port: int) -> ApiAccess:
        """Use a pod's service account: ``token`` and ``ca.crt`` in `directory`. The token is read anew each time."""
        context = _trusting(str(directory / "ca.crt"))
        token = directory / "token"
        bracketed = f"[{host}]" if ":" in host else host
        return cls(
            server=f"https://{bracketed}:{port}",
            headers=lambda: {"Authorization": f"Bearer {token.read_text().strip()}"},
            ssl_context=context,
        )


@cache
def _in_memory(content: str | bytes, temp_file_path: str | None = None, force_recreate: bool = False) -> str:
    """Keep a certificate or a private key where only this process has it; return a path to it.

    The official loader wants paths and makes files in /tmp, which a killed process leaves there. These end with it
    (memfd_create(2)).
    """
    data = content.encode() if isinstance(content, str) else content
    descriptor = os.memfd_create("kubeconfig")
    with open(descriptor, "wb", closefd=False) as file:
        file.write(data)
    return f"/proc/self/fd/{descriptor}"


def _read(kubeconfig: str) -> dict[str, Any]:
    from kubernetes.config import ConfigException, kube_config

    try:
        merged = kube_config.KubeConfigMerger(kubeconfig).config
        raw = merged.value if merged is not None else None
    except (OSError, ValueError, yaml.YAMLError, ConfigException) as error:
        why = " ".join(str(error).split())  # YAML's errors are several lines
        raise KubeconfigError(f"cannot read kubeconfig {kubeconfig}: {why}", hint=_FIX_FILE) from error
    except (AttributeError, KeyError, TypeError) as error:  # the official loader checks no types
        raise KubeconfigError(f"kubeconfig {kubeconfig} is no kubeconfig", hint=_FIX_FILE) from error
    if not isinstance(raw, dict):
        raise KubeconfigError(f"kubeconfig {kubeconfig} is missing or empty", hint=_FIX_FILE)
    return raw


def _named(raw: dict[str, Any], plural: str, singular: str, name: str) -> dict[str, Any]:
    """Return a copy of what the kubeconfig says under a name; ``file`` is added: where it says so."""
    for entry in raw.get(plural) or ():
        value = getattr(entry, "value", entry)  # merging makes nodes of the entries
        body = value.get(singular) or {} if isinstance(value, dict) else None
        if isinstance(body, dict) and value.get("name") == name:
            return {**body, "file": getattr(entry, "path", None) or ""}
    what = f"{singular} {name!r}" if name else f"current {singular}"
    raise KubeconfigError(f"the kubeconfig has no {what}", hint="kubectl config get-contexts lists them")


def _refuse_impersonation(user: dict[str, Any], context: str) -> None:
    # The official loader drops these fields without a word, and one would act as oneself.
    if any(user.get(key) for key in ("as", "as-uid", "as-groups", "as-user-extra")):
        raise KubeconfigError(
            f"context {context!r} impersonates another user ('as'), which telemagic does not support yet",
            hint="use a context without 'as'",
        )


def _wants_token(user: dict[str, Any]) -> bool:
    return any(user.get(key) for key in ("exec", "token", "tokenFile", "auth-provider"))


def _header_source(config: Any, user: dict[str, Any]) -> Headers:  # noqa: ANN401  # kubernetes has no types
    if user.get("tokenFile"):
        # The official loader reads it once; such tokens are replaced every few minutes.
        token = Path(user["file"]).absolute().parent / user["tokenFile"]
        return lambda: {"authorization": f"Bearer {token.read_text().strip()}"}

    def headers() -> dict[str, str]:
        # The one way to the headers that works in every version; it also runs the refresh hook.
        return {
            str(auth["key"]): str(auth["value"])
            for auth in config.auth_settings().values()
            if auth.get("in") == "header" and auth.get("value")
        }

    return headers


def _ssl_context(config: Any) -> ssl.SSLContext | None:  # noqa: ANN401  # kubernetes has no types
    if not str(config.host).startswith("https:"):
        return None
    try:
        context = _trusting(config.ssl_ca_cert or None)
        if not config.verify_ssl:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if config.cert_file:
            context.load_cert_chain(config.cert_file, config.key_file)
    except (ssl.SSLError, OSError) as error:
        raise KubeconfigError(
            f"a certificate of the kubeconfig cannot be used: {error}", hint=_FIX_FILE
        ) from error
    return context


def _trusting(cafile: str | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=cafile)
    # Python 3.13 checks key-usage extensions that many clusters' own CAs lack.
    context.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)
    return context
