"""A small real API server for tests: TLS with a certificate authority of its own, and answers as each test wants."""

from __future__ import annotations

import contextlib
import datetime
import ssl
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Any

import yaml
from aiohttp import WSMsgType, web
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

TOKEN = "token-of-the-test"
PROTOCOL = "v4.channel.k8s.io"
WAIT = 20.0  # seconds for anything


@dataclass(frozen=True)
class Pki:
    """Files of one certificate authority, a server and a client it vouches for."""

    ca: Path
    server_cert: Path
    server_key: Path
    client_cert: Path
    client_key: Path


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _save(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def _key_bytes(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def make_pki(folder: Path, *, server_name: str = "", server_days: tuple[int, int] = (0, 2)) -> Pki:
    """Make a certificate authority; its server is 127.0.0.1, or `server_name` only, and good between these days from now."""
    folder.mkdir(parents=True, exist_ok=True)
    start = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=1)

    def builder(
        subject: str, key: ec.EllipticCurvePrivateKey, days: tuple[int, int] = (0, 2)
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(_name(subject))
            .issuer_name(_name("test ca"))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start + datetime.timedelta(days=days[0]))
            .not_valid_after(start + datetime.timedelta(days=days[1]))
        )

    ca_key, server_key, client_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
    is_ca = x509.BasicConstraints(ca=True, path_length=None)
    key_id = x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key())
    ca = (
        builder("test ca", ca_key)
        .add_extension(is_ca, critical=True)
        .add_extension(key_id, critical=False)
        .add_extension(_ca_usage(), critical=True)
        .sign(ca_key, hashes.SHA256())
    )
    # Python 3.13 insists on it.
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
    alternative = x509.DNSName(server_name) if server_name else x509.IPAddress(IPv4Address("127.0.0.1"))
    server = (
        builder("server", server_key, server_days)
        .add_extension(x509.SubjectAlternativeName([alternative]), critical=False)
        .add_extension(issuer, critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    client = builder("client", client_key).add_extension(issuer, critical=False).sign(ca_key, hashes.SHA256())
    return Pki(
        _save(folder / "ca.crt", ca.public_bytes(Encoding.PEM)),
        _save(folder / "server.crt", server.public_bytes(Encoding.PEM)),
        _save(folder / "server.key", _key_bytes(server_key)),
        _save(folder / "client.crt", client.public_bytes(Encoding.PEM)),
        _save(folder / "client.key", _key_bytes(client_key)),
    )


def _ca_usage() -> x509.KeyUsage:
    uses = dict.fromkeys(
        (
            "digital_signature",
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    return x509.KeyUsage(**uses, key_cert_sign=True, crl_sign=True)


class ApiServer:
    """Answers requests and port-forwards by handlers that a test puts in, and remembers what it was asked."""

    def __init__(self, pki: Pki) -> None:
        self.pki = pki
        self.url = ""
        self.requests: list[web.Request] = []
        self.answers: dict[str, Callable[[web.Request], Awaitable[web.StreamResponse]]] = {}
        self.tokens = {TOKEN}
        self.port_forward: Callable[[web.WebSocketResponse, int], Awaitable[None]] = echo
        self.client_names: list[str] = []

    def answer(
        self, path: str, doc: object, status: int = 200, headers: dict[str, str] | None = None
    ) -> None:
        """Answer `path` with a JSON document, or with text."""

        async def reply(_: web.Request) -> web.StreamResponse:
            if isinstance(doc, str):
                return web.Response(text=doc, status=status, headers=headers)
            return web.json_response(doc, status=status, headers=headers)

        self.answers[path] = reply

    @contextlib.asynccontextmanager
    async def run(self, *, ask_certificate: bool = False) -> AsyncIterator[ApiServer]:
        """Listen on a free port of the loopback."""
        app = web.Application()
        app.router.add_get("/api/v1/namespaces/{namespace}/pods/{pod}/portforward", self._forward)
        app.router.add_route("*", "/{path:.*}", self._any)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.pki.server_cert, self.pki.server_key)
        if ask_certificate:
            context.load_verify_locations(self.pki.ca)
            context.verify_mode = ssl.CERT_REQUIRED
        runner = web.AppRunner(app, shutdown_timeout=0.2)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
            await site.start()
            self.url = f"https://127.0.0.1:{runner.addresses[0][1]}"
            yield self
        finally:
            await runner.cleanup()

    def _note(self, request: web.Request) -> web.Response | None:
        self.requests.append(request)
        assert request.transport is not None
        certificate = request.transport.get_extra_info("peercert")
        if certificate:
            self.client_names += [value for part in certificate["subject"] for _, value in part]
            return None
        given = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if given not in self.tokens:
            return web.json_response({"kind": "Status", "message": "Unauthorized"}, status=401)
        return None

    async def _any(self, request: web.Request) -> web.StreamResponse:
        refused = self._note(request)
        handler = self.answers.get(request.path)
        if refused is not None:
            return refused
        return await handler(request) if handler else web.json_response({"kind": "Status"}, status=404)

    async def _forward(self, request: web.Request) -> web.StreamResponse:
        refused = self._note(request)
        if refused is not None:
            return refused
        if request.path in self.answers:
            return await self.answers[request.path](request)
        socket = web.WebSocketResponse(protocols=(PROTOCOL,))
        await socket.prepare(request)
        await self.port_forward(socket, int(request.query["ports"]))
        return socket


def announcement(channel: int, port: int) -> bytes:
    """Return the server's first message on a channel."""
    return bytes([channel]) + port.to_bytes(2, "little")


async def announce(socket: web.WebSocketResponse, port: int) -> None:
    """Announce both channels, as a kubelet does."""
    await socket.send_bytes(announcement(0, port))
    await socket.send_bytes(announcement(1, port))


async def echo(socket: web.WebSocketResponse, port: int) -> None:
    """Send everything back."""
    await announce(socket, port)
    async for message in socket:
        assert message.type is WSMsgType.BINARY
        await socket.send_bytes(message.data)


def kubeconfig(
    folder: Path, pki: Pki, server: str, *, name: str = "config", **changes: dict[str, Any] | None
) -> Path:
    """Write a kubeconfig with one context "here"; `changes` are merged into context, cluster and user."""
    cluster = {"server": server, "certificate-authority": str(pki.ca), **(changes.get("cluster") or {})}
    user = changes["user"] if changes.get("user") is not None else {"token": TOKEN}
    context = {"cluster": "c", "user": "u", "namespace": "shop", **(changes.get("context") or {})}
    doc = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "contexts": [{"name": "here", "context": context}],
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": user}],
    }
    for part in (context, cluster):
        for key in [key for key, value in part.items() if value is None]:
            del part[key]
    path = folder / name
    path.write_text(yaml.safe_dump(doc))
    return path
