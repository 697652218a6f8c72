"""Pings and datagrams from a program to the cluster and back, through the real kernel, TUN, tunnel and manager."""

from __future__ import annotations

import errno
import select
import socket
import struct
import time
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from tests.e2e.inside import inside

ERRORS = {socket.AF_INET: (socket.IPPROTO_IP, 11), socket.AF_INET6: (socket.IPPROTO_IPV6, 25)}  # IP_RECVERR


def _address(name: str, family: socket.AddressFamily) -> str:
    (found,) = socket.getaddrinfo(name, None, family, socket.SOCK_STREAM)
    return str(found[4][0])


def _pinger(address: str) -> socket.socket:
    Path("/proc/sys/net/ipv4/ping_group_range").write_text("0 0")  # of this sandbox
    is_v6 = ":" in address
    family = socket.AF_INET6 if is_v6 else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM, socket.IPPROTO_ICMPV6 if is_v6 else socket.IPPROTO_ICMP)
    sock.settimeout(10)
    sock.setsockopt(*ERRORS[family], 1)
    sock.connect((address, 0))
    return sock


def _ping(sock: socket.socket, sequence: int, data: bytes) -> None:
    sock.send(struct.pack("!BBHHH", 128 if sock.family is socket.AF_INET6 else 8, 0, 0, 0, sequence) + data)


@inside()
def test_a_ping_is_answered_by_the_pod() -> None:
    import telemagic

    with telemagic.connect() as tele:
        for family in (socket.AF_INET, socket.AF_INET6):
            with _pinger(_address("catalog.shop", family)) as sock:
                for sequence, size in enumerate((0, 56, 20_000), 1):
                    began = time.monotonic()
                    _ping(sock, sequence, b"p" * size)
                    reply = sock.recv(70_000)
                    assert time.monotonic() - began < 5
                    assert struct.unpack_from("!H", reply, 6)[0] == sequence
                    assert reply[8:] == b"p" * size
        flows = tele.flows().query("protocol == 'ICMP'")
        assert len(flows) == 2
        assert set(flows.service) == {"catalog.shop"}
        assert set(flows.packets_up) == set(flows.packets_down) == {3}


@inside()
def test_a_ping_to_nobody_is_not_answered_but_told() -> None:
    """The node has no way to an address of no pod; what it says is heard by the manager, and comes back."""
    import telemagic

    with telemagic.connect() as tele:
        pods = [row["cidr"] for row in tele.status.to_dict()["cidrs"] if row["kind"] == "pods"]
        nobody = next(IPv4Network(cidr) for cidr in pods if ":" not in cidr)[77]
        with _pinger(str(nobody)) as sock:
            _ping(sock, 5, b"hello")
            poll = select.poll()
            poll.register(sock, 0)  # POLLERR always counts
            assert poll.poll(10_000)
            sent, about, _, _ = sock.recvmsg(100, 100, socket.MSG_ERRQUEUE)
            assert int.from_bytes(about[0][2][:4], "little") in (errno.ENETUNREACH, errno.EHOSTUNREACH)
            assert struct.unpack_from("!H", sent, 6)[0] == 5


@inside()
def test_a_closed_port_refuses_datagrams() -> None:
    import telemagic

    with telemagic.connect() as tele:
        for family in (socket.AF_INET, socket.AF_INET6):
            with socket.socket(family, socket.SOCK_DGRAM) as sock:
                sock.settimeout(10)
                sock.connect((_address("catalog.shop", family), 4444))
                sock.send(b"anyone?")
                with pytest.raises(ConnectionRefusedError):
                    sock.recv(100)
        flows = tele.flows().query("dport == 4444")
        assert set(flows.reason) == {"Connection refused"}
