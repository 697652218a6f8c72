"""Login plugins of a kubeconfig: a command of the user's that prints credentials (KEP-541, client.authentication.k8s.io).

It runs as the user, in a session of its own, with nothing to read; it is ended with its whole process group when it
takes too long or when nobody waits for it any more. What it gave is kept until shortly before it expires.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass, field
from datetime import datetime
from math import inf
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from telehelper.errors import CredentialsRefused, KubeconfigError
from telehelper.kube.answers import one_line

if TYPE_CHECKING:
    from collections.abc import Mapping

PLUGIN_TIMEOUT: Final = 60.0  # seconds; it may open a browser and wait for a person
AHEAD: Final = 60.0  # seconds before the end that credentials are renewed, but at most a tenth of their life
LEAST_LIFE: Final = 10.0  # seconds that credentials are used at least: clocks differ
FAILURE_PAUSE: Final = 15.0  # seconds that a failure is remembered: nobody wants a browser window at each try
MAX_OUTPUT: Final = 1024 * 1024  # bytes; beyond, it is no login
MAX_COMPLAINT: Final = 64 * 1024  # bytes of stderr that are looked at
VERSIONS: Final = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")
_TOLD: Final = (  # of a cluster to a plugin that wants it (ExecCredential, spec.cluster)
    "server",
    "tls-server-name",
    "insecure-skip-tls-verify",
    "certificate-authority-data",
    "proxy-url",
)
_TRY_IT: Final = "log in to the cluster again; kubectl get pods must work"


@dataclass(frozen=True, slots=True)
class Credential:
    """What a plugin gave: a token, a client certificate with its key (PEM), or both."""

    token: str = field(repr=False)
    certificate: str = ""
    key: str = field(default="", repr=False)
    expires_at: float = inf  # Unix seconds


@dataclass(frozen=True, slots=True)
class PluginSpec:
    """The ``exec`` of a kubeconfig's user, checked."""

    command: str
    args: tuple[str, ...] = field(repr=False)  # secrets may be in there, and in the next two
    env: Mapping[str, str] = field(repr=False)
    version: str
    install_hint: str
    cluster: Mapping[str, Any] | None = field(
        repr=False
    )  # what KUBERNETES_EXEC_INFO tells of the cluster, if it is wanted

    @classmethod
    def read(cls, raw: object, folder: Path, cluster: Mapping[str, Any]) -> PluginSpec:
        """Check what the kubeconfig says.

        Parameters
        ----------
        raw
            The value of ``exec``.
        folder
            Where the kubeconfig is: a command with a slash is relative to it.
        cluster
            The kubeconfig's cluster.

        Raises
        ------
        KubeconfigError
            It is malformed, of a version that kubectl does not know either, or needs a terminal.
        """
        if not isinstance(raw, dict) or not isinstance(raw.get("command"), str) or not raw["command"]:
            raise KubeconfigError("the kubeconfig's login plugin has no command", hint="kubectl config view")
        command, version = raw["command"], str(raw.get("apiVersion") or "")
        if version not in VERSIONS:
            raise KubeconfigError(
                f"the login plugin {_name(command)!r} is for version {version!r}, which kubectl dropped long ago",
                hint="upgrade the plugin and write its kubeconfig entry anew",
            )
        if raw.get("interactiveMode") == "Always":
            raise KubeconfigError(
                f"the login plugin {_name(command)!r} wants a terminal (interactiveMode: Always), and a notebook has none",
                hint="log in with it in a terminal first, or set interactiveMode: IfAvailable in the kubeconfig",
            )
        env = {
            str(each["name"]): str(each.get("value") or "")
            for each in _listed(raw.get("env"))
            if isinstance(each, dict) and each.get("name")
        }
        return cls(
            command=str(folder / command) if "/" in command else command,
            args=tuple(map(str, _listed(raw.get("args")))),
            env=env,
            version=version,
            install_hint=one_line(str(raw.get("installHint") or "")),
            cluster=_cluster_info(cluster) if raw.get("provideClusterInfo") else None,
        )

    @property
    def name(self) -> str:
        """What errors call it: without arguments, which may be secret."""
        return _name(self.command)

    def environment(self) -> dict[str, str]:
        """Return the variables it runs with."""
        spec: dict[str, Any] = {"interactive": False}
        if self.cluster is not None:
            spec["cluster"] = dict(self.cluster)
        info = {"apiVersion": self.version, "kind": "ExecCredential", "spec": spec}
        return {**os.environ, **self.env, "KUBERNETES_EXEC_INFO": json.dumps(info)}


class LoginPlugin:
    """Runs a plugin when credentials are needed, and keeps them.

    Attributes
    ----------
    was_cut
        Whether nobody wanted to wait for its last run any longer.
    """

    def __init__(self, spec: PluginSpec) -> None:
        self.spec = spec
        self.was_cut = False
        self._lock = asyncio.Lock()
        self._kept: Credential | None = None
        self._renew_at = 0.0  # Unix seconds
        self._failure: CredentialsRefused | None = None
        self._retry_at = 0.0  # monotonic

    async def credential(self) -> Credential:
        """Return credentials that are good now.

        Raises
        ------
        CredentialsRefused
            The plugin is missing, failed, did not end in time, or printed no credentials.
        """
        async with self._lock:
            now = time.time()
            if self._kept is not None and now < self._renew_at:
                return self._kept
            try:
                fresh = await self._run_unless_failing()
            except CredentialsRefused:
                if self._kept is not None and now < self._kept.expires_at:
                    return self._kept  # they are still good
                raise
            self._kept, self._renew_at = fresh, _renewal_time(fresh, time.time())
            return fresh

    async def _run_unless_failing(self) -> Credential:
        if self._failure is not None and time.monotonic() < self._retry_at:
            raise self._failure
        self.was_cut = False
        try:
            return await run_plugin(self.spec)
        except asyncio.CancelledError:
            self.was_cut = True
            raise
        except CredentialsRefused as error:
            self._failure, self._retry_at = error, time.monotonic() + FAILURE_PAUSE
            raise


def _renewal_time(credential: Credential, now: float) -> float:
    life = credential.expires_at - now
    return max(now + LEAST_LIFE, credential.expires_at - min(AHEAD, life / 10))


async def run_plugin(spec: PluginSpec) -> Credential:
    """Run a plugin once, for at most ``PLUGIN_TIMEOUT``; cancelling ends it too. Raises CredentialsRefused."""
    environment = spec.environment()
    path = shutil.which(spec.command, path=environment.get("PATH"))
    if path is None:
        raise CredentialsRefused(
            f"the login plugin {spec.name!r} of the kubeconfig is not installed",
            hint=spec.install_hint or f"install {spec.name!r}, and have it in PATH where Jupyter was started",
        )
    try:
        # Not the event loop's own way: uvloop runs Python between fork and exec, and grpcio's threads make that unsafe
        # (a child died of SIGSEGV there). This one execs at once.
        process = subprocess.Popen(  # noqa: ASYNC220, S603  # it returns at once; the command is the user's own
            [path, *spec.args],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )
    except OSError as error:
        raise CredentialsRefused(
            f"the login plugin {spec.name!r} cannot be run: {error.strerror}",
            hint=spec.install_hint or _TRY_IT,
        ) from error
    try:
        async with asyncio.timeout(PLUGIN_TIMEOUT):
            out, complaint = await asyncio.gather(
                _read(process.stdout, MAX_OUTPUT), _read(process.stderr, MAX_COMPLAINT)
            )
            code = await asyncio.to_thread(process.wait)
    except TimeoutError:
        await _kill(process)
        raise CredentialsRefused(
            f"the login plugin {spec.name!r} did not end within {PLUGIN_TIMEOUT:.0f} s",
            hint="does it wait for a login in a browser? run kubectl get pods in a terminal once, then try again",
        ) from None
    except BaseException:
        await _kill(process)
        raise
    if code:
        raise CredentialsRefused(
            f"the login plugin {spec.name!r} failed with status {code}{_last_line(complaint)}", hint=_TRY_IT
        )
    return parse_credential(out, spec)


async def _read(pipe: IO[bytes] | None, limit: int) -> bytes:
    """Read to the end; keep the last `limit` bytes, and let nobody wait for room in a pipe."""
    stream, kept = asyncio.StreamReader(), bytearray()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(stream), pipe
    )
    try:
        while data := await stream.read(65_536):
            kept += data
            del kept[: max(0, len(kept) - limit)]
    finally:
        transport.close()
    return bytes(kept)


async def _kill(process: subprocess.Popen[bytes]) -> None:
    """End the plugin and what it started, and reap it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await asyncio.to_thread(process.wait)


def parse_credential(out: bytes, spec: PluginSpec) -> Credential:
    """Read what a plugin printed. CredentialsRefused if it is no ExecCredential with credentials."""
    try:
        answer = json.loads(out)
        status = answer["status"]
        token = str(status.get("token") or "")
        certificate = str(status.get("clientCertificateData") or "")
        key = str(status.get("clientKeyData") or "")
        until = status.get("expirationTimestamp")
        expires_at = datetime.fromisoformat(str(until)).timestamp() if until else inf
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise CredentialsRefused(
            f"the login plugin {spec.name!r} printed no credentials", hint=_TRY_IT
        ) from error
    if answer.get("apiVersion") != spec.version:
        raise CredentialsRefused(
            f"the login plugin {spec.name!r} answers in version {one_line(str(answer.get('apiVersion')))!r}, "
            f"the kubeconfig wants {spec.version!r}",
            hint="correct apiVersion in the kubeconfig, or upgrade the plugin",
        )
    if bool(certificate) != bool(key) or not (token or certificate):
        raise CredentialsRefused(f"the login plugin {spec.name!r} gave no credentials", hint=_TRY_IT)
    return Credential(token, certificate, key, expires_at)


def _last_line(complaint: bytes) -> str:
    lines = [line for line in complaint.decode("utf-8", "replace").splitlines() if line.strip()]
    return f": {one_line(lines[-1])}" if lines else ""


def _cluster_info(cluster: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an ExecCredential tells of a kubeconfig's cluster."""
    info = {name: cluster[name] for name in _TOLD if cluster.get(name)}
    for extension in _listed(cluster.get("extensions")):
        if isinstance(extension, dict) and extension.get("name") == "client.authentication.k8s.io/exec":
            info["config"] = extension.get("extension")
    return info


def _listed(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _name(command: str) -> str:
    return one_line(Path(command).name)
