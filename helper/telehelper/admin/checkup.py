"""The doctor's look at a cluster, without a connection: API server, credentials, rights, way in, networks.

Changes nothing in the cluster, and ends within `PATIENCE` whatever the API server does. Run in a child process, as
`python -m telehelper.admin checkup --kubeconfig FILE --context NAME`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import email.utils
import ipaddress
import socket
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import aiohttp

from telehelper import __version__
from telehelper.admin import verdicts
from telehelper.admin.verdicts import RIGHTS, Finding, Right
from telehelper.core import routes
from telehelper.core.resolv_conf import ResolvConf
from telehelper.core.route_plan import WantedCidr
from telehelper.discovery.discovery import discover
from telehelper.errors import ClusterError, CredentialsRefused, TelemagicError, VifError
from telehelper.kube.access import ApiAccess
from telehelper.kube.answers import Answer, json_object, raise_for_status, unavailable
from telehelper.kube.client import ApiClient
from telehelper.kube.reviews import REVIEWS, access_review

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from telehelper.core.cidr import Address

PATIENCE: Final = 7.0  # seconds for everything
LOGIN_PATIENCE: Final = 5.0  # seconds for the login plugin
ANSWER_PATIENCE: Final = 4.0  # seconds for one answer of the API server
MAX_VERSION: Final = 65_536  # bytes of /version
AT_ONCE: Final = 6  # reviews under way
_IP_MTU: Final = 14  # linux/in.h
_IPV6_MTU: Final = 24  # linux/in6.h


@dataclass
class Question:
    """What is asked about."""

    kubeconfig: str
    context: str
    namespace: str
    manager_namespace: str
    is_connected: bool  # then the data plane knows more of the networks
    findings: list[Finding] = field(default_factory=list)

    def add(self, finding: Finding) -> None:
        """Keep a finding; it is told even if later checks take too long."""
        self.findings.append(finding)


def main(arguments: list[str]) -> dict[str, object]:
    """Carry out the task; returns {"findings": [[check, level, found, remedy], …]}."""
    parser = argparse.ArgumentParser(prog="python -m telehelper.admin checkup")
    parser.add_argument("--kubeconfig", required=True, help="value of KUBECONFIG")
    parser.add_argument("--context", default="")
    parser.add_argument("--namespace", default="")
    parser.add_argument("--manager-namespace", default="telemagic")
    parser.add_argument("--connected", action="store_true")
    options = parser.parse_args(arguments)
    question = Question(
        options.kubeconfig,
        options.context,
        options.namespace,
        options.manager_namespace,
        options.connected,
    )
    return {"findings": [list(finding) for finding in asyncio.run(check(question))]}


async def check(question: Question, patience: float = PATIENCE) -> list[Finding]:
    """Make all checks, in at most `patience` seconds."""
    try:
        async with asyncio.timeout(patience):
            await _check(question)
    except TimeoutError:
        done = ", ".join(finding.check for finding in question.findings) or "nothing"
        question.add(
            Finding(
                "cluster", verdicts.PROBLEM, f"too slow: only {done} could be checked in {patience:.0f} s"
            )
        )
    return question.findings


async def _check(question: Question) -> None:
    try:
        access = await asyncio.to_thread(ApiAccess.from_kubeconfig, question.kubeconfig, question.context)
    except TelemagicError as error:
        question.add(Finding("credentials", verdicts.PROBLEM, error.message, error.hint))
        return
    question.namespace = question.namespace or access.namespace
    try:
        authorization = await _authorization(access)
    except TelemagicError as error:
        question.add(Finding("credentials", verdicts.PROBLEM, error.message, error.hint))
        return
    try:
        version, seconds, skew = await _ask_version(access)
    except CredentialsRefused as error:  # one that lets nobody in anonymously
        question.add(verdicts.refused(error, verdicts.token_end(authorization), time.time()))
        return
    except TelemagicError as error:
        question.add(Finding("API server", verdicts.PROBLEM, error.message, error.hint))
        return
    question.add(verdicts.api_server(access.server, version, seconds))
    if skew is not None:
        question.add(verdicts.clock(skew))
    async with ApiClient(access) as api:
        await _check_identity(question, access, api, authorization)


async def _check_identity(question: Question, access: ApiAccess, api: ApiClient, authorization: str) -> None:
    """Look on, with the API server there."""
    ends = verdicts.token_end(authorization), _certificate_end(question)
    try:
        allowed = await ask_rights(api, question)
    except CredentialsRefused as error:
        question.add(verdicts.refused(error, ends[0], time.time()))
        return
    kind = "login plugin" if access.login is not None else "token" if authorization else "certificate"
    question.add(verdicts.credentials(kind, *ends, time.time()))
    where = {"manager": question.manager_namespace, "connected": question.namespace}
    for name in RIGHTS:
        question.add(verdicts.rights(name, allowed, where))
    has_manager = await _check_manager(question, api)
    question.add(verdicts.way_in(has_manager, allowed, where.values()))
    last: list[Coroutine[Any, Any, None]] = [_check_mtu(question, access)]
    if not question.is_connected:
        last.append(_check_networks(question, access, api))
    await asyncio.gather(*last)


async def _authorization(access: ApiAccess) -> str:
    """Return the Authorization header, from the login plugin if there is one."""
    try:
        async with asyncio.timeout(LOGIN_PATIENCE):
            identity = await access.identity()
    except TimeoutError:
        name = access.login.spec.name if access.login is not None else "reading the token"
        raise CredentialsRefused(
            f"the login of the kubeconfig ({name}) did not end within {LOGIN_PATIENCE:.0f} s",
            hint="run kubectl get pods in a terminal: it may be waiting for you",
        ) from None
    except OSError as error:
        raise CredentialsRefused(f"the token cannot be read: {error}") from error
    return next((v for k, v in identity.headers.items() if k.lower() == "authorization"), "")


async def _ask_version(access: ApiAccess) -> tuple[str, float, float | None]:
    """Ask for /version twice, on one connection.

    Returns
    -------
    str, float, float or None
        The version, seconds for the second answer, and by how much our clock is ahead, in seconds.
    """
    identity = await access.identity()
    timeout = aiohttp.ClientTimeout(total=ANSWER_PATIENCE)
    try:
        async with aiohttp.ClientSession(trust_env=False, timeout=timeout) as session:
            for _ in range(2):
                begun, sent = time.monotonic(), time.time()
                async with session.get(
                    f"{access.server}/version",
                    headers=identity.headers,
                    ssl=identity.ssl_context or True,
                    proxy=access.proxy or None,
                    server_hostname=access.server_hostname or None,
                    allow_redirects=False,
                ) as response:
                    body = await response.content.read(MAX_VERSION)
                    seconds = time.monotonic() - begun
                    answer = Answer(response.status, response.headers, body)
                    raise_for_status(answer, "/version", access.server)
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise unavailable(access.server, error) from error
    version = json_object(answer, "/version", access.server).get("gitVersion")
    return str(version)[:60], seconds, _skew(answer.headers.get("Date", ""), sent + seconds / 2)


def _skew(date: str, now: float) -> float | None:
    """Compare with a Date header (RFC 9110 §6.6.1), which is cut to seconds."""
    try:
        return now - email.utils.parsedate_to_datetime(date).timestamp() - 0.5
    except (ValueError, TypeError):
        return None


def _certificate_end(question: Question) -> float | None:
    from telehelper.kube.kubeconfig import read_context

    with contextlib.suppress(TelemagicError, OSError):
        return verdicts.certificate_end(
            read_context(question.kubeconfig, question.context).user.data("client-certificate")
        )
    return None


async def ask_rights(api: ApiClient, question: Question) -> dict[Right, bool | None]:
    """Ask what we may do (SelfSubjectAccessReview); None for what the API server does not tell.

    Raises
    ------
    CredentialsRefused
        It does not know us.
    """
    namespaces = {"manager": question.manager_namespace, "connected": question.namespace, "cluster": ""}
    turns = asyncio.Semaphore(AT_ONCE)

    async def ask(right: Right) -> bool | None:
        review = access_review(right.verb, right.resource, namespaces[right.scope], right.group)
        async with turns:
            try:
                answer = await api.create(REVIEWS, review)
            except CredentialsRefused as error:
                if error.data.get("status") == "403":
                    return None
                raise
            except ClusterError:
                return None
        status = answer.get("status")
        allowed = status.get("allowed") if isinstance(status, dict) else None
        return allowed if isinstance(allowed, bool) else None

    wanted = list(dict.fromkeys(right for group, _ in RIGHTS.values() for right in group))
    return dict(zip(wanted, await asyncio.gather(*map(ask, wanted)), strict=True))


async def _check_manager(question: Question, api: ApiClient) -> bool:
    from telehelper.datapath.cluster import LABEL, choose_manager  # late: it loads grpc

    where = question.manager_namespace
    try:
        pods = await api.get(f"/api/v1/namespaces/{where}/pods", labelSelector=LABEL)
        found = choose_manager(pods, where)
    except ClusterError as error:
        question.add(verdicts.manager(where, "", __version__, error))
        return False
    item = next(pod for pod in pods["items"] if pod["metadata"]["name"] == found.name)
    labels = item["metadata"].get("labels") or {}
    version = str(labels.get("app.kubernetes.io/version") or "")[:60]
    question.add(verdicts.manager(f"{found.namespace}/{found.name}", version, __version__, None))
    return True


async def _check_mtu(question: Question, access: ApiAccess) -> None:
    port = urlsplit(access.proxy or access.server).port or 443
    try:
        async with asyncio.timeout(ANSWER_PATIENCE):
            _, writer = await asyncio.open_connection(access.peer, port)
    except (OSError, TimeoutError):
        return  # it answered a moment ago; whatever it is now, the other checks say it
    try:
        sock: socket.socket = writer.get_extra_info("socket")
        is_v6 = sock.family == socket.AF_INET6
        level, option = (socket.IPPROTO_IPV6, _IPV6_MTU) if is_v6 else (socket.IPPROTO_IP, _IP_MTU)
        size = sock.getsockopt(level, option)
        ours = ipaddress.ip_address(sock.getsockname()[0].partition("%")[0])
    finally:
        writer.close()
    question.add(verdicts.mtu(size, await _device_of(ours)))


async def _device_of(address: Address) -> str:
    from telehelper.datapath.host_routes import read_addresses

    try:
        found = await read_addresses()
    except OSError:
        return ""
    return next((one.device for one in found if one.interface.ip == address), "")


async def _check_networks(question: Question, access: ApiAccess, api: ApiClient) -> None:
    from telehelper.datapath.host_routes import read_routes

    found = await discover(api, ResolvConf(), question.namespace)
    try:
        existing = await read_routes()
    except VifError as error:
        question.add(Finding("networks", verdicts.WARNING, str(error)))
        return
    wanted = [WantedCidr(cidr.cidr, cidr.kind, cidr.source) for cidr in found.cidrs]
    never = await _addresses_of(access.peer)
    question.add(verdicts.overlap(routes.plan(wanted, existing, never_addresses=never)))


async def _addresses_of(host: str) -> list[Address]:
    try:
        rows = await asyncio.get_running_loop().getaddrinfo(host, None)
    except OSError:
        return []
    return [ipaddress.ip_address(str(row[4][0]).partition("%")[0]) for row in rows]
