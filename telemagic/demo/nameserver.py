"""The demo cluster's DNS server: what Kubernetes' DNS specification 1.1.0 says, of a file that follows the cluster.

Authoritative for the cluster domain and for the reverse names of the cluster's addresses; anything else is refused,
because there is nobody to forward it to.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import struct
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.reversename
import dns.rrset

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

TTL: Final = 5  # seconds, CoreDNS's default for cluster names
_UDP_LIMIT: Final = 512  # bytes without EDNS (RFC 1035 §4.2.1)
_TCP_IDLE: Final = 10.0  # seconds
_LENGTH: Final = struct.Struct("!H")

Records = dict[dns.name.Name, dict[dns.rdatatype.RdataType, list[dns.rdata.Rdata]]]


class Zone:
    """The names of a cluster, and the answer to any question about them. No I/O.

    Parameters
    ----------
    description
        `domain`; `reverse`, CIDRs; `services` with name, namespace, addresses (none: headless), ports as
        [name, protocol, number] and endpoints, which are addresses; `pods` with namespace and addresses.
    """

    def __init__(self, description: Mapping[str, Any]) -> None:
        self.domain = dns.name.from_text(description["domain"])
        self._reverse = [ip_network(text) for text in description["reverse"]]
        self._records: Records = {}
        self._soa = dns.rdata.from_text(
            dns.rdataclass.IN,
            dns.rdatatype.SOA,
            f"ns.dns.{self.domain} hostmaster.{self.domain} 1 7200 1800 86400 {TTL}",
        )
        self._add(f"dns-version.{self.domain}", "TXT", '"1.1.0"')
        for pod in description["pods"]:
            for address in pod["addresses"]:
                self._add_address(f"{_dashed(address)}.{pod['namespace']}.pod.{self.domain}", address)
        for service in description["services"]:
            self._add_service(service)

    def _add(self, owner: str, kind: str, data: str) -> None:
        name, rdtype = dns.name.from_text(owner), dns.rdatatype.from_text(kind)
        rdata = dns.rdata.from_text(dns.rdataclass.IN, rdtype, data)
        self._records.setdefault(name, {}).setdefault(rdtype, []).append(rdata)
        while name != self.domain and name.is_subdomain(self.domain):
            name = name.parent()
            self._records.setdefault(name, {})  # an empty non-terminal exists (RFC 8020 §2)

    def _add_address(self, owner: str, address: str) -> None:
        self._add(owner, "A" if ip_address(address).version == 4 else "AAAA", address)

    def _add_service(self, service: Mapping[str, Any]) -> None:
        own = f"{service['name']}.{service['namespace']}.svc.{self.domain}"
        targets = dict.fromkeys(service["addresses"], own)
        if not targets:
            targets = {address: f"{_dashed(address)}.{own}" for address in service["endpoints"]}
        for address, target in targets.items():
            self._add_address(own, address)
            if target != own:
                self._add_address(target, address)
            self._add(str(dns.reversename.from_address(address)), "PTR", target)
        for target in dict.fromkeys(targets.values()):
            for name, protocol, number in service["ports"]:
                self._add(f"_{name}._{protocol}.{own}", "SRV", f"0 100 {number} {target}")

    def answer(self, query: bytes, *, limit: int | None = None) -> bytes | None:
        """Answer one message.

        Parameters
        ----------
        query
            As it came from the wire.
        limit
            Bytes the transport can carry at least; None for no limit. EDNS in the query raises it.

        Returns
        -------
        bytes | None
            None if there is nothing to answer to: it was no DNS query.
        """
        try:
            asked = dns.message.from_wire(query)
            reply = dns.message.make_response(asked, our_payload=1232)
        except (dns.exception.DNSException, ValueError):
            return None
        reply.set_rcode(self._fill(asked, reply))
        if limit is None:
            return reply.to_wire()
        try:
            return reply.to_wire(max_size=max(limit, asked.payload))
        except dns.exception.TooBig:
            short = dns.message.make_response(asked)
            short.flags |= dns.flags.TC
            return short.to_wire()

    def _fill(self, asked: dns.message.Message, reply: dns.message.Message) -> dns.rcode.Rcode:
        if asked.opcode() != dns.opcode.QUERY:
            return dns.rcode.NOTIMP
        if len(asked.question) != 1:
            return dns.rcode.FORMERR
        question = asked.question[0]
        if question.rdclass != dns.rdataclass.IN or not self._is_ours(question.name):
            return dns.rcode.REFUSED
        reply.flags |= dns.flags.AA
        found = self._records.get(question.name)
        rdatas = list(self._select(found or {}, question.rdtype))
        for rdata in rdatas:
            name, kind = question.name, rdata.rdtype
            reply.find_rrset(reply.answer, name, dns.rdataclass.IN, kind, create=True).add(rdata, TTL)
        if not rdatas:
            reply.authority.append(dns.rrset.from_rdata(self.domain, TTL, self._soa))
        return dns.rcode.NXDOMAIN if found is None else dns.rcode.NOERROR

    def _select(
        self, records: dict[dns.rdatatype.RdataType, list[dns.rdata.Rdata]], wanted: dns.rdatatype.RdataType
    ) -> Iterator[dns.rdata.Rdata]:
        for kind, rdatas in records.items():
            if wanted in (kind, dns.rdatatype.ANY):
                yield from rdatas

    def _is_ours(self, name: dns.name.Name) -> bool:
        if name.is_subdomain(self.domain):
            return True
        try:
            address = ip_address(dns.reversename.to_address(name))
        except (dns.exception.DNSException, ValueError):
            return False
        return any(address in network for network in self._reverse)


class ZoneFile:
    """The zone in a file that is replaced when the cluster changes; looked at with every question.

    Parameters
    ----------
    path
        JSON as :class:`Zone` takes it. It must be replaced as a whole, by renaming.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen = (0, 0)
        self._zone: Zone | None = None

    def zone(self) -> Zone:
        """Return the present zone."""
        found = self._path.stat()
        if self._zone is None or self._seen != (found.st_ino, found.st_mtime_ns):
            self._seen = (found.st_ino, found.st_mtime_ns)
            self._zone = Zone(json.loads(self._path.read_text()))
        return self._zone


def _dashed(address: str) -> str:
    return address.replace(".", "-").replace(":", "-")


class _Udp(asyncio.DatagramProtocol):
    def __init__(self, file: ZoneFile) -> None:
        self._file = file
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # asyncio's own datagram transport is no subclass of it before Python 3.12.
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        reply = self._file.zone().answer(data, limit=_UDP_LIMIT)
        if reply is not None and self._transport is not None:
            self._transport.sendto(reply, addr)


async def _serve_tcp(file: ZoneFile, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            async with asyncio.timeout(_TCP_IDLE):
                (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
                reply = file.zone().answer(await reader.readexactly(length))
                if reply is None:
                    return
                writer.write(_LENGTH.pack(len(reply)) + reply)
                await writer.drain()
    except (OSError, asyncio.IncompleteReadError):  # TimeoutError is an OSError
        return
    finally:
        writer.close()


async def serve(file: ZoneFile, port: int, addresses: Sequence[str]) -> None:
    """Serve until cancelled; prints ``ready`` once the ports are open.

    One UDP socket per address, so that an answer leaves from the address that was asked.
    """
    loop = asyncio.get_running_loop()
    for address in addresses:
        await loop.create_datagram_endpoint(lambda: _Udp(file), local_addr=(address, port))
    # None: all addresses of its own pod, of both families
    server = await asyncio.start_server(lambda reader, writer: _serve_tcp(file, reader, writer), None, port)
    print(f"ready dns={port}", flush=True)  # noqa: T201 - the kubelet waits for this line
    try:
        await asyncio.Event().wait()
    finally:
        server.close()  # Python 3.12 would wait in serve_forever for clients to leave


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the server."""
    parser = argparse.ArgumentParser(prog="python -m telemagic.demo.nameserver", description=__doc__)
    parser.add_argument("--port", type=int, default=53)
    parser.add_argument("--address", action="append", help="where to listen for UDP; may repeat")
    parser.add_argument("zone", type=Path, help="the cluster's description, JSON")
    options = parser.parse_args(arguments)
    asyncio.run(serve(ZoneFile(options.zone), options.port, options.address or ["127.0.0.1"]))


if __name__ == "__main__":
    main()
