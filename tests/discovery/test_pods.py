"""Each way to tell where pods are, on the samples and on what nobody should answer."""

from __future__ import annotations

from typing import Any

import pytest
from telehelper.discovery import pods, questions
from telehelper.discovery.claims import CERTAIN, LIKELY, Claim

from tests.discovery.sample import answers


def networks(found: list[Claim]) -> list[str]:
    return [str(network) for one in found for network in one.networks]


def pod(*addresses: str, host: bool = False, phase: str = "Running") -> dict[str, Any]:
    return {
        "spec": {"hostNetwork": host},
        "status": {"phase": phase, "podIP": addresses[0], "podIPs": [{"ip": one} for one in addresses]},
    }


@pytest.mark.parametrize(
    ("read", "name", "expected", "source"),
    [
        (pods.openshift, "openshift", ["10.128.0.0/14"], "OpenShift network.config"),
        (pods.calico, "calico", ["10.100.0.0/16"], "Calico's pool"),
        (pods.calico, "calico-v3", ["10.100.0.0/16"], "Calico's pool"),
        (pods.cilium_pools, "cilium-multi-pool", ["10.10.0.0/16", "10.20.0.0/16"], "CiliumPodIPPools"),
        (pods.cilium_nodes, "cilium", ["10.0.0.0/24", "10.0.1.0/24"], "2 CiliumNodes"),
        (pods.cilium_config, "cilium", ["10.0.0.0/8"], "cilium-config"),
        (pods.aks, "aks", ["10.244.0.0/16"], "Azure NodeNetworkConfig"),
        (pods.controller_flags, "kubeadm", ["10.244.0.0/16"], "kube-controller-manager --cluster-cidr"),
        (pods.kubeadm, "dual-stack", ["10.244.0.0/16", "fd00:10:244::/56"], "kubeadm-config"),
        (pods.kube_proxy, "gke", ["10.60.0.0/14"], "kube-proxy --cluster-cidr"),
        (pods.kube_proxy, "aks", ["10.244.0.0/16"], "kube-proxy --cluster-cidr"),
        (pods.kube_proxy, "kubeadm", ["10.244.0.0/16"], "kube-proxy --cluster-cidr"),
        (pods.node_pod_cidrs, "k3s", ["10.42.0.0/24", "10.42.1.0/24"], "podCIDR of 2 nodes"),
        (pods.node_pod_cidrs, "aks-flat", ["10.244.0.0/24"], "podCIDR of 1 node"),
        (pods.node_pod_cidrs, "eks", [], ""),
        (pods.aks, "aks-flat", [], ""),
        (pods.cilium_config, "cilium-multi-pool", [], ""),
        (pods.cilium_nodes, "cilium-multi-pool", [], ""),
        (pods.calico, "eks", [], ""),
        (pods.k3s, "k3s", [], ""),
    ],
)
def test_what_a_kind_of_cluster_tells(read: Any, name: str, expected: list[str], source: str) -> None:
    found = read(answers(name))
    assert networks(found) == expected
    assert {one.source for one in found} == ({source} if source else set())


def test_a_disabled_pool_counts_while_pods_are_in_it() -> None:
    def pool(cidr: str, **more: bool) -> dict[str, Any]:
        return {"spec": {"cidr": cidr, **more}}

    pools = {
        "items": [pool("10.1.0.0/16"), pool("10.2.0.0/16", disabled=True), pool("nonsense", disabled=True)]
    }
    found = {questions.CALICO: pools, questions.PODS: {"items": [pod("10.1.0.1")]}}
    assert networks(pods.calico(found)) == ["10.1.0.0/16"]
    found[questions.PODS]["items"].append(pod("10.2.0.9"))
    (claim,) = pods.calico(found)
    assert networks([claim]) == ["10.1.0.0/16", "10.2.0.0/16"]
    assert (claim.source, claim.alone, claim.is_whole) == ("Calico's 2 pools", CERTAIN, False)


def test_pools_of_later_ciliums_are_objects() -> None:
    pool = {"spec": {"ipv4": {"cidrs": [{"cidr": "10.10.0.0/16"}]}, "ipv6": {"cidrs": ["fd00:1::/48"]}}}
    assert networks(pods.cilium_pools({questions.CILIUM_POOLS: {"items": [pool]}})) == [
        "10.10.0.0/16",
        "fd00:1::/48",
    ]


def test_ciliums_range_may_be_a_list_and_is_never_certain() -> None:
    data = {
        "ipam": "cluster-pool",
        "cluster-pool-ipv4-cidr": "10.1.0.0/16 10.3.0.0/16",
        "cluster-pool-ipv6-cidr": "",
    }
    (claim,) = pods.cilium_config({questions.CILIUM: {"data": data}})
    assert networks([claim]) == ["10.1.0.0/16", "10.3.0.0/16"]
    assert (claim.alone, claim.witnessed) == (LIKELY, LIKELY)
    assert pods.cilium_config({questions.CILIUM: {"data": {**data, "ipam": "kubernetes"}}}) == []


def test_old_nodes_have_one_pod_cidr_only() -> None:
    nodes = {
        "items": [{"spec": {"podCIDR": "10.0.1.0/24"}}, {"spec": {"podCIDRs": ["10.0.2.0/24"]}}, {"spec": {}}]
    }
    (claim,) = pods.node_pod_cidrs({questions.NODES: nodes})
    assert networks([claim]) == ["10.0.1.0/24", "10.0.2.0/24"]
    assert claim.source == "podCIDR of 2 nodes"


def test_pods_on_the_hosts_network_and_those_that_are_over_have_no_address_of_their_own() -> None:
    listed = {
        "items": [
            pod("10.0.0.1", "fd00::1"),
            pod("192.168.1.1", host=True),
            pod("10.0.0.2", phase="Succeeded"),
            pod("10.0.0.3", phase="Failed"),
            {"status": {"podIP": "10.0.0.4"}},
            {"status": {"podIPs": [{"ip": 7}, 7, {"ip": "nonsense"}, {"ip": "fe80::1%eth0"}]}},
            {"status": None},
        ]
    }
    assert list(map(str, pods.pod_addresses(listed))) == ["10.0.0.1", "fd00::1", "10.0.0.4"]


def test_slices_tell_of_pods_only_and_not_of_nodes() -> None:
    slices = {
        "items": [
            {
                "addressType": "IPv4",
                "endpoints": [
                    {"addresses": ["10.244.1.7"], "targetRef": {"kind": "Pod"}},
                    {"addresses": ["192.168.1.5"], "targetRef": {"kind": "Pod"}},
                    {"addresses": ["203.0.113.9"]},
                    {"addresses": ["203.0.113.10"], "targetRef": {"kind": "Node"}},
                ],
            }
        ]
    }
    nodes = {"items": [{"status": {"addresses": [{"type": "InternalIP", "address": "192.168.1.5"}]}}]}
    found = {questions.SLICES: slices, questions.NODES: nodes}
    assert list(map(str, pods.visible(found))) == ["10.244.1.7"]


def test_nodes_addresses_are_known_from_nodes_and_from_their_pods() -> None:
    assert {str(one) for one in pods.node_addresses(answers("eks"))} == {
        "192.168.37.12",
        "192.168.75.201",
        "54.220.11.7",
    }
    assert {str(one) for one in pods.node_addresses(answers("openshift"))} == set()
    seen = {questions.PODS: {"items": [{"status": {"hostIP": "10.0.0.9", "hostIPs": [{"ip": "fd00::9"}]}}]}}
    assert {str(one) for one in pods.node_addresses(seen)} == {"10.0.0.9", "fd00::9"}


def test_who_hands_addresses_out_is_believed_first() -> None:
    order = [read.__name__ for read in pods.HEURISTICS]
    assert order.index("calico") < order.index("controller_flags") < order.index("node_pod_cidrs")
    assert len(order) == len(set(order)) == 11
