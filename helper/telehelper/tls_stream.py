"""TLS for carriers: the far side is known by its certificate's fingerprint, which was learned over another way.

No authority vouches for a traffic manager, and none needs to: whoever shows the very certificate that the manager
named over the control connection, and proves to have its key, which TLS does, is the manager.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ssl
from typing import Final, cast

from telehelper.errors import ManagerUntrusted
from telehelper.tcp_stream import TcpStream

# Bytes in the TLS layer beyond which writing waits. Not less than a record or two, whatever plain TCP has: with 0 the
# event loops' TLS layers take an empty buffer for a full one, and never ask for more.
HIGH_WATER: Final = 128 * 1024


class TlsStream(TcpStream):
    """A TCP stream with TLS on it."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See :class:`asyncio.BufferedProtocol`."""
        super().connection_made(transport)
        cast("asyncio.Transport", transport).set_write_buffer_limits(high=HIGH_WATER)

    def eof_received(self) -> bool:
        """See :class:`asyncio.BufferedProtocol`; TLS has no half-close, so the transport goes too."""
        super().eof_received()
        return False

    @property
    def fingerprint(self) -> str:
        """Hexadecimal SHA-256 of the far side's certificate."""
        found = None if self._transport is None else self._transport.get_extra_info("ssl_object")
        certificate = None if found is None else found.getpeercert(binary_form=True)
        return "" if certificate is None else fingerprint_of(certificate)


def fingerprint_of(certificate: bytes) -> str:
    """Return the hexadecimal SHA-256 of a certificate in DER."""
    return hashlib.sha256(certificate).hexdigest()


async def connect_tls(host: str, port: int, fingerprint: str) -> TlsStream:
    """Open a TLS connection to whoever has the certificate with this fingerprint; TLS 1.3 only.

    Raises
    ------
    ManagerUntrusted
        Another one answered. It got nothing but the handshake.
    OSError
        The connection, or TLS on it, failed.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # no authority, no names: the fingerprint is compared below
    loop = asyncio.get_running_loop()
    _, stream = await loop.create_connection(TlsStream, host, port, ssl=context)
    if not hmac.compare_digest(stream.fingerprint.encode(), fingerprint.encode()):
        stream.abort()
        raise ManagerUntrusted.at(host, port)
    return stream
