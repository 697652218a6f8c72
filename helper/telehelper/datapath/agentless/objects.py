"""Services, endpoints and pods as small values of our own, read from the API's JSON.

Nothing is taken for granted: what has another shape is left out, and so is an object whose name is none (names go into
paths of the API, and into answers of DNS).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from telehelper.discovery.fields import field, text

if TYPE_CHECKING:
    from collections.abc import Iterator

Json = dict[str, Any]
Address = IPv4Address | IPv6Address

SERVICE_LABEL: Final = "kubernetes.io/service-name"  # of an EndpointSlice (discovery.k8s.io/v1)
DEFAULT_AFFINITY: Final = 10_800.0  # seconds; Kubernetes' own default of clientIP.timeoutSeconds
MAX_AFFINITY: Final = 86_400  # seconds; the API server takes no more (validation of clientIP.timeoutSeconds)
MAX_ENDPOINTS: Final = 5000  # of one object; EndpointSlices have at most 1000, Endpoints are cut at 1000
MAX_PORTS: Final = 1000  # of one object; more than any service has
_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")  # RFC 1123 subdomain, as pods may have
_LABEL: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")  # RFC 1123 label
_PROTOCOLS: Final = frozenset({"TCP", "UDP", "SCTP"})
_OVER: Final = frozenset({"Succeeded", "Failed"})  # phases of pods whose address is another's by now


class Key(NamedTuple):
    """What an object is known by within its kind."""

    namespace: str
    name: str


class ServicePort(NamedTuple):
    """One port of a service; ``name`` may be empty if it is the only one."""

    name: str
    protocol: str
    number: int


class EndpointPort(NamedTuple):
    """One port of endpoints, named as the service's port; the number is the pod's own."""

    name: str
    protocol: str
    number: int


@dataclass(frozen=True, slots=True)
class Service:
    """A service. Without `addresses` it is headless or, with `external_name`, elsewhere.

    ``affinity``: seconds for which a client keeps its endpoint; 0 if it does not.
    """

    key: Key
    addresses: tuple[Address, ...] = ()
    ports: tuple[ServicePort, ...] = ()
    external_name: str = ""
    affinity: float = 0.0


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One backend of a service. ``pod`` is None if there is no pod behind it."""

    address: Address
    pod: Key | None = None
    hostname: str = ""
    is_ready: bool = True
    node: str = ""  # empty if it is not said


@dataclass(frozen=True, slots=True)
class EndpointSlice:
    """Some of a service's endpoints, and the ports that all of these have."""

    key: Key
    service: Key
    endpoints: tuple[Endpoint, ...] = ()
    ports: tuple[EndpointPort, ...] = ()


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod that has its addresses."""

    key: Key
    addresses: tuple[Address, ...] = ()
    is_on_host: bool = False  # it has the node's network, and its loopback is the node's
    node: str = ""  # empty while it has none


def _dicts(value: object, limit: int) -> list[Json]:
    return [each for each in value[:limit] if isinstance(each, dict)] if isinstance(value, list) else []


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _address(value: object) -> Address | None:
    text = _text(value)
    if "%" in text:
        return None
    try:
        return ip_address(text)
    except ValueError:
        return None


def _addresses(values: object) -> tuple[Address, ...]:
    listed = values[:MAX_ENDPOINTS] if isinstance(values, list) else []
    return tuple(address for value in listed if (address := _address(value)) is not None)


def key_of(item: Json) -> Key | None:
    """Return an object's key; None if it has no valid name and namespace."""
    return _key(field(item, "metadata", "namespace"), field(item, "metadata", "name"))


def _key(namespace: object, name: object) -> Key | None:
    found = Key(_text(namespace), _text(name))
    return found if _LABEL.fullmatch(found.namespace) and _NAME.fullmatch(found.name) else None


def _ports(values: object) -> Iterator[tuple[str, str, int]]:
    for port in _dicts(values, MAX_PORTS):
        number, protocol = port.get("port"), _text(port.get("protocol") or "TCP")
        if isinstance(number, int) and 0 < number < 1 << 16 and protocol in _PROTOCOLS:
            yield text(port, "name"), protocol, number


def _node(value: object) -> str:
    name = _text(value)
    return name if _NAME.fullmatch(name) else ""


def read_service(item: Json) -> Service | None:
    """Read a Service (v1)."""
    key = key_of(item)
    if key is None:
        return None
    spec = field(item, "spec")
    affinity = 0.0
    if field(spec, "sessionAffinity") == "ClientIP":
        seconds = field(spec, "sessionAffinityConfig", "clientIP", "timeoutSeconds")
        affinity = DEFAULT_AFFINITY
        if isinstance(seconds, int) and 0 < seconds <= MAX_AFFINITY:
            affinity = float(seconds)
    if field(spec, "type") == "ExternalName":
        return Service(key, external_name=text(spec, "externalName").rstrip("."))
    addresses = _addresses(field(spec, "clusterIPs")) or _addresses([field(spec, "clusterIP")])
    ports = tuple(ServicePort(*port) for port in _ports(field(spec, "ports")))
    return Service(key, addresses, ports, affinity=affinity)


def _pod_behind(target: object, namespace: str) -> Key | None:
    if field(target, "kind") != "Pod":
        return None
    # A reference to another namespace would lend a stranger's service our right to forward.
    found = _key(field(target, "namespace") or namespace, field(target, "name"))
    return found if found is not None and found.namespace == namespace else None


def read_slice(item: Json) -> EndpointSlice | None:
    """Read an EndpointSlice (discovery.k8s.io/v1); None for one of names, or of no service."""
    key = key_of(item)
    service = text(item, "metadata", "labels", SERVICE_LABEL)
    if key is None or not _LABEL.fullmatch(service) or field(item, "addressType") not in ("IPv4", "IPv6"):
        return None
    endpoints = []
    for entry in _dicts(field(item, "endpoints"), MAX_ENDPOINTS):
        address = next(
            iter(_addresses(entry.get("addresses"))), None
        )  # the others are no longer used (KEP-752)
        if address is None:
            continue
        hostname = text(entry, "hostname")
        is_ready = (
            field(entry, "conditions", "ready") is not False
        )  # unknown counts as ready (EndpointConditions)
        pod = _pod_behind(entry.get("targetRef"), key.namespace)
        name, node = hostname if _LABEL.fullmatch(hostname) else "", _node(entry.get("nodeName"))
        endpoints.append(Endpoint(address, pod, name, is_ready, node))
    ports = tuple(EndpointPort(*port) for port in _ports(field(item, "ports")))
    return EndpointSlice(key, Key(key.namespace, service), tuple(endpoints), ports)


def read_endpoints(item: Json) -> EndpointSlice | None:
    """Read Endpoints (v1), which older roles may read instead; only those whose subsets have the same ports.

    Subsets differ in ports only where the pods of one service name their ports differently; then the first counts.
    """
    key = key_of(item)
    if key is None:
        return None
    subsets = _dicts(field(item, "subsets"), MAX_PORTS)
    ports = [tuple(EndpointPort(*port) for port in _ports(subset.get("ports"))) for subset in subsets]
    endpoints = []
    for subset, own in zip(subsets, ports, strict=True):
        for is_ready, part in ((True, "addresses"), (False, "notReadyAddresses")):
            for entry in _dicts(subset.get(part), MAX_ENDPOINTS) if own == ports[0] else ():
                address = _address(entry.get("ip"))
                hostname = text(entry, "hostname")
                if address is not None:
                    pod = _pod_behind(entry.get("targetRef"), key.namespace)
                    name = hostname if _LABEL.fullmatch(hostname) else ""
                    endpoints.append(Endpoint(address, pod, name, is_ready, _node(entry.get("nodeName"))))
    return EndpointSlice(key, key, tuple(endpoints), ports[0] if ports else ())


def read_pod(item: Json) -> Pod | None:
    """Read a Pod (v1); None for one that is over."""
    key = key_of(item)
    if key is None or text(item, "status", "phase") in _OVER:
        return None
    several = [entry.get("ip") for entry in _dicts(field(item, "status", "podIPs"), MAX_PORTS)]
    addresses = _addresses(several) or _addresses([field(item, "status", "podIP")])
    return Pod(
        key, addresses, field(item, "spec", "hostNetwork") is True, _node(field(item, "spec", "nodeName"))
    )
