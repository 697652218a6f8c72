from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from telehelper.core import cidr
from telehelper.datapath import joining, networks
from telehelper.datapath.networks import Networks
from telehelper.discovery.questions import NODES, PODS, in_namespace
from telehelper.errors import UsageError
from telehelper.messages import Connect
from telehelper.rpc.manager_pb2 import Cidr, ClusterInfo

from tests.datapath.waiting import turns, until
from tests.discovery.sample import answers, sample
from tests.discovery.test_discovery import FULL, WatchedReader, node, pod

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from telehelper.kube.client import ApiClient

CERTAIN = ClusterInfo(
    cidrs=[
        Cidr(cidr="10.96.0.0/12", kind="services", source="ServiceCIDR", confidence="certain"),
        Cidr(cidr="10.244.0.0/16", kind="pods", source="flags", confidence="certain"),
    ],
    dns_server="10.96.0.10",
    cluster_domain="cluster.local",
    namespaces=["shop"],
)
GUESS = ClusterInfo(
    cidrs=[Cidr(cidr="10.96.0.0/24", kind="services", source="round", confidence="guess")],
    dns_server="10.96.0.10",
    cluster_domain="cluster.local",
    notices=["the manager may not look"],
)


class Bench:
    """Networks over an API server, and what they told."""

    def __init__(self, objects: dict[str, Any], **options: Any) -> None:
        self.reader = WatchedReader(objects)
        self.reader.access = SimpleNamespace(  # type: ignore[attr-defined]
            namespace="shop", host=options.pop("host", "kubernetes.example")
        )
        self.told: list[ClusterInfo] = []
        looks = options.pop("looks", True)
        request = Connect("", "", "", 30.0, **options)
        self.networks = Networks(cast("ApiClient", self.reader), request, self._hear, looks=looks)

    def _hear(self, info: ClusterInfo) -> None:
        copy = ClusterInfo()
        copy.CopyFrom(info)
        self.told.append(copy)

    def cidrs(self) -> set[str]:
        return rows(self.told[-1]) if self.told else set()


def rows(info: ClusterInfo) -> set[str]:
    return {row.cidr for row in info.cidrs}


def run(bench: Bench, work: Callable[[Bench], Awaitable[None]]) -> None:
    async def scenario() -> None:
        async with asyncio.timeout(20):
            try:
                await work(bench)
            finally:
                await bench.networks.close()

    asyncio.run(scenario())


def test_a_manager_that_is_certain_is_not_checked() -> None:
    async def work(it: Bench) -> None:
        assert await it.networks.start(CERTAIN) == CERTAIN
        assert it.reader.asked == []
        await turns()
        assert not it.reader.watches

    run(Bench(dict(FULL)), work)


def test_what_the_manager_does_not_know_the_users_rights_show() -> None:
    async def work(it: Bench) -> None:
        info = await it.networks.start(GUESS)
        assert [(row.cidr, row.confidence) for row in info.cidrs] == [
            ("10.96.0.0/12", "certain"),
            ("10.244.0.0/16", "certain"),
        ]
        assert list(info.notices) == []
        assert list(info.namespaces) == ["default", "kube-system", "shop"]

    run(Bench(answers("kubeadm")), work)


def test_without_a_manager_everything_comes_from_the_users_rights() -> None:
    async def work(it: Bench) -> None:
        info = await it.networks.start(ClusterInfo())
        assert rows(info) == {"10.96.0.0/12", "10.244.0.0/16"}
        assert (info.dns_server, info.cluster_domain) == ("10.96.0.10", "cluster.local")

    run(Bench(answers("kubeadm")), work)


def test_an_uplink_that_looks_itself_is_not_checked() -> None:
    async def work(it: Bench) -> None:
        assert await it.networks.start(GUESS) == GUESS
        it.networks.update(ClusterInfo(dns_server="10.96.0.10"))
        assert it.cidrs() == rows(GUESS), "withdrawn lazily all the same"
        await turns()
        assert it.reader.asked == []

    run(Bench(dict(FULL), looks=False), work)


def test_a_user_of_one_namespace_adds_what_is_visible_there() -> None:
    async def work(it: Bench) -> None:
        info = await it.networks.start(GUESS)
        assert rows(info) == {"10.96.0.0/24", "10.101.33.0/24", "10.244.1.0/24"}
        it.reader.send(in_namespace(PODS, "shop"), "ADDED", pod("new", "10.244.7.1"))
        await until(lambda: "10.244.7.0/24" in it.cidrs())
        it.reader.send(in_namespace(PODS, "shop"), "DELETED", pod("new", "10.244.7.1"))
        it.reader.send(in_namespace(PODS, "shop"), "ADDED", pod("newer", "10.244.9.1"))
        await until(lambda: "10.244.9.0/24" in it.cidrs())
        assert "10.244.7.0/24" in it.cidrs(), "withdrawn lazily"

    run(Bench(dict(sample("namespaced").objects)), work)


def test_changes_of_the_manager_and_of_our_own_are_joined() -> None:
    async def work(it: Bench) -> None:
        info = await it.networks.start(GUESS)
        assert rows(info) == {"10.96.0.0/16", "10.244.0.0/24"}
        it.reader.send(NODES, "ADDED", node("b", "10.244.1.0/24"))
        await until(lambda: "10.244.0.0/23" in it.cidrs())
        it.networks.update(CERTAIN)
        assert it.cidrs() == rows(CERTAIN), (
            "both are certain now; the uplink's word counts, and contains ours"
        )

    run(Bench(dict(FULL)), work)


def test_the_same_word_again_is_no_change() -> None:
    async def work(it: Bench) -> None:
        await it.networks.start(CERTAIN)
        it.networks.update(CERTAIN)
        assert it.told == []

    run(Bench({}), work)


def test_a_manager_that_knows_less_than_the_one_before_takes_nothing_away() -> None:
    async def work(it: Bench) -> None:
        await it.networks.start(CERTAIN)
        it.networks.update(GUESS)
        assert rows(CERTAIN) <= it.cidrs()
        assert list(it.told[-1].notices) == ["the manager may not look"]
        await until(lambda: NODES in it.reader.watches, "looking around ourselves")

    run(Bench(dict(FULL)), work)


def test_what_was_withdrawn_goes_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "Lingering", lambda: joining.Lingering(0.05))

    async def work(it: Bench) -> None:
        await it.networks.start(CERTAIN)
        more = ClusterInfo()
        more.CopyFrom(CERTAIN)
        more.cidrs.add(cidr="10.7.0.0/16", kind="pods", source="x", confidence="certain")
        it.networks.update(more)
        assert "10.7.0.0/16" in it.cidrs()
        it.networks.update(CERTAIN)
        assert "10.7.0.0/16" in it.cidrs()
        await until(lambda: "10.7.0.0/16" not in it.cidrs(), "the withdrawal")

    run(Bench({}), work)


def test_a_cidr_option_takes_the_place_of_everything() -> None:
    async def work(it: Bench) -> None:
        info = await it.networks.start(GUESS)
        assert [(row.cidr, row.kind, row.source, row.confidence) for row in info.cidrs] == [
            ("10.0.0.0/8", "user", "--cidr", "certain"),
            ("fd00::/48", "user", "--cidr", "certain"),
        ]
        assert list(info.notices) == []
        assert info.dns_server == "10.96.0.10", "names are still the cluster's"
        assert it.reader.asked == []
        it.networks.update(CERTAIN)
        assert it.cidrs() == {"10.0.0.0/8", "fd00::/48"}

    run(Bench(dict(FULL), cidrs=("10.0.0.0/8", "fd00::/48")), work)


def test_with_a_cidr_option_and_no_manager_the_names_are_looked_for() -> None:
    async def work(it: Bench) -> None:
        info = await it.networks.start(ClusterInfo())
        assert rows(info) == {"10.0.0.0/8"}
        assert info.dns_server == "10.96.0.10"
        await turns()
        assert not it.reader.watches

    run(Bench(dict(FULL), cidrs=("10.0.0.0/8",)), work)


@pytest.mark.parametrize("text", ["nonsense", "0.0.0.0/0", "10.0.0.1/8", "fe80::1%eth0"])
def test_a_cidr_option_that_is_none_is_refused(text: str) -> None:
    async def work(it: Bench) -> None:
        with pytest.raises(UsageError, match="--cidr"):
            await it.networks.start(CERTAIN)

    run(Bench({}, cidrs=(text,)), work)


def test_the_api_servers_address_is_never_in_a_guess() -> None:
    async def work(it: Bench) -> None:
        info = await it.networks.start(ClusterInfo())
        assert not [row for row in info.cidrs if cidr.contains(*map(_network, (row.cidr, "10.244.1.9/32")))]
        assert any(cidr.contains(*map(_network, (row.cidr, "10.244.1.7/32"))) for row in info.cidrs)

    run(Bench(dict(sample("namespaced").objects), host="10.244.1.9"), work)


def _network(text: str) -> Any:
    from ipaddress import ip_network

    return ip_network(text)
