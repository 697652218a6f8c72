"""What the demo's real API server tells when it looks like another cluster, and what discovery makes of it."""

from __future__ import annotations

import asyncio
import copy
import socket
from contextlib import asynccontextmanager
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

import pytest
from telehelper.core.resolv_conf import ResolvConf
from telehelper.discovery.discovery import Discovered, Explorer, discover
from telehelper.kube.access import ApiAccess
from telehelper.kube.client import ApiClient

from telemagic.demo import rights
from telemagic.demo.apiserver import ApiServer
from telemagic.demo.cluster import Cluster
from telemagic.demo.kinds import KIND, of_definition
from telemagic.demo.likeness import DISABLED_POOL, KINDS, STALE_PODS, likeness
from telemagic.demo.plan import AddressPlan, slots
from telemagic.demo.rbac import User, service_account
from telemagic.demo.workload import POD_NUMBERS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from telemagic.demo.store import Store

PLAN = AddressPlan(next(slots()))
PODS = [str(network) for network in PLAN.pods]
SERVICES = [str(network) for network in PLAN.services]
SEEN = ["198.18.0.0/24", "2001:2::/64"]  # round the demo's pods
MANAGER = service_account(rights.MANAGER_NAMESPACE, rights.MANAGER_ACCOUNT)
FLAGS = "kube-apiserver --service-cluster-ip-range"
CLUSTER = "kube-controller-manager --cluster-cidr"
KUBEADM_PODS = f"{CLUSTER}; also: kubeadm-config, kube-proxy --cluster-cidr, podCIDR of 1 node"
REFUSED = "refused Service (dry run)"

# What an administrator finds: (networks, source) of services and of pods
EXPECTED = {
    "kubeadm": (f"ServiceCIDR kubernetes; also: {FLAGS}, kubeadm-config", KUBEADM_PODS),
    "kubeadm-old": (f"{FLAGS}; also: {REFUSED}, kubeadm-config", KUBEADM_PODS),
    "k3s": (
        "ServiceCIDR kubernetes; also: k3s --service-cidr",
        "k3s --cluster-cidr; also: podCIDR of 1 node",
    ),
    "eks": (REFUSED, "round visible pods"),
    "gke": ("ServiceCIDR kubernetes", "podCIDR of 1 node"),
    "aks": (REFUSED, "Azure NodeNetworkConfig; also: kube-proxy --cluster-cidr"),
    "calico": (f"{FLAGS}; also: {REFUSED}, kubeadm-config", "Calico's 2 pools"),
    "cilium": ("ServiceCIDR kubernetes", "1 CiliumNode; also: cilium-config"),
    "openshift": (f"OpenShift network.config; also: {REFUSED}", "OpenShift network.config"),
    "dual-stack": (f"ServiceCIDR kubernetes; also: {FLAGS}, kubeadm-config", KUBEADM_PODS),
}
# What the manager finds, who may not create services
WITHOUT_REFUSAL = {"eks", "aks"}


def give_addresses(store: Store) -> None:
    """Do what the node does: pods that were created get their addresses."""
    for item in store.list(KIND["pods"]):
        if not item["spec"].get("hostNetwork"):
            number = POD_NUMBERS[item["metadata"]["labels"]["app"]]
            addresses = [str(address) for address in PLAN.pod(number)]
            running = copy.deepcopy(item)
            running["status"] = {
                "phase": "Running",
                "podIP": addresses[0],
                "podIPs": [{"ip": address} for address in addresses],
                "hostIP": str(PLAN.nodes[0]),
                "hostIPs": [{"ip": str(address)} for address in PLAN.nodes],
            }
            store.put(KIND["pods"], running)


@asynccontextmanager
async def served(kind: str, user: User, folder: Path) -> AsyncIterator[tuple[ApiClient, Store]]:
    """Serve the objects of a demo cluster, of which nothing runs, by its real API server."""
    cluster = Cluster("demo", folder, PLAN, 0, like=kind)
    cluster._fill()
    cluster._controllers.reconcile()
    store = cluster._store
    give_addresses(store)
    looks = likeness(kind, PLAN)
    server = ApiServer(
        store, {}, {"token": user}, version=looks.version, services=PLAN.services, missing=looks.missing
    )
    await server.start()
    listener = socket.create_server(("127.0.0.1", 0))
    try:
        await server.listen(listener, None)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with ApiClient(ApiAccess(url, lambda: {"Authorization": "Bearer token"})) as api:
            yield api, store
    finally:
        await server.close()
        listener.close()


def found(kind: str, user: User, folder: Path, namespace: str = "shop") -> Discovered:
    async def scenario() -> Discovered:
        async with served(kind, user, folder) as (api, store):
            before = {item["metadata"]["name"] for item in store.list(KIND["services"])}
            info = await discover(api, ResolvConf(), namespace)
            assert {item["metadata"]["name"] for item in store.list(KIND["services"])} == before
            return info

    return asyncio.run(scenario())


def rows(info: Discovered, kind: str) -> tuple[list[str], set[str], set[str]]:
    own = [one for one in info.cidrs if one.kind == kind]
    return [one.cidr for one in own], {one.source for one in own}, {one.confidence for one in own}


@pytest.mark.parametrize("kind", KINDS)
def test_an_administrator_finds_the_real_networks(kind: str, tmp_path: Path) -> None:
    info = found(kind, rights.ADMIN, tmp_path)
    services, pods = EXPECTED[kind]
    assert rows(info, "services") == (SERVICES, {services}, {"certain"})
    sure = "guess" if pods.startswith("round") else "certain"
    assert rows(info, "pods") == (SEEN if sure == "guess" else PODS, {pods}, {sure})
    assert info.dns_server == str(PLAN.service(10)[0])
    assert info.namespaces == ("default", "kube-system", "shop", "telemagic")
    disbelief = [line for line in info.notices if "is not used" in line]
    assert [line for line in info.notices if line not in disbelief and "domain" not in line] == []
    assert len(disbelief) == (4 if kind == "calico" else 0)


@pytest.mark.parametrize("kind", KINDS)
def test_the_manager_finds_as_much_but_by_a_refusal(kind: str, tmp_path: Path) -> None:
    info = found(kind, MANAGER, tmp_path, rights.MANAGER_NAMESPACE)
    services, _, sure = rows(info, "services")
    if kind in WITHOUT_REFUSAL:
        assert (services, sure) == (["198.18.8.0/24", f"{SERVICES[1].removesuffix('/112')}/64"], {"guess"})
    else:
        assert (services, sure) == (SERVICES, {"certain"})
    assert rows(info, "pods")[0] == (SEEN if kind == "eks" else PODS)


@pytest.mark.parametrize("kind", ["kubeadm", "eks", "openshift"])
def test_a_user_of_one_namespace_finds_what_is_visible_there(kind: str, tmp_path: Path) -> None:
    info = found(kind, rights.NAMESPACED, tmp_path)
    assert rows(info, "services")[2] == {"guess"}
    assert rows(info, "pods")[0] == SEEN
    assert info.namespaces == ("shop",)
    assert len(info.notices) <= 4


def test_following_sees_what_a_real_watch_brings(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served("eks", MANAGER, tmp_path) as (api, store):
            explorer = Explorer(api, ResolvConf(), "shop")
            first = await explorer.look()
            news: asyncio.Queue[Discovered] = asyncio.Queue()
            task = asyncio.ensure_future(explorer.follow(news.put_nowait))
            try:
                new = copy.deepcopy(store.list(KIND["pods"], "shop")[0])
                new["metadata"]["name"] = "stray"
                address = str(PLAN.pods[0][600])
                new["status"] |= {"podIP": address, "podIPs": [{"ip": address}]}
                async with asyncio.timeout(20):
                    await asyncio.sleep(0)
                    store.put(KIND["pods"], new)
                    told = await news.get()
                assert {one.cidr for one in told.cidrs} - {one.cidr for one in first.cidrs} == {
                    "198.18.2.0/24"
                }
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    asyncio.run(scenario())


# --- the likenesses themselves -----------------------------------------------------------------------------------

NODE: dict[str, Any] = {
    "metadata": {"name": "demo-node", "labels": {"a": "b"}},
    "spec": {"podCIDR": PODS[0], "podCIDRs": PODS},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_node_is_changed_as_a_copy(kind: str) -> None:
    before = copy.deepcopy(NODE)
    shown = likeness(kind, PLAN).node(NODE)
    assert before == NODE
    assert shown["metadata"]["labels"]["a"] == "b"
    assert ("podCIDR" in shown["spec"]) is (kind not in ("eks", "aks", "openshift", "cilium"))
    for block in shown["spec"].get("podCIDRs", ()):
        is_real = any(
            ip_network(block).subnet_of(network) for network in PLAN.pods if str(network)[:4] == block[:4]
        )
        assert is_real is (kind != "calico")


@pytest.mark.parametrize("kind", KINDS)
def test_every_object_is_named_and_of_a_kind_there_is(kind: str) -> None:
    objects = likeness(kind, PLAN).objects
    defined = {
        (of_definition(item).group_version, of_definition(item).kind): of_definition(item).namespaced
        for item in objects
        if item["kind"] == "CustomResourceDefinition"
    }
    built_in = {(one.group_version, one.kind): one.namespaced for one in KIND.values()}
    for item in objects:
        is_namespaced = {**built_in, **defined}[item["apiVersion"], item["kind"]]
        assert ("namespace" in item["metadata"]) is is_namespaced
        assert item["metadata"]["name"]


@pytest.mark.parametrize("kind", KINDS)
def test_without_ipv6_none_is_told(kind: str) -> None:
    plan = AddressPlan(PLAN.slot, ipv6=False)
    looks = likeness(kind, plan)
    assert "2001:2:" not in f"{looks.objects} {looks.node(NODE | {'spec': {}})}"


def test_calico_has_what_misleads() -> None:
    looks = likeness("calico", PLAN)
    text = f"{looks.objects} {looks.node(NODE)}"
    assert STALE_PODS in text
    assert DISABLED_POOL in text


def test_a_kind_that_is_none() -> None:
    with pytest.raises(KeyError):
        likeness("minikube", PLAN)
