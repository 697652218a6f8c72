"""API objects read into values of our own, and what is left out of them."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from telehelper.datapath.agentless import objects
from telehelper.datapath.agentless.objects import (
    Endpoint,
    EndpointPort,
    EndpointSlice,
    Key,
    Pod,
    Service,
    ServicePort,
    read_endpoints,
    read_pod,
    read_service,
    read_slice,
)

from tests.datapath.agentless.builders import endpoint, endpoint_slice, metadata, pod, service

WEB = Key("shop", "web")
IP = ip_address("10.0.0.1")


def test_a_service_has_its_addresses_and_ports() -> None:
    dns = {"name": "dns", "port": 53, "protocol": "UDP"}
    found = read_service(service("web", "10.96.0.1", "fd00::1", ports=[{"port": 80}, dns]))
    ports = (ServicePort("", "TCP", 80), ServicePort("dns", "UDP", 53))
    assert found == Service(WEB, (ip_address("10.96.0.1"), ip_address("fd00::1")), ports)


def test_a_service_of_before_dual_stack_has_one_address() -> None:
    old = service("web", "10.96.0.1")
    del old["spec"]["clusterIPs"]
    found = read_service(old)
    assert found is not None
    assert found.addresses == (ip_address("10.96.0.1"),)


def test_a_headless_service_has_no_address() -> None:
    found = read_service(service("web"))
    assert found is not None
    assert found.addresses == ()


def test_an_external_name_is_all_that_such_a_service_has() -> None:
    found = read_service(service("web", "10.96.0.1", type="ExternalName", externalName="db.example.com."))
    assert found == Service(WEB, external_name="db.example.com")


@pytest.mark.parametrize(
    ("config", "seconds"),
    [
        ({"clientIP": {"timeoutSeconds": 60}}, 60.0),
        ({"clientIP": {"timeoutSeconds": -1}}, objects.DEFAULT_AFFINITY),
        ({"clientIP": {"timeoutSeconds": 10**400}}, objects.DEFAULT_AFFINITY),
        (None, objects.DEFAULT_AFFINITY),
    ],
)
def test_session_affinity_has_its_time(config: Any, seconds: float) -> None:
    found = read_service(
        service("web", "10.96.0.1", sessionAffinity="ClientIP", sessionAffinityConfig=config)
    )
    assert found is not None
    assert found.affinity == seconds


def test_a_slice_has_endpoints_and_their_ports() -> None:
    found = read_slice(
        endpoint_slice(
            "web",
            endpoint("10.0.0.1", "web-0", hostname="one"),
            endpoint("10.0.0.2", "web-1", ready=False),
            endpoint("10.0.0.3", ready=None),
        )
    )
    endpoints = (
        Endpoint(IP, Key("shop", "web-0"), "one"),
        Endpoint(ip_address("10.0.0.2"), Key("shop", "web-1"), is_ready=False),
        Endpoint(ip_address("10.0.0.3")),
    )
    ports = (EndpointPort("http", "TCP", 8080),)
    assert found == EndpointSlice(Key("shop", "web-abc"), WEB, endpoints, ports)


@pytest.mark.parametrize(
    "changed",
    [
        {"addressType": "FQDN"},
        {"metadata": metadata("web-abc")},
        {"metadata": metadata("web-abc", labels={"kubernetes.io/service-name": "../web"})},
    ],
)
def test_a_slice_of_names_or_of_no_service_is_left_out(changed: Any) -> None:
    assert read_slice(endpoint_slice("web", **changed)) is None


def test_a_pod_of_another_namespace_is_no_endpoint() -> None:
    found = read_slice(endpoint_slice("web", endpoint("10.0.0.1", "secret-0", namespace="bank")))
    assert found is not None
    assert found.endpoints == (Endpoint(IP),)


def test_old_endpoints_say_the_same_as_slices() -> None:
    target = {"kind": "Pod", "name": "web-0", "namespace": "shop"}
    item = {
        "metadata": metadata("web"),
        "subsets": [
            {
                "addresses": [{"ip": "10.0.0.1", "targetRef": target, "hostname": "one"}],
                "notReadyAddresses": [{"ip": "10.0.0.2"}],
                "ports": [{"name": "http", "port": 8080}],
            },
            {"addresses": [{"ip": "10.0.0.3"}], "ports": [{"name": "http", "port": 9090}]},
        ],
    }
    endpoints = (
        Endpoint(IP, Key("shop", "web-0"), "one"),
        Endpoint(ip_address("10.0.0.2"), is_ready=False),
    )
    assert read_endpoints(item) == EndpointSlice(WEB, WEB, endpoints, (EndpointPort("http", "TCP", 8080),))


def test_endpoints_without_subsets_are_none() -> None:
    assert read_endpoints({"metadata": metadata("web")}) == EndpointSlice(WEB, WEB)


def test_a_pod_has_its_addresses() -> None:
    found = read_pod(pod("web-0", "10.0.0.1", "fd00::1"))
    assert found == Pod(Key("shop", "web-0"), (IP, ip_address("fd00::1")))


def test_a_pod_without_podips_has_its_podip() -> None:
    item = pod("web-0", "10.0.0.1")
    del item["status"]["podIPs"]
    found = read_pod(item)
    assert found is not None
    assert found.addresses == (IP,)


def test_a_pod_on_its_nodes_network_is_known_as_such() -> None:
    found = read_pod(pod("proxy", "192.0.2.1", host=True))
    assert found is not None
    assert found.is_on_host


@pytest.mark.parametrize(
    ("said", "known"), [("node-1.internal", "node-1.internal"), ("../n", ""), (7, ""), (None, "")]
)
def test_nodes_of_pods_and_endpoints(said: Any, known: str) -> None:
    pod_ = read_pod(pod("web-0", "10.0.0.1", node=said))
    slice_ = read_slice(endpoint_slice("web", endpoint("10.0.0.1", nodeName=said)))
    subset = {"addresses": [{"ip": "10.0.0.1", "nodeName": said}]}
    old = read_endpoints({"metadata": metadata("web"), "subsets": [subset]})
    assert pod_ is not None
    assert slice_ is not None
    assert old is not None
    assert [pod_.node, slice_.endpoints[0].node, old.endpoints[0].node] == [known] * 3


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_pod_that_is_over_is_left_out(phase: str) -> None:
    assert read_pod(pod("job-1", "10.0.0.1", phase=phase)) is None


@pytest.mark.parametrize("name", ["", "../secrets", "a/b", "A", "web%2f", "x" * 254, 7, None])
def test_what_has_no_valid_name_is_left_out(name: Any) -> None:
    readers = (read_service, read_slice, read_endpoints, read_pod)
    items = (service("web", "10.96.0.1"), endpoint_slice("web"), {}, pod("web-0", "10.0.0.1"))
    for read, item in zip(readers, items, strict=True):
        labels = {"kubernetes.io/service-name": "web"}
        assert read({**item, "metadata": metadata(name, labels=labels)}) is None
        assert read({**item, "metadata": metadata("web", namespace=name, labels=labels)}) is None


@pytest.mark.parametrize("address", ["", "10.0.0", "fe80::1%eth0", 10, None, "localhost"])
def test_what_is_no_address_is_left_out(address: Any) -> None:
    found = read_pod(pod("web-0", address, "10.0.0.1"))
    assert found is not None
    assert found.addresses == (IP,)


@pytest.mark.parametrize("port", [0, 65536, -1, "80", None, 1.5])
def test_what_is_no_port_is_left_out(port: Any) -> None:
    found = read_service(service("web", "10.96.0.1", ports=[{"port": port}, {"port": 80, "protocol": "RDP"}]))
    assert found is not None
    assert found.ports == ()


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["metadata", "name", "namespace", "spec", "status", "ports"]), inner
        )
    ),
    max_leaves=8,
)


@given(_JSON, st.sampled_from(["spec", "status", "endpoints", "ports", "subsets"]))
def test_whatever_the_cluster_sends_is_read_or_left_out(value: Any, field: str) -> None:
    labels = {"kubernetes.io/service-name": "web"}
    item = {"metadata": metadata("web", labels=labels), "addressType": "IPv4", field: value}
    for read in (read_service, read_slice, read_endpoints, read_pod):
        read(item)


def test_what_has_another_shape_is_left_out_and_raises_nothing() -> None:
    odd = service("web", "10.96.0.1", ports=[{"port": 80, "protocol": ["TCP"]}, {"port": 81}])
    found = read_service(odd)
    assert found is not None
    assert [port.number for port in found.ports] == [81]
    pod = read_pod({"metadata": {"name": "web-0", "namespace": "shop"}, "status": {"phase": []}})
    assert pod is not None
    assert pod.addresses == ()
