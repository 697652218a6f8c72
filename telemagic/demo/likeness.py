"""How other kinds of clusters tell of their networks, with a demo cluster's real addresses in their words; pure.

A demo cluster started `like` one of :data:`KINDS` is the same cluster: the same pods and services at the same
addresses. Only what its API server shows differs, which is what discovery lives on. What each kind shows is taken from
its own documentation:

============== ====================================================================================================
kubeadm        static pods' flags and `kubeadm-config` (kubeadm reference, "Implementation details"), a ServiceCIDR
               (KEP-1880, generally available in 1.33)
kubeadm-old    the same at 1.28, which has no ServiceCIDR
k3s            podCIDRs, flannel's and `k3s.io/node-args` annotations; the control plane is in no pod
eks            no podCIDR at all: pods have addresses of the VPC (amazon-vpc-cni-k8s, README); 1.32, no ServiceCIDR
gke            podCIDRs from an alias range, `gce://` nodes
aks            Azure CNI Overlay: NodeNetworkConfig and kube-proxy's `--cluster-cidr`
calico         pools of its own IPAM, one of them disabled; podCIDRs that no pod has anything to do with
cilium         IPAM mode `cluster-pool` (docs.cilium.io, "Cluster Scope"): CiliumNodes and `cilium-config`
openshift      `network.config.openshift.io/cluster` (OpenShift API reference); no flags, no podCIDR
dual-stack     kubeadm with a pair in every place (kubernetes.io, "IPv4/IPv6 dual-stack")
============== ====================================================================================================
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import yaml

from telemagic.demo import foreign

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from telemagic.demo.plan import AddressPlan, Network

Json = dict[str, Any]

KINDS: Final = (
    "kubeadm",
    "kubeadm-old",
    "k3s",
    "eks",
    "gke",
    "aks",
    "calico",
    "cilium",
    "openshift",
    "dual-stack",
)
NO_SERVICE_CIDRS: Final = frozenset(
    f"networking.k8s.io/{version}/{plural}"
    for version in ("v1", "v1beta1")
    for plural in ("servicecidrs", "ipaddresses")
)
STALE_PODS: Final = (
    "10.244.0.0/16"  # kubeadm's --pod-network-cidr in flannel's manual; in `calico` it means nothing
)
DISABLED_POOL: Final = "192.168.0.0/16"  # Calico's default pool, switched off


def _unchanged(item: Json) -> Json:
    return item


@dataclass(frozen=True, slots=True)
class Likeness:
    """What an API server of this kind shows.

    Attributes
    ----------
    version
        Kubernetes' own, as in `/version` and in the node's status.
    missing
        "GROUP/VERSION/PLURAL" that it answers with 404.
    objects
        More API objects, complete but for uid, resourceVersion and creationTimestamp. For kinds of its own there is a
        CustomResourceDefinition, which names their plural and scope.
    node, pod
        Return what is shown in place of a Node and a Pod of the demo's; the argument stays as it is.
    """

    version: str
    missing: frozenset[str] = frozenset()
    objects: tuple[Json, ...] = ()
    node: Callable[[Json], Json] = _unchanged
    pod: Callable[[Json], Json] = _unchanged


def likeness(kind: str, plan: AddressPlan) -> Likeness:
    """Return how a cluster of this kind shows a demo cluster's addresses.

    Raises
    ------
    KeyError
        There is no such kind.
    """
    return _LIKENESSES[kind](plan)


# --- kubeadm -----------------------------------------------------------------------------------------------------


def _kubeadm(plan: AddressPlan) -> Likeness:
    return Likeness(
        "v1.33.4", objects=_control_plane(plan, plan.pods, "v1.33.4"), node=_of_kubeadm(plan.pods)
    )


def _kubeadm_old(plan: AddressPlan) -> Likeness:
    return Likeness(
        "v1.28.15",
        NO_SERVICE_CIDRS,
        _control_plane(plan, plan.pods, "v1.28.15"),
        node=_of_kubeadm(plan.pods),
    )


def _of_kubeadm(pods: Iterable[Network]) -> Callable[[Json], Json]:
    """Give the node the first block of each family, as the node IPAM controller does: a /24 and a /64."""
    blocks = [
        str(next(network.subnets(new_prefix=max(24 if network.version == 4 else 64, network.prefixlen))))
        for network in pods
    ]
    return foreign.node(
        {"kubeadm.alpha.kubernetes.io/cri-socket": "unix:///run/containerd/containerd.sock"}, blocks
    )


def _control_plane(plan: AddressPlan, pods: Iterable[Network | str], version: str) -> tuple[Json, ...]:
    services, clusters = foreign.joined(plan.services), foreign.joined(pods)
    configuration = {
        "apiServer": {},
        "apiVersion": "kubeadm.k8s.io/v1beta3" if version < "v1.31" else "kubeadm.k8s.io/v1beta4",
        "certificatesDir": "/etc/kubernetes/pki",
        "clusterName": "kubernetes",
        "kind": "ClusterConfiguration",
        "kubernetesVersion": version,
        "networking": {"dnsDomain": "cluster.local", "podSubnet": clusters, "serviceSubnet": services},
    }
    proxy = {"apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "clusterCIDR": clusters, "mode": ""}
    return (
        foreign.config_map("kubeadm-config", {"ClusterConfiguration": yaml.safe_dump(configuration)}),
        foreign.config_map("kube-proxy", {"config.conf": yaml.safe_dump(proxy), "kubeconfig.conf": ""}),
        _component(
            plan,
            "kube-apiserver",
            version,
            (
                "--allow-privileged=true",
                "--authorization-mode=Node,RBAC",
                f"--service-cluster-ip-range={services}",
            ),
        ),
        _component(
            plan,
            "kube-controller-manager",
            version,
            (
                "--allocate-node-cidrs=true",
                "--bind-address=127.0.0.1",
                f"--cluster-cidr={clusters}",
                f"--service-cluster-ip-range={services}",
            ),
        ),
    )


def _component(plan: AddressPlan, name: str, version: str, flags: tuple[str, ...]) -> Json:
    """Return a static pod of the control plane, which is on the host's network."""
    return foreign.host_pod(
        plan,
        f"{name}-demo-node",
        f"registry.k8s.io/{name}:{version}",
        [name, f"--advertise-address={plan.nodes[0]}", *flags],
        labels={"component": name, "tier": "control-plane"},
    )


# --- distributions -----------------------------------------------------------------------------------------------


def _k3s(plan: AddressPlan) -> Likeness:
    arguments = [
        "server",
        "--cluster-cidr",
        foreign.joined(plan.pods),
        "--service-cidr",
        foreign.joined(plan.services),
    ]
    annotations = {
        "flannel.alpha.coreos.com/backend-type": "vxlan",
        "flannel.alpha.coreos.com/kube-subnet-manager": "true",
        "flannel.alpha.coreos.com/public-ip": str(plan.nodes[0]),
        "k3s.io/internal-ip": foreign.joined(plan.nodes),
        "k3s.io/node-args": json.dumps(arguments),
        "k3s.io/node-env": "{}",
    }
    return Likeness(
        "v1.33.4+k3s1",
        node=foreign.node(
            annotations,
            [str(network) for network in plan.pods],
            labels={"node.kubernetes.io/instance-type": "k3s"},
            provider="k3s://demo-node",
        ),
    )


def _openshift(plan: AddressPlan) -> Likeness:
    networks = {
        "clusterNetwork": [
            {"cidr": str(network), "hostPrefix": 23 if network.version == 4 else 64} for network in plan.pods
        ],
        "serviceNetwork": [str(network) for network in plan.services],
        "networkType": "OVNKubernetes",
    }
    network = {
        "apiVersion": "config.openshift.io/v1",
        "kind": "Network",
        "metadata": {"name": "cluster"},
        "spec": {**networks, "externalIP": {"policy": {}}},
        "status": {**networks, "clusterNetworkMTU": 1400},
    }
    subnets = {"default": [str(network) for network in plan.pods]}
    return Likeness(
        "v1.31.11",
        NO_SERVICE_CIDRS,
        (
            foreign.definition("config.openshift.io", "v1", "Network", "networks", is_namespaced=False),
            network,
        ),
        node=foreign.node(
            {"k8s.ovn.org/node-subnets": json.dumps(subnets)}, [], labels={"node.openshift.io/os_id": "rhcos"}
        ),
    )


# --- clouds ------------------------------------------------------------------------------------------------------


def _eks(plan: AddressPlan) -> Likeness:
    configuration = {
        "apiVersion": "crd.k8s.amazonaws.com/v1alpha1",
        "kind": "ENIConfig",
        "metadata": {"name": "eu-west-1a"},
        "spec": {"subnet": "subnet-0c4678ec01ce68b24", "securityGroups": ["sg-066c7927a794cf7e7"]},
    }
    return Likeness(
        "v1.32.7-eks-3abbec1",
        NO_SERVICE_CIDRS,
        (
            foreign.definition(
                "crd.k8s.amazonaws.com", "v1alpha1", "ENIConfig", "eniconfigs", is_namespaced=False
            ),
            configuration,
            foreign.host_pod(
                plan,
                "aws-node-6h8xj",
                "602401143452.dkr.ecr.eu-west-1.amazonaws.com/amazon-k8s-cni:v1.19.5",
                ["/app/aws-vpc-cni"],
                labels={"k8s-app": "aws-node"},
            ),
        ),
        node=foreign.node({}, [], provider="aws:///eu-west-1a/i-0123456789abcdef0"),
    )


def _gke(plan: AddressPlan) -> Likeness:
    return Likeness(
        "v1.33.3-gke.1136000",
        node=foreign.node(
            {"container.googleapis.com/instance_id": "6144321897654321"},
            [str(network) for network in plan.pods],
            labels={"cloud.google.com/gke-nodepool": "default-pool"},
            provider="gce://example-project/europe-west1-b/gke-demo-default-pool-9f8f65a4-2kld",
        ),
    )


def _aks(plan: AddressPlan) -> Likeness:
    version = "v1.31.10"
    containers = [
        {
            "assignmentMode": "static",
            "id": f"00000000-0000-0000-0000-00000000000{network.version}",
            "nodeIP": str(plan.nodes[0]),
            "primaryIP": str(network),
            "subnetAddressSpace": str(network),
            "subnetName": "routingdomain_00000000-0000-0000-0000-000000000000_overlaysubnet",
            "type": "overlay",
            "version": 0,
        }
        for network in plan.pods
    ]
    configuration = {
        "apiVersion": "acn.azure.com/v1alpha",
        "kind": "NodeNetworkConfig",
        "metadata": {"name": "demo-node", "namespace": foreign.SYSTEM},
        "spec": {"requestedIPCount": 16},
        "status": {"assignedIPCount": 256, "networkContainers": containers},
    }
    return Likeness(
        version,
        NO_SERVICE_CIDRS,
        (
            foreign.definition(
                "acn.azure.com", "v1alpha", "NodeNetworkConfig", "nodenetworkconfigs", is_namespaced=True
            ),
            configuration,
            foreign.host_pod(
                plan,
                "kube-proxy-7vd2k",
                f"mcr.microsoft.com/oss/kubernetes/kube-proxy:{version}",
                [
                    "kube-proxy",
                    f"--cluster-cidr={foreign.joined(plan.pods)}",
                    "--detect-local-mode=ClusterCIDR",
                ],
                labels={"component": "kube-proxy", "tier": "node"},
            ),
        ),
        node=foreign.node(
            {},
            [],
            labels={"kubernetes.azure.com/network-plugin-mode": "overlay"},
            provider="azure:///subscriptions/0/resourceGroups/mc_demo/providers/Microsoft.Compute/virtualMachines/0",
        ),
    )


# --- networks of their own ---------------------------------------------------------------------------------------


def _calico(plan: AddressPlan) -> Likeness:
    version = "v1.30.14"
    pools = [
        foreign.pool(f"default-ipv{network.version}-ippool", str(network), is_disabled=False)
        for network in plan.pods
    ]
    return Likeness(
        version,
        NO_SERVICE_CIDRS,
        (
            foreign.definition("crd.projectcalico.org", "v1", "IPPool", "ippools", is_namespaced=False),
            *pools,
            foreign.pool("old-ipv4-ippool", DISABLED_POOL, is_disabled=True),
            *_control_plane(plan, [STALE_PODS], version),
        ),
        node=foreign.node(
            {
                "projectcalico.org/IPv4Address": f"{plan.nodes[0]}/22",
                "projectcalico.org/IPv4IPIPTunnelAddr": str(plan.pod(100)[0]),
            },
            [STALE_PODS.replace("/16", "/24")],
        ),
    )


def _cilium(plan: AddressPlan) -> Likeness:
    node = {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNode",
        "metadata": {"name": "demo-node", "labels": {"kubernetes.io/hostname": "demo-node"}},
        "spec": {
            "addresses": [
                *({"type": "InternalIP", "ip": str(address)} for address in plan.nodes),
                *({"type": "CiliumInternalIP", "ip": str(address)} for address in plan.pod(100)),
            ],
            "ipam": {"podCIDRs": [str(network) for network in plan.pods], "pools": {}},
        },
        "status": {"ipam": {"operator-status": {}}},
    }
    settings = {"ipam": "cluster-pool", "cluster-name": "default", "enable-ipv4": "true"}
    for network in plan.pods:
        settings[f"cluster-pool-ipv{network.version}-cidr"] = str(network)
        settings[f"cluster-pool-ipv{network.version}-mask-size"] = "24" if network.version == 4 else "120"
    return Likeness(
        "v1.33.4",
        objects=(
            foreign.definition("cilium.io", "v2", "CiliumNode", "ciliumnodes", is_namespaced=False),
            node,
            foreign.config_map("cilium-config", settings),
        ),
        node=foreign.node({}, []),
    )


_LIKENESSES: Final[dict[str, Callable[[AddressPlan], Likeness]]] = {
    "kubeadm": _kubeadm,
    "kubeadm-old": _kubeadm_old,
    "k3s": _k3s,
    "eks": _eks,
    "gke": _gke,
    "aks": _aks,
    "calico": _calico,
    "cilium": _cilium,
    "openshift": _openshift,
    "dual-stack": _kubeadm,
}
