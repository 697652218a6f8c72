"""Each kind of cluster, as a whole: which CIDRs are found in its answers, by what, and how surely."""

from __future__ import annotations

import asyncio

import pytest
from telehelper.core.resolv_conf import ResolvConf
from telehelper.discovery.discovery import Discovered, discover

from tests.discovery.allocator import Allocator
from tests.discovery.sample import NAMES, sample

Row = tuple[str, str, str, str]  # kind, CIDR, confidence, source

EXPECTED: dict[str, tuple[list[Row], list[str]]] = {
    "kubeadm": (
        [
            (
                "services",
                "10.96.0.0/12",
                "certain",
                "ServiceCIDR kubernetes; also: kube-apiserver --service-cluster-ip-range, kubeadm-config",
            ),
            (
                "pods",
                "10.244.0.0/16",
                "certain",
                "kube-controller-manager --cluster-cidr; also: kubeadm-config, kube-proxy --cluster-cidr, "
                "podCIDR of 2 nodes",
            ),
        ],
        [],
    ),
    "kubeadm-old": (
        [
            (
                "services",
                "10.96.0.0/12",
                "certain",
                "kube-apiserver --service-cluster-ip-range; also: kubeadm-config",
            ),
            (
                "pods",
                "10.244.0.0/16",
                "certain",
                "kube-controller-manager --cluster-cidr; also: kubeadm-config, kube-proxy --cluster-cidr, "
                "podCIDR of 2 nodes",
            ),
        ],
        [],
    ),
    "k3s": (
        [
            ("services", "10.43.0.0/16", "certain", "ServiceCIDR kubernetes"),
            ("pods", "10.42.0.0/23", "certain", "podCIDR of 2 nodes"),
        ],
        [],
    ),
    "eks": (
        [
            # Nobody tells; the pods' blocks leave out the node 192.168.37.12, which is in the same subnet.
            ("services", "10.100.0.0/24", "guess", "round visible services"),
            ("services", "10.100.71.0/24", "guess", "round visible services"),
            ("pods", "192.168.37.128/25", "guess", "round visible pods"),
            ("pods", "192.168.69.0/24", "guess", "round visible pods"),
        ],
        [],
    ),
    "gke": (
        [
            ("services", "34.118.224.0/20", "certain", "ServiceCIDR kubernetes"),
            ("pods", "10.60.0.0/14", "certain", "kube-proxy --cluster-cidr; also: podCIDR of 2 nodes"),
        ],
        [],
    ),
    "aks": (
        [
            ("services", "10.0.0.0/24", "guess", "round visible services"),
            ("services", "10.0.98.0/24", "guess", "round visible services"),
            ("pods", "10.244.0.0/16", "certain", "Azure NodeNetworkConfig; also: kube-proxy --cluster-cidr"),
        ],
        [],
    ),
    "aks-flat": (
        [
            ("services", "10.0.0.0/24", "guess", "round visible services"),
            ("pods", "10.241.0.0/23", "guess", "round visible pods"),
        ],
        ["podCIDR of 1 node: 10.244.0.0/24 does not contain the visible pod 10.241.0.38, so it is not used"],
    ),
    "calico": (
        [
            ("services", "10.96.0.0/12", "certain", "kubeadm-config"),
            ("pods", "10.100.0.0/16", "certain", "Calico's pool"),
        ],
        [
            "kubeadm-config: 10.244.0.0/16 does not contain the visible pod 10.100.219.66, so it is not used",
            "podCIDR of 2 nodes: 10.244.0.0/23 does not contain the visible pod 10.100.219.66, so it is not used",
        ],
    ),
    "cilium": (
        [
            ("services", "10.96.0.0/12", "certain", "ServiceCIDR kubernetes; also: kubeadm-config"),
            ("pods", "10.0.0.0/23", "certain", "2 CiliumNodes; also: cilium-config"),
        ],
        [
            "kubeadm-config: 10.244.0.0/16 does not contain the visible pod 10.0.0.47, so it is not used",
            "podCIDR of 2 nodes: 10.244.0.0/23 does not contain the visible pod 10.0.0.47, so it is not used",
        ],
    ),
    "cilium-multi-pool": (
        [
            ("services", "10.96.0.0/12", "certain", "ServiceCIDR kubernetes"),
            ("pods", "10.10.0.0/16", "certain", "CiliumPodIPPools"),
            ("pods", "10.20.0.0/16", "certain", "CiliumPodIPPools"),
        ],
        [],
    ),
    "openshift": (
        [
            ("services", "172.30.0.0/16", "certain", "OpenShift network.config"),
            ("pods", "10.128.0.0/14", "certain", "OpenShift network.config"),
        ],
        ["listing namespaces is forbidden: only shop is known"],
    ),
    "dual-stack": (
        [
            (
                "services",
                cidr,
                "certain",
                "ServiceCIDR kubernetes; also: kube-apiserver --service-cluster-ip-range, kubeadm-config",
            )
            for cidr in ("10.96.0.0/16", "fd00:10:96::/112")
        ]
        + [
            (
                "pods",
                cidr,
                "certain",
                "kube-controller-manager --cluster-cidr; also: kubeadm-config, kube-proxy --cluster-cidr, "
                "podCIDR of 2 nodes",
            )
            for cidr in ("10.244.0.0/16", "fd00:10:244::/56")
        ],
        [],
    ),
    "namespaced": (
        [
            ("services", "10.101.33.0/24", "guess", "round visible services"),
            ("pods", "10.244.1.0/24", "guess", "round visible pods"),
        ],
        [
            "which services there are is a guess from what is visible, because listing servicecidrs and services "
            "is forbidden",
            "which pods there are is a guess from what is visible, because listing nodes and pods is forbidden",
            "listing namespaces is forbidden: only shop is known",
        ],
    ),
}
EXPECTED["calico-v3"] = EXPECTED["calico"]
DNS_SERVERS = {
    "k3s": "10.43.0.10",
    "eks": "10.100.0.10",
    "gke": "34.118.224.10",
    "aks": "10.0.0.10",
    "aks-flat": "10.0.0.10",
    "openshift": "172.30.0.10",
    "namespaced": "",
}
NAMED_DOMAIN = {"kubeadm", "kubeadm-old", "calico", "calico-v3", "cilium", "dual-stack"}


def found_in(name: str, allocator: Allocator | None = None) -> Discovered:
    return asyncio.run(discover(sample(name, allocator), ResolvConf(), "shop"))


def rows(info: Discovered) -> list[Row]:
    return [(one.kind, one.cidr, one.confidence, one.source) for one in info.cidrs]


def test_every_sample_is_expected() -> None:
    assert EXPECTED.keys() == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_what_a_kind_of_cluster_tells(name: str) -> None:
    info = found_in(name)
    expected, notices = EXPECTED[name]
    assert rows(info) == expected
    about_names = [line for line in info.notices if "DNS server" in line or "domain" in line]
    assert [line for line in info.notices if line not in about_names] == notices
    assert info.dns_server == DNS_SERVERS.get(name, "10.96.0.10")
    assert info.cluster_domain == "cluster.local"
    if not info.dns_server:
        (line,) = about_names
        assert "no kube-dns service is visible" in line
    else:
        assert bool(about_names) is (name not in NAMED_DOMAIN), "only if nothing names the domain"


@pytest.mark.parametrize("name", NAMES)
def test_no_node_is_in_a_network_of_pods_that_was_guessed(name: str) -> None:
    from ipaddress import ip_network

    from telehelper.discovery.pods import node_addresses

    from tests.discovery.sample import answers

    nodes = node_addresses(answers(name))
    for one in found_in(name).cidrs:
        if one.confidence == "guess":
            assert not [node for node in nodes if node in ip_network(one.cidr)], one


@pytest.mark.parametrize(
    ("name", "network"), [("eks", "10.100.0.0/16"), ("aks", "10.0.0.0/16"), ("namespaced", "10.96.0.0/12")]
)
def test_where_services_may_be_created_a_refused_one_tells(name: str, network: str) -> None:
    allocator = Allocator(network)
    info = found_in(name, allocator)
    services = [row for row in rows(info) if row[0] == "services"]
    assert services == [("services", network, "certain", "refused Service (dry run)")]
    assert not [line for line in info.notices if "which services" in line]


def test_a_refused_service_is_not_asked_for_where_objects_tell() -> None:
    allocator = Allocator("10.43.0.0/16")
    found_in("k3s", allocator)
    assert allocator.wanted == []


def test_nor_where_services_may_not_be_created() -> None:
    allocator = Allocator("10.100.0.0/16", allowed=False)
    info = found_in("eks", allocator)
    assert allocator.wanted == []
    assert {one.confidence for one in info.cidrs} == {"guess"}
