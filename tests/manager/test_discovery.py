from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from telehelper.core.resolv_conf import ResolvConf, parse_resolv_conf
from telehelper.errors import ApiServerUnavailable, CredentialsRefused
from telehelper.manager import heuristics
from telehelper.manager.cluster_info import ClusterInfoBoard
from telehelper.manager.discovery import (
    KUBE_DNS,
    NAMESPACES,
    NODES,
    PODS,
    SERVICE_CIDRS,
    SERVICES,
    Discovered,
    FakeApiReader,
    discover,
)
from telehelper.manager.heuristics import FoundCidr

POD_RESOLV = parse_resolv_conf(
    "# pod\nsearch shop.svc.cluster.local svc.cluster.local cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n"
)
SERVICE_CIDR = {
    "items": [{"metadata": {"name": "kubernetes"}, "spec": {"cidrs": ["10.96.0.0/12", "fd00::/108"]}}]
}
NODE_LIST = {
    "items": [
        {"spec": {"podCIDR": "10.244.0.0/24", "podCIDRs": ["10.244.0.0/24"]}},
        {"spec": {"podCIDR": "10.244.1.0/24"}},
    ]
}


def pod(address: str, *, host: bool = False) -> dict[str, Any]:
    return {"spec": {"hostNetwork": host}, "status": {"podIP": address, "podIPs": [{"ip": address}]}}


def found(objects: dict[str, Any], resolv: ResolvConf = POD_RESOLV, namespace: str = "") -> Discovered:
    return asyncio.run(discover(FakeApiReader(objects), resolv, namespace))


def test_all_rights_give_certainty() -> None:
    info = found(
        {
            SERVICE_CIDRS: SERVICE_CIDR,
            NODES: NODE_LIST,
            PODS: {"items": [pod("10.244.1.7"), pod("192.168.1.2", host=True)]},
            SERVICES: {"items": []},
            NAMESPACES: {"items": [{"metadata": {"name": "shop"}}, {"metadata": {"name": "default"}}]},
            KUBE_DNS: {"spec": {"clusterIP": "10.96.0.10"}},
        }
    )
    assert info == Discovered(
        (
            FoundCidr("10.96.0.0/12", "services", "ServiceCIDR kubernetes", "certain"),
            FoundCidr("fd00::/108", "services", "ServiceCIDR kubernetes", "certain"),
            FoundCidr("10.244.0.0/23", "pods", "podCIDR of 2 nodes", "certain"),
        ),
        "10.96.0.10",
        "cluster.local",
        ("default", "shop"),
        (),
    )


def test_pod_cidrs_that_miss_a_pod_are_not_believed() -> None:
    info = found({SERVICE_CIDRS: SERVICE_CIDR, NODES: NODE_LIST, PODS: {"items": [pod("10.5.6.7")]}})
    assert info.cidrs[-1] == FoundCidr("10.5.6.0/24", "pods", "round 1 visible pods", "guess")
    assert "the nodes' podCIDRs do not contain the pod 10.5.6.7, so they are not used" in info.notices


DUAL_POD = {"status": {"podIPs": [{"ip": "10.244.0.7"}, {"ip": "2001:db8:1::7"}]}}
V4_ONLY = {"items": [{"metadata": {"name": "kubernetes"}, "spec": {"cidrs": ["10.96.0.0/12"]}}]}


def nodes(*cidrs: str) -> dict[str, Any]:
    return {"items": [{"spec": {"podCIDRs": list(cidrs)}}]}


def test_a_dual_stack_cluster_tells_of_both_families() -> None:
    info = found(
        {
            SERVICE_CIDRS: SERVICE_CIDR,
            NODES: nodes("10.244.0.0/24", "2001:db8:1::/64"),
            PODS: {"items": [DUAL_POD]},
        }
    )
    assert [(one.cidr, one.confidence) for one in info.cidrs] == [
        ("10.96.0.0/12", "certain"),
        ("fd00::/108", "certain"),
        ("10.244.0.0/24", "certain"),
        ("2001:db8:1::/64", "certain"),
    ]


def test_each_family_of_pod_cidrs_is_believed_for_itself() -> None:
    info = found({NODES: nodes("10.244.0.0/24", "2001:db8:9::/64"), PODS: {"items": [DUAL_POD]}})
    assert info.cidrs[-2:] == (
        FoundCidr("10.244.0.0/24", "pods", "podCIDR of 1 node", "certain"),
        FoundCidr("2001:db8:1::/64", "pods", "round 1 visible pods", "guess"),
    )
    assert [n for n in info.notices if "podCIDRs" in n] == [
        "the nodes' podCIDRs do not contain the pod 2001:db8:1::7, so they are not used"
    ]


def test_a_family_that_objects_do_not_tell_of_is_guessed_from_addresses() -> None:
    services = {"items": [{"spec": {"clusterIPs": ["10.96.0.1", "fd00::1"]}}]}
    info = found(
        {
            SERVICE_CIDRS: V4_ONLY,
            SERVICES: services,
            NODES: nodes("10.244.0.0/24"),
            PODS: {"items": [DUAL_POD, {"status": {"podIP": "nonsense"}}]},
        }
    )
    assert info.cidrs == (
        FoundCidr("10.96.0.0/12", "services", "ServiceCIDR kubernetes", "certain"),
        FoundCidr("fd00::/64", "services", "round 1 visible services", "guess"),
        FoundCidr("10.244.0.0/24", "pods", "podCIDR of 1 node", "certain"),
        FoundCidr("2001:db8:1::/64", "pods", "round 1 visible pods", "guess"),
    )


def test_pod_cidrs_of_a_family_without_visible_pods_are_likely() -> None:
    info = found({NODES: nodes("10.244.0.0/24", "2001:db8:1::/64"), PODS: {"items": [pod("10.244.0.7")]}})
    assert [one.confidence for one in info.cidrs if one.kind == "pods"] == ["certain", "likely"]


def test_pod_cidrs_unchecked_are_likely() -> None:
    info = found({NODES: {"items": NODE_LIST["items"][:1]}})
    assert FoundCidr("10.244.0.0/24", "pods", "podCIDR of 1 node", "likely") in info.cidrs


def test_no_rights_at_all_leave_the_resolver_and_notices() -> None:
    refused = CredentialsRefused("API server forbids it")
    info = found(
        dict.fromkeys((SERVICE_CIDRS, NODES, PODS, SERVICES, NAMESPACES, KUBE_DNS), refused),
        namespace="telemagic",
    )
    assert info.cidrs == (FoundCidr("10.96.0.0/24", "services", "round 1 visible DNS server", "guess"),)
    assert (info.dns_server, info.cluster_domain, info.namespaces) == (
        "10.96.0.10",
        "cluster.local",
        ("telemagic",),
    )
    assert info.notices == (
        "namespaces cannot be listed: API server forbids it",
        "the service CIDR is a guess: API server forbids it",
        "services cannot be listed: API server forbids it",
        "the pods' CIDR is a guess: API server forbids it",
        "pods cannot be listed: API server forbids it",
    )


def test_visible_services_give_a_guess() -> None:
    services = [
        {"spec": {"clusterIPs": ["10.96.0.1"]}},
        {"spec": {"clusterIP": "10.96.1.9"}},
        {"spec": {"clusterIP": "None"}},
    ]
    info = found({SERVICES: {"items": services}})
    assert info.cidrs == (FoundCidr("10.96.0.0/23", "services", "round 2 visible services", "guess"),)


def test_no_api_server() -> None:
    info = asyncio.run(discover(None, POD_RESOLV))
    assert info.dns_server == "10.96.0.10"
    assert "there is no API server to ask" in info.notices[0]


def test_api_server_that_never_answers_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent:
        async def get(self, path: str, **_params: str) -> dict[str, Any]:
            await asyncio.Event().wait()
            raise AssertionError(path)

    monkeypatch.setattr("telehelper.manager.discovery.MAX_TIME", 0.01)
    info = asyncio.run(discover(Silent(), POD_RESOLV))
    assert info.dns_server == "10.96.0.10"
    assert any("no answer to /api/v1/nodes" in notice for notice in info.notices)


def test_nodes_resolver_is_no_clusters() -> None:
    node = parse_resolv_conf("nameserver 8.8.8.8\nsearch example.com\n")
    info = found({KUBE_DNS: {"spec": {"clusterIPs": ["10.96.0.10"]}}}, node)
    assert (info.dns_server, info.cluster_domain) == ("10.96.0.10", "cluster.local")
    assert any("resolv.conf does not name it" in notice for notice in info.notices)
    blind = found({}, node)
    assert blind.dns_server == ""
    assert any("DNS server is unknown" in notice for notice in blind.notices)


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


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just("10.0.0.1"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "items",
                    "spec",
                    "status",
                    "metadata",
                    "name",
                    "cidrs",
                    "podCIDR",
                    "podCIDRs",
                    "podIPs",
                    "ip",
                    "clusterIP",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(_JSON)
def test_objects_of_any_shape_break_nothing(answer: Any) -> None:
    listing = answer if isinstance(answer, dict) else {"items": [answer]}
    assert isinstance(
        found(dict.fromkeys((SERVICE_CIDRS, NODES, PODS, SERVICES, NAMESPACES), listing)), Discovered
    )
    assert isinstance(heuristics.items(answer), list)


def test_board_shows_at_once_and_then_changes_only() -> None:
    async def scenario() -> None:
        board = ClusterInfoBoard()
        watch = board.watch()
        first = asyncio.ensure_future(anext(watch))
        await asyncio.sleep(0)
        one, two = Discovered(dns_server="1"), Discovered(dns_server="2")
        board.publish(one)
        assert await first == one
        board.publish(one)
        second = asyncio.ensure_future(anext(watch))
        await asyncio.sleep(0)
        assert not second.done()
        board.publish(two)
        assert await second == two
        assert await anext(board.watch()) == two

    asyncio.run(scenario())


def test_polling_asks_again_soon_while_nothing_is_known() -> None:
    async def scenario() -> None:
        board = ClusterInfoBoard()
        reader = FakeApiReader({NODES: ApiServerUnavailable("starting")})

        async def ask() -> Discovered:
            return await discover(reader, ResolvConf())

        task = asyncio.ensure_future(board.poll(ask, 0.01))
        watch = board.watch()
        assert (await anext(watch)).cidrs == ()
        reader.objects[SERVICE_CIDRS] = SERVICE_CIDR
        assert len((await anext(watch)).cidrs) == 2
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(scenario())
