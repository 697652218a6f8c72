"""Networks that this machine has another use for, and names without any network: connects beside a VPN and a bridge."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import urllib.request
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.inside import Untouched, inside, wait_until
from tests.e2e.test_datagrams import _ping, _pinger

if TYPE_CHECKING:
    from telehelper.core.cidr import Network

FOUR, SIX = socket.AF_INET, socket.AF_INET6
ELSEWHERE = "10.199.0.1/32"  # in no demo


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def shown(*words: str) -> list[dict[str, str]]:
    done = subprocess.run(["ip", "-j", *words], check=True, capture_output=True, text=True)
    return list(json.loads(done.stdout or "[]"))


def way(address: str) -> str:
    """The device that the kernel sends packets for an address to."""
    return shown("route", "get", address)[0]["dev"]


def networks(family: socket.AddressFamily = FOUR) -> tuple[Network, Network]:
    """The cluster's pods and services."""
    from telemagic.demo import client

    (demo,) = (found for found in client.status() if str(found.kubeconfig) == os.environ["KUBECONFIG"])
    at = 1 if family == SIX else 0
    return ip_network(demo.pod_cidr.split(",")[at]), ip_network(demo.service_cidr.split(",")[at])


def vpn(*routes: object) -> None:
    """Make what a VPN client makes."""
    ip("tuntap", "add", "dev", "tun0", "mode", "tun")
    ip("link", "set", "tun0", "up")
    for route in routes:
        ip("route", "add", str(route), "dev", "tun0")


def bridge(address: str) -> None:
    """Make what a container engine makes."""
    ip("link", "add", "docker0", "type", "bridge")
    # No link-local address: the kernel's checking of it would be seen as a change.
    Path("/proc/sys/net/ipv6/conf/docker0/disable_ipv6").write_text("1")
    ip("link", "set", "docker0", "up")
    ip("addr", "add", address, "dev", "docker0")


def resolve(name: str, family: socket.AddressFamily = FOUR) -> str:
    return str(socket.getaddrinfo(name, None, family, socket.SOCK_STREAM)[0][4][0])


def fetch(family: socket.AddressFamily = FOUR) -> str:
    """Read from the catalog over one family; returns the address that was used."""
    address = resolve("catalog.shop", family)
    authority = f"[{address}]" if family == SIX else address
    with urllib.request.urlopen(f"http://{authority}:8000/products/3", timeout=10) as answer:
        assert json.load(answer)["name"] == "cast-iron pan"
    return address


@inside()
def test_every_conflict_is_explained_before_anything_is_touched() -> None:
    from telehelper.errors import CidrConflict

    import telemagic

    pods, services = networks()
    vpn(services)
    bridge(f"{pods[1]}/24")
    untouched = Untouched()
    with pytest.raises(CidrConflict) as caught:
        telemagic.connect()
    untouched.check()
    told = str(caught.value)
    assert f"{services} overlaps {services} on tun0 (a VPN)" in told
    assert (
        f"{pods} overlaps {pods[0]}/24 on docker0 (a container bridge), this machine is attached to it"
        in told
    )
    assert "--on-conflict map" in caught.value.hint
    with pytest.raises(CidrConflict, match=r"on docker0 .* attached to it") as caught:
        telemagic.connect(on_conflict="take")
    assert "tun0" not in str(caught.value), "that one could be taken"
    untouched.check()


@inside()
def test_take_goes_before_the_vpn_and_gives_back_at_the_end() -> None:
    import telemagic

    _, services = networks()
    vpn(services, "10.0.0.0/8")
    untouched = Untouched()
    with telemagic.connect(on_conflict="take") as tele:
        assert way(fetch()) == tele.status.to_dict()["device"]
        assert way("10.1.2.3") == "tun0"
        routes = tele.routes()
        taken = routes[routes.detail.str.contains(f"goes before {services} on tun0", regex=False)]
        assert set(taken.cidr) == {str(half) for half in services.subnets()}
        assert set(taken.state) == {"applied"}
    untouched.check()


@inside()
def test_exclude_leaves_the_network_and_routes_single_addresses_by_name() -> None:
    import telemagic

    _, services = networks()
    vpn(services)
    untouched = Untouched()
    with telemagic.connect(on_conflict="exclude") as tele:
        assert way(str(services[77])) == "tun0"
        address, device = fetch(), tele.status.to_dict()["device"]
        assert ip_address(address) in services
        assert way(address) == device
        assert way(str(services[77])) == "tun0", "the rest is the VPN's"
        routes = tele.routes().set_index("cidr")
        assert list(routes.loc[str(services), ["device", "state"]]) == ["tun0", "skipped"]
        assert list(routes.loc[f"{address}/32", ["device", "state", "source"]]) == [
            device,
            "resolved",
            "resolved: catalog.shop",
        ]
    untouched.check()


@inside()
def test_map_answers_names_with_addresses_that_stand_for_others() -> None:
    import dns.message
    import dns.query

    import telemagic

    pods, services = networks()
    services_v6 = networks(SIX)[1]
    vpn(services, services_v6)
    bridge(f"{pods[1]}/24")
    untouched = Untouched()
    with telemagic.connect(on_conflict="map") as tele:
        device = tele.status.to_dict()["device"]
        mapped, mapped_v6 = fetch(), fetch(SIX)
        assert ip_address(mapped) not in services
        assert ip_address(mapped_v6) not in services_v6
        assert way(mapped) == way(mapped_v6) == device
        assert way(str(services[77])) == way(str(services_v6[77])) == "tun0", "nothing of the VPN's is taken"
        assert way(str(pods[77])) == "docker0"
        assert socket.gethostbyaddr(mapped)[0].startswith("catalog.shop"), "PTR"
        with _pinger(mapped) as sock:
            _ping(sock, 1, b"hello")
            assert sock.recv(1000)[8:] == b"hello"
        question = dns.message.make_query("catalog.shop.svc.cluster.local.", "A")
        answer = dns.query.udp(question, resolve("kube-dns.kube-system"), timeout=10)
        (record,) = answer.answer[0]
        assert ip_address(record.address) in services, "asked directly, the cluster tells its own address"
        routes = tele.routes().set_index("cidr")
        assert list(routes.loc[str(services), ["device", "state"]]) == ["tun0", "mapped"]
        row = routes.loc[f"{mapped}/32"]
        assert (row.state, row.source) == ("mapped", "resolved: catalog.shop")
        real = row.detail.removeprefix("stands for ")
        assert ip_address(real) in services
        flows = tele.flows()
        assert set(flows[flows.dst == mapped].protocol) == {"TCP", "ICMP"}
        assert set(flows.service) == {"catalog.shop", "kube-dns.kube-system"}
    untouched.check()


@inside()
def test_names_work_without_any_network_known() -> None:
    import psycopg

    import telemagic

    untouched = Untouched()
    with telemagic.connect(cidr=[ELSEWHERE]) as tele:
        device = tele.status.to_dict()["device"]
        assert len(shown("route", "show", "dev", device)) == 2, "the resolver's and the one given"
        with psycopg.connect(host="postgres.shop", user="shop", dbname="shop", connect_timeout=10) as db:
            assert db.execute("select count(*) from products").fetchone() == (12,)
            address = db.info.hostaddr
        fetch()
        routes = tele.routes().set_index("cidr")
        assert routes.loc[str(ip_network(address)), "source"] == "resolved: postgres.shop"
        assert set(tele.flows().service) == {"postgres.shop", "catalog.shop"}
    untouched.check()


@inside()
def test_a_rule_that_puts_another_table_first_is_found() -> None:
    from telehelper.errors import CidrConflict

    import telemagic

    _, services = networks()
    vpn()
    ip("route", "add", str(services), "dev", "tun0", "table", "52")
    ip("rule", "add", "priority", "5270", "lookup", "52")
    untouched = Untouched()
    with pytest.raises(CidrConflict, match=r"on tun0 .* a routing rule puts it before all of ours: table 52"):
        telemagic.connect(on_conflict="take")
    untouched.check()
    with telemagic.connect(on_conflict="map"):
        assert ip_address(fetch()) not in services
    ip("route", "add", "default", "dev", "tun0", "table", "52")  # an exit node
    with pytest.raises(CidrConflict) as caught:
        telemagic.connect(on_conflict="map")
    assert "exit node" in caught.value.hint


@inside()
def test_a_vpn_that_comes_up_later_is_noted_and_forgotten_when_it_goes() -> None:
    import telemagic

    _, services = networks()
    part = str(list(services.subnets(new_prefix=26))[-1])
    vpn()
    untouched = Untouched()
    with telemagic.connect() as tele:
        ip("route", "add", part, "dev", "tun0")
        assert wait_until(lambda: part in set(tele.routes().cidr), 15)
        assert tele.routes().set_index("cidr").loc[part, "state"] == "conflict"
        assert any(
            f"overlaps {part} on tun0 (a VPN)" in notice for notice in tele.status.to_dict()["notices"]
        )
        fetch()
        ip("route", "del", part, "dev", "tun0")
        assert wait_until(lambda: str(services) in set(tele.routes().cidr), 15)
        assert tele.status.to_dict()["notices"] == []
    untouched.check()


async def _change(create: bool) -> None:
    from telehelper.kube.access import ApiAccess
    from telehelper.kube.client import ApiClient

    path = "/apis/networking.k8s.io/v1/servicecidrs"
    body = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "ServiceCIDR",
        "metadata": {"name": "more"},
        "spec": {"cidrs": ["10.77.0.0/16"]},
    }
    async with ApiClient(ApiAccess.from_kubeconfig(os.environ["KUBECONFIG"], "")) as api:
        await (api.create(path, body) if create else api.delete(f"{path}/more"))


@inside()
def test_a_network_that_the_cluster_gets_later_is_noted_and_all_else_goes_on() -> None:
    import psycopg

    import telemagic

    vpn("10.77.1.0/24")
    untouched = Untouched()
    with (
        telemagic.connect() as tele,
        psycopg.connect(host="postgres.shop", user="shop", dbname="shop", connect_timeout=10) as db,
    ):
        asyncio.run(_change(create=True))
        try:
            assert wait_until(lambda: "10.77.1.0/24" in set(tele.routes().cidr), 15)
        finally:
            asyncio.run(_change(create=False))
        assert way("10.77.1.7") == "tun0"
        assert way("10.77.2.7") == tele.status.to_dict()["device"]
        row = tele.routes().set_index("cidr").loc["10.77.1.0/24"]
        assert list(row[["device", "state"]]) == ["tun0", "conflict"]
        notices = tele.status.to_dict()["notices"]
        assert "10.77.0.0/16 overlaps 10.77.1.0/24 on tun0 (a VPN): the overlap is not routed" in notices
        assert db.execute("select count(*) from products").fetchone() == (12,)
    untouched.check()
