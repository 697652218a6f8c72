"""Direct carriers over real sockets: who may hold what for how long, in plain TCP and in TLS."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ssl
from typing import TYPE_CHECKING

import pytest
import uvloop
from telehelper.core.frames import Frame, FrameType, decode_coded, encode
from telehelper.endpoint import Endpoint
from telehelper.manager import listener, mux_server
from telehelper.tcp_stream import connect_tcp
from telehelper.tls_stream import connect_tls

from tests.manager.near_side import WAIT, NearCarrier, NearSide, near_side
from tests.manager.test_manager import echo, service, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from telehelper.rpc.manager_pb2 import Session

Raw = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Direct:
    """A manager with one listener besides its loopback, and who comes there."""

    def __init__(self, near: NearSide, session: Session) -> None:
        self.near = near
        self.session = session
        (self.endpoint,) = near.manager.listening
        self.raw: list[Raw] = []

    async def carrier(self, token: str | None = None) -> NearCarrier:
        """Return a carrier that has been greeted."""
        return await (await self.ungreeted(token or self.session.token)).hello()

    async def ungreeted(self, token: str | None) -> NearCarrier:
        port = self.endpoint.port
        stream = await (
            connect_tls("127.0.0.1", port, self.session.carrier_fingerprint)
            if self.endpoint.is_encrypted
            else connect_tcp("127.0.0.1", port)
        )
        carrier = NearCarrier().over(stream, token)
        self.near.carriers.append(carrier)
        return carrier

    async def stranger(self) -> Raw:
        """Return a connection that says nothing, not even a TLS hello."""
        self.raw.append(await asyncio.open_connection("127.0.0.1", self.endpoint.port))
        return self.raw[-1]

    @property
    def connections(self) -> int:
        return sum(one.connections for one in self.near.manager._mux_server._listeners)

    async def works(self, carrier: NearCarrier) -> bool:
        async with service(echo) as port:
            flow = await carrier.open(port).opened()
            await flow.write(b"hello")
            return await flow.read(5) == b"hello"


@contextlib.asynccontextmanager
async def direct(scheme: str) -> AsyncIterator[Direct]:
    async with near_side(carrier_listen=(Endpoint(scheme, "127.0.0.1", 0),)) as near:
        it = Direct(near, await near.session())
        try:
            yield it
        finally:
            for _, writer in it.raw:
                writer.close()


def run(scheme: str, scenario: Callable[[Direct], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(60), direct(scheme) as it:
            await scenario(it)

    # The manager's own loop, and the other one: they begin TLS on a connection each in their own way.
    for factory in (uvloop.new_event_loop, asyncio.new_event_loop):
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(main())


async def end_of(raw: Raw) -> bytes:
    """Read to the end of a connection, however it ends."""
    got = b""
    async with asyncio.timeout(WAIT):
        with contextlib.suppress(ConnectionResetError):
            while data := await raw[0].read(65_536):
                got += data
    return got


both = pytest.mark.parametrize("scheme", ["tcp", "tls"])


# --- who may ---


@both
def test_carriers_of_a_session_come_in(scheme: str) -> None:
    async def scenario(it: Direct) -> None:
        one, two = await it.carrier(), await it.carrier()
        assert await it.works(one)
        assert await it.works(two)
        assert await it.works(await it.near.carrier(it.session.token))  # by the loopback as ever
        await one.close()
        assert await it.works(two)
        assert len(it.near.manager.sessions) == 1

    run(scheme, scenario)


@both
def test_without_a_good_token_nobody_does(scheme: str) -> None:
    async def scenario(it: Direct) -> None:
        for token in ("", "wrong", it.session.token[:-1]):
            carrier = await it.ungreeted(token)
            goaway = await carrier.next_control()
            assert (goaway.type, decode_coded(goaway)[0]) == (FrameType.GOAWAY, errno.EACCES)
            await carrier.lost
        carrier = await it.ungreeted(None)
        carrier.open(80, "10.0.0.1")
        assert "the first frame is OPEN" in decode_coded(await carrier.next_control())[1]
        await until(lambda: it.connections == 0)
        assert it.near.manager.sessions.flows == 0

    run(scheme, scenario)


def test_by_default_there_is_only_the_loopback() -> None:
    async def main() -> None:
        async with near_side() as near:
            assert near.manager.listening == []
            (only,) = near.manager._mux_server._listeners
            assert only._socket is not None
            assert only._socket.getsockname()[0] == "127.0.0.1"
            assert (await near.session()).carrier_fingerprint == ""

    uvloop.run(main())


def test_a_fingerprint_is_told_only_where_tls_is_spoken() -> None:
    fingerprints = []

    async def scenario(it: Direct) -> None:
        fingerprints.append(it.session.carrier_fingerprint)

    run("tcp", scenario)
    run("tls", scenario)
    assert fingerprints[:2] == ["", ""]
    assert {len(bytes.fromhex(one)) for one in fingerprints[2:]} == {32}
    assert fingerprints[2] != fingerprints[3]  # each manager's own


def test_only_tls_1_3_is_spoken() -> None:
    async def scenario(it: Direct) -> None:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        _, writer = await asyncio.open_connection("127.0.0.1", it.endpoint.port, ssl=context)
        assert writer.get_extra_info("ssl_object").version() == "TLSv1.3"
        writer.close()
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises((ssl.SSLError, ConnectionResetError)):
            await asyncio.open_connection("127.0.0.1", it.endpoint.port, ssl=context)
        await until(lambda: it.connections == 0)

    run("tls", scenario)


# --- for how long ---


@pytest.mark.parametrize(
    "first", [b"", b"\x16", b"GET / HTTP/1.1\r\n\r\n", encode(Frame(FrameType.HELLO, 0, b"\0\1"))]
)
def test_who_does_not_speak_tls_is_gone_in_time(first: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "HANDSHAKE_TIME", 0.1)

    async def scenario(it: Direct) -> None:
        stranger = await it.stranger()
        stranger[1].write(first)
        await end_of(stranger)
        await until(lambda: it.connections == 0)
        assert await it.works(await it.carrier())

    run("tls", scenario)


@both
def test_who_does_not_say_hello_is_gone_in_time(scheme: str) -> None:
    async def scenario(it: Direct) -> None:
        it.near.manager._mux_server.hello_time = 0.05
        carrier = await it.ungreeted(None)
        assert decode_coded(await carrier.next_control()) == (errno.ETIMEDOUT, "no HELLO in time")
        await carrier.lost
        await until(lambda: it.connections == 0)

    run(scheme, scenario)


@both
def test_bytes_that_never_make_a_hello_buy_no_time(scheme: str) -> None:
    async def scenario(it: Direct) -> None:
        it.near.manager._mux_server.hello_time = 0.05
        carrier = await it.ungreeted(None)
        ping = encode(Frame(FrameType.PING, 0, bytes(8)))
        with contextlib.suppress(ConnectionResetError):
            while not carrier.lost.done():
                carrier.carrier._stream.write([ping])
                await asyncio.sleep(0.001)
        await until(lambda: it.connections == 0)

    run(scheme, scenario)


# --- how many ---


@both
def test_a_flood_of_strangers_throws_out_strangers_only(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "MAX_STRANGERS", 3)

    async def scenario(it: Direct) -> None:
        honest = await it.carrier()
        strangers = [await it.stranger() for _ in range(10)]
        for stranger in strangers[:7]:
            await end_of(stranger)
        await until(lambda: it.connections == 1 + 3)
        assert not any(reader.at_eof() for reader, _ in strangers[7:])
        assert await it.works(honest)
        assert await it.works(await it.carrier())  # in the midst of it, and one more of them had to go
        await end_of(strangers[7])
        # The loopback is a port of its own: nobody there is thrown out by what happens here.
        assert await it.works(await it.near.carrier(it.session.token))

    assert listener.MAX_STRANGERS == 3
    run(scheme, scenario)


@both
def test_who_has_greeted_half_is_a_stranger_still(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "MAX_STRANGERS", 2)

    async def scenario(it: Direct) -> None:
        first = await it.ungreeted(None)  # TLS stands, HELLO is missing
        await it.stranger()
        await it.stranger()
        async with asyncio.timeout(WAIT):
            assert await first.lost
        await until(lambda: it.connections == 2)

    run(scheme, scenario)


@both
def test_the_limit_of_carriers_counts_strangers_too(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mux_server, "MAX_CARRIERS", 2)

    async def scenario(it: Direct) -> None:
        honest, stranger = await it.carrier(), await it.stranger()
        await until(lambda: it.connections == 2)
        assert await end_of(await it.stranger()) == b""  # unheard
        assert it.connections == 2
        stranger[1].close()
        await until(lambda: it.connections == 1)
        assert await it.works(await it.carrier())
        assert await it.works(honest)

    run(scheme, scenario)


@both
def test_a_drain_turns_strangers_away_at_once(scheme: str) -> None:
    async def scenario(it: Direct) -> None:
        honest = await it.carrier()
        async with service(echo) as port:
            flow = await honest.open(port).opened()
            stranger, greeted_half = await it.stranger(), await it.ungreeted(None)
            drained = asyncio.ensure_future(it.near.manager.drain(WAIT))
            await end_of(stranger)
            await greeted_half.lost
            goaway = await honest.next_control()
            assert (goaway.type, decode_coded(goaway)[0]) == (FrameType.GOAWAY, errno.ESHUTDOWN)
            with pytest.raises(OSError):  # noqa: PT011  # refused or reset
                await it.ungreeted(None)
            await flow.write(b"hello")
            assert await flow.read(5) == b"hello"
            flow.fin()
            await drained

    run(scheme, scenario)


# --- a port that cannot be had ---


def test_a_port_in_use_leaves_nothing_open() -> None:
    async def scenario(it: Direct) -> None:
        taken = Endpoint("tls", "127.0.0.1", it.endpoint.port)
        async with near_side() as free:
            ports = free.manager.carrier_port
        with pytest.raises(OSError, match="in use"):
            async with near_side(carrier_port=ports, carrier_listen=(taken,)):
                pass
        async with near_side(carrier_port=ports):
            pass  # it was given back

    run("tcp", scenario)
