"""What the API server is asked about the cluster's networks, and how much of each answer is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from telehelper.discovery.fields import Json, dicts, field, items

if TYPE_CHECKING:
    from collections.abc import Callable

SERVICE_CIDRS: Final = "/apis/networking.k8s.io/v1/servicecidrs"
SERVICE_CIDRS_BETA: Final = (
    "/apis/networking.k8s.io/v1beta1/servicecidrs"  # Kubernetes 1.31 and 1.32, if switched on
)
NODES: Final = "/api/v1/nodes"
PODS: Final = "/api/v1/pods"
SERVICES: Final = "/api/v1/services"
SLICES: Final = "/apis/discovery.k8s.io/v1/endpointslices"
NAMESPACES: Final = "/api/v1/namespaces"
KUBE_DNS: Final = "/api/v1/namespaces/kube-system/services/kube-dns"
OPENSHIFT_DNS: Final = "/api/v1/namespaces/openshift-dns/services/dns-default"
COMPONENTS: Final = "/api/v1/namespaces/kube-system/pods"
KUBEADM: Final = "/api/v1/namespaces/kube-system/configmaps/kubeadm-config"
KUBE_PROXY: Final = "/api/v1/namespaces/kube-system/configmaps/kube-proxy"
COREDNS: Final = "/api/v1/namespaces/kube-system/configmaps/coredns"
CILIUM: Final = "/api/v1/namespaces/kube-system/configmaps/cilium-config"
CILIUM_NODES: Final = "/apis/cilium.io/v2/ciliumnodes"
CILIUM_POOLS: Final = "/apis/cilium.io/v2alpha1/ciliumpodippools"
CALICO: Final = "/apis/crd.projectcalico.org/v1/ippools"
CALICO_V3: Final = "/apis/projectcalico.org/v3/ippools"  # Calico's own API server, where it is installed
OPENSHIFT: Final = "/apis/config.openshift.io/v1/networks/cluster"
AKS: Final = "/apis/acn.azure.com/v1alpha/namespaces/kube-system/nodenetworkconfigs"
REFUSED_SERVICE: Final = "the refused Service"  # no path: {"ranges": [CIDR, …]}, see refused_service

PAGE: Final = 500  # objects in one answer
PAGES: Final = (
    4  # answers of one list: 2,000 pods refute a wrong podCIDR, and the rest is not worth its megabytes
)
CONTROL_PLANE: Final = "component in (kube-apiserver,kube-controller-manager,kube-proxy)"

# Lists whose changes are followed
FOLLOWED: Final = (SERVICE_CIDRS, NODES, NAMESPACES, PODS, SERVICES)
# Objects that some clusters have, and that hardly ever change; with the parameters of the question
PARTICULARS: Final[dict[str, dict[str, str]]] = {
    KUBE_DNS: {},
    OPENSHIFT_DNS: {},
    COMPONENTS: {"labelSelector": CONTROL_PLANE, "limit": "50"},
    KUBEADM: {},
    KUBE_PROXY: {},
    COREDNS: {},
    CILIUM: {},
    CILIUM_NODES: {"limit": str(PAGE)},
    CILIUM_POOLS: {"limit": str(PAGE)},
    CALICO: {"limit": str(PAGE)},
    CALICO_V3: {"limit": str(PAGE)},
    OPENSHIFT: {},
    AKS: {"limit": str(PAGE)},
}


def in_namespace(path: str, namespace: str) -> str:
    """Return the path of the same list in one namespace."""
    head, _, plural = path.rpartition("/")
    return f"{head}/namespaces/{namespace}/{plural}"


def _metadata(item: Json) -> Json:
    return {name: field(item, "metadata", name) for name in ("name", "namespace")}


def _pod(item: Json) -> Json:
    return {
        "metadata": _metadata(item),
        "spec": {"hostNetwork": field(item, "spec", "hostNetwork")},
        "status": {
            name: field(item, "status", name) for name in ("podIP", "podIPs", "hostIP", "hostIPs", "phase")
        },
    }


def _node(item: Json) -> Json:
    arguments = field(item, "metadata", "annotations", "k3s.io/node-args")
    return {
        "metadata": {**_metadata(item), "annotations": {"k3s.io/node-args": arguments}},
        "spec": {name: field(item, "spec", name) for name in ("podCIDR", "podCIDRs", "providerID")},
        "status": {"addresses": field(item, "status", "addresses")},
    }


def _service(item: Json) -> Json:
    return {
        "metadata": _metadata(item),
        "spec": {name: field(item, "spec", name) for name in ("clusterIP", "clusterIPs")},
    }


def _slice(item: Json) -> Json:
    kept = [
        {"addresses": field(one, "addresses"), "targetRef": {"kind": field(one, "targetRef", "kind")}}
        for one in dicts(item.get("endpoints"))
    ]
    return {"metadata": _metadata(item), "addressType": item.get("addressType"), "endpoints": kept}


def _cilium_node(item: Json) -> Json:
    blocks = field(item, "spec", "ipam", "podCIDRs")
    return {"metadata": _metadata(item), "spec": {"ipam": {"podCIDRs": blocks}}}


def _named(item: Json) -> Json:
    return {"metadata": _metadata(item)}


SLIM: Final[dict[str, Callable[[Json], Json]]] = {
    PODS: _pod,
    NODES: _node,
    SERVICES: _service,
    SLICES: _slice,
    NAMESPACES: _named,
    CILIUM_NODES: _cilium_node,
}


def slim(question: str, item: Json) -> Json:
    """Return what is kept of an object of this list."""
    return SLIM[question](item) if question in SLIM else item


def slim_list(question: str, answer: dict[str, Any]) -> Json:
    """Return what is kept of an answer."""
    if question not in SLIM:
        return answer
    return {"metadata": answer.get("metadata"), "items": [slim(question, item) for item in items(answer)]}
