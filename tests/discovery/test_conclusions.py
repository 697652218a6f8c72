from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from telehelper.core.resolv_conf import ResolvConf, parse_resolv_conf
from telehelper.discovery import questions
from telehelper.discovery.claims import MAX_NOTICES, FoundCidr
from telehelper.discovery.conclusions import MAX_NAMESPACES, Discovered, conclude
from telehelper.discovery.fields import items
from telehelper.discovery.message import to_message
from telehelper.discovery.reader import NotThere
from telehelper.errors import ApiServerUnavailable, ClusterError, CredentialsRefused

from tests.discovery.sample import answers, forbidden
from tests.discovery.test_pods import pod

POD_RESOLV = parse_resolv_conf(
    "# pod\nsearch shop.svc.cluster.local svc.cluster.local cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n"
)
BASIC = (
    questions.SERVICE_CIDRS,
    questions.NODES,
    questions.PODS,
    questions.SERVICES,
    questions.NAMESPACES,
)


def concluded(
    found: dict[str, Any],
    refused: dict[str, ClusterError] | None = None,
    resolv: ResolvConf = POD_RESOLV,
    namespace: str = "",
) -> Discovered:
    return conclude(found, refused or {}, resolv, namespace)


def test_no_rights_at_all_leave_the_resolver_and_three_notices() -> None:
    info = concluded({}, {path: forbidden(path) for path in BASIC}, namespace="telemagic")
    assert info.cidrs == (FoundCidr("10.96.0.0/24", "services", "round visible services", "guess"),)
    assert (info.dns_server, info.cluster_domain, info.namespaces) == (
        "10.96.0.10",
        "cluster.local",
        ("telemagic",),
    )
    assert info.notices == (
        "which services there are is a guess from what is visible, because listing servicecidrs and services is "
        "forbidden",
        "no CIDR of pods is known, because listing nodes and pods is forbidden: use names, or --cidr",
        "listing namespaces is forbidden: only telemagic is known",
    )


def test_rights_that_would_add_nothing_are_not_mentioned() -> None:
    found = {path: answer for path, answer in answers("kubeadm").items() if path != questions.SERVICE_CIDRS}
    info = concluded(
        found, {questions.SERVICE_CIDRS: forbidden("servicecidrs"), questions.CALICO: forbidden("x")}
    )
    assert info.is_certain
    assert info.notices == ()


def test_an_api_server_that_is_away_is_one_notice() -> None:
    info = concluded({}, {path: ApiServerUnavailable(f"no answer to {path}") for path in BASIC})
    assert info.notices == (f"the cluster's networks could not all be asked for: no answer to {BASIC[0]}",)


def test_what_a_cluster_does_not_have_is_no_lack() -> None:
    info = concluded(answers("k3s"), {questions.CALICO: NotThere("404"), questions.KUBEADM: NotThere("404")})
    assert info.notices == ()


def test_a_dns_server_is_covered_only_if_nothing_else_tells_of_services() -> None:
    cidrs = {"items": [{"metadata": {"name": "kubernetes"}, "spec": {"cidrs": ["10.112.0.0/16"]}}]}
    info = concluded({questions.SERVICE_CIDRS: cidrs})
    assert [one.cidr for one in info.cidrs] == ["10.112.0.0/16"]
    assert info.notices == ()


def test_excluded_addresses_are_never_covered() -> None:
    from ipaddress import ip_address, ip_network

    found = {questions.PODS: {"items": [pod("10.0.0.7")]}, questions.NODES: {"items": []}}
    api_server = ip_address("10.0.0.9")
    info = conclude(found, {}, ResolvConf(), "", [api_server])
    assert [one.kind for one in info.cidrs] == ["pods"]
    assert api_server not in ip_network(info.cidrs[0].cidr)


def test_pods_known_from_slices_only_are_covered_one_by_one() -> None:
    slices = {"items": [{"endpoints": [{"addresses": ["10.244.1.7"], "targetRef": {"kind": "Pod"}}]}]}
    info = concluded({questions.SLICES: slices}, resolv=ResolvConf())
    assert [one.cidr for one in info.cidrs] == ["10.244.1.7/32"], "its neighbour may be a node"


# --- names -------------------------------------------------------------------------------------------------------


def test_a_nodes_resolver_is_no_clusters() -> None:
    node = parse_resolv_conf("nameserver 8.8.8.8\nsearch example.com\n")
    info = concluded({questions.KUBE_DNS: {"spec": {"clusterIPs": ["10.96.0.10"]}}}, resolv=node)
    assert (info.dns_server, info.cluster_domain) == ("10.96.0.10", "cluster.local")
    assert info.notices == ("the cluster's domain is taken to be cluster.local: nothing names it",)
    blind = concluded({}, resolv=node)
    assert (blind.dns_server, blind.cluster_domain) == ("", "cluster.local")
    assert "DNS server is unknown" in blind.notices[0]


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        (questions.KUBE_DNS, {"spec": {"clusterIP": "10.96.0.10"}}),
        (questions.OPENSHIFT_DNS, {"spec": {"clusterIPs": ["10.96.0.10"]}}),
        (
            questions.SERVICES,
            {
                "items": [
                    {
                        "metadata": {"namespace": "kube-system", "name": "rke2-coredns-rke2-coredns"},
                        "spec": {"clusterIP": "10.96.0.10"},
                    }
                ]
            },
        ),
    ],
)
def test_dns_servers_of_several_products(path: str, answer: dict[str, Any]) -> None:
    assert concluded({path: answer}, resolv=ResolvConf()).dns_server == "10.96.0.10"


def test_a_service_that_is_only_called_so_is_no_dns_server() -> None:
    mine = {"metadata": {"namespace": "shop", "name": "kube-dns"}, "spec": {"clusterIP": "10.9.9.9"}}
    assert concluded({questions.SERVICES: {"items": [mine]}}, resolv=ResolvConf()).dns_server == ""


@pytest.mark.parametrize(
    ("path", "data", "domain"),
    [
        (
            questions.KUBEADM,
            {"ClusterConfiguration": "networking: {dnsDomain: corp.example}"},
            "corp.example",
        ),
        (
            questions.COREDNS,
            {"Corefile": ".:53 {\n  kubernetes Corp.Example. in-addr.arpa {\n  }\n}"},
            "corp.example",
        ),
        (questions.COREDNS, {"Corefile": ".:53 {\n  kubernetes {\n}"}, "cluster.local"),
        (questions.COREDNS, {"Corefile": ".:53 {\n  kubernetes ../../etc/x {\n}"}, "cluster.local"),
        (questions.COREDNS, {"Corefile": 7}, "cluster.local"),
        (questions.KUBEADM, {"ClusterConfiguration": "networking: {dnsDomain: 10.0.0.1}"}, "cluster.local"),
        (
            questions.KUBEADM,
            {"ClusterConfiguration": f"networking: {{dnsDomain: {'a' * 300}}}"},
            "cluster.local",
        ),
    ],
)
def test_the_domain_is_told_by_configurations(path: str, data: dict[str, Any], domain: str) -> None:
    found = {path: {"data": data}, questions.KUBE_DNS: {"spec": {"clusterIP": "10.0.0.10"}}}
    assert concluded(found, resolv=ResolvConf()).cluster_domain == domain


@pytest.mark.parametrize(
    ("text", "dns", "domain"),
    [
        (
            "search a.svc.corp.example svc.corp.example. corp.example\nnameserver 10.0.0.2",
            "10.0.0.2",
            "corp.example",
        ),
        (
            "nameserver 169.254.20.10\nnameserver 10.0.0.2\nsearch svc.cluster.local",
            "10.0.0.2",
            "cluster.local",
        ),
        ("nameserver 127.0.0.53\nsearch svc.cluster.local", "", "cluster.local"),
        ("nameserver 10.0.0.2\nsearch svc.", "", ""),
        ("nameserver fe80::1%eth0\nnameserver nonsense\nnameserver\nsearch svc.c.l", "", "c.l"),
        ("", "", ""),
    ],
)
def test_resolv_conf(text: str, dns: str, domain: str) -> None:
    resolv = parse_resolv_conf(text)
    assert (resolv.cluster_dns, resolv.cluster_domain) == (dns, domain)


def test_namespaces_are_sorted_and_only_those_that_can_be_one() -> None:
    names = ["shop", "default", "", "../etc", "a" * 64, "Shop", 7]
    listed = {"items": [{"metadata": {"name": name}} for name in names]}
    assert concluded({questions.NAMESPACES: listed}).namespaces == ("default", "shop")
    many = {"items": [{"metadata": {"name": f"n{n}"}} for n in range(MAX_NAMESPACES + 10)]}
    assert len(concluded({questions.NAMESPACES: many}).namespaces) == MAX_NAMESPACES


def test_as_a_message() -> None:
    info = concluded(answers("kubeadm"))
    message = to_message(info)
    assert [(c.cidr, c.kind, c.source, c.confidence) for c in message.cidrs] == [tuple(c) for c in info.cidrs]
    assert (message.dns_server, message.cluster_domain) == ("10.96.0.10", "cluster.local")
    assert tuple(message.namespaces) == info.namespaces
    assert tuple(message.notices) == info.notices


# --- what nobody should answer -----------------------------------------------------------------------------------

_WORDS = (
    "items spec status metadata name namespace cidrs cidr podCIDR podCIDRs podIPs podIP ip clusterIP clusterIPs "
    "hostIP hostIPs addresses address type disabled ipam endpoints targetRef kind labels component containers command "
    "args data ClusterConfiguration Corefile ipv4 serviceNetwork clusterNetwork networkContainers ranges annotations"
)
_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=5)
    | st.sampled_from(["10.0.0.1", "10.0.0.0/8", "::/0", "0.0.0.0/0", "fd00::/8", "None", "Pod", "overlay"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_WORDS.split(" ")), inner, max_size=5)
    ),
    max_leaves=25,
)
_PATHS = (*BASIC, *questions.PARTICULARS, questions.SLICES, questions.REFUSED_SERVICE)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(_PATHS), _JSON.filter(lambda one: isinstance(one, dict)), max_size=6))
def test_objects_of_any_shape_break_nothing(found: dict[str, Any]) -> None:
    slimmed = {path: questions.slim_list(path, answer) for path, answer in found.items()}
    info = conclude(slimmed, {}, ResolvConf(), "shop")
    assert conclude(found, {}, ResolvConf(), "shop") == info, "what is cut is not looked at"
    assert len(info.notices) <= MAX_NOTICES
    to_message(info)


@settings(deadline=None)
@given(_JSON)
def test_lists_of_any_shape_break_nothing(answer: Any) -> None:
    assert all(isinstance(item, dict) for item in items(answer))


@pytest.mark.parametrize(
    "text", ["0.0.0.0/0", "127.0.0.0/8", "169.254.0.0/16", "0.0.0.0/1", "::/0", "fe80::/10", "255.0.0.0/8"]
)
def test_hostile_networks_lead_to_notices_and_to_no_route(text: str) -> None:
    found = {
        questions.SERVICE_CIDRS: {"items": [{"spec": {"cidrs": [text]}}]},
        questions.NODES: {"items": [{"spec": {"podCIDRs": [text]}}]},
    }
    info = concluded(found, resolv=ResolvConf())
    assert info.cidrs == ()
    assert len([line for line in info.notices if text in line]) == 2


def test_hostile_addresses_lead_to_no_route() -> None:
    found = {
        questions.PODS: {"items": [pod("127.0.0.1"), pod("169.254.169.254"), pod("0.0.0.0"), pod("::1")]},
        questions.SERVICES: {
            "items": [{"spec": {"clusterIP": "127.0.0.1"}}, {"spec": {"clusterIP": "224.0.0.1"}}]
        },
        questions.NODES: {"items": []},
    }
    assert concluded(found, resolv=ResolvConf()).cidrs == ()


def test_refusals_are_told_apart() -> None:
    """What is forbidden is a lack of rights; other failures are the API server's."""
    refused: dict[str, ClusterError] = {
        questions.NODES: CredentialsRefused("403"),
        questions.PODS: ApiServerUnavailable("500 oops"),
    }
    info = concluded({}, refused)
    assert info.notices[0] == "the cluster's networks could not all be asked for: 500 oops"
