"""From what people write, `postgres.shop`, to a service and one of its ports; pure."""

from __future__ import annotations

import difflib
import ipaddress
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import SplitResult, urlsplit

from telehelper.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from telehelper.views import PortRow, ServiceRow

# What a port is for: by its name or its number, and by the image's usual port. The URL schemes are those that Python's
# clients take.
_BY_NAME: Final = {
    "http": "http",
    "https": "https",
    "postgres": "postgresql",
    "postgresql": "postgresql",
    "redis": "redis",
    "mysql": "mysql",
    "mongodb": "mongodb",
    "kafka": "kafka",
    "amqp": "amqp",
    "grpc": "grpc",
    "nats": "nats",
}
_BY_NUMBER: Final = {
    80: "http",
    443: "https",
    3306: "mysql",
    4222: "nats",
    5432: "postgresql",
    5672: "amqp",
    6379: "redis",
    9092: "kafka",
    27017: "mongodb",
}


class Target(NamedTuple):
    """What the user wrote, taken apart. ``port`` is a name, a number or empty; ``url`` is None unless it was one."""

    host: str
    port: str = ""
    url: SplitResult | None = None


class Place(NamedTuple):
    """Where a name would be: of which namespace, which service."""

    service: str
    namespace: str


def parse(text: str) -> Target:
    """Take `host`, `host:port`, `[v6]:port` or a URL apart.

    Raises
    ------
    UsageError
        It is none of them.
    """
    given = text.strip()
    if "://" in given:
        return _parse_url(given)
    try:
        return Target(str(ipaddress.ip_address(given)))
    except ValueError:
        pass  # it is a name, or an address with a port
    if given.startswith("["):
        host, bracket, port = given[1:].partition("]")
        if not bracket or port[:1] not in ("", ":"):
            raise UsageError(f"{text!r} is no address", hint="write it like [fd00::1]:8000")
        return Target(host, port[1:])
    host, colon, port = given.partition(":")
    if not host or (colon and not port) or ":" in port or "/" in given or " " in given:
        raise UsageError(
            f"{text!r} names no service", hint="write it like postgres.shop or postgres.shop:5432"
        )
    return Target(host.rstrip("."), port)


def _parse_url(given: str) -> Target:
    try:
        url = urlsplit(given)
        port = "" if url.port is None else str(url.port)
    except ValueError as error:
        raise UsageError(f"{given!r} is no URL: {error}", hint="write it like http://catalog.shop") from error
    if not url.hostname or not url.scheme:
        raise UsageError(f"{given!r} is a URL without a host", hint="write it like http://catalog.shop")
    return Target(url.hostname.rstrip("."), port, url)


def place(host: str, namespace: str, domain: str) -> Place | None:
    """Return the service that a name means in the connected `namespace`; None for a name of another form."""
    name = host.lower()
    ending = f".svc.{domain.strip('.')}"
    name = name.removesuffix(ending) if name.endswith(ending) else name.removesuffix(".svc")
    service, _, where = name.partition(".")
    if not service or "." in where:
        return None
    return Place(service, where or namespace)


def find(wanted: Place, services: Sequence[ServiceRow]) -> ServiceRow | None:
    """Return the service, None if it is not there."""
    return next((row for row in services if (row.name, row.namespace) == wanted), None)


def did_you_mean(wanted: Place, services: Sequence[ServiceRow]) -> str:
    """Return `did you mean postgres.shop?`, or nothing when nothing is close."""
    same = [row for row in services if row.name == wanted.service]
    # Best first: one of the same namespace before one of another.
    near = sorted(services, key=lambda row: row.namespace != wanted.namespace)
    names = difflib.get_close_matches(wanted.service, dict.fromkeys(row.name for row in near), n=1)
    close = same or [row for row in near if row.name in names][:1]
    return f"did you mean {' or '.join(f'{row.name}.{row.namespace}' for row in close[:3])}?" if close else ""


def choose_port(name: str, ports: Sequence[PortRow], wanted: str, scheme: str = "") -> PortRow:
    """Return the port called or numbered `wanted`, that of the URL's `scheme`, or the only one.

    Raises
    ------
    UsageError
        There is none, no such one, or there are several to choose from.
    """
    if wanted:
        for port in ports:
            if wanted in (port.name, str(port.number)):
                return port
        raise UsageError(f"{name} has no port {wanted!r}", hint=_list(ports))
    if not ports:
        raise UsageError(f"{name} has no ports", hint="name one by number, as in NAME:5432")
    fitting = [port for port in ports if scheme and scheme in (port.name, guess(port))]
    streams = [port for port in ports if port.protocol == "TCP"]
    for choice in (ports, fitting, streams):
        if len(choice) == 1:
            return choice[0]
    raise UsageError(f"{name} has several ports", hint=_list(ports))


def _list(ports: Iterable[PortRow]) -> str:
    return f"one of: {describe(ports)}" if ports else "it has none"


def describe(ports: Iterable[PortRow]) -> str:
    """Return ports for people: `http 8000/TCP, tally 7000/TCP`."""
    return ", ".join(f"{port.name} {port.number}/{port.protocol}".strip() for port in ports)


def guess(port: PortRow) -> str:
    """Return the URL scheme that a port's name or number says it speaks; empty if neither does."""
    if port.protocol != "TCP":
        return ""
    # Istio's convention, which Kubernetes took over for names: <protocol>[-<suffix>].
    return _BY_NAME.get(port.name.partition("-")[0]) or _BY_NUMBER.get(port.number, "")


def url_of(row: ServiceRow) -> str:
    """Return the URL of a service's first port that says what it speaks; empty if none does."""
    for port in row.ports:
        scheme = guess(port)
        if scheme:
            return f"{scheme}://{row.name}.{row.namespace}:{port.number}"
    return ""


def join(target: Target, number: int) -> str:
    """Return what the user wrote, with the port."""
    host = f"[{target.host}]" if ":" in target.host else target.host
    if target.url is None:
        return f"{host}:{number}"
    user, at, _ = target.url.netloc.rpartition("@")
    return target.url._replace(netloc=f"{user}{at}{host}:{number}").geturl()
