"""From all answers of the API server to what is known of the cluster; pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from telehelper.discovery import pods, services
from telehelper.discovery.claims import (
    CERTAIN,
    GUESS,
    PODS,
    SERVICES,
    FoundCidr,
    Notice,
    bounded,
    covering,
    decide,
)
from telehelper.discovery.fields import addresses, items, text
from telehelper.discovery.questions import (
    COREDNS,
    KUBE_DNS,
    KUBEADM,
    NAMESPACES,
    NODES,
    OPENSHIFT_DNS,
    SERVICE_CIDRS,
)
from telehelper.discovery.questions import PODS as PODS_LIST
from telehelper.discovery.questions import SERVICES as SERVICES_LIST
from telehelper.errors import CredentialsRefused

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from telehelper.core.resolv_conf import ResolvConf
    from telehelper.discovery.fields import Address, Json
    from telehelper.errors import ClusterError

DEFAULT_DOMAIN: Final = "cluster.local"  # Kubernetes' own default
MAX_NAMESPACES: Final = 5_000
# Topics of notices, besides pods and services
DNS: Final = "dns"
NAMESPACE: Final = "namespaces"
_DOMAIN: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?){0,9}")
_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_COREFILE: Final = re.compile(r"^\s*kubernetes\s+(\S+)", re.MULTILINE)
# Questions that each cluster has an answer to: when these are not even refused, the API server is away
_BASIC: Final = (SERVICE_CIDRS, NODES, NAMESPACES, PODS_LIST, SERVICES_LIST)


class Discovered(NamedTuple):
    """What is known of the cluster; ``lacks`` tell what is not, and why."""

    cidrs: tuple[FoundCidr, ...] = ()
    dns_server: str = ""
    cluster_domain: str = ""
    namespaces: tuple[str, ...] = ()
    lacks: tuple[Notice, ...] = ()

    @property
    def notices(self) -> tuple[str, ...]:
        """The lines of ``lacks``."""
        return tuple(notice.text for notice in self.lacks)

    @property
    def is_certain(self) -> bool:
        """Whether nothing more can be found out: both kinds are known, and all of it surely."""
        kinds = {one.kind for one in self.cidrs}
        return kinds >= {PODS, SERVICES} and all(one.confidence == CERTAIN for one in self.cidrs)


def conclude(
    found: Mapping[str, Json],
    refused: Mapping[str, ClusterError],
    resolv: ResolvConf,
    own_namespace: str = "",
    excluded: Collection[Address] = (),
) -> Discovered:
    """Draw conclusions.

    Parameters
    ----------
    found, refused
        The answers, and the failures, by question.
    resolv
        The resolver configuration of a pod; empty if there is none to be read.
    own_namespace
        What is named when namespaces may not be listed.
    excluded
        Addresses that no guess may cover, besides the nodes'.
    """
    notices: list[Notice] = []
    dns_server, domain = _names(found, resolv, notices)
    kept_out = {*pods.node_addresses(found), *excluded}
    seen = dict.fromkeys(services.service_addresses(found.get(SERVICES_LIST)))
    disbelief: list[Notice] = []
    service_claims = [claim for read in services.HEURISTICS for claim in read(found)]
    pod_claims = [claim for read in pods.HEURISTICS for claim in read(found)]
    of_services = decide(SERVICES, service_claims, seen, kept_out, disbelief)
    # Only if there is nothing else: a DNS server need not be a service.
    of_services = of_services or covering(addresses([dns_server]), SERVICES, kept_out)
    is_exact = PODS_LIST not in found and NODES not in found
    of_pods = decide(PODS, pod_claims, pods.visible(found), kept_out, disbelief, is_exact=is_exact)
    notices += _away(refused) or [
        *_lacks(SERVICES, of_services, refused, (SERVICE_CIDRS, SERVICES_LIST)),
        *_lacks(PODS, of_pods, refused, (NODES, PODS_LIST)),
    ]
    namespaces = _namespaces(found, refused, own_namespace, notices)
    return Discovered(
        (*of_services, *of_pods), dns_server, domain, namespaces, bounded((*notices, *disbelief))
    )


def _away(refused: Mapping[str, ClusterError]) -> list[Notice]:
    """Return one notice if the API server did not answer a basic question at all."""
    silent = [
        error
        for question in _BASIC
        if (error := refused.get(question)) is not None
        and error.slug != "api-not-found"
        and not isinstance(error, CredentialsRefused)
    ]
    return (
        [Notice("", f"the cluster's networks could not all be asked for: {silent[0].message}")]
        if silent
        else []
    )


_RIGHTS: Final = {
    SERVICE_CIDRS: "servicecidrs",
    SERVICES_LIST: "services",
    NODES: "nodes",
    PODS_LIST: "pods",
}


def _lacks(
    kind: str, found: Iterable[FoundCidr], refused: Mapping[str, ClusterError], questions: tuple[str, str]
) -> list[Notice]:
    """Return one notice if rights are missing that would have made more of what was found."""
    worst = [one.confidence for one in found]
    forbidden = [
        _RIGHTS[question] for question in questions if isinstance(refused.get(question), CredentialsRefused)
    ]
    if not forbidden or (worst and GUESS not in worst):
        return []
    rights = " and ".join(forbidden)
    if not worst:
        return [
            Notice(
                kind,
                f"no CIDR of {kind} is known, because listing {rights} is forbidden: use names, or --cidr",
            )
        ]
    return [
        Notice(
            kind,
            f"which {kind} there are is a guess from what is visible, because listing {rights} is forbidden",
        )
    ]


def _names(found: Mapping[str, Json], resolv: ResolvConf, notices: list[Notice]) -> tuple[str, str]:
    """Return the cluster's DNS server and domain: a pod's resolv.conf first, else what objects tell."""
    domain = resolv.cluster_domain or _told_domain(found)
    if resolv.cluster_dns:
        return resolv.cluster_dns, domain or DEFAULT_DOMAIN
    listed = {"items": [found[one] for one in (KUBE_DNS, OPENSHIFT_DNS) if one in found]}
    told = [str(address) for address in services.service_addresses(listed)] or _dns_services(found)
    if not told:
        notices.append(
            Notice(DNS, "the address of the cluster's DNS server is unknown: no kube-dns service is visible")
        )
        return "", domain or DEFAULT_DOMAIN
    if not domain:
        notices.append(Notice(DNS, f"the cluster's domain is taken to be {DEFAULT_DOMAIN}: nothing names it"))
    return told[0], domain or DEFAULT_DOMAIN


def _dns_services(found: Mapping[str, Json]) -> list[str]:
    """Return the addresses of services that are called as cluster DNS servers are, in the namespaces they live in."""
    known = {
        ("kube-system", "rke2-coredns-rke2-coredns"),
        ("kube-system", "coredns"),
        ("openshift-dns", "dns-default"),
    }
    own = [
        item
        for item in items(found.get(SERVICES_LIST))
        if (text(item, "metadata", "namespace"), text(item, "metadata", "name")) in known
    ]
    return [str(address) for address in services.service_addresses({"items": own})]


def _told_domain(found: Mapping[str, Json]) -> str:
    named = _COREFILE.search(text(found.get(COREDNS), "data", "Corefile")[: services.MAX_YAML])
    for told in (
        text(services.cluster_configuration(found.get(KUBEADM)), "dnsDomain"),
        named[1] if named else "",
    ):
        domain = told.rstrip(".").lower()
        if _DOMAIN.fullmatch(domain) and not next(addresses([domain]), None):
            return domain
    return ""


def _namespaces(
    found: Mapping[str, Json], refused: Mapping[str, ClusterError], own: str, notices: list[Notice]
) -> tuple[str, ...]:
    listed = {text(item, "metadata", "name") for item in items(found.get(NAMESPACES))}
    names = sorted(name for name in listed if _LABEL.fullmatch(name))[:MAX_NAMESPACES]
    if names:
        return tuple(names)
    if isinstance(refused.get(NAMESPACES), CredentialsRefused):
        notices.append(
            Notice(NAMESPACE, "listing namespaces is forbidden" + (f": only {own} is known" if own else ""))
        )
    return (own,) if own else ()
