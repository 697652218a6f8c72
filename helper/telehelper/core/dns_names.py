"""The addresses in the cluster's answers: which may be given on, as what; and who answered which question.

A cluster's answer is hostile input: an address that no cluster has (loopback, link-local, multicast, reserved) would
lead a program to this machine's own services or to the cloud's metadata, and is left out before anybody acts on it.
"""

from __future__ import annotations

from collections import OrderedDict
from ipaddress import IPv4Address, IPv6Address
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

from telehelper.core import dns_message as dns
from telehelper.core.routes import NEVER

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from telehelper.core.cidr import Address
    from telehelper.core.dns_message import Name, Record, Response

MAX_NAMES: Final = 8192  # addresses; overflow: the oldest goes
MAX_ORIGINS: Final = 4096  # questions; overflow: the oldest goes


class Origin(NamedTuple):
    """Where the last answer to a question came from.

    ``source``: cluster, cache (of the cluster's answers), machine (its own nameservers), or nobody. ``asked``: the full
    name it was asked for.
    """

    source: str
    asked: Name


def address_of(record: Record) -> Address | None:
    """Return the address in an A or AAAA record; None for other records and malformed ones."""
    data = record.data[0]
    if not isinstance(data, bytes):
        return None
    if record.rtype == dns.A and len(data) == 4:
        return IPv4Address(data)
    if record.rtype == dns.AAAA and len(data) == 16:
        return IPv6Address(data)
    return None


def _records(response: Response) -> Iterator[Record]:
    for record in (*response.answers, *response.additionals):
        if record.rtype in (dns.A, dns.AAAA):
            yield record


def addresses(response: Response) -> tuple[Address, ...]:
    """Return the addresses in an answer that may be somewhere in a cluster, each once, in order."""
    found = (address_of(record) for record in _records(response))
    kept = (a for a in found if a is not None and not any(a in network for network in NEVER))
    return tuple(dict.fromkeys(kept))


def has_addresses(response: Response) -> bool:
    """Whether there are address records at all, good or bad."""
    return any(True for _ in _records(response))


def rewritten(response: Response, told: Mapping[Address, Address]) -> Response:
    """Return the answer with each address replaced by what is told for it, and without those that are not in `told`.

    One that is told as an address of the other family is left out too: it is not what was asked for.
    """

    def rewrite(records: tuple[Record, ...]) -> Iterator[Record]:
        for record in records:
            if record.rtype not in (dns.A, dns.AAAA):
                yield record
                continue
            address = address_of(record)
            instead = told.get(address) if address is not None else None
            if address is not None and instead is not None and instead.version == address.version:
                yield record if instead == address else record._replace(data=(instead.packed,))

    answers, additionals = tuple(rewrite(response.answers)), tuple(rewrite(response.additionals))
    return response._replace(answers=answers, additionals=additionals)


class NameMemory:
    """Which name led to which address; bounded."""

    def __init__(self, limit: int = MAX_NAMES, questions: int = MAX_ORIGINS) -> None:
        self._limit, self._questions = limit, questions
        self._names: OrderedDict[Address, str] = OrderedDict()
        self._originals: dict[Address, Address] = {}
        self._origins: OrderedDict[tuple[Name, int], Origin] = OrderedDict()

    @property
    def names(self) -> Mapping[Address, str]:
        """The name last resolved to each address, of the cluster's own and of what programs were told instead."""
        return MappingProxyType(self._names)

    @property
    def origins(self) -> Mapping[tuple[Name, int], Origin]:
        """Who answered each question last, by its name (in lower case) and type."""
        return MappingProxyType(self._origins)

    def note(self, name: Name, qtype: int, origin: Origin) -> None:
        """Remember who answered a question."""
        self._origins.pop((name, qtype), None)
        self._origins[name, qtype] = origin
        if len(self._origins) > self._questions:
            self._origins.popitem(last=False)

    def learn(self, shown: str, response: Response, told: Mapping[Address, Address], domain: Name) -> None:
        """Remember the addresses of the cluster's answer, before it was rewritten, under the name people know.

        Of those that are the cluster's by a name in its `domain`, or were told as others, the cluster has the reverse
        names; not of a stranger's address that a service of type ExternalName led to.
        """
        for record in response.answers:
            address = address_of(record)
            if address is None or record.rtype != response.question.qtype or address not in told:
                continue
            instead = told[address]
            self._put(address, shown)
            self._put(instead, shown)
            if instead != address or dns.lower(record.owner)[-len(domain) :] == domain:
                self._originals[instead] = address

    def _put(self, address: Address, shown: str) -> None:
        self._names.pop(address, None)
        self._names[address] = shown
        while len(self._names) > self._limit:
            oldest, _ = self._names.popitem(last=False)
            self._originals.pop(oldest, None)

    def original(self, address: Address) -> Address | None:
        """Return the cluster's own address behind one that programs were told; None if it is none of the cluster's."""
        return self._originals.get(address)


def reverse_name(address: Address) -> Name:
    """Return the name whose PTR record names the address (RFC 1035 §3.5, RFC 3596 §2.5)."""
    return dns.from_text(address.reverse_pointer)
