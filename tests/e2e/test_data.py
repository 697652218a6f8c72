"""From a program to the cluster and back, through the real kernel, TUN, tunnel, API server and manager."""

from __future__ import annotations

import hashlib
import json
import socket
import time
import urllib.request

import pytest

from tests.e2e.inside import Untouched, inside, tally, wait_until

GIGABYTE = 1_000_000_000


@inside()
def test_a_query_is_counted() -> None:
    import psycopg

    import telemagic

    untouched = Untouched()
    with telemagic.connect() as tele:
        with psycopg.connect("postgresql://shop@postgres.shop:5432/shop") as db:
            rows = db.execute("select id, region, amount from orders order by id limit 20000").fetchall()
        assert len(rows) == 20_000
        assert len({row[1] for row in rows}) > 1
        flow = tele.flows().query("service == 'postgres.shop'").iloc[-1]
        assert flow.dport == 5432
        assert flow.protocol == "TCP"
        assert flow.bytes_down > 200_000
        assert 0 < flow.bytes_up < 2_000
        assert 0 < flow.connect_ms < 1_000
        assert 0 < flow.first_byte_ms < 1_000
        cidrs = {row["kind"]: row for row in tele.status.to_dict()["cidrs"]}
        assert "ServiceCIDR" in cidrs["services"]["source"]
        assert "podCIDR" in cidrs["pods"]["source"]
    untouched.check()


@pytest.mark.slow
@pytest.mark.timeout(180)
@inside(timeout=150)
def test_a_gigabyte_up_arrives_whole() -> None:
    import telemagic

    block = bytes(range(251)) * 4096  # a length that is no multiple of a segment's
    with telemagic.connect(), socket.create_connection(("tally.shop", 7000), timeout=30) as sock:
        digest, left = hashlib.sha256(), GIGABYTE
        while left:
            piece = block[:left]
            sock.sendall(piece)
            digest.update(piece)
            left -= len(piece)
        assert tally(sock) == {"count": GIGABYTE, "sha256": digest.hexdigest()}


@pytest.mark.slow
@pytest.mark.timeout(180)
@inside(timeout=150)
def test_a_gigabyte_down_arrives_whole() -> None:
    import telemagic

    pattern = bytes(range(256)) * 1024  # what the catalog repeats
    expected, left = hashlib.sha256(), GIGABYTE
    while left:
        expected.update(pattern[:left])
        left -= len(pattern[:left])
    with telemagic.connect() as tele:
        digest, count = hashlib.sha256(), 0
        with urllib.request.urlopen(f"http://catalog.shop:8000/bytes/{GIGABYTE}", timeout=30) as answer:
            while data := answer.read(1 << 20):
                digest.update(data)
                count += len(data)
        assert count == GIGABYTE
        assert digest.digest() == expected.digest()
        assert tele.flows().bytes_down.max() >= GIGABYTE


@inside()
def test_both_directions_at_once() -> None:
    import threading

    import telemagic

    body = hashlib.sha256(b"seed").digest() * 1_000_000  # 32 MB
    with telemagic.connect():
        results: list[bytes] = []

        def echo() -> None:
            request = urllib.request.Request("http://catalog.shop:8000/echo", data=body, method="POST")
            with urllib.request.urlopen(request, timeout=40) as answer:
                results.append(hashlib.sha256(answer.read()).digest())

        threads = [threading.Thread(target=echo) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert results == [hashlib.sha256(body).digest()] * 4


@inside()
def test_a_refused_port_is_refused_at_once() -> None:
    import telemagic

    with telemagic.connect() as tele:
        socket.getaddrinfo("postgres.shop", 9)  # so that only the connect is measured
        began = time.monotonic()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("postgres.shop", 9), timeout=10)
        assert time.monotonic() - began < 1.0
        flow = tele.flows().query("dport == 9").iloc[-1]
        assert flow.state == "CLOSED"
        assert "refused" in flow.reason.lower()


@inside()
def test_a_black_hole_times_out() -> None:
    import telemagic

    with telemagic.connect():
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            socket.create_connection(("blackhole.shop", 80), timeout=3)
        assert 2.5 < time.monotonic() - began < 4.5


@inside()
def test_half_close_still_gets_the_reply() -> None:
    import telemagic

    with telemagic.connect(), socket.create_connection(("tally.shop", 7000), timeout=10) as sock:
        sock.sendall(b"abc")
        assert tally(sock) == {"count": 3, "sha256": hashlib.sha256(b"abc").hexdigest()}


@inside()
def test_a_reset_is_a_reset() -> None:
    import telemagic

    with telemagic.connect() as tele:
        with socket.create_connection(("tally.shop", 7000), timeout=10) as sock:
            sock.sendall(b"RESET")
            with pytest.raises(ConnectionResetError):
                sock.recv(1)
        assert wait_until(lambda: tele.flows().query("dport == 7000").iloc[-1].state == "CLOSED")


@inside()
def test_names_resolve_as_in_a_pod() -> None:
    import telemagic

    with telemagic.connect() as tele:
        full = socket.gethostbyname("postgres.shop.svc.cluster.local")
        for name in (
            "postgres.shop",
            "postgres",
            "postgres.shop.svc",
            "postgres.shop.svc.cluster.local.",
            "POSTGRES.Shop",
        ):
            assert socket.gethostbyname(name) == full, name
        assert socket.gethostbyname("kube-dns.kube-system") != full
        for name in ("nothing.shop", "nothing", "postgres.nowhere.svc.cluster.local"):
            with pytest.raises(socket.gaierror):
                socket.gethostbyname(name)
        service = tele.flows()
        assert service.empty or set(service.protocol) <= {"TCP", "UDP"}


@inside()
def test_names_follow_the_connected_namespace() -> None:
    import telemagic

    with telemagic.connect(namespace="kube-system"):
        assert socket.gethostbyname("kube-dns")
        assert socket.gethostbyname("postgres.shop")
        with pytest.raises(socket.gaierror):
            socket.gethostbyname("postgres")


@inside()
def test_udp_reaches_the_clusters_dns_server() -> None:
    import dns.message
    import dns.query

    import telemagic

    with telemagic.connect() as tele:
        server = socket.gethostbyname("kube-dns.kube-system")
        query = dns.message.make_query("_http._tcp.catalog.shop.svc.cluster.local", "SRV")
        answer = dns.query.udp(query, server, timeout=5)
        assert answer.answer
        assert "catalog.shop.svc.cluster.local" in answer.answer[0].to_text()
        assert set(tele.flows().query("dport == 53").protocol) == {"UDP"}


@inside()
def test_two_hundred_flows_at_once() -> None:
    import asyncio

    import telemagic

    async def one(number: int) -> None:
        reader, writer = await asyncio.open_connection("tally.shop", 7000)
        writer.write(b"x" * number)
        writer.write_eof()
        assert json.loads(await reader.read())["count"] == number
        writer.close()
        await writer.wait_closed()

    async def everything() -> None:
        await asyncio.gather(*(one(number) for number in range(1, 201)))

    with telemagic.connect() as tele:
        asyncio.run(everything())
        assert wait_until(lambda: tele.status.to_dict()["flows_total"] >= 200)
