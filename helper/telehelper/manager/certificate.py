"""The manager's identity for TLS carriers: a key and a self-signed certificate, made at start, in memory only.

Clients learn the certificate's fingerprint over the control connection and accept no other, so neither names nor
dates in it mean anything, and a restart may make new ones.
"""

from __future__ import annotations

import datetime
import os
import ssl
from dataclasses import dataclass
from typing import Final

from telehelper.errors import HelperMissing
from telehelper.tls_stream import fingerprint_of

_NAME: Final = "telemagic traffic manager"
_FROM: Final = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
# RFC 5280 §4.1.2.5: "the notAfter SHOULD be assigned the GeneralizedTime value of 99991231235959Z"
_UNTIL: Final = datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=datetime.UTC)


@dataclass(frozen=True, slots=True)
class Identity:
    """What to serve TLS with, and the fingerprint by which clients know it."""

    context: ssl.SSLContext
    fingerprint: str


def make_identity() -> Identity:
    """Make a key and a certificate.

    Raises
    ------
    HelperMissing
        The package that makes certificates is not installed; only TLS listeners need it.
    """
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError as error:
        raise HelperMissing(
            "a tls:// listener needs the package cryptography, which is not installed",
            hint="pip install cryptography, or listen on tcp:// only",
        ) from error
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, _NAME)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_FROM)
        .not_valid_after(_UNTIL)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return Identity(_context(pem), fingerprint_of(certificate.public_bytes(serialization.Encoding.DER)))


def _context(pem: bytes) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0  # nobody resumes: each carrier lives long
    # `ssl` reads keys from files only; this one is memory, and gone with its descriptor (memfd_create(2)).
    with open(os.memfd_create("carrier-key", os.MFD_CLOEXEC), "wb", buffering=0) as memory:
        memory.write(pem)
        context.load_cert_chain(f"/proc/self/fd/{memory.fileno()}")
    return context
