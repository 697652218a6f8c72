"""The shell of the zone: answers DNS questions, and asks the machine's own nameservers for names outside the cluster.

Those are the targets of ExternalName services. In the cluster they would be resolved there; from here they are resolved,
and reached, as any other name outside.
"""

from __future__ import annotations

import asyncio
import secrets
import struct
from typing import TYPE_CHECKING, Final

from telehelper.core import dns_message as dns
from telehelper.core.dns_message import MessageError, Name, Question, Record
from telehelper.datapath.agentless.zone import Found, Zone, parse

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

OUTSIDE_TIMEOUT: Final = 1.5  # seconds for all servers; the client's own resolver asks again after two
MAX_OUTSIDE: Final = 64  # questions under way; overflow: the alias alone is answered
MAX_RECORDS: Final = 64  # taken from an answer from outside
_TYPE_CLASS: Final = struct.Struct("!HH")


class NameServer:
    """Answers questions about one cluster.

    Parameters
    ----------
    zone
        What it knows.
    servers
        Addresses of the machine's own nameservers, as they were before us.
    ask
        Sends a query to a server's port and returns its answer; failures are OSError or EOFError.
    """

    def __init__(
        self, zone: Zone, servers: Sequence[str], ask: Callable[[str, int, bytes], Awaitable[bytes]]
    ) -> None:
        self._zone = zone
        self._servers = tuple(servers)
        self._ask = ask
        self._tasks: set[asyncio.Task[None]] = set()

    def query(self, data: bytes, answer: Callable[[bytes], None]) -> None:
        """Take a query; `answer` is called with the answer, now or later. What is no query is dropped."""
        query = parse(data)
        if query is None:
            return
        found = self._zone.find(query.question)
        if not found.outside or not self._servers or len(self._tasks) >= MAX_OUTSIDE:
            answer(self._zone.encode(query, found))
            return
        task = asyncio.create_task(self._look_outside(query, found, answer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Give up what is under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _look_outside(self, query: dns.Query, found: Found, answer: Callable[[bytes], None]) -> None:
        records = await self._resolve(found.outside, query.question)
        answer(self._zone.encode(query, found._replace(records=found.records + records)))

    async def _resolve(self, name: Name, asked: Question) -> tuple[Record, ...]:
        """Ask the servers in turn for the records of a name; none if they have none, or do not answer in time."""
        ident = secrets.randbits(16)
        raw = bytearray()
        dns.write_name(name, raw, None)
        raw += _TYPE_CLASS.pack(asked.qtype, asked.qclass)
        question = Question(name, asked.qtype, asked.qclass, bytes(raw))
        data = dns.encode_query(ident, dns.Query(ident, dns.RD, question, b""), name)
        try:
            async with asyncio.timeout(OUTSIDE_TIMEOUT):
                for server in self._servers:
                    try:
                        response = dns.parse_response(await self._ask(server, 53, data))
                    except (OSError, EOFError, MessageError):
                        continue
                    same = response.question[:3] == question[:3] and response.id == ident
                    if same and response.rcode in (dns.NOERROR, dns.NXDOMAIN):
                        return response.answers[:MAX_RECORDS]
        except TimeoutError:
            pass
        return ()
