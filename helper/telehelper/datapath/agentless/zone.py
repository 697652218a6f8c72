"""The cluster's names, answered from the index; sans-IO.

The schema is that of https://github.com/kubernetes/dns/blob/master/docs/specification.md (version 1.1.0):

=====================================  =======================================================================
``svc.ns.svc.DOMAIN``                  A, AAAA: the cluster addresses; headless: those of the ready endpoints;
                                       ExternalName: CNAME
``host.svc.ns.svc.DOMAIN``             A, AAAA: the headless service's endpoint of that host name, or, as CoreDNS
                                       names those that have none, with that address (``10-1-2-3``)
``_port._proto.svc.ns.svc.DOMAIN``     SRV: the port, at the service or at each endpoint of a headless one
``10-1-2-3.ns.pod.DOMAIN``             A, AAAA: that address, if a pod has it
reverse names                          PTR: the service, or the endpoint of a headless service
=====================================  =======================================================================

NXDOMAIN is said only of what would be seen if it were there. Of a namespace that may not be read nothing is known, so
it is SERVFAIL: a program must not take "may not know" for "is not".
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, Final, NamedTuple

from telehelper.core import dns_message as dns
from telehelper.core.dns_message import MessageError, Name, Question, Record, Response, from_text
from telehelper.core.dns_policy import reverse_network
from telehelper.datapath.agentless.objects import Endpoint, Key, Service

if TYPE_CHECKING:
    from telehelper.core.frames import Address
    from telehelper.datapath.agentless.index import Index

TTL: Final = 5  # seconds, CoreDNS's own default for a cluster's names
LARGEST: Final = 65_000  # bytes of an answer: it is for our own resolver, which cuts it for the client
MAX_ALIASES: Final = 8  # ExternalName of an ExternalName of …
_ANY: Final = 255
_IN: Final = 1
_AA: Final = 0x0400
_WEIGHT: Final = 100  # of SRV records, CoreDNS's
_BITS: Final = {dns.A: 4, dns.AAAA: 6}  # IP version, by type


class Found(NamedTuple):
    """What there is to say to a question: response code, records, and the name outside that goes on the answer."""

    rcode: int
    records: tuple[Record, ...] = ()
    outside: Name = ()


_NOTHING: Final = Found(dns.NOERROR)  # the name is there, but no such record of it
_NO_NAME: Final = Found(dns.NXDOMAIN)
_UNKNOWN: Final = Found(dns.SERVFAIL)


class Zone:
    """Answers questions about one cluster.

    Parameters
    ----------
    index
        What is visible.
    domain
        The cluster's domain.
    """

    def __init__(self, index: Index, domain: str) -> None:
        self._index = index
        self._domain = from_text(domain)

    def find(self, question: Question) -> Found:
        """Look a question up, and follow aliases within the cluster."""
        if question.qclass not in (_IN, _ANY):
            return Found(dns.REFUSED)
        records: tuple[Record, ...] = ()
        name = question.name
        for _ in range(MAX_ALIASES):
            found = self._find(name, question.qtype)
            records += found.records
            alias = found.records[0] if found.records else None
            if alias is None or alias.rtype != dns.CNAME or question.qtype == dns.CNAME:
                return found._replace(records=records)
            target = alias.data[0]
            if not isinstance(target, tuple):
                return _UNKNOWN
            if not self._is_ours(target):
                return Found(dns.NOERROR, records, outside=target)
            name = target
        return _UNKNOWN

    def encode(self, query: dns.Query, found: Found) -> bytes:
        """Write the answer to a query."""
        flags = dns.QR | dns.RA | _AA | query.flags & (dns.RD | dns.CD) | found.rcode
        authorities = () if found.records or found.rcode == dns.SERVFAIL else (self._soa(),)
        response = Response(query.id, flags, query.question, found.records, authorities, ())
        return dns.encode_response(response, LARGEST)

    def _is_ours(self, name: Name) -> bool:
        return name[-len(self._domain) :] == self._domain or reverse_network(name) is not None

    def _find(self, name: Name, qtype: int) -> Found:
        if name[-len(self._domain) :] != self._domain:
            return self._find_reverse(name, qtype)
        match tuple(map(_text, name[: -len(self._domain)][::-1])):
            case () | ("svc" | "pod",):
                return _NOTHING
            case ("svc" | "pod", namespace):
                return self._absent(namespace, is_there=self._index.has_namespace(namespace))
            case ("pod", namespace, address):
                return self._find_pod(namespace, address, name, qtype)
            case ("svc", namespace, service, *rest):
                return self._find_under(Key(namespace, service), rest, name, qtype)
            case ("pod", namespace, *_):
                return self._absent(namespace)
        return _NO_NAME

    def _find_under(self, key: Key, rest: list[str], name: Name, qtype: int) -> Found:
        """Look up a service's name, or one below it; `rest` are the labels before the service's, the last first."""
        match rest:
            case []:
                return self._find_service(key, name, qtype)
            case [protocol, port] if protocol[:1] == port[:1] == "_":
                return self._find_port(key, protocol[1:], port[1:], name, qtype)
            case [host] if not host.startswith("_"):
                return self._find_host(key, host, name, qtype)
            case [_]:
                return self._absent(key.namespace, is_there=self._index.service(key) is not None)
        return self._absent(key.namespace)

    def _absent(self, namespace: str, *, is_there: bool = False) -> Found:
        """Say that there is no such name, or no such record, as far as can be known."""
        if is_there:
            return _NOTHING
        return _NO_NAME if self._index.sees(namespace) else _UNKNOWN

    def _find_service(self, key: Key, name: Name, qtype: int) -> Found:
        service = self._index.service(key)
        if service is None:
            return self._absent(key.namespace)
        if service.external_name:
            return _alias(name, service.external_name)
        addresses = service.addresses or tuple(endpoint.address for endpoint in self._endpoints(key))
        return Found(dns.NOERROR, _addresses(name, addresses, qtype))

    def _endpoints(self, service: Key) -> list[Endpoint]:
        """Return the ready endpoints, each address once."""
        return list(
            {route.endpoint.address: route.endpoint for route in self._index.routes(service)}.values()
        )

    def _find_host(self, key: Key, host: str, name: Name, qtype: int) -> Found:
        service = self._index.service(key)
        if service is None or service.addresses or service.external_name:
            return self._absent(key.namespace)
        own = [endpoint.address for endpoint in self._endpoints(key) if _host_of(endpoint) == host]
        return Found(dns.NOERROR, _addresses(name, tuple(own), qtype)) if own else _NO_NAME

    def _find_port(self, key: Key, protocol: str, port: str, name: Name, qtype: int) -> Found:
        service = self._index.service(key)
        if service is None:
            return self._absent(key.namespace)
        owner = self._of_service(key)
        found: list[tuple[int, Name]] = []
        if service.addresses:
            own = [each for each in service.ports if (each.name, each.protocol.lower()) == (port, protocol)]
            found = [(each.number, owner) for each in own]
        elif not service.external_name:
            found = [
                (each.number, (_host_of(route.endpoint).encode(), *owner))
                for route in self._index.routes(key)
                for each in route.slice.ports
                if (each.name, each.protocol.lower()) == (port, protocol)
            ]
        if not found:
            return _NO_NAME
        if qtype not in (dns.SRV, _ANY):
            return _NOTHING
        return Found(
            dns.NOERROR, tuple(_srv(name, number, target) for number, target in dict.fromkeys(found))
        )

    def _find_pod(self, namespace: str, written: str, name: Name, qtype: int) -> Found:
        address = _written_address(written)
        pod = self._index.pod_at(address) if address is not None else None
        if address is None or pod is None or pod.key.namespace != namespace:
            return self._absent(namespace)
        return Found(dns.NOERROR, _addresses(name, (address,), qtype))

    def _find_reverse(self, name: Name, qtype: int) -> Found:
        network = reverse_network(name)
        if network is None or network.num_addresses != 1:
            return _NO_NAME if self._index.namespaces is None else _UNKNOWN
        target = self._reverse(network.network_address)
        if target is None:
            return _NO_NAME if self._index.namespaces is None else _UNKNOWN
        if qtype not in (dns.PTR, _ANY):
            return _NOTHING
        return Found(dns.NOERROR, (Record(name, dns.PTR, _IN, TTL, (target,)),))

    def _reverse(self, address: Address) -> Name | None:
        service: Service | None = self._index.service_at(address)
        if service is not None:
            return self._of_service(service.key)
        for endpoint, found in self._index.routes_at(address):
            headless = self._index.service(found.service)
            if endpoint.is_ready and headless is not None and not headless.addresses:
                return (_host_of(endpoint).encode(), *self._of_service(found.service))
        return None

    def _of_service(self, key: Key) -> Name:
        return (key.name.encode(), key.namespace.encode(), b"svc", *self._domain)

    def _soa(self) -> Record:
        """Return the record by which a denial may be remembered for a while (RFC 2308 §3)."""
        numbers = b"".join(
            number.to_bytes(4, "big") for number in (self._index.version, 7200, 1800, 86400, TTL)
        )
        names = ((b"ns", b"dns", *self._domain), (b"hostmaster", *self._domain))
        return Record(self._domain, dns.SOA, _IN, TTL, (*names, numbers))


def _text(label: bytes) -> str:
    return label.decode("ascii", "replace")


def _host_of(endpoint: Endpoint) -> str:
    return endpoint.hostname or str(endpoint.address).replace(".", "-").replace(":", "-")


def _written_address(text: str) -> Address | None:
    """Read an address written with dashes; IPv6 addresses may be written in any of their forms."""
    separator = "." if text.count("-") == 3 and text.replace("-", "").isdigit() else ":"
    try:
        return ip_address(text.replace("-", separator))
    except ValueError:
        return None


def _addresses(name: Name, addresses: tuple[Address, ...], qtype: int) -> tuple[Record, ...]:
    wanted = {4: dns.A, 6: dns.AAAA}
    return tuple(
        Record(name, wanted[address.version], _IN, TTL, (address.packed,))
        for address in addresses
        if qtype == _ANY or _BITS.get(qtype) == address.version
    )


def _alias(name: Name, target: str) -> Found:
    found = from_text(target) if target.isascii() else ()
    if not found or dns.wire_length(found) > dns.MAX_NAME or max(map(len, found)) >= 64:
        return _UNKNOWN
    return Found(dns.NOERROR, (Record(name, dns.CNAME, _IN, TTL, (found,)),))


def _srv(name: Name, port: int, target: Name) -> Record:
    fixed = b"".join(number.to_bytes(2, "big") for number in (0, _WEIGHT, port))
    return Record(name, dns.SRV, _IN, TTL, (fixed, target))


def parse(data: bytes) -> dns.Query | None:
    """Read a query; None if it is none that can be answered."""
    try:
        query = dns.parse_query(data)
    except MessageError:
        return None
    return None if query.flags & (dns.QR | dns.OPCODE) else query
