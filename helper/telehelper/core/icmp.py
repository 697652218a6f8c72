"""ICMP and ICMPv6: echoes, and why a destination cannot be reached, in both directions.

What goes to the near side is sent as if by the destination itself, so that it passes the near kernel's reverse path
filter.
"""

from __future__ import annotations

import errno
from typing import Final, NamedTuple

from telehelper.core import checksum
from telehelper.core.actions import SendPacket
from telehelper.core.packet import (
    ICMP4,
    ICMP6,
    IP4_HEADER,
    IP6_HEADER,
    NO_OFFLOAD,
    IcmpMessage,
    IpTemplate,
    pseudo_sum,
    reverse,
)

_ECHO_REQUEST: Final = {8: 8, 32: 128}  # length of the addresses → type, RFC 792; RFC 4443 §4.1
_UNREACHABLE: Final = {8: 3, 32: 1}  # RFC 792; RFC 4443 §3.1
_TOO_BIG: Final = (3, 4)  # RFC 792: "fragmentation needed"; ICMPv6 has a type of its own for it
_HOST: Final = (1, 3)  # host unreachable; address unreachable
_CODES: Final = {  # errno → code of RFC 792/1812 §5.2.7.1, code of RFC 4443 §3.1
    errno.ECONNREFUSED: (3, 4),
    errno.ENETUNREACH: (0, 0),
    errno.EHOSTUNREACH: _HOST,
    errno.EPERM: (13, 1),
    errno.EACCES: (13, 1),
}


class Echo(NamedTuple):
    """An echo request."""

    key: bytes  # source and destination address, identifier, two zero bytes
    sequence: int
    data: memoryview  # a view of the packet


def parse_echo(message: IcmpMessage) -> Echo | None:
    """Return the echo request in a message, or None if it is another."""
    addresses, kind, _code, body = message
    if kind != _ECHO_REQUEST[len(addresses)]:
        return None
    return Echo(addresses + bytes(body[:2]) + b"\0\0", int.from_bytes(body[2:4], "big"), body[4:])


def parse_unreachable(message: IcmpMessage) -> tuple[int, bytes] | None:
    """Return protocol and key of the packet whose sender is told that it cannot arrive.

    None if the message says something else, cites nothing usable, or only wants smaller packets. The key is in the
    direction of the near side's own packets, so the flow can be looked up with it.
    """
    addresses, kind, code, body = message
    cited = bytes(body[4:])
    if kind != _UNREACHABLE[len(addresses)] or (kind, code) == _TOO_BIG:
        return None
    if len(addresses) == 8:
        size, protocol_at, addresses_at = (cited[0] & 15) * 4 if cited else 0, 9, 12
    else:
        size, protocol_at, addresses_at = IP6_HEADER, 6, 8
    if size < IP4_HEADER or len(cited) < size + 4:
        return None
    key = cited[addresses_at : addresses_at + len(addresses)] + cited[size : size + 4]
    return cited[protocol_at], reverse(key)


def make_echo_reply(key: bytes, sequence: int, data: bytes | memoryview) -> SendPacket:
    """Answer an echo request; `key` is in the answer's direction, so the identifier is in its destination port."""
    kind = 0 if len(key) == 12 else 129  # RFC 792; RFC 4443 §4.2
    return _make(key[:-4], kind, 0, key[-2:] + sequence.to_bytes(2, "big") + data)


def make_unreachable(quoted: bytes, code: int) -> SendPacket:
    """Answer a packet with "destination unreachable".

    Parameters
    ----------
    quoted
        The packet's IP header and at least 8 bytes more.
    code
        An errno value; one that has no code of its own says "host unreachable".
    """
    codes = _CODES.get(code, _HOST)
    is_v6 = quoted[0] >> 4 == 6
    addresses = quoted[24:40] + quoted[8:24] if is_v6 else quoted[16:20] + quoted[12:16]
    return _make(addresses, _UNREACHABLE[len(addresses)], codes[is_v6], bytes(4) + quoted)


def _make(addresses: bytes, kind: int, code: int, body: bytes) -> SendPacket:
    """Make a message: `body` is what follows the checksum."""
    head = bytes((kind, code))
    total = checksum.add(head, bytes(2), body)
    protocol = ICMP4
    if len(addresses) == 32:  # RFC 4443 §2.3: with a pseudo header, unlike ICMP
        protocol = ICMP6
        total += pseudo_sum(addresses, ICMP6, 4 + len(body))
    message = head + checksum.complement(total).to_bytes(2, "big") + body
    return SendPacket((NO_OFFLOAD + IpTemplate(addresses, protocol).header(len(message)) + message,))
