"""Finding out about the cluster: ask the API server for as much as the rights allow, and say what is missing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from telehelper.errors import ClusterError
from telehelper.manager import heuristics

if TYPE_CHECKING:
    from telehelper.core.resolv_conf import ResolvConf
    from telehelper.manager.heuristics import FoundCidr

SERVICE_CIDRS: Final = "/apis/networking.k8s.io/v1/servicecidrs"
NODES: Final = "/api/v1/nodes"
PODS: Final = "/api/v1/pods"
SERVICES: Final = "/api/v1/services"
NAMESPACES: Final = "/api/v1/namespaces"
KUBE_DNS: Final = "/api/v1/namespaces/kube-system/services/kube-dns"
DEFAULT_DOMAIN: Final = "cluster.local"  # Kubernetes' own default
MAX_TIME: Final = 5.0  # seconds for one discovery; all questions are asked at once
SAMPLE: Final = "500"  # pods or services looked at: enough to refute a podCIDR, bounded on large clusters


class ApiReader(Protocol):
    """What discovery needs of an API client; failures are ClusterError."""

    async def get(self, path: str, **params: str) -> dict[str, Any]:
        """GET a path and return the JSON object."""


class FakeApiReader:
    """An API server in a dictionary, for tests.

    Parameters
    ----------
    objects
        What each path answers: an object, or the error to raise. Other paths raise a ClusterError.
    """

    def __init__(self, objects: dict[str, dict[str, Any] | ClusterError]) -> None:
        self.objects = objects
        self.asked: list[str] = []

    async def get(self, path: str, **_params: str) -> dict[str, Any]:
        """See :class:`ApiReader`."""
        self.asked.append(path)
        found = self.objects.get(path, ClusterError(f"there is no {path}"))
        if isinstance(found, ClusterError):
            raise found
        return found


class Discovered(NamedTuple):
    """What is known of the cluster; ``notices`` tell what is not, and why."""

    cidrs: tuple[FoundCidr, ...] = ()
    dns_server: str = ""
    cluster_domain: str = ""
    namespaces: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()


class _Answers:
    """The API server's answers to all questions, and the notices for those that it refused."""

    def __init__(self) -> None:
        self.found: dict[str, dict[str, Any]] = {}
        self.notices: dict[str, str] = {}

    async def ask(self, reader: ApiReader, path: str, **params: str) -> None:
        try:
            self.found[path] = await reader.get(path, **params)
        except ClusterError as error:
            self.notices[path] = error.message
        except asyncio.CancelledError:
            self.notices[path] = f"no answer to {path} within {MAX_TIME:.0f} s"
            raise


async def discover(reader: ApiReader | None, resolv: ResolvConf, own_namespace: str = "") -> Discovered:
    """Ask everything at once, for at most ``MAX_TIME``, and make the best of the answers; never fails.

    Parameters
    ----------
    reader
        The API server; None if there is none to ask.
    resolv
        The manager's own resolver configuration.
    own_namespace
        What is listed when namespaces may not be.
    """
    answers = _Answers()
    if reader is None:
        answers.notices[NODES] = "there is no API server to ask for the cluster's networks"
    else:
        questions = [
            asyncio.ensure_future(answers.ask(reader, path))
            for path in (SERVICE_CIDRS, NODES, NAMESPACES, KUBE_DNS)
        ]
        questions += [
            asyncio.ensure_future(answers.ask(reader, path, limit=SAMPLE)) for path in (PODS, SERVICES)
        ]
        _, late = await asyncio.wait(questions, timeout=MAX_TIME)
        for question in late:
            question.cancel()
        await asyncio.gather(*questions, return_exceptions=True)
    return conclude(answers.found, answers.notices, resolv, own_namespace)


def conclude(
    found: dict[str, dict[str, Any]], refused: dict[str, str], resolv: ResolvConf, own_namespace: str
) -> Discovered:
    """Draw conclusions from the answers (by path), the refusals (by path) and the resolver configuration; pure."""
    notices: list[str] = []
    dns_server, domain = _names(found, resolv, notices)
    namespaces = heuristics.names(found[NAMESPACES]) if NAMESPACES in found else []
    if not namespaces:
        namespaces = [own_namespace] if own_namespace else []
        _explain(refused, NAMESPACES, "namespaces cannot be listed", notices)
    cidrs = [*_services(found, refused, dns_server, notices), *_pods(found, refused, notices)]
    return Discovered(tuple(cidrs), dns_server, domain, tuple(namespaces), tuple(notices))


def _explain(refused: dict[str, str], path: str, what: str, notices: list[str]) -> None:
    if path in refused:
        notices.append(f"{what}: {refused[path]}")


def _services(
    found: dict[str, dict[str, Any]], refused: dict[str, str], dns_server: str, notices: list[str]
) -> list[FoundCidr]:
    cidrs = heuristics.service_cidrs(found.get(SERVICE_CIDRS))
    if not cidrs:
        _explain(refused, SERVICE_CIDRS, "the service CIDR is a guess", notices)
    others = heuristics.of_other_families(heuristics.service_addresses(found.get(SERVICES)), cidrs)
    cidrs += heuristics.covering(others, "services", "services")
    if cidrs:
        return cidrs
    _explain(refused, SERVICES, "services cannot be listed", notices)
    return heuristics.covering([dns_server], "services", "DNS server")


def _pods(found: dict[str, dict[str, Any]], refused: dict[str, str], notices: list[str]) -> list[FoundCidr]:
    pods = heuristics.pod_addresses(found[PODS]) if PODS in found else None
    _explain(refused, NODES, "the pods' CIDR is a guess", notices)
    cidrs, disbelief = heuristics.node_pod_cidrs(found.get(NODES), pods)
    notices += disbelief
    if not cidrs:
        _explain(refused, PODS, "pods cannot be listed", notices)
    others = heuristics.of_other_families(pods or (), cidrs)
    return [*cidrs, *heuristics.covering(others, "pods", "pods")]


def _names(found: dict[str, dict[str, Any]], resolv: ResolvConf, notices: list[str]) -> tuple[str, str]:
    """Return the cluster's DNS server and domain: the manager's own first, else the kube-dns service."""
    domain = resolv.cluster_domain or DEFAULT_DOMAIN
    if resolv.cluster_dns:
        return resolv.cluster_dns, domain
    addresses = heuristics.service_addresses({"items": [found[KUBE_DNS]]}) if KUBE_DNS in found else []
    if not addresses:
        notices.append(
            "the cluster's DNS server is unknown: neither resolv.conf nor a kube-dns service names it"
        )
        return "", domain
    if not resolv.cluster_domain:
        notices.append(f"the cluster's domain is taken to be {DEFAULT_DOMAIN}: resolv.conf does not name it")
    return addresses[0], domain
