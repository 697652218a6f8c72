"""Who is behind a service, and which names follow from it."""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import Any

import pytest

from telemagic.demo import endpoints, zone
from telemagic.demo.nameserver import Zone
from telemagic.demo.plan import AddressPlan
from tests.demo.api_objects import container, named, service

PLAN = AddressPlan(IPv4Network("198.18.0.0/20"))


def pod(name: str, *addresses: str, app: str = "web", ready: bool = True, **spec: Any) -> dict[str, Any]:
    status = {"podIPs": [{"ip": address} for address in addresses]}
    return {
        "metadata": named(name, "shop", uid=f"uid-{name}", labels={"app": app, "tier": "front"}),
        "spec": {"containers": [container(ports=[{"name": "http", "containerPort": 8000}])], **spec},
        "status": {**status, "conditions": [{"type": "Ready", "status": str(ready)}]},
    }


ONE, TWO = pod("one", "198.18.0.20", "2001:2::14"), pod("two", "198.18.0.21", "2001:2::15", ready=False)


def built(item: dict[str, Any], *pods: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    found = endpoints.build(item, pods, PLAN)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ({"app": "web"}, True),
        ({"app": "web", "tier": "front"}, True),
        ({"app": "web", "tier": "back"}, False),
        ({"app": "api"}, False),
        ({}, False),
        (None, False),
    ],
)
def test_a_selector_must_match_as_a_whole(selector: dict[str, str] | None, expected: bool) -> None:
    assert endpoints.selects(service("web", "shop", selector=selector), ONE) is expected


def test_pods_of_another_namespace_are_never_meant() -> None:
    assert not endpoints.selects(service("web", "other"), ONE)


def test_the_flat_endpoints_know_the_first_family_and_what_is_ready() -> None:
    flat, _ = built(service("web", "shop", ipFamilies=["IPv6", "IPv4"]), ONE, TWO)
    (subset,) = flat["subsets"]
    assert [entry["ip"] for entry in subset["addresses"]] == ["2001:2::14"]
    assert [entry["ip"] for entry in subset["notReadyAddresses"]] == ["2001:2::15"]
    assert subset["addresses"][0]["targetRef"] == {
        "kind": "Pod",
        "name": "one",
        "namespace": "shop",
        "uid": "uid-one",
    }


def test_there_is_a_slice_for_each_family() -> None:
    _, slices = built(service("web", "shop", ipFamilies=["IPv4", "IPv6"]), ONE, TWO)
    assert [one["addressType"] for one in slices] == ["IPv4", "IPv6"]
    assert [entry["addresses"] for entry in slices[1]["endpoints"]] == [["2001:2::14"], ["2001:2::15"]]
    assert [entry["conditions"]["ready"] for entry in slices[0]["endpoints"]] == [True, False]
    assert all(one["metadata"]["labels"] == {"kubernetes.io/service-name": "web"} for one in slices)
    assert len({one["metadata"]["name"] for one in slices}) == 2


@pytest.mark.parametrize(("target", "number"), [(None, 80), (8080, 8080), ("http", 8000), ("absent", 80)])
def test_the_port_is_the_pods(target: object, number: int) -> None:
    port = {"name": "x", "port": 80, **({"targetPort": target} if target is not None else {})}
    flat, slices = built(service("web", "shop", ports=[port]), ONE)
    assert (
        flat["subsets"][0]["ports"]
        == [{"name": "x", "port": number, "protocol": "TCP"}]
        == slices[0]["ports"]
    )


def test_services_without_pods_of_their_own_get_none() -> None:
    assert endpoints.build(service("web", "shop", selector={}), [ONE], PLAN) is None
    assert endpoints.build(service("web", "shop", type="ExternalName"), [ONE], PLAN) is None
    flat, slices = built(service("api", "shop"), ONE)
    assert (flat["subsets"], slices[0]["endpoints"]) == ([], [])


def test_the_api_server_is_on_the_node() -> None:
    item = service("kubernetes", "default", selector=None, ports=[{"name": "https", "port": 443}])
    flat, (sliced,) = built(item)
    assert flat["subsets"][0]["addresses"] == [{"ip": str(PLAN.nodes[0])}]
    assert flat["subsets"][0]["ports"][0]["port"] == 6443
    assert "targetRef" not in sliced["endpoints"][0]


def test_the_zone_has_all_that_the_name_server_needs() -> None:
    items = [
        service("web", "shop", clusterIPs=["198.18.8.20", "2001:2:0:1::14"]),
        service("web-pods", "shop", clusterIPs=["None"], selector={"app": "web"}),
        service("elsewhere", "shop", type="ExternalName"),
        service("unnamed", "shop", ports=[{"port": 9}]),
    ]
    host = pod("proxy", "198.18.12.1", hostNetwork=True)
    described = zone.describe(PLAN, items, [ONE, TWO, host])
    assert [one["name"] for one in described["services"]] == ["web", "web-pods", "unnamed"]
    web, headless, unnamed = described["services"]
    assert web["addresses"] == ["198.18.8.20", "2001:2:0:1::14"]
    assert headless["addresses"] == []
    assert "198.18.0.20" in headless["endpoints"]
    assert unnamed["ports"] == [["9", "tcp", 9]]
    assert [one["addresses"][0] for one in described["pods"]] == ["198.18.0.20", "198.18.0.21"]
    assert Zone(described).domain.to_text() == "cluster.local."
