"""Where carriers are accepted, or opened straight to: ``tcp://HOST:PORT`` or ``tls://HOST:PORT``."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final

from telehelper.errors import UsageError

PORTFORWARD: Final = "portforward"  # what `--carrier` says for carriers that go through the API server
SCHEMES: Final = ("tcp", "tls")
MAX_PORT: Final = 65535
# RFC 1123 §2.1: letters, digits and hyphens between dots; an underscore is common all the same.
_NAME: Final = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9_-]{1,63}(?<!-))*\.?")
_MAX_NAME: Final = 253  # characters, RFC 1035 §3.1
_HINT: Final = "write it like tls://10.0.0.5:8083 or tcp://[fd00::5]:8084"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address for carriers; ``str()`` is its URL. `host` is a name or an address, the latter without brackets."""

    scheme: str
    host: str
    port: int

    @property
    def is_encrypted(self) -> bool:
        """Whether TLS is spoken there."""
        return self.scheme == "tls"

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


def parse_endpoint(text: str, *, lowest_port: int = 1) -> Endpoint:
    """Read an endpoint's URL; a listener may have `lowest_port` 0, which means any.

    Raises
    ------
    UsageError
        It is none: another scheme, no host, no port, or something after the port.
    """
    scheme, has_scheme, rest = text.partition("://")
    if not has_scheme or scheme not in SCHEMES:
        raise _bad(text, "it begins with neither tcp:// nor tls://")
    host, has_port, port = rest.rpartition(":")
    if not has_port or not re.fullmatch(r"[0-9]{1,5}", port):
        raise _bad(text, "it does not end in a port")
    if not lowest_port <= int(port) <= MAX_PORT:
        raise _bad(text, f"{port} is no port")
    return Endpoint(scheme, _host(text, host), int(port))


def parse_carrier(text: str) -> Endpoint | None:
    """Read what ``--carrier`` says: where to open carriers, or None for port-forwards; UsageError as above."""
    return None if text == PORTFORWARD else parse_endpoint(text)


def _host(text: str, host: str) -> str:
    is_bracketed = host.startswith("[") and host.endswith("]")
    if is_bracketed or re.fullmatch(r"[0-9.]+", host):
        bare = host[1:-1] if is_bracketed else host
        try:
            address = ipaddress.IPv6Address(bare) if is_bracketed else ipaddress.IPv4Address(bare)
        except ValueError as error:
            raise _bad(text, f"{bare!r} is no address: {error}") from error
        return str(address)
    if len(host) > _MAX_NAME or not _NAME.fullmatch(host):
        raise _bad(text, f"{host!r} is no host" if host else "it has no host")
    return host


def _bad(text: str, why: str) -> UsageError:
    return UsageError(f"{text!r} is no address for carriers: {why}", hint=_HINT)
