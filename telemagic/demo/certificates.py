"""The demo API server's identity: a certificate authority made at start, kept in memory, and a TLS context."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from telemagic.demo.plan import Address

_LIFETIME: Final = datetime.timedelta(days=30)
_SKEW: Final = datetime.timedelta(hours=1)  # a clock set back a little must not make the demo unusable
_NAMES: Final = ("localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc")


class Authority:
    """A certificate authority with one server certificate."""

    def __init__(self, names: Iterable[str], addresses: Iterable[Address]) -> None:
        ca_key, server_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        ca_name, server_name = _common_name("telemagic demo CA"), _common_name("telemagic demo API server")
        ca_id = x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key())
        usage = {name: name in ("key_cert_sign", "crl_sign") for name in _USAGES}
        ca = (
            _builder(ca_name, ca_name, ca_key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(x509.KeyUsage(**usage), critical=True)
            .add_extension(ca_id, critical=False)
            .sign(ca_key, hashes.SHA256())
        )
        alternatives: list[x509.GeneralName] = [x509.DNSName(name) for name in (*_NAMES, *names)]
        alternatives += [
            x509.IPAddress(address) for address in (ipaddress.IPv4Address("127.0.0.1"), *addresses)
        ]
        issued_by = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(ca_id)
        server = (
            _builder(server_name, ca_name, server_key.public_key())
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(issued_by, critical=False)
            .sign(ca_key, hashes.SHA256())
        )
        self.ca_pem = ca.public_bytes(serialization.Encoding.PEM)
        self._chain = server.public_bytes(serialization.Encoding.PEM) + server_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def server_context(self, scratch: Path) -> ssl.SSLContext:
        """Return the context to serve with. `ssl` reads keys from files only: `scratch` holds one for a moment."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        path = scratch / "server.pem"
        path.touch(mode=0o600)
        try:
            path.write_bytes(self._chain)
            context.load_cert_chain(path)
        finally:
            path.unlink()
        return context


_USAGES: Final = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


def _common_name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + _LIFETIME)
    )
