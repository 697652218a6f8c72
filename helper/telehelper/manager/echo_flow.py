"""One flow of ICMP echo at the manager: real echo requests, from a socket that needs no privilege.

Linux lets a process ping by a datagram socket of protocol ICMP if one of its groups is in net.ipv4.ping_group_range
(icmp(7); IPv6 has no setting of its own). Container runtimes put all groups in there, so most pods may. The kernel
chooses the identifier, fills in the checksum, and delivers the replies to that identifier only.
"""

from __future__ import annotations

import errno
import socket
import struct
from typing import TYPE_CHECKING, Final

from telehelper.core.echo import decode_echo, encode_echo
from telehelper.core.frames import Frame, FrameType
from telehelper.manager.datagram_flow import DatagramFlow

if TYPE_CHECKING:
    from telehelper.core.frames import Address
    from telehelper.manager.datagram_flow import Home

_HEADER: Final = struct.Struct(
    "!BBHHH"
)  # type, code, checksum, identifier, sequence number; RFC 792, RFC 4443 §4.1
_REQUEST: Final = {socket.AF_INET: 8, socket.AF_INET6: 128}
_REPLY: Final = {socket.AF_INET: 0, socket.AF_INET6: 129}


def open_echo_socket(dst: Address) -> socket.socket:
    """Return a socket that pings one address; OSError if that fails, EPROTONOSUPPORT if we may not."""
    if dst.version == 4:
        family, protocol = socket.AF_INET, socket.IPPROTO_ICMP
    else:
        family, protocol = socket.AF_INET6, socket.IPPROTO_ICMPV6
    try:
        sock = socket.socket(family, socket.SOCK_DGRAM, protocol)
    except PermissionError as error:
        reason = "the traffic manager's pod may not ping (its net.ipv4.ping_group_range)"
        raise OSError(errno.EPROTONOSUPPORT, reason) from error
    try:
        sock.setblocking(False)
        sock.connect((str(dst), 0))
    except OSError:
        sock.close()
        raise
    return sock


class EchoFlow(DatagramFlow):
    """See :class:`DatagramFlow`. What cannot be reached is told of each request by itself, and the flow goes on."""

    def __init__(self, flow: int, sock: socket.socket, home: Home) -> None:
        super().__init__(flow, sock, home)
        self._request, self._reply = _REQUEST[sock.family], _REPLY[sock.family]

    def receive_datagram(self, payload: bytes | bytearray | memoryview) -> None:
        """Send an echo request; TunnelError if the payload is none."""
        _code, sequence, data = decode_echo(payload)
        self._transmit(_HEADER.pack(self._request, 0, 0, 0, sequence) + data)

    def _to_payload(self, data: bytes) -> bytes | None:
        if len(data) < _HEADER.size or data[0] != self._reply:
            return None
        return encode_echo(_HEADER.unpack_from(data)[4], data[_HEADER.size :])

    def _unreachable(self, code: int, sent: bytes | bytearray | memoryview) -> None:
        if len(sent) >= _HEADER.size:
            failed = encode_echo(_HEADER.unpack_from(sent)[4], code=code)
            self._home.carrier.send(Frame(FrameType.DATAGRAM, self.flow, failed))
