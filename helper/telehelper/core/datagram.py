"""UDP packets for the near side, and what is in those it sends.

One datagram is one packet, however long: the kernel takes packets longer than the device's MTU from a TUN, up to what IP
allows, in IPv4 and IPv6 (tests/netns/test_tun_udp.py), so nothing is ever cut into fragments here. Nor are runs of
equal datagrams sent as one offloaded packet, though the kernel would take it: that spares 1.3 µs of some 12 that a
datagram costs on its way from a carrier to the TUN, and would need to see several frames at once.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from telehelper.core import checksum
from telehelper.core.actions import SendPacket
from telehelper.core.frames import Proto
from telehelper.core.packet import (
    DONT_FRAGMENT,
    IP4_HEADER,
    IP6_HEADER,
    MAX_PACKET,
    NEEDS_CSUM,
    TTL,
    UDP_HEADER,
    VNET,
    pseudo_sum,
)

if TYPE_CHECKING:
    from telehelper.core.packet import Datagram

# virtio_net_hdr, IP header and UDP header in one go: each datagram is a packet of its own
_HEAD4: Final = struct.Struct("!10sHHIHH8s4sHH")
_HEAD6: Final = struct.Struct("!10sIHH32s4sHH")


class DatagramTemplate:
    """Makes the packets of one flow, all ready but what depends on the length; the kernel sums them.

    Parameters
    ----------
    key
        In the direction of the datagrams.

    Attributes
    ----------
    limit
        Bytes of payload in one packet.
    """

    __slots__ = ("_addresses", "_base", "_ports", "_pseudo", "_vnet", "limit")

    def __init__(self, key: bytes) -> None:
        self._addresses, self._ports = key[:-4], key[-4:]
        size = IP4_HEADER if len(key) == 12 else IP6_HEADER
        self._vnet = VNET.pack(NEEDS_CSUM, 0, 0, 0, size, 6)
        # A sum of zero must go out as its other form, RFC 768; the kernel sees to it.
        self._pseudo = pseudo_sum(self._addresses, Proto.UDP, UDP_HEADER)
        self._base = 0x4500 + DONT_FRAGMENT + (TTL << 8 | Proto.UDP) + checksum.add(self._addresses)
        self.limit = max_datagram(key)

    def datagram(self, payload: bytes | bytearray | memoryview) -> SendPacket:
        """Make one packet; `payload` is at most `limit` bytes long."""
        size = len(payload)
        length = UDP_HEADER + size
        vnet, addresses, ports = self._vnet, self._addresses, self._ports
        check = (self._pseudo + size) % 0xFFFF
        if len(addresses) == 32:
            head = _HEAD6.pack(vnet, 6 << 28, length, 17 << 8 | TTL, addresses, ports, length, check)
        else:
            total = IP4_HEADER + length
            ip_check = (
                0xFFFF - (self._base + total) % 0xFFFF
            ) % 0xFFFF  # checksum.complement(), without the call
            head = _HEAD4.pack(
                vnet, 0x4500, total, DONT_FRAGMENT, TTL << 8 | 17, ip_check, addresses, ports, length, check
            )
        return SendPacket((head, payload))


def make_datagram(key: bytes, payload: bytes | memoryview) -> SendPacket:
    """Make a single packet; `key` is in its direction."""
    return DatagramTemplate(key).datagram(payload)


def max_datagram(key: bytes) -> int:
    """Return how many bytes of payload fit into one UDP packet, or into one ICMP echo."""
    return MAX_PACKET - UDP_HEADER - (IP4_HEADER if len(key) == 12 else 0)


def split(datagram: Datagram) -> list[bytes]:
    """Return the payloads in a packet: one, or with UDP offload one for each `gso_size` bytes."""
    text, step = datagram.text, datagram.gso_size
    if not step or len(text) <= step:
        return [bytes(text)]
    return [bytes(text[at : at + step]) for at in range(0, len(text), step)]
