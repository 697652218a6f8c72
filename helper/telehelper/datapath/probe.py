"""Looking up one name as a program would, and saying who answered it, or why nobody did.

The question goes to our resolver's own address, through the kernel and the TUN, as that of any program; what the
resolver remembers of it says where the answer came from.
"""

from __future__ import annotations

import asyncio
import ipaddress
from time import monotonic
from typing import TYPE_CHECKING, Final

from telehelper.core.dns_message import Name, from_text, to_text
from telehelper.datapath.dns_io import DNS_PORT, ask
from telehelper.errors import NotConnected, ResolverError, UsageError
from telehelper.views import Lookup, RecordRow, Resolved

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import dns.message
    import dns.name
    import dns.rdatatype

    from telehelper.core.dns_names import Origin
    from telehelper.core.frames import Address

    Origins = Mapping[tuple[Name, int], Origin]

TIMEOUT: Final = 12.0  # seconds; the resolver itself gives up after at most ten, and says so
MAX_RECORDS: Final = 200  # of an answer that are told
MAX_DATA: Final = 300  # characters of one record


def encode(name: str, rtype: str) -> tuple[dns.name.Name, dns.rdatatype.RdataType, bytes]:
    """Make the question: the name, the type, and the datagram. An address is asked for its name.

    Raises
    ------
    UsageError
        There is no such record type, or the name cannot be one.
    """
    import dns.exception  # late: 40 ms, and only this needs them
    import dns.message
    import dns.name
    import dns.rdatatype
    import dns.reversename

    try:
        kind = dns.rdatatype.from_text(rtype)
    except dns.exception.DNSException as error:
        raise UsageError(
            f"there is no record type {rtype!r}", hint="one of: A, AAAA, CNAME, MX, PTR, SRV, TXT"
        ) from error
    try:
        try:
            wanted = dns.reversename.from_address(str(ipaddress.ip_address(name)))
            kind = dns.rdatatype.PTR
        except ValueError:
            wanted = dns.name.from_text(name)
        query = dns.message.make_query(wanted, kind, use_edns=0, payload=1232)
        return wanted, kind, query.to_wire()
    except (dns.exception.DNSException, UnicodeError, ValueError) as error:
        raise UsageError(f"{name!r} cannot be a name: {error}", hint="write it like postgres.shop") from error


def decode(wire: bytes) -> tuple[str, tuple[RecordRow, ...]]:
    """Read an answer: its code, and its records.

    Raises
    ------
    ResolverError
        It is no DNS message.
    """
    import dns.exception
    import dns.message
    import dns.rcode
    import dns.rdatatype

    try:
        answer = dns.message.from_wire(wire)
    except (dns.exception.DNSException, ValueError) as error:
        raise ResolverError(f"the answer is no DNS message: {error}") from error
    rows = tuple(
        RecordRow(
            rrset.name.to_text(omit_final_dot=True)[:MAX_DATA],
            dns.rdatatype.to_text(rrset.rdtype),
            rrset.ttl,
            data.to_text()[:MAX_DATA],
        )
        for rrset in answer.answer
        for data in rrset
    )
    return dns.rcode.to_text(answer.rcode()), rows[:MAX_RECORDS]


async def resolve(
    name: str,
    rtype: str,
    *,
    server: Address | None,
    origins: Callable[[], Origins],
    domain: str,
    port: int = DNS_PORT,
) -> Resolved:
    """Look a name up.

    Parameters
    ----------
    name, rtype
        As the user typed them.
    server
        Our resolver's address; None before there is one.
    origins
        What the resolver remembers of questions.
    domain
        The cluster's, such as cluster.local.
    port
        The resolver's.

    Raises
    ------
    UsageError
        Name or type cannot be one.
    ResolverError
        Our own resolver does not answer.
    """
    if server is None:
        raise NotConnected("there is no resolver yet")
    wanted, kind, query = encode(name, rtype)
    begun = monotonic()
    try:
        async with asyncio.timeout(TIMEOUT):
            wire = await ask(str(server), port, query)
    except TimeoutError:
        raise ResolverError(
            f"telemagic's resolver at {server} did not answer within {TIMEOUT:.0f} s", hint="%tele doctor"
        ) from None
    except OSError as error:
        raise ResolverError(
            f"telemagic's resolver at {server} cannot be reached: {error.strerror or error}",
            hint="%tele doctor",
        ) from error
    seconds = monotonic() - begun
    rcode, records = decode(wire)
    lookup = find_lookup(wanted.to_text(omit_final_dot=True), origins(), kind)
    why = explain(rcode, records, lookup, str(kind.name), domain)
    return Resolved(rcode, records, lookup, seconds, str(server), why)


def find_lookup(name: str, origins: Origins, kind: int | None = None) -> Lookup:
    """Return how the resolver came to its answer for a name of any type, or of this `kind`; no source: not asked."""
    wanted = from_text(name)
    for (asked, qtype), origin in origins.items():
        if asked == wanted and kind in (None, qtype):
            return Lookup(origin.source, to_text(origin.asked or asked))
    return Lookup("")


def explain(rcode: str, records: Sequence[RecordRow], lookup: Lookup, rtype: str, domain: str) -> str:
    """Say in one line why there is no answer, or why it is not the cluster's; empty where nothing needs saying."""
    if rcode == "NOERROR" and any(row.rtype == rtype for row in records):
        return "a public name: asked this machine's own DNS" if lookup.source == "machine" else ""
    labels, ending = from_text(lookup.asked), from_text(domain)
    is_ours = lookup.source != "machine" and labels[-len(ending) :] == ending
    if rcode == "NOERROR":
        return f"{lookup.asked or 'the name'} exists, and has no {rtype} record"
    if rcode != "NXDOMAIN":
        who = "the cluster's DNS" if is_ours else "a public name, and this machine's own DNS"
        return f"{who} did not answer ({rcode})"
    if not is_ours:
        return "not a name of the cluster, and this machine's own DNS says that there is no such name"
    service, namespace = _parts(labels[: -len(ending)])
    if not service:
        return f"the cluster has no name {lookup.asked}"
    return f"no such service in namespace {namespace}: {service}"


def _parts(labels: Name) -> tuple[str, str]:
    """Return service and namespace of a name under the cluster's domain; empty for another form."""
    if len(labels) != 3 or labels[2] != b"svc":
        return "", ""
    return to_text(labels[:1]), to_text(labels[1:2])
