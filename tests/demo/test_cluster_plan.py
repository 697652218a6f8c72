"""Addresses, selectors, durations and DNS answers: the parts of the demo cluster that do no I/O."""

from __future__ import annotations

import itertools
import json
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TYPE_CHECKING

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import pytest
from dns import reversename
from telehelper.core.cidr import VIF_POOL, VIF_POOL_V6
from telehelper.errors import HelperError

from telemagic.demo import plan, store, tables
from telemagic.demo.kinds import KINDS
from telemagic.demo.nameserver import Zone, ZoneFile

if TYPE_CHECKING:
    from pathlib import Path


def test_a_slot_is_divided_without_overlap() -> None:
    found = plan.choose([])
    assert found.slots == (IPv4Network("198.18.0.0/20"), IPv6Network("2001:2::/60"))
    assert found.pods == (IPv4Network("198.18.0.0/21"), IPv6Network("2001:2::/64"))
    assert found.services == (IPv4Network("198.18.8.0/22"), IPv6Network("2001:2:0:1::/112"))
    parts = zip(found.slots, found.nodes, found.pods, found.services, strict=True)
    for slot, node, pods, services in parts:
        assert node in slot
        assert node not in pods
        assert node not in services
        assert not pods.overlaps(services)


def test_addresses_count_in_both_families() -> None:
    found = plan.choose([])
    assert found.pod(11) == (IPv4Address("198.18.0.11"), IPv6Address("2001:2::b"))
    assert found.service(20) == (IPv4Address("198.18.8.20"), IPv6Address("2001:2:0:1::14"))


def test_without_ipv6_everything_is_ipv4() -> None:
    found = plan.AddressPlan(IPv4Network("198.18.0.0/20"), ipv6=False)
    assert found.versions == (4,)
    for addresses in (found.slots, found.pods, found.services, found.nodes, found.pod(1), found.service(1)):
        assert [one.version for one in addresses] == [4]


def test_taken_prefixes_are_avoided() -> None:
    taken = [IPv4Network("198.18.4.0/24"), IPv4Network("198.18.16.0/20"), IPv4Network("10.0.0.0/8")]
    assert plan.choose(taken).slot == IPv4Network("198.18.32.0/20")
    six = [IPv6Network("2001:2::1/128"), IPv6Network("2001:2:0:10::/63"), IPv6Network("fe80::/64")]
    assert plan.choose(six).slots == (IPv4Network("198.18.32.0/20"), IPv6Network("2001:2:0:20::/60"))
    assert plan.choose([*taken, IPv6Network("2001:2:0:20::/60")]).slot == IPv4Network("198.18.48.0/20")


def test_no_slot_touches_the_interface_addresses() -> None:
    plans = [plan.AddressPlan(slot) for slot in plan.slots()]
    assert len(plans) == 31
    assert VIF_POOL.subnet_of(plan.RESERVED)
    assert VIF_POOL_V6.subnet_of(plan.RESERVED_V6)
    assert not any(
        one.slot.overlaps(plan.RESERVED) or one.slot_v6.overlaps(plan.RESERVED_V6) for one in plans
    )
    assert all(one.slot_v6.subnet_of(plan.RANGE_V6) for one in plans)
    assert not any(one.slot_v6.overlaps(two.slot_v6) for one, two in itertools.combinations(plans, 2))


def test_all_slots_taken_is_an_error() -> None:
    for everything in (plan.RANGE, plan.RANGE_V6):
        with pytest.raises(HelperError, match="taken"):
            plan.choose([everything])


def test_the_routing_tables_are_read_without_default_routes(tmp_path: Path) -> None:
    (tmp_path / "route").write_text(
        "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"
        "eth0\t00000000\t0100A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
        "tun0\t000012C6\t00000000\t0001\t0\t0\t0\t00F0FFFF\t0\t0\t0\n"
    )
    assert plan.routed_networks(tmp_path) == [IPv4Network("198.18.0.0/20")], (
        "without IPv6 there is no such file"
    )
    nothing = "00000000000000000000000000000000 00"
    (tmp_path / "ipv6_route").write_text(
        f"20010002000000010000000000000000 40 {nothing} {nothing[:32]} 00000400 1 0 00000001     tun0\n"
        f"{nothing} {nothing} fe800000000000000000000000000001 00000400 2 0 00000003     eth0\n"
    )
    assert plan.routed_networks(tmp_path)[1:] == [IPv6Network("2001:2:0:1::/64")]


@pytest.mark.parametrize(
    ("labels", "fields", "expected"),
    [
        ("", "", True),
        ("app=web", "", True),
        ("app==web,tier!=back", "", True),
        ("app!=web", "", False),
        ("app in (web, api),!absent", "", True),
        ("app notin (web)", "", False),
        ("app", "", True),
        ("absent", "", False),
        ("", "metadata.name=one", True),
        ("", "metadata.namespace=other", False),
        ("app=web", "status.phase=Running,metadata.name!=two", True),
        ("", "status.podIP=198.18.0.5", True),
        ("", "status.podIP=198.18.0.6", False),
    ],
)
def test_selectors(labels: str, fields: str, expected: bool) -> None:
    item = {
        "metadata": {"name": "one", "namespace": "shop", "labels": {"app": "web", "tier": "front"}},
        "status": {"phase": "Running", "podIP": "198.18.0.5"},
    }
    assert store.selector(labels, fields)(item) is expected


def test_an_unknown_field_selector_is_refused() -> None:
    with pytest.raises(ValueError, match="nonsense"):
        store.selector("", "nonsense")


@pytest.mark.parametrize(
    ("seconds", "text"), [(-1, "0s"), (119, "119s"), (120, "2m"), (7200, "2h"), (172800, "2d")]
)
def test_durations(seconds: float, text: str) -> None:
    assert tables.duration(seconds) == text


def test_a_table_shows_whatever_its_users_have_written() -> None:
    for kind in KINDS:
        item = {
            "metadata": {"name": "x", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": 7,
            "status": [],
        }
        (row,) = tables.table(
            kind,
            [
                item,
            ],
            "1",
        )["rows"]
        assert row["cells"][0] == "x", kind.plural


ZONE = Zone(
    {
        "domain": "cluster.local",
        "reverse": ["198.18.0.0/20", "2001:2::/60"],
        "pods": [{"namespace": "shop", "addresses": ["198.18.0.11", "2001:2::b"]}],
        "services": [
            {
                "name": "web",
                "namespace": "shop",
                "addresses": ["198.18.8.21"],
                "ports": [["http", "tcp", 8000]],
                "endpoints": ["198.18.0.11"],
            },
            {
                "name": "dual",
                "namespace": "shop",
                "addresses": ["198.18.8.22", "2001:2:0:1::16"],
                "ports": [["http", "tcp", 8000]],
                "endpoints": ["198.18.0.11", "2001:2::b"],
            },
            {
                "name": "web-pods",
                "namespace": "shop",
                "addresses": [],
                "ports": [["http", "tcp", 8000]],
                "endpoints": ["198.18.0.11", "198.18.0.13", "2001:2::b"],
            },
            {
                "name": "many",
                "namespace": "shop",
                "addresses": [],
                "ports": [],
                "endpoints": [f"198.18.1.{number}" for number in range(60)],
            },
        ],
    }
)


def ask(name: str, kind: str, limit: int | None = None) -> dns.message.Message:
    reply = ZONE.answer(dns.message.make_query(name, kind, use_edns=False).to_wire(), limit=limit)
    assert reply is not None
    return dns.message.from_wire(reply)


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("web.shop.svc.cluster.local", "A", ["198.18.8.21"]),
        ("WEB.Shop.SVC.cluster.LOCAL", "A", ["198.18.8.21"]),
        ("web-pods.shop.svc.cluster.local", "A", ["198.18.0.11", "198.18.0.13"]),
        ("198-18-0-11.web-pods.shop.svc.cluster.local", "A", ["198.18.0.11"]),
        ("198-18-0-11.shop.pod.cluster.local", "A", ["198.18.0.11"]),
        ("_http._tcp.web.shop.svc.cluster.local", "SRV", ["0 100 8000 web.shop.svc.cluster.local."]),
        ("21.8.18.198.in-addr.arpa", "PTR", ["web.shop.svc.cluster.local."]),
        ("dual.shop.svc.cluster.local", "A", ["198.18.8.22"]),
        ("dual.shop.svc.cluster.local", "AAAA", ["2001:2:0:1::16"]),
        ("_http._tcp.dual.shop.svc.cluster.local", "SRV", ["0 100 8000 dual.shop.svc.cluster.local."]),
        (reversename.from_address("2001:2:0:1::16").to_text(), "PTR", ["dual.shop.svc.cluster.local."]),
        ("web-pods.shop.svc.cluster.local", "AAAA", ["2001:2::b"]),
        ("2001-2--b.web-pods.shop.svc.cluster.local", "AAAA", ["2001:2::b"]),
        ("2001-2--b.shop.pod.cluster.local", "AAAA", ["2001:2::b"]),
        ("dns-version.cluster.local", "TXT", ['"1.1.0"']),
    ],
)
def test_names_that_exist(name: str, kind: str, expected: list[str]) -> None:
    reply = ask(name, kind)
    assert reply.rcode() == dns.rcode.NOERROR
    assert reply.flags & dns.flags.AA
    assert sorted(rdata.to_text() for rdata in reply.answer[0]) == expected
    assert reply.answer[0].ttl == 5


@pytest.mark.parametrize("name", ["web.shop.svc.cluster.local", "shop.svc.cluster.local", "cluster.local"])
def test_a_name_without_that_type_has_no_data(name: str) -> None:
    reply = ask(name, "AAAA")
    assert (reply.rcode(), reply.answer) == (dns.rcode.NOERROR, [])
    assert reply.authority[0].rdtype == dns.rdatatype.SOA


def test_an_absent_name_does_not_exist_and_says_for_how_long() -> None:
    reply = ask("absent.shop.svc.cluster.local", "A")
    assert reply.rcode() == dns.rcode.NXDOMAIN
    assert reply.authority[0].ttl == 5


@pytest.mark.parametrize(
    "name",
    [
        "example.com",
        "1.0.0.10.in-addr.arpa",
        reversename.from_address("2001:db8::1").to_text(),
        "notcluster.local",
        "cluster.local.example",
    ],
)
def test_other_zones_are_refused(name: str) -> None:
    assert ask(name, "PTR").rcode() == dns.rcode.REFUSED


def test_what_does_not_fit_is_truncated() -> None:
    reply = ask("many.shop.svc.cluster.local", "A", limit=512)
    assert reply.flags & dns.flags.TC
    assert reply.answer == []
    assert len(ask("many.shop.svc.cluster.local", "A").answer[0]) == 60


@pytest.mark.parametrize("garbage", [b"", b"\0" * 5, b"\xff" * 40])
def test_garbage_gets_no_answer(garbage: bytes) -> None:
    assert ZONE.answer(garbage) is None


def test_a_zone_follows_its_file(tmp_path: Path) -> None:
    def write(*names: str) -> None:
        services = [
            {"name": name, "namespace": "shop", "addresses": ["198.18.8.30"], "ports": [], "endpoints": []}
            for name in names
        ]
        body = {"domain": "cluster.local", "reverse": [], "pods": [], "services": services}
        fresh = tmp_path / "fresh"
        fresh.write_text(json.dumps(body))
        fresh.replace(tmp_path / "zone.json")

    def knows(name: str) -> bool:
        query = dns.message.make_query(f"{name}.shop.svc.cluster.local", "A", use_edns=False)
        reply = file.zone().answer(query.to_wire())
        assert reply is not None
        return dns.message.from_wire(reply).rcode() == dns.rcode.NOERROR

    write("one")
    file = ZoneFile(tmp_path / "zone.json")
    first = file.zone()
    assert file.zone() is first
    assert (knows("one"), knows("two")) == (True, False)
    write("two")
    assert (knows("one"), knows("two")) == (False, True)
