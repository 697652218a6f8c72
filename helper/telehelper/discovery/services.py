"""Where services are: each function is one way to tell, from API objects; their order is that of belief."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

import yaml

from telehelper.discovery.claims import CERTAIN, Claim, claim
from telehelper.discovery.fields import Json, addresses, field, items, name, strings, text
from telehelper.discovery.questions import (
    COMPONENTS,
    KUBEADM,
    NODES,
    OPENSHIFT,
    REFUSED_SERVICE,
    SERVICE_CIDRS,
)
from telehelper.errors import BAD_YAML

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from telehelper.discovery.fields import Address

    Answers = Mapping[str, Json]

MAX_YAML: Final = 65_536  # characters; kubeadm's ClusterConfiguration is 1 KiB
RANGE_FLAG: Final = "--service-cluster-ip-range"


def service_cidrs(found: Answers) -> list[Claim]:
    """Read ServiceCIDR objects (networking.k8s.io/v1, KEP-1880): the truth about service addresses."""
    listed = items(found.get(SERVICE_CIDRS))
    texts = [one for item in listed for one in strings(field(item, "spec", "cidrs"))]
    names = ", ".join([name(item) for item in listed if name(item)][:3])
    return claim(texts, f"ServiceCIDR {names}".rstrip(), alone=CERTAIN, is_whole=False)


def apiserver_flags(found: Answers) -> list[Claim]:
    """Read the flags of kube-apiserver, where its pod can be seen: what it was started with is what it does."""
    return claim(
        flag_of(found, "kube-apiserver", RANGE_FLAG),
        f"kube-apiserver {RANGE_FLAG}",
        alone=CERTAIN,
        is_whole=False,
    )


def openshift_services(found: Answers) -> list[Claim]:
    """Read OpenShift's cluster network (config.openshift.io/v1 Network); its status is what is in force."""
    texts = strings(field(found.get(OPENSHIFT), "status", "serviceNetwork"))
    return claim(texts, "OpenShift network.config", alone=CERTAIN, is_whole=False)


def refused_service(found: Answers) -> list[Claim]:
    """Read what the API server said about a Service that it was only asked to pretend to create."""
    return claim(strings(field(found.get(REFUSED_SERVICE), "ranges")), "refused Service (dry run)")


def kubeadm_services(found: Answers) -> list[Claim]:
    """Read kubeadm's ClusterConfiguration; it may be older than the running flags."""
    networking = cluster_configuration(found.get(KUBEADM))
    return claim([text(networking, "serviceSubnet")], "kubeadm-config")


def k3s_services(found: Answers) -> list[Claim]:
    """Read the arguments that k3s' servers note at their nodes."""
    return claim(k3s_arguments(found, "--service-cidr"), "k3s --service-cidr")


HEURISTICS: Final[tuple[Callable[[Answers], list[Claim]], ...]] = (
    service_cidrs,
    openshift_services,
    apiserver_flags,
    refused_service,
    kubeadm_services,
    k3s_services,
)


# --- what is visible ---------------------------------------------------------------------------------------------


def service_addresses(listing: object) -> list[Address]:
    """Return the cluster addresses of the services in a list."""
    texts = [
        one
        for item in items(listing)
        for one in strings(field(item, "spec", "clusterIPs")) or [text(item, "spec", "clusterIP")]
    ]
    return list(addresses(texts))


# --- parts that pods need too ------------------------------------------------------------------------------------


def flag_of(found: Answers, component: str, flag: str) -> list[str]:
    """Return the values that the pods of a component, in kube-system, have for a flag."""
    values = []
    for item in items(found.get(COMPONENTS)):
        if text(item, "metadata", "labels", "component") != component:
            continue
        containers = field(item, "spec", "containers")
        for container in containers if isinstance(containers, list) else ():
            words = [*strings(field(container, "command")), *strings(field(container, "args"))]
            # Some run a shell that runs the component.
            values += flag_values([part for word in words for part in word.split()], flag)
    return [*dict.fromkeys(values)]


def flag_values(words: Iterable[str], flag: str) -> list[str]:
    """Return a flag's values on a command line, written with "=" or as the next word."""
    values = []
    is_next = False
    for word in words:
        if is_next:
            values.append(word)
        is_next = word == flag
        if word.startswith(f"{flag}="):
            values.append(word.removeprefix(f"{flag}="))
    return values


def cluster_configuration(configmap: object) -> Json:
    """Return the `networking` part of kubeadm's ClusterConfiguration; empty if there is none."""
    networking = field(load_yaml(text(configmap, "data", "ClusterConfiguration")), "networking")
    return networking if isinstance(networking, dict) else {}


def load_yaml(written: str) -> object:
    """Read YAML that somebody else wrote; None if it is none, or so long that it is none of kubeadm's."""
    # An alias could stand for a lot of memory ("billion laughs"); no component writes one.
    if len(written) > MAX_YAML or "&" in written:
        return None
    try:
        loaded: object = yaml.safe_load(written)
    except (yaml.YAMLError, *BAD_YAML):
        return None
    return loaded


def k3s_arguments(found: Answers, flag: str) -> list[str]:
    """Return a flag's values among the arguments of k3s' servers (annotation `k3s.io/node-args`, a JSON array)."""
    values: list[str] = []
    for item in items(found.get(NODES)):
        written = text(item, "metadata", "annotations", "k3s.io/node-args")
        try:
            words = strings(json.loads(written)) if 0 < len(written) < MAX_YAML else []
        except (ValueError, RecursionError):
            continue
        if words[:1] == ["server"]:
            values += flag_values(words, flag)
    return [*dict.fromkeys(values)]
