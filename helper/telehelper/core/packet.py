"""Packets as the TUN carries them: a 10-byte virtio_net_hdr, the IP header, and TCP, UDP or ICMP.

Parsing happens here and nowhere else: what leaves :func:`parse` has lengths that fit and checksums that are right.
Emission is by templates, one per flow, with all that never changes packed and summed beforehand.

Offload (kernel's Documentation/networking/tuntap and ``include/uapi/linux/virtio_net.h``): with NEEDS_CSUM the checksum
field holds the sum of the pseudo header only, and whoever needs the whole sum completes it; with a ``gso_type`` a packet
is up to 64 KiB long and stands for many of ``gso_size`` bytes of text. Both hold in both directions.

IPv4, and IPv6 without extension headers; fragments are for :mod:`telehelper.core.fragments`.
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address
from typing import Final, NamedTuple

from telehelper.core import checksum
from telehelper.core.actions import SendPacket
from telehelper.core.flows import FiveTuple
from telehelper.core.frames import Proto

FIN: Final = 0x01
SYN: Final = 0x02
RST: Final = 0x04
PSH: Final = 0x08
ACK: Final = 0x10

VNET: Final = struct.Struct(
    "=BBHHHH"
)  # flags, gso_type, hdr_len, gso_size, csum_start, csum_offset; host order
NEEDS_CSUM: Final = 1
DATA_VALID: Final = 2
GSO_TCP4: Final = 1
GSO_TCP6: Final = 4
GSO_UDP: Final = 5  # VIRTIO_NET_HDR_GSO_UDP_L4
_GSO_MASK: Final = 0x7F  # the eighth bit says ECN

NO_OFFLOAD: Final = bytes(VNET.size)
MAX_PACKET: Final = 65_535  # bytes; IPv4's total length
IP4_HEADER: Final = 20  # bytes
IP6_HEADER: Final = 40  # bytes
TCP_HEADER: Final = 20  # bytes
UDP_HEADER: Final = 8  # bytes
DEFAULT_MSS: Final = 536  # bytes; RFC 9293 §3.7.1, when a SYN has no MSS option
MAX_SHIFT: Final = 14  # RFC 7323 §2.3
DONT_FRAGMENT: Final = 0x4000
TTL: Final = 64  # hops; RFC 1700's default
ICMP_HEADER: Final = 8  # bytes; RFC 792, RFC 4443: the four that all have, and four more that differ
_TCP_NUMBER: Final = int(Proto.TCP)  # comparing with a member of an enum costs each packet 0.2 µs
_UDP_NUMBER: Final = int(Proto.UDP)
ICMP4: Final = 1
ICMP6: Final = 58
FRAGMENT6: Final = 44  # RFC 8200 §4.5

_IP4: Final = struct.Struct("!BxH2xHxB2x8s")
_IP6: Final = struct.Struct("!IHBx32s")
_TCP: Final = struct.Struct("!4sIIHH")
_UDP: Final = struct.Struct("!4sHH")
_TCP_OUT: Final = struct.Struct("!4sIIHHHH")
_IP4_OUT: Final = struct.Struct("!HHIHH8s")
_IP6_OUT: Final = struct.Struct("!IHBB32s")


class PacketError(Exception):
    """The bytes are no packet that can be taken; the text is the reason it is counted under."""


class FragmentError(PacketError):
    """A part of a packet; what it is a part of can be had from a reassembler."""


class Segment(NamedTuple):
    """One TCP segment, or many of one flow in a single offloaded packet."""

    key: bytes  # source and destination address, source and destination port: 12 or 36 bytes
    seq: int  # as on the wire
    ack: int  # as on the wire
    flags: int
    window: int  # as on the wire
    text: memoryview  # a view of the packet
    options: bytes = b""  # of a SYN only


class Datagram(NamedTuple):
    """One UDP datagram, or with `gso_size` many, each of that many bytes but the last."""

    key: bytes
    text: memoryview  # a view of the packet
    gso_size: int = 0


class IcmpMessage(NamedTuple):
    """An ICMP or ICMPv6 message; the length of `addresses` says which."""

    addresses: bytes  # source and destination
    type: int
    code: int
    body: memoryview  # a view of the packet: what follows the checksum, at least 4 bytes


Packet = Segment | Datagram | IcmpMessage


def parse(data: bytes | memoryview) -> Packet:
    """Take one packet as read from the TUN.

    Raises
    ------
    PacketError
        Truncated, corrupt, multicast, or a protocol that is not carried; a FragmentError if it is only a part.
    """
    version = data[VNET.size] >> 4 if len(data) > VNET.size else 0
    if version == 4:
        protocol, addresses, at, end = _parse_ip4(data)
    elif version == 6:
        protocol, addresses, at, end = _parse_ip6(data)
    else:
        raise PacketError("no IP packet")
    if protocol == _TCP_NUMBER:
        return _parse_tcp(data, addresses, at, end)
    if protocol == _UDP_NUMBER:
        return _parse_udp(data, addresses, at, end)
    if protocol == (ICMP4 if version == 4 else ICMP6):
        return _parse_icmp(data, addresses, at, end)
    raise PacketError(f"protocol {protocol}")


def _parse_ip4(data: bytes | memoryview) -> tuple[int, bytes, int, int]:
    if len(data) < VNET.size + IP4_HEADER:
        raise PacketError("truncated")
    first, total, fragment, protocol, addresses = _IP4.unpack_from(data, VNET.size)
    at = VNET.size + (first & 15) * 4
    end = VNET.size + total
    if at < VNET.size + IP4_HEADER or end < at or len(data) < end:
        raise PacketError("truncated")
    if int.from_bytes(data[VNET.size : at], "big") % 0xFFFF:  # checksum.add(), without the call
        raise PacketError("IP checksum")
    if addresses[4] >= 224 or addresses[0] >= 224:  # class D and E: nobody's unicast address
        raise PacketError("multicast")
    if fragment & 0x3FFF:
        raise FragmentError("fragment")
    return protocol, addresses, at, end


def _parse_ip6(data: bytes | memoryview) -> tuple[int, bytes, int, int]:
    at = VNET.size + IP6_HEADER
    if len(data) < at:
        raise PacketError("truncated")
    _first, length, protocol, addresses = _IP6.unpack_from(data, VNET.size)
    end = at + length
    if len(data) < end:
        raise PacketError("truncated")
    if addresses[16] == 0xFF or addresses[0] == 0xFF:
        raise PacketError("multicast")
    if protocol == FRAGMENT6:
        raise FragmentError("fragment")
    return protocol, addresses, at, end


def _check_sum(data: bytes | memoryview, addresses: bytes, protocol: int, at: int, end: int) -> None:
    """Verify a checksum with pseudo header, unless the kernel left it to us or vouches for it."""
    if data[0] & (NEEDS_CSUM | DATA_VALID):
        return
    if (checksum.add(data[at:end]) + pseudo_sum(addresses, protocol, end - at)) % 0xFFFF:
        raise PacketError("checksum")


def _parse_tcp(data: bytes | memoryview, addresses: bytes, at: int, end: int) -> Segment:
    if end - at < TCP_HEADER:
        raise PacketError("truncated")
    ports, seq, ack, offset_flags, window = _TCP.unpack_from(data, at)
    text_at = at + (offset_flags >> 12) * 4
    if not at + TCP_HEADER <= text_at <= end:
        raise PacketError("truncated")
    _check_sum(data, addresses, 6, at, end)
    flags = offset_flags & 0x1FF
    options = bytes(data[at + TCP_HEADER : text_at]) if flags & SYN else b""
    return Segment(addresses + ports, seq, ack, flags, window, memoryview(data)[text_at:end], options)


def _parse_udp(data: bytes | memoryview, addresses: bytes, at: int, end: int) -> Datagram:
    if end - at < UDP_HEADER:
        raise PacketError("truncated")
    ports, length, check = _UDP.unpack_from(data, at)
    if not UDP_HEADER <= length <= end - at:
        raise PacketError("truncated")
    if check:  # RFC 768: "zero … means that the transmitter generated no checksum"
        _check_sum(data, addresses, 17, at, at + length)
    gso_size = VNET.unpack_from(data)[3] if data[1] & _GSO_MASK == GSO_UDP else 0
    return Datagram(addresses + ports, memoryview(data)[at + UDP_HEADER : at + length], gso_size)


def _parse_icmp(data: bytes | memoryview, addresses: bytes, at: int, end: int) -> IcmpMessage:
    if end - at < ICMP_HEADER:
        raise PacketError("truncated")
    if len(addresses) == 32:
        _check_sum(data, addresses, ICMP6, at, end)
    elif checksum.add(data[at:end]):  # no pseudo header, so there is nothing that could be left to us
        raise PacketError("checksum")
    return IcmpMessage(addresses, data[at], data[at + 1], memoryview(data)[at + 4 : end])


def parse_syn_options(options: bytes) -> tuple[int, int | None]:
    """Return MSS and window scale of a SYN; what is malformed counts as absent (RFC 9293 §3.1)."""
    mss, shift, at = DEFAULT_MSS, None, 0
    while at < len(options) and options[at] != 0:
        if options[at] == 1:
            at += 1
            continue
        length = options[at + 1] if at + 1 < len(options) else 0
        if length < 2 or at + length > len(options):
            break
        if options[at] == 2 and length == 4:
            mss = max(int.from_bytes(options[at + 2 : at + 4], "big"), 64)
        elif options[at] == 3 and length == 3:
            shift = min(options[at + 2], MAX_SHIFT)
        at += length
    return mss, shift


def syn_options(mss: int, shift: int | None) -> bytes:
    """Make the options of a SYN-ACK, a multiple of four bytes."""
    options = b"\2\4" + mss.to_bytes(2, "big")
    return options if shift is None else options + b"\1\3\3" + bytes((shift,))


def quote(data: bytes | memoryview) -> bytes:
    """Return the IP header and 8 bytes more of a packet that :func:`parse` took: what an ICMP error must cite."""
    header = (data[VNET.size] & 15) * 4 if data[VNET.size] >> 4 == 4 else IP6_HEADER
    return bytes(data[VNET.size : VNET.size + header + 8])


def to_five_tuple(protocol: Proto, key: bytes) -> FiveTuple:
    """Read a key."""
    sport, dport = int.from_bytes(key[-4:-2], "big"), int.from_bytes(key[-2:], "big")
    if len(key) == 12:
        return FiveTuple(protocol, IPv4Address(key[:4]), sport, IPv4Address(key[4:8]), dport)
    return FiveTuple(protocol, IPv6Address(key[:16]), sport, IPv6Address(key[16:32]), dport)


def to_key(five_tuple: FiveTuple) -> bytes:
    """Make the key of a five-tuple; the inverse of :func:`to_five_tuple`."""
    _protocol, src, sport, dst, dport = five_tuple
    return src.packed + dst.packed + sport.to_bytes(2, "big") + dport.to_bytes(2, "big")


def reverse(key: bytes) -> bytes:
    """Return the key of the way back."""
    half = (len(key) - 4) // 2
    return key[half:-4] + key[:half] + key[-2:] + key[-4:-2]


def pseudo_sum(addresses: bytes, protocol: int, length: int) -> int:
    """Return the unfolded sum of the pseudo header; IPv4's and IPv6's add up to the same (RFC 8200 §8.1)."""
    return int.from_bytes(addresses, "big") % 0xFFFF + protocol + length


class IpTemplate:
    """The IP header of packets that go one way, all but their length ready.

    Parameters
    ----------
    addresses
        Source and destination, 8 or 32 bytes.
    """

    __slots__ = ("_addresses", "_base", "_pseudo", "protocol", "size", "version")

    def __init__(self, addresses: bytes, protocol: int) -> None:
        self._addresses = addresses
        self.protocol = protocol
        self.version = 4 if len(addresses) == 8 else 6
        self.size = IP4_HEADER if self.version == 4 else IP6_HEADER
        self._pseudo = pseudo_sum(addresses, protocol, 0)
        self._base = 0x4500 + DONT_FRAGMENT + (TTL << 8 | protocol) + checksum.add(addresses)

    def header(self, length: int) -> bytes:
        """Return the header before `length` bytes."""
        if self.version == 6:
            return _IP6_OUT.pack(6 << 28, length, self.protocol, TTL, self._addresses)
        total = IP4_HEADER + length
        check = checksum.complement(self._base + total)
        return _IP4_OUT.pack(0x4500, total, DONT_FRAGMENT, TTL << 8 | self.protocol, check, self._addresses)

    def pseudo(self, length: int) -> int:
        """Return the folded sum of the pseudo header for `length` bytes: what NEEDS_CSUM wants in the field."""
        return (self._pseudo + length) % 0xFFFF


class TcpTemplate:
    """Makes the segments of one flow.

    Parameters
    ----------
    key
        In the direction of the segments.
    mss
        Bytes of text in one segment on the link; longer ones are sent as one offloaded packet.
    offload
        Leave segmentation and checksums to the kernel. Without it `segment` takes at most `mss` bytes, and sums them.
    """

    __slots__ = ("_gso", "_ip", "_mss", "_ports", "_single", "limit")

    def __init__(self, key: bytes, mss: int, *, offload: bool) -> None:
        self._ip = IpTemplate(key[:-4], Proto.TCP)
        self._ports = key[-4:]
        self._mss = mss
        start = self._ip.size
        self._single = VNET.pack(NEEDS_CSUM, 0, 0, 0, start, 16) if offload else NO_OFFLOAD
        kind = GSO_TCP4 if self._ip.version == 4 else GSO_TCP6
        self._gso = VNET.pack(NEEDS_CSUM, kind, start + TCP_HEADER, mss, start, 16)
        room = (MAX_PACKET - start - TCP_HEADER) // mss * mss
        self.limit = room if offload else mss  # bytes of text in one packet; whole segments

    def segment(
        self,
        seq: int,
        ack: int,
        flags: int,
        window: int,
        text: tuple[bytes | memoryview, ...] = (),
        size: int = 0,
        options: bytes = b"",
    ) -> SendPacket:
        """Make one packet; `size` is the length of all of `text`."""
        length = TCP_HEADER + len(options) + size
        vnet = self._single if size <= self._mss else self._gso
        check = self._ip.pseudo(length)
        offset_flags = (TCP_HEADER + len(options)) << 10 | flags
        if vnet is NO_OFFLOAD:
            header = _TCP_OUT.pack(self._ports, seq, ack, offset_flags, window, 0, 0)
            check = checksum.complement(check + checksum.add(header, options, *text))
        header = _TCP_OUT.pack(self._ports, seq, ack, offset_flags, window, check, 0)
        return SendPacket((b"".join((vnet, self._ip.header(length), header, options)), *text))


def make_reset(segment: Segment) -> SendPacket:
    """Answer a segment that belongs to no flow (RFC 9293 §3.10.7.1); it must not be a RST itself."""
    template = TcpTemplate(reverse(segment.key), DEFAULT_MSS, offload=True)
    if segment.flags & ACK:
        return template.segment(segment.ack, 0, RST, 0)
    length = len(segment.text) + bool(segment.flags & SYN) + bool(segment.flags & FIN)
    return template.segment(0, (segment.seq + length) & 0xFFFF_FFFF, RST | ACK, 0)
