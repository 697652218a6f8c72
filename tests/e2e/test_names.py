"""Names from a program to the cluster and to the company, by each way that changes this machine or does not."""

from __future__ import annotations

import asyncio
import ctypes
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import dns.message
import dns.query
import dns.rdatatype
import pytest
from telehelper.datapath.host_names import LOOK

from tests.company import COMPANY, WIKI, Company, company_network
from tests.e2e.inside import Untouched, inside, wait_until

RESOLV_CONF = Path("/etc/resolv.conf")
FILE = f"nameserver {COMPANY}\nsearch corp.example\noptions timeout:1 attempts:1\n"


def company() -> Company:
    """Give this sandbox a company's network and its DNS server."""
    company_network()
    RESOLV_CONF.write_text(FILE)
    return Company()


def addresses(name: str) -> set[str]:
    return {str(item[4][0]) for item in socket.getaddrinfo(name, 80, socket.AF_INET, socket.SOCK_STREAM)}


def others_are_untouched(server: Company) -> None:
    server.asked.clear()
    assert addresses("www.example.com") == addresses("wiki.corp.example") == addresses("wiki") == {WIKI}
    assert {"www.example.com.", "wiki.corp.example."} <= set(server.asked)
    with pytest.raises(socket.gaierror):
        socket.getaddrinfo("nosuch.example.com", 80)


def ask(name: str, rtype: str, server: str, *, tcp: bool = False, **options: int) -> dns.message.Message:
    query = dns.message.make_query(name, rtype, **options)
    return (dns.query.tcp if tcp else dns.query.udp)(query, server, timeout=5)


@inside()
def test_every_form_and_record_over_udp_and_tcp_and_others_go_on() -> None:
    import telemagic

    server = company()
    untouched = Untouched()
    others_are_untouched(server)
    with telemagic.connect() as tele:
        status = tele.status.to_dict()
        assert (status["dns"], status["notices"]) == ("resolvconf", [])
        ours = str(status["dns_server"])
        for name in ("postgres", "postgres.shop", "postgres.shop.svc", "POSTGRES.shop.svc.cluster.local."):
            (address,) = addresses(name)
            assert address.startswith("198.18.")
        others_are_untouched(server)
        assert not [name for name in server.asked if "postgres" in name]
        for tcp in (False, True):
            message = ask("PostGres.shop", "A", ours, tcp=tcp, use_edns=0, payload=1232)
            assert message.question[0].name.to_text() == "PostGres.shop."
            assert message.answer[0][0].to_text() == address
            assert ask("www.example.com", "A", ours, tcp=tcp).answer[0][0].to_text() == WIKI
        reverse = dns.message.make_query(".".join(reversed(address.split("."))) + ".in-addr.arpa", "PTR")
        (pointer,) = dns.query.tcp(reverse, ours, timeout=5).answer
        assert pointer[0].to_text().startswith("postgres.shop.")
        assert ask("postgres.shop", "TXT", ours).answer == []
        assert socket.gethostbyaddr(address)[0].startswith("postgres.shop")
    untouched.check()
    others_are_untouched(server)


@inside()
def test_pipelined_questions_on_one_connection() -> None:
    import telemagic

    with telemagic.connect() as tele:
        ours = str(tele.status.to_dict()["dns_server"])
        asked = ["postgres.shop", "catalog.shop", "nosuch.shop", *["postgres.shop"] * 50]
        with socket.create_connection((ours, 53), timeout=10) as sock, sock.makefile("rb") as stream:
            for ident, name in enumerate(asked):
                wire = dns.message.make_query(name, "A", id=ident).to_wire()
                sock.sendall(len(wire).to_bytes(2, "big") + wire)
            sock.shutdown(socket.SHUT_WR)
            rcodes = {}
            while length := stream.read(2):
                message = dns.message.from_wire(stream.read(int.from_bytes(length, "big")))
                rcodes[message.id] = int(message.rcode())
        assert rcodes == {ident: 3 if name.startswith("nosuch") else 0 for ident, name in enumerate(asked)}
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((ours, 54), timeout=5)


@inside()
def test_a_dhcp_client_overwrites_the_file() -> None:
    import telemagic

    server = company()
    with telemagic.connect() as tele:
        assert addresses("postgres.shop")
        newer = FILE.replace("corp.example", "corp.example new.example")
        RESOLV_CONF.write_text(newer)
        assert wait_until(lambda: "telemagic" in RESOLV_CONF.read_text())
        assert addresses("postgres.shop")
        others_are_untouched(server)
        assert wait_until(lambda: any("set again" in line for line in tele.status.to_dict()["notices"]))
    assert RESOLV_CONF.read_text() == newer


SECOND = """
import socket, sys, telemagic
from tests.e2e.test_names import addresses
with telemagic.connect(on_conflict="map") as tele:
    for _ in range(2):
        assert tele.status.to_dict()["dns"] == "resolvconf"
        print(*addresses("postgres.shop"), *addresses("www.example.com"), flush=True)
        sys.stdin.readline()
"""


@inside()
def test_two_connections_and_the_first_leaves_first() -> None:
    import telemagic

    server = company()
    untouched = Untouched()
    first = telemagic.connect()
    with tempfile.TemporaryDirectory() as folder:  # another data plane: as for another cluster
        second = subprocess.Popen(
            [sys.executable, "-c", SECOND],
            env={**os.environ, "TELEMAGIC_RUNTIME_DIR": folder},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert second.stdin is not None
        assert second.stdout is not None
        assert second.stdout.readline().split()[1:] == [WIKI]
        others_are_untouched(server)
        first.disconnect()
        time.sleep(2 * LOOK)  # the second one sees the first one's nameserver go
        second.stdin.write("\n")
        second.stdin.flush()
        found, wiki = second.stdout.readline().split()
        assert (found[:4], wiki) == ("198.", WIKI)
        others_are_untouched(server)
        second.communicate("\n", timeout=20)
        assert second.returncode == 0
    assert RESOLV_CONF.read_text() == FILE
    untouched.check()


@inside()
def test_in_this_process_only() -> None:
    import aiohttp
    import psycopg
    import requests

    import telemagic
    import telemagic.names

    server = company()
    untouched = Untouched()
    url = "http://catalog.shop:8000/bytes/5"
    before = socket.getaddrinfo, socket.gethostbyname, telemagic.names.bypasses()
    with telemagic.connect(dns="kernel") as tele:
        assert tele.status.to_dict()["dns"] == "kernel"
        assert RESOLV_CONF.read_text() == FILE
        assert (
            addresses("postgres") == addresses("postgres.shop.svc") == {socket.gethostbyname("postgres.shop")}
        )
        server.asked.clear()
        assert urllib.request.urlopen(url, timeout=5).read() == requests.get(url, timeout=5).content
        assert asyncio.run(fetch(aiohttp, url)) == bytes(range(5))
        with psycopg.connect("postgresql://shop@postgres.shop:5432/shop") as db:
            assert db.execute("select 1").fetchone() == (1,)
        assert c_getaddrinfo("postgres.shop") == 0  # a C library of the main thread
        assert not [name for name in server.asked if "shop" in name]
        others_are_untouched(server)
        assert child_sees("postgres.shop")
    assert (socket.getaddrinfo, socket.gethostbyname, telemagic.names.bypasses()) == before
    assert c_getaddrinfo("postgres.shop") != 0
    with pytest.raises(socket.gaierror):
        addresses("postgres.shop")
    untouched.check()


@inside()
def test_where_the_file_cannot_be_written_names_work_in_this_process() -> None:
    import telemagic

    company()
    assert (
        os.system(
            "mount --bind /etc/resolv.conf /etc/resolv.conf && mount -o remount,bind,ro /etc/resolv.conf"
        )
        == 0
    )
    with telemagic.connect() as tele:
        status = tele.status.to_dict()
        assert status["dns"] == "kernel"
        assert any("in this notebook only" in line for line in status["notices"])
        assert addresses("postgres.shop")
    assert RESOLV_CONF.read_text() == FILE


async def fetch(aiohttp: object, url: str) -> bytes:
    async with aiohttp.ClientSession() as session, session.get(url) as answer:  # type: ignore[attr-defined]
        return bytes(await answer.read())


def c_getaddrinfo(name: str) -> int:
    """Call the C library's getaddrinfo directly, as libpq or libcurl do; returns its error."""
    libc = ctypes.CDLL(None)
    result = ctypes.c_void_p()
    return int(libc.getaddrinfo(name.encode(), b"80", None, ctypes.byref(result)))


def child_sees(name: str) -> bool:
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(0 if addresses(name) else 1)
        finally:
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
