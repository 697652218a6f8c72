"""Where addresses and ports lead."""

from __future__ import annotations

import errno
from ipaddress import ip_address
from typing import Any

import pytest
from telehelper.core.frames import Proto
from telehelper.datapath.agentless import index as index_module
from telehelper.datapath.agentless.index import Index, Refusal, Target
from telehelper.datapath.agentless.objects import (
    EndpointSlice,
    Key,
    Pod,
    Service,
)

from tests.datapath.agentless.builders import endpoint, endpoint_slice, fill, index_of, pod, service, web_shop

ME = ip_address("198.19.240.1")


def find(
    index: Index, dst: str, dport: int = 80, *, now: float = 0.0, src: str = str(ME)
) -> Target | Refusal:
    return index.find(Proto.TCP, ip_address(src), ip_address(dst), dport, now)


def pods_of(index: Index, count: int, **how: Any) -> list[str]:
    """The pods that so many flows to the service go to."""
    found = [find(index, "10.96.0.1", **how) for _ in range(count)]
    return [each.pod.name for each in found if isinstance(each, Target)]


def refusal(index: Index, dst: str, dport: int = 80) -> tuple[int, str]:
    found = find(index, dst, dport)
    assert isinstance(found, Refusal), found
    return found.code, found.reason


def test_a_service_leads_to_a_pod_and_its_own_port() -> None:
    assert find(web_shop(1), "10.96.0.1") == Target(Key("shop", "web-0"), 8080)


def test_flows_take_turns_among_ready_endpoints() -> None:
    assert pods_of(web_shop(3), 6) == ["web-0", "web-1", "web-2"] * 2


def test_an_endpoint_that_is_not_ready_gets_nothing() -> None:
    index = web_shop(2)
    slice_ = endpoint_slice("web", endpoint("10.0.0.1", "web-0", ready=False), endpoint("10.0.0.2", "web-1"))
    fill(index, slices=[slice_])
    assert pods_of(index, 3) == ["web-1"] * 3


def test_a_client_keeps_its_endpoint_where_the_service_wants_that() -> None:
    config = {"clientIP": {"timeoutSeconds": 60}}
    index = web_shop(3, sessionAffinity="ClientIP", sessionAffinityConfig=config)
    (first,) = pods_of(index, 1)
    assert pods_of(index, 3, now=59.0) == [first] * 3
    assert pods_of(index, 1, now=59.0, src="198.19.240.2") != [first]
    assert pods_of(index, 1, now=120.0) != [first]


def test_a_kept_endpoint_that_has_gone_is_replaced() -> None:
    index = web_shop(2, sessionAffinity="ClientIP")
    (first,) = pods_of(index, 1)
    index.remove(Pod, Key("shop", first))
    (other,) = pods_of(index, 1)
    assert other != first
    assert pods_of(index, 2) == [other] * 2


def test_named_ports_are_the_slices_own() -> None:
    ports = [{"name": "http", "port": 80}, {"name": "admin", "port": 81}]
    slice_ = endpoint_slice("web", endpoint("10.0.0.1", "web-0"))
    slice_["ports"] = [{"name": "admin", "port": 9000}, {"name": "http", "port": 8000}]
    index = index_of(
        services=[service("web", "10.96.0.1", ports=ports)], slices=[slice_], pods=[pod("web-0", "10.0.0.1")]
    )
    assert find(index, "10.96.0.1", 80) == Target(Key("shop", "web-0"), 8000)
    assert find(index, "10.96.0.1", 81) == Target(Key("shop", "web-0"), 9000)


def test_pods_that_name_their_ports_differently_are_dialed_at_their_own() -> None:
    one = endpoint_slice("web", endpoint("10.0.0.1", "web-0"), name="web-a", port=8000)
    two = endpoint_slice("web", endpoint("10.0.0.2", "web-1"), name="web-b", port=9000)
    index = index_of(
        services=[service("web", "10.96.0.1")],
        slices=[one, two],
        pods=[pod("web-0", "10.0.0.1"), pod("web-1", "10.0.0.2")],
    )
    assert {find(index, "10.96.0.1") for _ in range(4)} == {
        Target(Key("shop", "web-0"), 8000),
        Target(Key("shop", "web-1"), 9000),
    }


def test_a_pods_address_leads_to_the_pod_at_any_port() -> None:
    assert find(web_shop(1), "10.0.0.1", 12345) == Target(Key("shop", "web-0"), 12345)


def test_the_family_of_the_address_decides_among_endpoints() -> None:
    six = {**endpoint_slice("web", endpoint("fd00::2", "web-1"), name="web-six"), "addressType": "IPv6"}
    four = endpoint_slice("web", endpoint("10.0.0.1", "web-0"))
    pods = [pod("web-0", "10.0.0.1"), pod("web-1", "fd00::2")]
    index = index_of(services=[service("web", "10.96.0.1", "fd96::1")], slices=[four, six], pods=pods)
    assert find(index, "fd96::1") == Target(Key("shop", "web-1"), 8080)
    assert find(index, "10.96.0.1") == Target(Key("shop", "web-0"), 8080)


# --- refusals ----------------------------------------------------------------------------------------------------


def test_a_port_that_the_service_has_not_is_refused() -> None:
    code, reason = refusal(web_shop(), "10.96.0.1", 81)
    assert code == errno.ECONNREFUSED
    assert "web.shop has no TCP port 81" in reason


def test_a_udp_port_is_no_tcp_port() -> None:
    index = web_shop(ports=[{"name": "http", "port": 80, "protocol": "UDP"}])
    assert refusal(index, "10.96.0.1")[0] == errno.ECONNREFUSED


def test_a_service_without_ready_endpoints_refuses() -> None:
    code, reason = refusal(web_shop(0), "10.96.0.1")
    assert code == errno.ECONNREFUSED
    assert "no ready endpoint" in reason


def test_endpoints_that_are_no_pods_cannot_be_reached() -> None:
    index = index_of(
        services=[service("db", "10.96.0.1")], slices=[endpoint_slice("db", endpoint("192.0.2.7"))]
    )
    code, reason = refusal(index, "10.96.0.1")
    assert code == errno.EHOSTUNREACH
    assert "no pods behind it" in reason


def test_pods_on_their_nodes_network_are_never_dialed() -> None:
    index = index_of(
        services=[service("proxy", "10.96.0.1")],
        slices=[endpoint_slice("proxy", endpoint("192.0.2.1", "proxy-0"))],
        pods=[pod("proxy-0", "192.0.2.1", host=True)],
    )
    code, reason = refusal(index, "10.96.0.1")
    assert code == errno.EHOSTUNREACH
    assert "node's network" in reason
    assert refusal(index, "192.0.2.1")[0] == errno.EHOSTUNREACH


def test_pods_that_are_not_visible_are_not_dialed() -> None:
    index = index_of(
        services=[service("web", "10.96.0.1")], slices=[endpoint_slice("web", endpoint("10.0.0.1", "web-0"))]
    )
    assert "not visible" in refusal(index, "10.96.0.1")[1]


def test_a_slice_that_lacks_the_port_leads_nowhere() -> None:
    slice_ = endpoint_slice("web", endpoint("10.0.0.1", "web-0"))
    slice_["ports"] = [{"name": "other", "port": 1}]
    index = index_of(services=[service("web", "10.96.0.1")], slices=[slice_], pods=[pod("web-0", "10.0.0.1")])
    assert "no endpoint of service web.shop has its port http" in refusal(index, "10.96.0.1")[1]


def test_an_address_of_nobody_is_unreachable() -> None:
    code, reason = refusal(web_shop(), "192.0.2.1")
    assert code == errno.EHOSTUNREACH
    assert "192.0.2.1" in reason
    assert "namespace shop" in refusal(index_of(namespaces=["shop"]), "192.0.2.1")[1]


@pytest.mark.parametrize("protocol", [Proto.UDP, Proto.ICMP])
def test_only_tcp_can_be_forwarded(protocol: Proto) -> None:
    found = web_shop().find(protocol, ME, ip_address("10.96.0.1"), 80, 0.0)
    assert isinstance(found, Refusal)
    assert protocol.name in found.reason


# --- changes -----------------------------------------------------------------------------------------------------


def test_a_replaced_pod_gets_the_flows_and_the_old_one_none() -> None:
    index = web_shop(1)
    index.remove(Pod, Key("shop", "web-0"))
    assert "not visible" in refusal(index, "10.96.0.1")[1]
    fill(index, pods=[pod("web-9", "10.0.0.9")])
    fill(index, slices=[endpoint_slice("web", endpoint("10.0.0.9", "web-9"))])
    assert pods_of(index, 2) == ["web-9"] * 2
    assert index.routes_at(ip_address("10.0.0.1")) == []


def test_an_address_that_another_pod_has_by_now_stays_with_it() -> None:
    index = index_of(pods=[pod("old", "10.0.0.1")])
    fill(index, pods=[pod("new", "10.0.0.1")])
    index.remove(Pod, Key("shop", "old"))
    assert find(index, "10.0.0.1") == Target(Key("shop", "new"), 80)


def test_a_service_that_gets_another_address_is_not_found_at_the_old_one() -> None:
    index = web_shop(1)
    fill(index, services=[service("web", "10.96.0.2")])
    assert refusal(index, "10.96.0.1")[0] == errno.EHOSTUNREACH
    assert isinstance(find(index, "10.96.0.2"), Target)


def test_turns_go_on_when_a_service_is_changed() -> None:
    index = web_shop(2)
    assert pods_of(index, 1) == ["web-0"]
    fill(
        index,
        services=[service("web", "10.96.0.1", externalTrafficPolicy="Local", sessionAffinity="ClientIP")],
    )
    assert pods_of(index, 1) == ["web-1"]


def test_a_removed_service_leaves_nothing_behind() -> None:
    index = web_shop(2, sessionAffinity="ClientIP")
    pods_of(index, 1)
    for kind, key in ((Service, Key("shop", "web")), (EndpointSlice, Key("shop", "web-abc"))):
        index.remove(kind, key)
        index.remove(kind, key)
    for name in ("web-0", "web-1"):
        index.remove(Pod, Key("shop", name))
    tables = [value for name, value in vars(index).items() if isinstance(value, dict)]
    assert tables
    assert all(not table for table in tables)


def test_what_is_put_again_unchanged_is_no_change() -> None:
    index = web_shop(1)
    before = index.version
    fill(index, services=[service("web", "10.96.0.1")])
    fill(index, pods=[pod("web-0", "10.0.0.1")])
    assert index.version == before


def test_objects_beyond_the_bound_are_left_out_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "MAX_OBJECTS", 2)
    index = index_of(pods=[pod(f"p{number}", f"10.0.0.{number}") for number in range(1, 6)])
    assert len(index.keys(Pod)) == 2
    assert index.left_out == 3


def test_what_is_seen_is_known() -> None:
    everything, one = index_of(), index_of(namespaces=["shop"])
    assert everything.sees("anything")
    assert one.sees("shop")
    assert not one.sees("bank")
    assert one.has_namespace("shop")
    assert not everything.has_namespace("shop")
    assert web_shop().has_namespace("shop")


def test_nodes_are_known_by_pods_on_their_network_also_when_those_have_gone() -> None:
    index = index_of(
        pods=[pod("proxy-0", "192.0.2.1", host=True, node="n1"), pod("web-0", "10.0.0.1", node="n2")]
    )
    assert index.node_at(ip_address("192.0.2.1")) == "n1"
    assert index.node_at(ip_address("10.0.0.1")) == ""
    index.remove(Pod, Key("shop", "proxy-0"))
    assert index.node_at(ip_address("192.0.2.1")) == "n1"


def test_addresses_of_nodes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "MAX_NODES", 2)
    index = Index()
    for number in range(5):
        address = ip_address(f"192.0.2.{number}")
        index.put(Pod(Key("kube-system", f"proxy-{number}"), (address,), is_on_host=True, node=f"n{number}"))
    assert [index.node_at(ip_address(f"192.0.2.{number}")) for number in range(5)] == ["", "", "", "n3", "n4"]
