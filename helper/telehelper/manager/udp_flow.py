"""One UDP flow at the manager: a frame's payload is a datagram's."""

from __future__ import annotations

import os

from telehelper.manager.datagram_flow import DatagramFlow


class UdpFlow(DatagramFlow):
    """See :class:`DatagramFlow`. An ICMP error ends it with RST: "port unreachable" is ECONNREFUSED on the socket."""

    def receive_datagram(self, payload: bytes | bytearray | memoryview) -> None:
        """Send a DATAGRAM frame's payload to the service."""
        self._transmit(payload)

    def _to_payload(self, data: bytes) -> bytes:
        return data

    def _unreachable(self, code: int, _sent: bytes | bytearray | memoryview) -> None:
        self._reset(code, os.strerror(code))
