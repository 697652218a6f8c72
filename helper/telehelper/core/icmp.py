"""ICMP and ICMPv6 errors towards the near side: why a destination cannot be reached.

Sent as if by the destination itself, so that they pass the near kernel's reverse path filter. Echo requests are not
answered here: an answer that the cluster did not give would be a lie.
"""

from __future__ import annotations

import errno
from typing import Final

from telehelper.core import checksum
from telehelper.core.actions import SendPacket
from telehelper.core.packet import NO_OFFLOAD, IpTemplate, pseudo_sum

ECHO_REQUESTS: Final = frozenset({8, 128})  # RFC 792; RFC 4443 §4.1

_UNREACHABLE_4: Final = 3  # RFC 792
_UNREACHABLE_6: Final = 1  # RFC 4443 §3.1
_HOST: Final = (1, 3)  # host unreachable; address unreachable
_CODES: Final = {  # errno → code of RFC 792/1812 §5.2.7.1, code of RFC 4443 §3.1
    errno.ECONNREFUSED: (3, 4),
    errno.ENETUNREACH: (0, 0),
    errno.EHOSTUNREACH: _HOST,
    errno.EPERM: (13, 1),
    errno.EACCES: (13, 1),
}


def make_unreachable(quoted: bytes, code: int) -> SendPacket:
    """Answer a packet with "destination unreachable".

    Parameters
    ----------
    quoted
        The packet's IP header and at least 8 bytes more.
    code
        An errno value; one that has no code of its own says "host unreachable".
    """
    code4, code6 = _CODES.get(code, _HOST)
    length = 8 + len(quoted)
    if quoted[0] >> 4 == 4:
        addresses = quoted[16:20] + quoted[12:16]
        ip, head, pseudo = IpTemplate(addresses, 1), bytes((_UNREACHABLE_4, code4)), 0
    else:
        addresses = quoted[24:40] + quoted[8:24]
        ip, head, pseudo = IpTemplate(addresses, 58), bytes((_UNREACHABLE_6, code6)), 1
    total = checksum.add(head, bytes(6), quoted)
    if pseudo:
        total += pseudo_sum(addresses, 58, length)
    message = head + checksum.complement(total).to_bytes(2, "big") + bytes(4) + quoted
    return SendPacket((NO_OFFLOAD + ip.header(length) + message,))
