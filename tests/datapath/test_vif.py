"""The interface's addresses and routes: what is asked of netd, for clusters and machines with and without IPv6."""

from __future__ import annotations

import asyncio
from ipaddress import IPv6Address, ip_network
from typing import TYPE_CHECKING, cast

import pytest
from telehelper.core.cidr import VIF_POOL_V6
from telehelper.core.routes import HostRoute
from telehelper.datapath import vif as vif_module
from telehelper.datapath.vif import Vif
from telehelper.errors import CidrConflict
from telehelper.messages import Connect, RouteSpec, VifOpened
from telehelper.rpc.manager_pb2 import Cidr, ClusterInfo

if TYPE_CHECKING:
    from collections.abc import Sequence

    from telehelper.datapath.netd_client import NetdClient
    from telehelper.datapath.tunnel import Tunnel

FOUR, SIX, MORE = "198.18.64.0/24", "2001:2:0:40::/64", "fd00:10:96::/112"
DEFAULT = HostRoute(ip_network("0.0.0.0/0"), "eth0")


class Netd:
    """Remembers what it is asked to configure."""

    def __init__(self) -> None:
        self.configured: list[tuple[list[str], list[str]]] = []

    async def open_vif(self, mtu: int) -> tuple[VifOpened, int]:
        return VifOpened("tele0", 7, 0, 10), -1

    async def configure(self, addresses: Sequence[str], routes: Sequence[RouteSpec]) -> None:
        self.configured.append((list(addresses), [route.cidr for route in routes]))


class Machine:
    """What the machine has, as the data plane is made to see it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.routes = [DEFAULT]
        self.ipv6 = True
        self.netd = Netd()
        self.vif = Vif(cast("NetdClient", self.netd), cast("Tunnel", None), lambda _reason: None)
        monkeypatch.setattr(vif_module, "read_routes", self._read_routes)
        monkeypatch.setattr(vif_module, "has_ipv6", lambda device: self.ipv6 and device == "tele0")

    async def _read_routes(self) -> list[HostRoute]:
        return self.routes

    def set_routes(self, *cidrs: str, never: Sequence[str] = ()) -> tuple[list[str], list[str]]:
        """Have the cluster's CIDRs routed; returns the addresses and the routes that netd was asked for."""
        info = ClusterInfo(cidrs=[Cidr(cidr=text, kind="pods", source="podCIDR") for text in cidrs])
        request = Connect("", "", "", 1.0, never_proxy=tuple(never))

        async def work() -> None:
            if not self.vif.name:
                await self.vif.open()
            await self.vif.set_routes(info, request, [])

        asyncio.run(work())
        return self.netd.configured[-1]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


def test_a_cluster_of_ipv4_gets_no_ipv6_address(machine: Machine) -> None:
    addresses, routes = machine.set_routes(FOUR)
    assert addresses == [f"{machine.vif.address}/32"]
    assert routes == [f"{machine.vif.resolver}/32", FOUR]
    assert machine.vif.address_v6 is None
    assert machine.vif.notices == ()


def test_a_cluster_of_both_gets_an_address_of_each(machine: Machine) -> None:
    addresses, routes = machine.set_routes(FOUR, SIX)
    assert addresses == [f"{machine.vif.address}/32", f"{machine.vif.address_v6}/128"]
    assert routes == [f"{machine.vif.resolver}/32", FOUR, SIX], "the resolver has one address"
    assert machine.vif.address_v6 in VIF_POOL_V6


def test_the_addresses_stay_when_the_clusters_networks_change(machine: Machine) -> None:
    (four,), _ = machine.set_routes(FOUR)
    both, routes = machine.set_routes(FOUR, SIX)
    assert both[0] == four
    assert routes[-1] == SIX
    machine.routes.append(HostRoute(ip_network(both[1]), "tele0"))  # its own, by now
    assert machine.set_routes(FOUR, SIX, MORE)[0] == both
    assert machine.set_routes(FOUR)[0] == [four], "and none of IPv6 without routes of it"
    assert machine.set_routes(SIX)[0] == both


def test_an_address_that_somebody_has_is_not_taken(machine: Machine) -> None:
    machine.set_routes(SIX)
    first = machine.vif.address_v6
    assert first is not None
    other = Vif(cast("NetdClient", machine.netd), cast("Tunnel", None), lambda _reason: None)
    machine.vif, machine.routes = other, [DEFAULT, HostRoute(ip_network(first), "tele9")]
    machine.set_routes(SIX)
    assert other.address_v6 == IPv6Address(int(first) + 1)


def test_an_ipv6_network_of_the_machine_changes_nothing(machine: Machine) -> None:
    machine.routes.append(HostRoute(ip_network("2001:2:0:40::/80"), "docker0"))
    with pytest.raises(CidrConflict, match="docker0"):
        machine.set_routes(FOUR, SIX)
    assert machine.netd.configured == []
    machine.set_routes(FOUR, SIX, never=[SIX])
    assert machine.vif.address_v6 is None


def test_without_ipv6_there_is_a_notice_and_no_address(machine: Machine) -> None:
    machine.ipv6 = False
    addresses, routes = machine.set_routes(FOUR, SIX)
    assert addresses == [f"{machine.vif.address}/32"]
    assert routes == [f"{machine.vif.resolver}/32", FOUR]
    assert machine.vif.notices == (f"this machine has IPv6 switched off: {SIX} cannot be reached",)
    machine.ipv6 = True  # somebody switches it on
    assert machine.set_routes(FOUR, SIX)[1][-1] == SIX
    assert machine.vif.notices == ()


def test_a_cidr_of_the_cluster_that_is_none_is_a_notice(machine: Machine) -> None:
    machine.set_routes(FOUR, "nonsense")
    assert machine.vif.notices == ("'nonsense' is no CIDR: left out (podCIDR)",)
