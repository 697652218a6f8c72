"""The interface's addresses and routes: what is asked of netd, for clusters and machines with and without IPv6."""

from __future__ import annotations

import asyncio
from ipaddress import IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING, cast

import pytest
from telehelper.core.admission import MAX_SINGLES
from telehelper.core.cidr import VIF_POOL_V6
from telehelper.core.route_plan import HostRoute
from telehelper.datapath import router as router_module
from telehelper.datapath import vif as vif_module
from telehelper.datapath.address_map import AddressMapper
from telehelper.datapath.outside import DEVICE_DOWN, ROUTE_GONE
from telehelper.datapath.vif import Vif
from telehelper.errors import CidrConflict
from telehelper.messages import Connect, VifOpened
from telehelper.rpc.manager_pb2 import Cidr, ClusterInfo

from tests.datapath.waiting import until

if TYPE_CHECKING:
    from collections.abc import Sequence

    from telehelper.datapath.engine import FrameSink
    from telehelper.datapath.netd_client import NetdClient
    from telehelper.datapath.router import Router
    from telehelper.datapath.tunnel import Tunnel

FOUR, SIX, MORE = "198.18.64.0/24", "2001:2:0:40::/64", "fd00:10:96::/112"
DEFAULT = HostRoute(ip_network("0.0.0.0/0"), "eth0")


class Netd:
    """Remembers what it is asked to configure."""

    def __init__(self) -> None:
        self.configured: list[tuple[list[str], list[str]]] = []
        self.refuses: set[str] = set()
        self.answers = asyncio.Event()
        self.answers.set()

    @property
    def routes(self) -> list[str]:
        """The routes that it was told last, without the resolver's."""
        return self.configured[-1][1][1:]

    async def open_vif(self, mtu: int, *, wide: bool = False) -> tuple[VifOpened, int]:
        self.wide = wide
        return VifOpened("tele0", 7, 0, 10), -1

    async def configure(self, addresses: Sequence[str], routes: Sequence[str]) -> None:
        await self.answers.wait()
        cidrs = list(routes)
        for refused in self.refuses & set(cidrs):
            raise CidrConflict.of(refused, refused, "eth9")
        self.configured.append((list(addresses), cidrs))


class Machine:
    """What the machine has, as the data plane is made to see it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.routes = [DEFAULT]
        self.ipv6 = True
        self.netd = Netd()
        self.vif = Vif(cast("NetdClient", self.netd), cast("Tunnel", None), lambda _reason: None)
        monkeypatch.setattr(router_module, "read_routes", self._read_routes)
        monkeypatch.setattr(router_module, "has_ipv6", lambda device: self.ipv6 and device == "tele0")

    async def _read_routes(self) -> list[HostRoute]:
        return self.routes

    @property
    def router(self) -> Router:
        return self.vif.router

    def set_routes(
        self, *cidrs: str, never: Sequence[str] = (), on_conflict: str = "refuse", own: Sequence[str] = ()
    ) -> tuple[list[str], list[str]]:
        """Have the cluster's CIDRs routed; returns the addresses and the routes that netd was asked for."""
        info = ClusterInfo(cidrs=[Cidr(cidr=text, kind="pods", source="podCIDR") for text in cidrs])
        request = Connect("", "", "", 1.0, never_proxy=tuple(never), on_conflict=on_conflict)

        async def work() -> None:
            if not self.vif.name:
                await self.vif.open()
            await self.vif.set_routes(info, request, [ip_address(text) for text in own])

        asyncio.run(work())
        return self.netd.configured[-1]

    def admit(self, *addresses: str) -> dict[str, str]:
        """Give the router an answer of the cluster's DNS."""
        told = asyncio.run(self.router.admit([ip_address(text) for text in addresses]))
        return {str(address): str(other) for address, other in told.items()}

    def rows(self, state: str) -> list[tuple[str, str, str]]:
        rows = self.router.rows({ip_address("10.3.0.1"): "postgres.shop"})
        return [(row.cidr, row.device, row.source) for row in rows if row.state == state]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


def test_a_cluster_of_ipv4_gets_no_ipv6_address(machine: Machine) -> None:
    addresses, routes = machine.set_routes(FOUR)
    assert addresses == [f"{machine.vif.router.address}/32"]
    assert routes == [f"{machine.vif.router.resolver}/32", FOUR]
    assert machine.vif.router.address_v6 is None
    assert machine.vif.notices == ()


def test_a_cluster_of_both_gets_an_address_of_each(machine: Machine) -> None:
    addresses, routes = machine.set_routes(FOUR, SIX)
    assert addresses == [f"{machine.vif.router.address}/32", f"{machine.vif.router.address_v6}/128"]
    assert routes == [f"{machine.vif.router.resolver}/32", FOUR, SIX], "the resolver has one address"
    assert machine.vif.router.address_v6 in VIF_POOL_V6


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
    first = machine.vif.router.address_v6
    assert first is not None
    other = Vif(cast("NetdClient", machine.netd), cast("Tunnel", None), lambda _reason: None)
    machine.vif, machine.routes = other, [DEFAULT, HostRoute(ip_network(first), "tele9")]
    machine.set_routes(SIX)
    assert other.router.address_v6 == IPv6Address(int(first) + 1)


def test_an_ipv6_network_of_the_machine_changes_nothing(machine: Machine) -> None:
    machine.routes.append(HostRoute(ip_network("2001:2:0:40::/80"), "docker0"))
    with pytest.raises(CidrConflict, match="docker0"):
        machine.set_routes(FOUR, SIX)
    assert machine.netd.configured == []
    machine.set_routes(FOUR, SIX, never=[SIX])
    assert machine.vif.router.address_v6 is None


def test_without_ipv6_there_is_a_notice_and_no_address(machine: Machine) -> None:
    machine.ipv6 = False
    addresses, routes = machine.set_routes(FOUR, SIX)
    assert addresses == [f"{machine.vif.router.address}/32"]
    assert routes == [f"{machine.vif.router.resolver}/32", FOUR]
    assert machine.vif.notices == (f"this machine has IPv6 switched off: {SIX} cannot be reached",)
    machine.ipv6 = True  # somebody switches it on
    assert machine.set_routes(FOUR, SIX)[1][-1] == SIX
    assert machine.vif.notices == ()


def test_a_cidr_of_the_cluster_that_is_none_is_a_notice(machine: Machine) -> None:
    machine.set_routes(FOUR, "nonsense")
    assert machine.vif.notices == ("'nonsense' is no CIDR: left out (podCIDR)",)


# --- conflicts ---------------------------------------------------------------------------------------------------

PODS = "10.244.0.0/16"
VPN = HostRoute(ip_network("10.244.8.0/24"), "tun0", what="a VPN")


def test_every_choice_is_passed_on(machine: Machine) -> None:
    machine.routes.append(VPN)
    with pytest.raises(CidrConflict, match="a VPN"):
        machine.set_routes(PODS)
    assert machine.netd.configured == []
    assert {"10.244.8.0/25", "10.244.8.128/25"} <= set(machine.set_routes(PODS, on_conflict="take")[1])
    routes = machine.set_routes(PODS, on_conflict="exclude")[1]
    assert not any(ip_network(r).overlaps(VPN.network) for r in routes)
    assert machine.rows("skipped") == [("10.244.8.0/24", "tun0", "podCIDR")]


def test_wide_networks_are_routed_if_the_user_insists_and_status_says_so(machine: Machine) -> None:
    info = ClusterInfo(cidrs=[Cidr(cidr="64.0.0.0/3", kind="user", source="--cidr")])
    for allow in (False, True):
        request = Connect("", "", "", 1.0, cidrs=("64.0.0.0/3",), allow_wide=allow)

        async def work(request: Connect = request) -> None:
            await machine.vif.open(wide=request.allow_wide)
            await machine.vif.set_routes(info, request, [])

        asyncio.run(work())
        assert machine.netd.wide is allow
        assert ("64.0.0.0/3" in machine.netd.routes) is allow
        assert any("--allow-wide" in line for line in machine.vif.notices) is allow


def test_a_network_that_appears_later_is_noted_and_the_rest_kept(machine: Machine) -> None:
    machine.set_routes(PODS)
    assert machine.vif.notices == ()
    machine.routes.append(VPN)
    routes = machine.set_routes(PODS, "10.96.0.0/16")[1]
    assert "10.96.0.0/16" in routes
    assert not any(ip_network(r).overlaps(VPN.network) for r in routes)
    assert machine.vif.notices == (
        "10.244.0.0/16 overlaps 10.244.8.0/24 on tun0 (a VPN): the overlap is not routed",
    )
    assert machine.rows("conflict") == [("10.244.8.0/24", "tun0", "podCIDR")]
    machine.routes.remove(VPN)
    assert PODS in machine.set_routes(PODS)[1]
    assert machine.vif.notices == ()


def test_what_the_tunnel_needs_stays_out_though_its_name_does_not_resolve_any_more(machine: Machine) -> None:
    machine.set_routes("10.244.0.0/30", own=["10.244.0.1"])
    machine.set_routes("10.244.0.0/30", own=[])
    assert not any(ip_address("10.244.0.1") in ip_network(route) for route in machine.netd.routes)
    machine.set_routes("10.244.0.0/30", own=[f"10.9.{n // 256}.{n % 256}" for n in range(1000)])
    assert any(ip_address("10.244.0.1") in ip_network(route) for route in machine.netd.routes), "bounded"


def test_routes_that_somebody_removed_are_put_back(machine: Machine) -> None:
    machine.set_routes(FOUR, MORE)
    resolver = f"{machine.router.resolver}/32"
    machine.routes = [
        DEFAULT,
        HostRoute(ip_network(FOUR), "eth0"),
        *(HostRoute(ip_network(each), "tele0") for each in (resolver, MORE)),
    ]
    assert asyncio.run(machine.router.repair()) == [FOUR]
    (_, without), (_, whole) = machine.netd.configured[-2:]
    assert without == [resolver, MORE]  # netd makes the difference, so it must forget it first
    assert sorted(whole) == sorted([resolver, FOUR, MORE])


def test_where_nothing_is_missing_nothing_is_asked(machine: Machine) -> None:
    assert asyncio.run(machine.router.repair()) == []
    machine.set_routes(FOUR)
    machine.routes = [
        HostRoute(ip_network(each), "tele0") for each in (f"{machine.router.resolver}/32", FOUR)
    ]
    asked = len(machine.netd.configured)
    assert asyncio.run(machine.router.repair()) == []
    assert len(machine.netd.configured) == asked


@pytest.mark.parametrize("refused", [False, True])
def test_a_repair_is_noted(machine: Machine, monkeypatch: pytest.MonkeyPatch, refused: bool) -> None:
    monkeypatch.setattr(vif_module, "SETTLE", 0.0)
    notes: list[str] = []
    machine.vif.namer.note = notes.append
    machine.set_routes(FOUR)
    machine.netd.refuses = {FOUR} if refused else set()

    async def work() -> None:
        machine.vif.disturbed(ROUTE_GONE)
        machine.vif.disturbed(ROUTE_GONE)  # one repair is enough for both
        await until(lambda: notes)
        await machine.vif.close()

    asyncio.run(work())
    words = "cannot be put back" if refused else "somebody removed routes of tele0; put back: "
    assert len(notes) == 1
    assert words in notes[0]


def test_an_interface_that_was_set_down_is_the_end() -> None:
    lost: list[str] = []
    vif = Vif(cast("NetdClient", Netd()), cast("Tunnel", None), lost.append)
    asyncio.run(vif.open())
    vif.disturbed(DEVICE_DOWN)
    assert lost == ["the TUN device tele0 was set down or deleted"]


def test_plans_are_applied_in_the_order_they_were_asked_for(machine: Machine) -> None:
    machine.set_routes(PODS)

    async def work() -> None:
        request = Connect("", "", "", 1.0)
        infos = [
            ClusterInfo(cidrs=[Cidr(cidr=c, kind="pods", source="x")]) for c in (PODS, FOUR, "10.245.0.0/16")
        ]
        machine.netd.answers = asyncio.Event()
        tasks = [asyncio.create_task(machine.router.set_routes(info, request, [])) for info in infos]
        await asyncio.wait(tasks, timeout=0.05)
        machine.netd.answers.set()
        await asyncio.gather(*tasks)

    asyncio.run(work())
    assert machine.netd.routes == ["10.245.0.0/16"]
    assert machine.router.plan is not None
    assert [str(network) for network in machine.router.plan.routes] == ["10.245.0.0/16"]


# --- route on resolve --------------------------------------------------------------------------------------------


def test_before_there_is_a_plan_addresses_pass(machine: Machine) -> None:
    assert machine.admit("10.3.0.1") == {"10.3.0.1": "10.3.0.1"}
    assert machine.rows("applied") == []
    assert machine.netd.configured == []


def test_an_address_that_is_routed_passes_without_waiting(machine: Machine) -> None:
    machine.set_routes(PODS)
    before = len(machine.netd.configured)
    work = machine.router.admit([ip_address("10.244.3.4")])
    with pytest.raises(StopIteration) as done:
        work.send(None)  # its first step is its last
    assert done.value.value == {ip_address("10.244.3.4"): ip_address("10.244.3.4")}
    assert len(machine.netd.configured) == before


def test_another_one_is_routed_before_it_is_told(machine: Machine) -> None:
    machine.set_routes(PODS)
    assert machine.admit("10.3.0.1", "fd00:10::7") == {"10.3.0.1": "10.3.0.1", "fd00:10::7": "fd00:10::7"}
    assert machine.netd.routes == [PODS, "10.3.0.1/32", "fd00:10::7/128"]
    assert machine.netd.configured[-1][0][1] == f"{machine.router.address_v6}/128", (
        "IPv6 needs an address to come from"
    )
    assert machine.rows("resolved") == [
        ("10.3.0.1/32", "tele0", "resolved: postgres.shop"),
        ("fd00:10::7/128", "tele0", "resolved"),
    ]
    before = len(machine.netd.configured)
    assert machine.admit("10.3.0.1") == {"10.3.0.1": "10.3.0.1"}
    assert len(machine.netd.configured) == before, "once"


def test_what_is_refused_is_told_if_it_is_ipv4_and_shown(machine: Machine) -> None:
    machine.set_routes(PODS)
    assert machine.admit("8.8.8.8", "2606:4700::1111", "127.0.0.1") == {
        "8.8.8.8": "8.8.8.8",
        "127.0.0.1": "127.0.0.1",
    }
    assert machine.netd.routes == [PODS]
    assert [row[0] for row in machine.rows("skipped")] == [
        "8.8.8.8/32",
        "2606:4700::1111/128",
        "127.0.0.1/32",
    ]
    for n in range(100):
        machine.admit(f"8.8.4.{n}")
    assert len(machine.rows("skipped")) == router_module.KEPT_REFUSALS


def test_our_own_addresses_are_nobodys_answer(machine: Machine) -> None:
    machine.set_routes(PODS, on_conflict="map")
    assert machine.admit(str(machine.router.address), str(machine.router.resolver), "198.19.192.7") == {}


def test_what_netd_refuses_is_told_as_it_is_and_the_others_are_routed(machine: Machine) -> None:
    machine.set_routes(PODS)
    machine.netd.refuses = {"10.3.0.2/32", "fd00:10::7/128"}
    told = machine.admit("10.3.0.1", "10.3.0.2", "fd00:10::7")
    assert set(told) == {"10.3.0.1", "10.3.0.2"}
    assert machine.netd.routes == [PODS, "10.3.0.1/32"]
    assert {row[0] for row in machine.rows("skipped")} == {"10.3.0.2/32", "fd00:10::7/128"}
    machine.netd.refuses = set()
    assert machine.admit("10.3.0.2") == {"10.3.0.2": "10.3.0.2"}
    assert "10.3.0.2/32" in machine.netd.routes
    assert "10.3.0.2/32" not in {row[0] for row in machine.rows("skipped")}


def test_without_any_room_nothing_is_told_that_would_go_elsewhere(machine: Machine) -> None:
    machine.set_routes(PODS)
    for n in range(0, MAX_SINGLES, 32):
        machine.admit(*(f"10.3.0.{n + i}" for i in range(32)))
    machine.router.in_use = lambda: [ip_address(f"10.3.0.{n}") for n in range(MAX_SINGLES)]
    before = len(machine.netd.configured)
    assert machine.admit("10.4.0.1") == {}
    assert len(machine.netd.configured) == before


def test_answers_at_the_same_time_lose_nothing(machine: Machine) -> None:
    machine.set_routes(PODS)

    async def work() -> None:
        await asyncio.gather(*(machine.router.admit([ip_address(f"10.3.0.{n}")]) for n in range(20)))

    asyncio.run(work())
    assert machine.netd.routes == [PODS, *(f"10.3.0.{n}/32" for n in range(20))]


def test_who_asks_for_an_address_that_is_being_routed_waits_too(machine: Machine) -> None:
    machine.set_routes(PODS)
    address = ip_address("10.3.0.1")

    async def work() -> None:
        machine.netd.answers = asyncio.Event()
        both = [asyncio.create_task(machine.router.admit([address])) for _ in range(2)]
        await asyncio.wait(both, timeout=0.05)
        assert not any(task.done() for task in both)
        machine.netd.answers.set()
        assert await asyncio.gather(*both) == [{address: address}] * 2

    asyncio.run(work())


def test_who_gives_up_waiting_leaves_no_trace(machine: Machine) -> None:
    machine.set_routes(PODS)
    address = ip_address("10.3.0.1")

    async def work() -> None:
        machine.netd.answers = asyncio.Event()
        one = asyncio.create_task(machine.router.admit([address]))
        await asyncio.sleep(0)
        one.cancel()
        with pytest.raises(asyncio.CancelledError):
            await one
        machine.netd.answers.set()
        assert machine.rows("resolved") == []
        assert await machine.router.admit([address]) == {address: address}

    asyncio.run(work())
    assert machine.netd.routes == [PODS, "10.3.0.1/32"]


def test_they_are_bounded_and_those_in_use_stay(machine: Machine) -> None:
    machine.set_routes(PODS)
    used = ip_address("10.3.0.0")
    machine.router.in_use = lambda: [used]
    for n in range(0, MAX_SINGLES + 32, 32):
        machine.admit(*(f"10.3.{(n + i) >> 8}.{n + i & 255}" for i in range(32)))
    routes = set(machine.netd.routes)
    assert len(routes) == 1 + MAX_SINGLES
    assert {"10.3.0.0/32", "10.3.1.0/32", "10.3.1.31/32"} <= routes
    assert "10.3.0.1/32" not in routes


def test_a_huge_answer_is_cut(machine: Machine) -> None:
    machine.set_routes(PODS)
    told = machine.admit(*(f"10.3.0.{n}" for n in range(200)))
    assert len(told) == router_module.MAX_ADMITTED, (
        "what is not routed is not told either: it would go elsewhere"
    )


def test_networks_that_are_found_later_replace_single_addresses(machine: Machine) -> None:
    machine.set_routes(PODS)
    machine.admit("10.3.0.1", "10.4.0.1")
    assert machine.set_routes(PODS, "10.3.0.0/16")[1][1:] == ["10.3.0.0/16", PODS, "10.4.0.1/32"]
    assert [row[0] for row in machine.rows("resolved")] == ["10.4.0.1/32"]
    machine.routes.append(HostRoute(ip_network("10.4.0.0/24"), "docker0", connected=True))
    assert machine.set_routes(PODS)[1][1:] == [PODS], "and a network of the machine's own ends one"


def test_excluded_addresses_are_routed_one_by_one_unless_attached(machine: Machine) -> None:
    docker = HostRoute(ip_network("10.244.9.0/24"), "docker0", connected=True)
    machine.routes += [VPN, docker]
    machine.set_routes(PODS, on_conflict="exclude")
    machine.admit("10.244.8.7", "10.244.9.7")
    assert "10.244.8.7/32" in machine.netd.routes
    assert "10.244.9.7/32" not in machine.netd.routes


# --- mapped addresses --------------------------------------------------------------------------------------------


def test_mapped_names_get_addresses_of_a_pool_that_is_routed(machine: Machine) -> None:
    machine.routes.append(VPN)
    routes = machine.set_routes(PODS, on_conflict="map")[1]
    (pool,) = [r for r in routes if r.startswith("198.19.") and r.endswith("/22")]
    told = machine.admit("10.244.8.7", "10.244.7.7", "10.244.8.8")
    assert told["10.244.7.7"] == "10.244.7.7"
    assert ip_address(told["10.244.8.7"]) in ip_network(pool)
    assert told["10.244.8.7"] != told["10.244.8.8"]
    assert machine.admit("10.244.8.7") == {"10.244.8.7": told["10.244.8.7"]}
    assert ("10.244.8.0/24", "tun0", "podCIDR") in machine.rows("mapped")
    assert (f"{told['10.244.8.7']}/32", "tele0", "resolved") in machine.rows("mapped")
    assert (pool, "tele0", "--on-conflict map") in machine.rows("applied")
    assert machine.set_routes(PODS, on_conflict="map")[1] == routes, "the same pool for good"


def test_a_mapped_address_is_turned_back_and_others_are_themselves(machine: Machine) -> None:
    def real(text: str) -> str:
        return str(machine.router.real(ip_address(text)))

    assert real("10.244.7.7") == "10.244.7.7"
    machine.routes.append(VPN)
    machine.set_routes(PODS, on_conflict="map")
    told = machine.admit("10.244.8.7")["10.244.8.7"]
    assert real(told) == "10.244.8.7"
    unused = str(ip_address(told) + 9)
    assert [real(text) for text in (unused, "10.244.7.7", "fd00::1")] == [unused, "10.244.7.7", "fd00::1"]


def test_the_interfaces_own_addresses(machine: Machine) -> None:
    machine.set_routes(PODS)
    router = machine.router
    assert router.address is not None
    assert router.is_own(router.address)
    assert not router.is_own(ip_address("10.244.7.7"))


def test_ipv6_has_a_pool_if_the_cluster_has_it(machine: Machine) -> None:
    machine.routes.append(HostRoute(ip_network("fd00:10:96::/120"), "tun0"))
    assert not any(":" in r for r in machine.set_routes(FOUR, on_conflict="map")[1])
    assert machine.admit("fd00:10:96::7") == {}, "there is nothing to map it to"
    machine.set_routes(FOUR, MORE, on_conflict="map")
    assert machine.admit("fd00:10:96::7")["fd00:10:96::7"].startswith("2001:2:0:fffe:")


def test_only_who_maps_has_frames_looked_at(machine: Machine) -> None:
    tunnel = cast("FrameSink", object())
    machine.set_routes(PODS)
    assert machine.router.sink(tunnel, list[object]().append) is tunnel
    machine.set_routes(PODS, on_conflict="map")
    assert isinstance(machine.router.sink(tunnel, list[object]().append), AddressMapper)
