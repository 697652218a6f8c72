"""The frames between engine and tunnel: what is opened to a mapped address goes to the real one."""

from __future__ import annotations

import asyncio
import errno
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_address
from typing import TYPE_CHECKING

import pytest
from telehelper.core.address_map import HOLD, AddressMap
from telehelper.core.frames import Frame, FrameType, Open, Proto, decode_coded, decode_open, encode_open
from telehelper.datapath import address_map
from telehelper.datapath.address_map import AddressMapper

if TYPE_CHECKING:
    from telehelper.core.frames import Address

NEAR, REAL, OTHER = (IPv4Address(text) for text in ("198.19.240.0", "10.244.8.7", "10.1.1.1"))
POOL, POOL_V6 = IPv4Network("198.19.192.0/30"), IPv6Network("2001:2:0:fffe::/126")


class Tunnel:
    """Remembers what it is given."""

    def __init__(self) -> None:
        self.sent: list[Frame] = []
        self.forgotten: list[int] = []

    def send(self, frame: Frame) -> None:
        self.sent.append(frame)

    def forget(self, flow: int) -> None:
        self.forgotten.append(flow)


class Bench:
    """A mapper between a tunnel and an engine that only remember."""

    def __init__(self) -> None:
        self.tunnel = Tunnel()
        self.four, self.six = AddressMap(POOL), AddressMap(POOL_V6)
        self.answered: list[Frame] = []
        self.mapper = AddressMapper(self.tunnel, [self.four, self.six], self.answered.extend)

    def open(self, flow: int, dst: Address, protocol: Proto = Proto.TCP) -> Open:
        """Open a flow; returns what the tunnel was asked for."""
        self.mapper.send(encode_open(flow, Open(protocol, NEAR, 4000, dst, 80, 5.0, 100)))
        return decode_open(self.tunnel.sent[-1])


@pytest.mark.parametrize("protocol", [Proto.TCP, Proto.UDP, Proto.ICMP])
def test_a_mapped_address_is_turned_back(protocol: Proto) -> None:
    bench = Bench()
    mapped = bench.four.assign(REAL, 0.0)
    assert mapped is not None
    assert bench.open(7, mapped, protocol) == Open(protocol, NEAR, 4000, REAL, 80, 5.0, 100)


def test_ipv6_too() -> None:
    bench = Bench()
    real = ip_address("fd00:10:96::7")
    mapped = bench.six.assign(real, 0.0)
    assert mapped is not None
    assert bench.open(7, mapped).dst == real


def test_everything_else_goes_through_untouched() -> None:
    bench = Bench()
    assert bench.open(7, OTHER).dst == OTHER
    frames = [Frame(kind, 7, b"x") for kind in (FrameType.DATA, FrameType.DATAGRAM, FrameType.FIN)]
    for frame in frames:
        bench.mapper.send(frame)
    assert bench.tunnel.sent[1:] == frames
    bench.mapper.forget(7)
    assert bench.tunnel.forgotten == [7]


def test_a_mapped_address_of_nobody_is_refused_afterwards() -> None:
    bench = Bench()

    async def work() -> None:
        bench.mapper.send(encode_open(7, Open(Proto.TCP, NEAR, 4000, POOL[2], 80, 5.0, 100)))
        assert bench.answered == [], "not while the engine is sending"
        await asyncio.sleep(0)

    asyncio.run(work())
    assert bench.tunnel.sent == []
    (frame,) = bench.answered
    assert (frame.type, frame.flow) == (FrameType.REJECTED, 7)
    assert decode_coded(frame) == (
        errno.EHOSTUNREACH, "no name of the cluster was answered with this address lately",
    )  # fmt: skip


def test_a_flow_keeps_its_mapping_until_it_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(address_map, "monotonic", lambda: now)
    bench = Bench()
    first, second = bench.four.assign(REAL, now), bench.four.assign(OTHER, now)
    assert first is not None
    bench.open(7, first)
    now = 10 * HOLD
    assert bench.four.assign(ip_address("10.9.9.9"), now) == second
    assert bench.four.assign(ip_address("10.9.9.8"), now) is None
    bench.mapper.forget(7)
    assert bench.four.assign(ip_address("10.9.9.8"), now + HOLD - 1) is None
    now += HOLD
    assert bench.four.assign(ip_address("10.9.9.9"), now) == second
    assert bench.four.assign(ip_address("10.9.9.8"), now) == first
