"""Where pods are: each function is one way to tell, from API objects; their order is that of belief.

First comes who hands the addresses out: the objects of a network's own address management. Then what the nodes were to
get from Kubernetes itself, which some networks ignore (Amazon's, Azure's flat one, Calico, Cilium); that is believed
only if it contains all pods that are visible.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from telehelper.discovery.claims import CERTAIN, LIKELY, Claim, claim
from telehelper.discovery.fields import (
    Json,
    addresses,
    dicts,
    field,
    items,
    networks,
    strings,
    text,
)
from telehelper.discovery.questions import (
    AKS,
    CALICO,
    CALICO_V3,
    CILIUM,
    CILIUM_NODES,
    CILIUM_POOLS,
    KUBE_PROXY,
    KUBEADM,
    NODES,
    OPENSHIFT,
    PODS,
    SLICES,
)
from telehelper.discovery.services import cluster_configuration, flag_of, k3s_arguments, load_yaml

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from telehelper.discovery.fields import Address

    Answers = Mapping[str, Json]

CLUSTER_FLAG: Final = "--cluster-cidr"
_CLUSTER_POOLS: Final = ("cluster-pool", "cluster-pool-v2beta")  # IPAM modes whose range is in cilium-config


def openshift(found: Answers) -> list[Claim]:
    """Read OpenShift's cluster network (config.openshift.io/v1 Network); its status is what is in force."""
    texts = [text(one, "cidr") for one in dicts(field(found.get(OPENSHIFT), "status", "clusterNetwork"))]
    return claim(texts, "OpenShift network.config", alone=CERTAIN)


def calico(found: Answers) -> list[Claim]:
    """Read Calico's pools, of either API group. Pods stay in a pool that was disabled since, so those count if seen."""
    pools = items(found.get(CALICO)) or items(found.get(CALICO_V3))
    seen = pod_addresses(found.get(PODS))
    texts = []
    for pool in pools:
        own = list(networks([text(pool, "spec", "cidr")]))
        if field(pool, "spec", "disabled") is not True or any(
            one in network for network in own for one in seen
        ):
            texts.append(text(pool, "spec", "cidr"))
    source = f"Calico's {len(texts)} pools" if len(texts) != 1 else "Calico's pool"
    return claim(texts, source, alone=CERTAIN, is_whole=False)


def cilium_pools(found: Answers) -> list[Claim]:
    """Read Cilium's pools (IPAM mode multi-pool; CiliumPodIPPool)."""
    texts: list[str] = []
    for pool in items(found.get(CILIUM_POOLS)):
        for family in ("ipv4", "ipv6"):
            cidrs = field(pool, "spec", family, "cidrs")
            texts += strings(cidrs) or [text(one, "cidr") for one in dicts(cidrs)]
    return claim(texts, "CiliumPodIPPools", alone=CERTAIN, is_whole=False)


def cilium_nodes(found: Answers) -> list[Claim]:
    """Read what Cilium's operator gave to each node. Old releases wrote nonsense here on cloud networks."""
    listed = items(found.get(CILIUM_NODES))
    blocks = [strings(field(item, "spec", "ipam", "podCIDRs")) for item in listed]
    count = sum(1 for one in blocks if one)
    return claim(
        [one for several in blocks for one in several], f"{count} CiliumNode{'s' if count != 1 else ''}"
    )


def aks(found: Answers) -> list[Claim]:
    """Read what Azure CNI Overlay gave to each node (NodeNetworkConfig); the whole overlay is the address space."""
    texts = [
        text(container, "subnetAddressSpace")
        for item in items(found.get(AKS))
        for container in dicts(field(item, "status", "networkContainers"))
        if "overlay" in text(container, "subnetName") or text(container, "type") == "overlay"
    ]
    return claim(texts, "Azure NodeNetworkConfig")


def controller_flags(found: Answers) -> list[Claim]:
    """Read the flags of kube-controller-manager: the range that nodes get their podCIDRs from."""
    texts = flag_of(found, "kube-controller-manager", CLUSTER_FLAG)
    return claim(texts, f"kube-controller-manager {CLUSTER_FLAG}")


def kubeadm(found: Answers) -> list[Claim]:
    """Read kubeadm's ClusterConfiguration; it may be older than the running flags."""
    return claim([text(cluster_configuration(found.get(KUBEADM)), "podSubnet")], "kubeadm-config")


def kube_proxy(found: Answers) -> list[Claim]:
    """Read kube-proxy's flags and its ConfigMap: by this range it tells pods from others."""
    configuration = load_yaml(text(found.get(KUBE_PROXY), "data", "config.conf"))
    texts = [*flag_of(found, "kube-proxy", CLUSTER_FLAG), text(configuration, "clusterCIDR")]
    return claim(texts, f"kube-proxy {CLUSTER_FLAG}")


def k3s(found: Answers) -> list[Claim]:
    """Read the arguments that k3s' servers note at their nodes."""
    return claim(k3s_arguments(found, CLUSTER_FLAG), f"k3s {CLUSTER_FLAG}")


def node_pod_cidrs(found: Answers) -> list[Claim]:
    """Read the nodes' podCIDRs."""
    texts = [
        strings(field(item, "spec", "podCIDRs")) or strings([field(item, "spec", "podCIDR")])
        for item in items(found.get(NODES))
    ]
    count = sum(1 for several in texts if any(several))
    return claim(
        [one for several in texts for one in several], f"podCIDR of {count} node{'s' if count != 1 else ''}"
    )


def cilium_config(found: Answers) -> list[Claim]:
    """Read the range that Cilium's operator takes the nodes' blocks from; by default it is all of 10.0.0.0/8."""
    data = field(found.get(CILIUM), "data")
    if text(data, "ipam") not in _CLUSTER_POOLS:
        return []
    texts = [text(data, f"cluster-pool-ipv{version}-cidr").replace(" ", ",") for version in (4, 6)]
    return claim(texts, "cilium-config", witnessed=LIKELY)


HEURISTICS: Final[tuple[Callable[[Answers], list[Claim]], ...]] = (
    openshift,
    calico,
    cilium_pools,
    aks,
    controller_flags,
    kubeadm,
    kube_proxy,
    k3s,
    cilium_nodes,
    node_pod_cidrs,
    cilium_config,
)


# --- what is visible ---------------------------------------------------------------------------------------------


def pod_addresses(listing: object) -> list[Address]:
    """Return the addresses of the pods in a list; pods on the host's network have the node's, which are none.

    Nor have pods that are over: their addresses may be another's.
    """
    texts: list[str] = []
    for item in items(listing):
        if field(item, "spec", "hostNetwork") is True or field(item, "status", "phase") in (
            "Succeeded",
            "Failed",
        ):
            continue
        several = dicts(field(item, "status", "podIPs"))
        texts += [text(entry, "ip") for entry in several] or [text(item, "status", "podIP")]
    return list(addresses(texts))


def slice_addresses(listing: object) -> list[Address]:
    """Return the addresses of pods in a list of EndpointSlices."""
    texts = [
        one
        for item in items(listing)
        for endpoint in dicts(item.get("endpoints"))
        if text(endpoint, "targetRef", "kind") == "Pod"
        for one in strings(endpoint.get("addresses"))
    ]
    return list(addresses(texts))


def visible(found: Answers) -> list[Address]:
    """Return all addresses of pods there are to be seen.

    Slices tell of pods that may not be listed. They do not say which of them are on the host's network, so the nodes'
    addresses are taken out, if those are known.
    """
    nodes = node_addresses(found)
    seen = dict.fromkeys((*pod_addresses(found.get(PODS)), *slice_addresses(found.get(SLICES))))
    return [one for one in seen if one not in nodes]


def node_addresses(found: Answers) -> frozenset[Address]:
    """Return all addresses of nodes there are to be seen: their own, and those that pods name as their host's."""
    texts = [
        text(one, "address")
        for item in items(found.get(NODES))
        for one in dicts(field(item, "status", "addresses"))
        if text(one, "type") != "Hostname"
    ]
    for item in items(found.get(PODS)):
        texts.append(text(item, "status", "hostIP"))
        texts += [text(one, "ip") for one in dicts(field(item, "status", "hostIPs"))]
    return frozenset(addresses(texts))
