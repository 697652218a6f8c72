"""IPv6 as IPv4: the journeys of test_data.py over the cluster's IPv6 addresses, and machines that have none."""

from __future__ import annotations

import hashlib
import json
import socket
import subprocess
import time
import urllib.request
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path

import pytest
from telehelper.core.cidr import VIF_POOL_V6

from tests.e2e.inside import Untouched, inside, tally, wait_until
from tests.links import cable

BULK = 50_000_000  # bytes
PATTERN = bytes(range(256)) * 1024  # what the catalog repeats
SWITCHES = ("all", "default")


def _v6(name: str) -> str:
    """The only IPv6 address of a name."""
    (found,) = socket.getaddrinfo(name, None, socket.AF_INET6, socket.SOCK_STREAM)
    return str(found[4][0])


def _families(name: str) -> list[socket.AddressFamily]:
    return [found[0] for found in socket.getaddrinfo(name, 80, type=socket.SOCK_STREAM)]


@inside()
def test_http_and_postgresql_by_address_and_by_name() -> None:
    import psycopg

    import telemagic

    untouched = Untouched()
    with telemagic.connect() as tele:
        database, catalog = _v6("postgres.shop"), _v6("catalog.shop")
        for host in (database, "postgres.shop"):
            with psycopg.connect(host=host, user="shop", dbname="shop", connect_timeout=10) as db:
                assert db.info.hostaddr == database, "of both families, IPv6 comes first"
                rows = db.execute("select id, region from orders order by id limit 20000").fetchall()
            assert len(rows) == 20_000
        for authority in (f"[{catalog}]", "catalog.shop"):
            with urllib.request.urlopen(f"http://{authority}:8000/products/3", timeout=10) as answer:
                assert json.load(answer)["name"] == "cast-iron pan"
        status, flows = tele.status.to_dict(), tele.flows()
        assert IPv6Address(status["address_v6"]) in VIF_POOL_V6
        assert set(flows.dst) == {database, catalog}
        assert set(flows.src) == {status["address_v6"]}, "the kernel takes the interface's own address"
        assert set(flows.service) == {"postgres.shop", "catalog.shop"}
        assert flows.connect_ms.between(0, 1_000, inclusive="neither").all()
        six = {row["cidr"]: row for row in status["cidrs"] if ":" in row["cidr"]}
        assert {(row["kind"], row["confidence"]) for row in six.values()} == {
            ("pods", "certain"),
            ("services", "certain"),
        }
        routes = tele.routes().set_index("cidr")
        assert set(routes.loc[list(six)].state) == {"applied"}
        assert status["notices"] == []
    untouched.check()


@inside()
def test_the_libraries_of_data_people_take_names_of_both_families() -> None:
    import pandas as pd
    import requests

    import telemagic

    with telemagic.connect() as tele:
        url = "postgresql+psycopg://shop@postgres.shop:5432/shop"
        assert len(pd.read_sql("select * from products", url)) == 12
        assert len(pd.read_json("http://catalog.shop:8000/products")) == 12
        assert requests.get("http://catalog.shop:8000/health", timeout=10).json() == {"status": "ok"}
        flows = tele.flows()
        assert len(flows) == 3, "no second try with the other family"
        assert all(":" in address for address in flows.dst)


@pytest.mark.slow
@pytest.mark.timeout(120)
@inside(timeout=90)
def test_fifty_megabytes_arrive_whole_both_ways() -> None:
    import telemagic

    block = bytes(range(251)) * 4096  # a length that is no multiple of a segment's
    untouched = Untouched()
    with telemagic.connect() as tele:
        with socket.create_connection((_v6("tally.shop"), 7000), timeout=30) as sock:
            digest, left = hashlib.sha256(), BULK
            while left:
                piece = block[:left]
                sock.sendall(piece)
                digest.update(piece)
                left -= len(piece)
            assert tally(sock) == {"count": BULK, "sha256": digest.hexdigest()}
        expected = hashlib.sha256((PATTERN * (BULK // len(PATTERN) + 1))[:BULK])
        with urllib.request.urlopen(
            f"http://[{_v6('catalog.shop')}]:8000/bytes/{BULK}", timeout=30
        ) as answer:
            body = answer.read()
        assert (len(body), hashlib.sha256(body).digest()) == (BULK, expected.digest())
        flows = tele.flows()
        assert flows.bytes_up.max() >= BULK
        assert flows.bytes_down.max() >= BULK
        assert all(":" in address for address in flows.dst)
    untouched.check()


@inside()
def test_a_refused_port_is_refused_at_once() -> None:
    import telemagic

    with telemagic.connect() as tele:
        address = _v6("postgres.shop")
        began = time.monotonic()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((address, 9), timeout=10)
        assert time.monotonic() - began < 1.0
        flow = tele.flows().iloc[-1]
        assert (flow.dst, flow.dport, flow.state) == (address, 9, "CLOSED")
        assert "refused" in flow.reason.lower()


@inside()
def test_a_black_hole_times_out() -> None:
    import telemagic

    with telemagic.connect():
        assert _families("blackhole-v6.shop") == [socket.AF_INET6]
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            socket.create_connection(("blackhole-v6.shop", 80), timeout=3)
        assert 2.5 < time.monotonic() - began < 4.5


@inside()
def test_half_close_still_gets_the_reply_and_a_reset_is_a_reset() -> None:
    import telemagic

    with telemagic.connect() as tele:
        address = _v6("tally.shop")
        with socket.create_connection((address, 7000), timeout=10) as sock:
            sock.sendall(b"abc")
            assert tally(sock) == {"count": 3, "sha256": hashlib.sha256(b"abc").hexdigest()}
        with socket.create_connection((address, 7000), timeout=10) as sock:
            sock.sendall(b"RESET")
            with pytest.raises(ConnectionResetError):
                sock.recv(1)
        assert wait_until(lambda: tele.flows().iloc[-1].state == "CLOSED")


@inside()
def test_udp_reaches_the_clusters_dns_server() -> None:
    import dns.message
    import dns.query
    import dns.reversename

    import telemagic

    with telemagic.connect() as tele:
        server, database = _v6("kube-dns.kube-system"), _v6("postgres.shop")
        query = dns.message.make_query("postgres.shop.svc.cluster.local", "AAAA")
        for ask in (dns.query.udp, dns.query.tcp):
            assert ask(query, server, timeout=5).answer[0][0].address == database
        assert set(tele.flows().query("dst == @server").protocol) == {"UDP", "TCP"}
        assert socket.gethostbyaddr(database)[0] == "postgres.shop.svc.cluster.local", "reverse names too"


@inside()
def test_two_hundred_flows_at_once() -> None:
    import asyncio

    import telemagic

    async def one(address: str, number: int) -> None:
        reader, writer = await asyncio.open_connection(address, 7000)
        writer.write(b"x" * number)
        writer.write_eof()
        assert json.loads(await reader.read())["count"] == number
        writer.close()
        await writer.wait_closed()

    async def everything(address: str) -> None:
        await asyncio.gather(*(one(address, number) for number in range(1, 201)))

    with telemagic.connect() as tele:
        asyncio.run(everything(_v6("tally.shop")))
        assert wait_until(lambda: tele.status.to_dict()["flows_total"] >= 200)


@inside()
def test_a_service_of_one_family_has_that_family_only() -> None:
    import telemagic

    with telemagic.connect():
        assert _families("blackhole.shop") == [socket.AF_INET]
        assert set(_families("catalog.shop")) == {socket.AF_INET, socket.AF_INET6}


@inside()
def test_what_the_user_keeps_out_is_not_handed_out_either() -> None:
    import telemagic

    with telemagic.connect() as tele:
        pods = next(row["cidr"] for row in tele.status.to_dict()["cidrs"] if row["cidr"].endswith("/64"))
        assert set(_families("catalog-pods.shop")) == {socket.AF_INET, socket.AF_INET6}
    with telemagic.connect(never_proxy=[pods]) as tele:
        assert _families("catalog-pods.shop") == [socket.AF_INET]
        assert set(_families("catalog.shop")) == {socket.AF_INET, socket.AF_INET6}, "a service, not a pod"
        row = tele.routes().set_index("cidr").loc[pods]
        assert (row.state, row.detail) == ("skipped", "--never-proxy")
        with pytest.raises(OSError, match="unreachable"):
            socket.create_connection((str(IPv6Network(pods)[11]), 8000), timeout=5)


@inside()
def test_a_network_of_the_machine_is_a_conflict() -> None:
    from telehelper.errors import CidrConflict

    import telemagic

    with telemagic.connect() as tele:
        pods = next(row["cidr"] for row in tele.status.to_dict()["cidrs"] if row["cidr"].endswith("/64"))
    near = IPv6Network(pods)[0xAAAA]
    cable("eth7", "eth8")
    subprocess.run(["ip", "addr", "add", f"{near}/112", "dev", "eth7", "nodad"], check=True)
    untouched = Untouched()
    with pytest.raises(CidrConflict) as caught:
        telemagic.connect()
    assert (caught.value.data["wanted"], caught.value.data["device"]) == (pods, "eth7")
    untouched.check()


@inside()
def test_a_machine_without_ipv6_says_so_and_uses_ipv4() -> None:
    import psycopg

    import telemagic

    for scope in SWITCHES:
        Path(f"/proc/sys/net/ipv6/conf/{scope}/disable_ipv6").write_text("1")
    untouched = Untouched()
    with telemagic.connect() as tele:
        status = tele.status.to_dict()
        assert status["address_v6"] == ""
        (notice,) = status["notices"]
        assert notice.startswith("this machine has IPv6 switched off: 2001:2:")
        routes = tele.routes()
        six = routes[routes.cidr.str.contains(":")]
        assert len(six) == 2
        assert set(six.state) == {"skipped"}
        assert _families("postgres.shop") == [socket.AF_INET], "no address that cannot be reached"
        with pytest.raises(socket.gaierror):
            socket.getaddrinfo("blackhole-v6.shop", 80)
        with psycopg.connect(host="postgres.shop", user="shop", dbname="shop", connect_timeout=10) as db:
            assert db.execute("select count(*) from products").fetchone() == (12,)
        assert len(tele.flows()) == 1
    untouched.check()
