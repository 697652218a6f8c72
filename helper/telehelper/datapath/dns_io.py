"""Shell of the resolver: the clock, the randomness, and the sockets to the machine's former nameservers."""

from __future__ import annotations

import asyncio
import secrets
import struct
from collections import Counter
from time import monotonic  # uvloop's own clock has a grain of 1 ms, too coarse for measuring
from typing import TYPE_CHECKING, Final, assert_never

from telehelper.core.dns_actions import Action, Admit, Answer, AskCluster, AskUpstream, Drop, Forget
from telehelper.core.dns_message import HEADER, NXDOMAIN, TC, encode_failure
from telehelper.core.dns_resolver import UPSTREAM_TIMEOUT, Resolver
from telehelper.datapath.alarm import Alarm
from telehelper.errors import TelemagicError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Hashable, Mapping, Sequence

    from telehelper.core.cidr import Address
    from telehelper.core.dns_actions import Ended
    from telehelper.core.dns_message import Name
    from telehelper.core.dns_names import Origin
    from telehelper.core.dns_policy import DnsPolicy

DNS_PORT: Final = 53
_LENGTH: Final = struct.Struct("!H")  # before each message over TCP, RFC 1035 §4.2.2


class _OneAnswer(asyncio.DatagramProtocol):
    """A connected socket for one query: from a random port, and only its server can answer it."""

    def __init__(self, ident: int) -> None:
        self._ident = ident
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, addr: object) -> None:
        # Whoever forges an answer must not make us deaf to the true one, so wait on for the right id.
        right = len(data) >= HEADER.size and int.from_bytes(data[:2], "big") == self._ident
        if right and not self.answer.done():
            self.answer.set_result(data)

    def error_received(self, exc: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(exc)


async def _ask_by_udp(server: str, port: int, query: bytes) -> bytes:
    loop = asyncio.get_running_loop()
    ident = int.from_bytes(query[:2], "big")
    transport, protocol = await loop.create_datagram_endpoint(
        lambda: _OneAnswer(ident), remote_addr=(server, port)
    )
    try:
        transport.sendto(query)
        return await protocol.answer
    finally:
        transport.close()


async def _ask_by_tcp(server: str, port: int, query: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(server, port)
    try:
        writer.write(_LENGTH.pack(len(query)) + query)
        (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
        return await reader.readexactly(length)
    finally:
        writer.close()


async def ask(server: str, port: int, query: bytes) -> bytes:
    """Send one query to a nameserver and return its answer; a truncated one is asked for again over TCP.

    Raises
    ------
    OSError
        The server is unreachable or refuses. Silence is the caller's to bound.
    """
    answer = await _ask_by_udp(server, port, query)
    if not int.from_bytes(answer[2:4], "big") & TC:
        return answer
    try:
        async with asyncio.timeout(UPSTREAM_TIMEOUT / 2):
            return await _ask_by_tcp(server, port, query)
    except (OSError, EOFError, TimeoutError):
        return answer  # better some of it than nothing


class DnsShell:
    """Runs a :class:`~telehelper.core.dns_resolver.Resolver`; use it in one event loop only.

    Parameters
    ----------
    policy
        Whose a name is.
    ask_cluster
        Sends a query to the cluster's DNS server, as a UDP datagram or, if the second argument says so, over TCP; its
        answers go to `cluster_answer`. Must not block; a query it cannot send is lost, and asked again.
    answer
        Sends an answer to a client: whatever `query` was given, and the datagram's payload.
    admit
        Makes the addresses of a cluster's answer reachable; returns what to tell programs for each of them, and leaves
        out what they should not be told. May take its time, other questions go on; a TelemagicError or OSError makes
        SERVFAIL of the answer.
    upstreams
        Addresses of the machine's former nameservers, in order; never our own.
    port
        The upstreams' port.

    Attributes
    ----------
    ended
        Called with what the resolver tells of each lookup that led to the cluster, or should have.
    """

    def __init__(
        self,
        policy: DnsPolicy,
        ask_cluster: Callable[[bytes, bool], None],
        answer: Callable[[Hashable, bytes], None],
        upstreams: Sequence[str] = (),
        *,
        admit: Callable[[Sequence[Address]], Awaitable[Mapping[Address, Address]]],
        port: int = DNS_PORT,
    ) -> None:
        self._ask_cluster = ask_cluster
        self._answer = answer
        self._admit = admit
        self._upstreams = tuple(upstreams)
        self._port = port
        self._loop = asyncio.get_running_loop()
        self._resolver = Resolver(
            policy, upstreams=len(self._upstreams), random_id=lambda: secrets.randbits(16)
        )
        self._asking: dict[int, asyncio.Task[None]] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._alarm = Alarm(self._on_timer)
        self._expected: dict[bytes, asyncio.Event] = {}
        self._closed = False
        self.drops: Counter[str] = Counter()
        self.ended: Callable[[Ended], None] = lambda _ended: None

    @property
    def names(self) -> Mapping[Address, str]:
        """The name last resolved to each address of the cluster: ``postgres.shop``."""
        return self._resolver.names

    @property
    def origins(self) -> Mapping[tuple[Name, int], Origin]:
        """Who answered each question last."""
        return self._resolver.origins

    def query(self, client: Hashable, data: bytes, limit: int = 0) -> None:
        """Take a client's query; `client` is handed to `answer` with the answer to it.

        `limit` is how many bytes that may have; 0 stands for UDP, where the query itself says it.
        """
        label = data[13 : 13 + data[12]].lower() if len(data) > HEADER.size else b""
        if label in self._expected:
            self._expected[label].set()
            self._answer(client, encode_failure(data, NXDOMAIN))
            return
        self._perform(self._resolver.receive_query(client, data, monotonic(), limit))

    async def arrives(self, label: bytes, timeout: float) -> bool:  # noqa: ASYNC109  # its absence is an answer
        """Tell whether a question for a name that begins with this label comes within so many seconds.

        The name does not exist; whoever asks for it on the host's path shows that this path leads here.
        """
        self._expected[label] = asyncio.Event()
        try:
            async with asyncio.timeout(timeout):
                return await self._expected[label].wait()
        except TimeoutError:
            return False
        finally:
            del self._expected[label]

    def cluster_answer(self, data: bytes) -> None:
        """Take an answer that came back from the cluster's DNS server."""
        self._perform(self._resolver.receive_answer(int.from_bytes(data[:2], "big"), data, monotonic()))

    def cluster_failed(self, ident: int) -> None:
        """Take note that the query with this id cannot be asked over TCP."""
        self._perform(self._resolver.cluster_failed(ident, monotonic()))

    def tunnel_down(self) -> None:
        """Let what waits for the cluster wait a little for `tunnel_up`, then answer SERVFAIL."""
        self._resolver.tunnel_down(monotonic())
        self._alarm.set(self._resolver.next_timer())

    def tunnel_up(self) -> None:
        """Ask the cluster again; the tunnel counts as up from the start."""
        self._perform(self._resolver.tunnel_up(monotonic()))

    def set_policy(self, policy: DnsPolicy) -> None:
        """Decide by another policy from now on: the namespaces or CIDRs have changed."""
        self._resolver.set_policy(policy)

    def set_upstreams(self, upstreams: Sequence[str]) -> None:
        """Ask these from now on: the machine's own nameservers have changed."""
        self._upstreams = tuple(upstreams)
        self._resolver.set_upstreams(len(upstreams))

    async def close(self) -> None:
        """Give up what is under way, without answers; no callback is called after this."""
        self._closed = True
        self._alarm.cancel()
        tasks = [*self._asking.values(), *self._ending]
        self._asking.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _perform(self, actions: Sequence[Action]) -> None:
        if self._closed:
            return
        for action in actions:
            match action:
                case AskCluster(_, data, stream):
                    self._ask_cluster(data, stream)
                case Answer(client, data):
                    self._answer(client, data)
                case AskUpstream(ident, data, server):
                    self._start(ident, self._ask_upstream(ident, data, self._upstreams[server]))
                case Admit(ident, addresses):
                    self._start(ident, self._let_in(ident, addresses))
                case Forget(ident):
                    self._forget(ident)
                case Drop(reason):
                    self.drops[reason] += 1
                case _:
                    assert_never(action)
        for ended in self._resolver.take_ended():
            self.ended(ended)
        self._alarm.set(self._resolver.next_timer())

    def _start(self, ident: int, work: Coroutine[None, None, None]) -> None:
        self._asking[ident] = self._loop.create_task(work)

    def _forget(self, ident: int) -> None:
        task = self._asking.pop(ident, None)
        if task is not None:  # else it is the task itself that brought the end
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)
            task.cancel()

    def _on_timer(self, now: float) -> None:
        self._perform(self._resolver.handle_timer(now))

    async def _ask_upstream(self, ident: int, data: bytes, server: str) -> None:
        try:
            answer = await ask(server, self._port, data)
        except OSError:
            self._asking.pop(ident, None)
            self._perform(self._resolver.upstream_failed(ident, monotonic()))
            return
        self._asking.pop(ident, None)
        self._perform(self._resolver.receive_answer(ident, answer, monotonic()))

    async def _let_in(self, ident: int, addresses: Sequence[Address]) -> None:
        try:
            told = await self._admit(addresses)
        except (TelemagicError, OSError):
            self._asking.pop(ident, None)
            self._perform(self._resolver.admission_failed(ident))
            return
        self._asking.pop(ident, None)
        self._perform(self._resolver.receive_admission(ident, told))
