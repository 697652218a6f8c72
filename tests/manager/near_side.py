"""The near side for tests: a client of the manager, with as much as a test needs of what a data plane does."""

from __future__ import annotations

import asyncio
import contextlib
from ipaddress import ip_address
from typing import TYPE_CHECKING, Self

import grpc
from telehelper.carrier import Carrier
from telehelper.core.credit import CreditBalance, CreditIssuer, growth_time
from telehelper.core.frames import (
    MAX_DATA,
    VERSION,
    Frame,
    FrameType,
    Open,
    Proto,
    decode_coded,
    decode_opened,
    decode_timing,
    decode_u32,
    encode_coded,
    encode_open,
    encode_u32,
)
from telehelper.core.mux import Mux
from telehelper.manager.config import ManagerConfig
from telehelper.manager.manager import Manager
from telehelper.rpc import manager_pb2 as pb
from telehelper.rpc import manager_pb2_grpc
from telehelper.tcp_stream import connect_tcp

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from telehelper.byte_stream import ByteStream
    from telehelper.discovery.discovery import ApiReader
    from telehelper.manager.dialer import Dialer

WAIT = 5.0  # seconds for anything


class NearFlow:
    """One flow as the near side sees it."""

    def __init__(self, near: NearCarrier, number: int, credit: int) -> None:
        self.near = near
        self.number = number
        self.frames: asyncio.Queue[Frame] = asyncio.Queue()
        self.balance = CreditBalance()
        self.issuer = CreditIssuer(credit)
        self.credited = asyncio.Event()
        self.keep_credit = False
        self.dial = self.wait = -1.0  # as the manager told

    def receive(self, frame: Frame) -> None:
        if frame.type is FrameType.CREDIT:
            self.balance.grant(decode_u32(frame))
            self.credited.set()
            return
        if frame.type is FrameType.OPENED:
            credit, self.dial = decode_opened(frame)
            self.balance.grant(credit)
        if frame.type is FrameType.TIMING:
            assert self.frames.empty() or self.wait < 0, "TIMING comes once, before DATA"
            self.wait = decode_timing(frame)
            return
        self.frames.put_nowait(frame)

    async def next(self) -> Frame:
        """Return the next frame but CREDIT, and grant what a DATA took."""
        async with asyncio.timeout(WAIT):
            frame = await self.frames.get()
        if frame.type is FrameType.DATA:
            self.issuer.received(len(frame.payload))
            if not self.keep_credit:
                self.issuer.growth_time = growth_time(self.near.carrier.mux.min_rtt)
                grant = self.issuer.consumed(len(frame.payload), asyncio.get_running_loop().time())
                if grant:
                    self.near.send(encode_u32(FrameType.CREDIT, self.number, grant))
        return frame

    async def opened(self) -> Self:
        frame = await self.next()
        assert frame.type is FrameType.OPENED, frame
        return self

    async def coded(self) -> tuple[FrameType, int]:
        """Return the next frame's type and errno."""
        frame = await self.next()
        return frame.type, decode_coded(frame)[0]

    async def read(self, n: int) -> bytes:
        """Return at least n bytes of DATA."""
        data = bytearray()
        while len(data) < n:
            frame = await self.next()
            assert frame.type is FrameType.DATA, frame
            data += frame.payload
        return bytes(data)

    async def read_all(self) -> AsyncIterator[bytes]:
        """Yield the payloads until FIN."""
        while (frame := await self.next()).type is FrameType.DATA:
            yield bytes(frame.payload)
        assert frame.type is FrameType.FIN, frame

    async def write(self, data: bytes | memoryview) -> None:
        """Send DATA as credit allows."""
        view = memoryview(data)
        while view:
            while not self.balance.available:
                self.credited.clear()
                async with asyncio.timeout(WAIT):
                    await self.credited.wait()
            chunk = view[: min(MAX_DATA, self.balance.available)]
            self.balance.spend(len(chunk))
            self.near.send(Frame(FrameType.DATA, self.number, chunk))
            view = view[len(chunk) :]

    def fin(self) -> None:
        self.near.send(Frame(FrameType.FIN, self.number))

    def datagram(self, data: bytes) -> None:
        self.near.send(Frame(FrameType.DATAGRAM, self.number, data))

    def reset(self, code: int = 104) -> None:
        self.near.send(encode_coded(FrameType.RST, self.number, code))


class NearCarrier:
    """One carrier of the near side."""

    def __init__(self) -> None:
        self.flows: dict[int, NearFlow] = {}
        self.control: asyncio.Queue[Frame] = asyncio.Queue()
        self.lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.carrier: Carrier
        self.task: asyncio.Task[None]
        self._number = 0

    async def connect(self, port: int, token: str | None, version: int = VERSION) -> Self:
        """Connect, and with a token say HELLO."""
        return self.over(await connect_tcp("127.0.0.1", port), token, version)

    def over(self, stream: ByteStream, token: str | None, version: int = VERSION) -> Self:
        """Use a connection that is there, and with a token say HELLO."""
        mux = Mux(asyncio.get_running_loop().time())
        self.carrier = Carrier(stream, mux, on_frames=self._on_frames, on_lost=self._on_lost)
        self.task = asyncio.ensure_future(self.carrier.run())
        if token is not None:
            self.send(encode_coded(FrameType.HELLO, 0, version, token))
        return self

    def send(self, frame: Frame) -> None:
        self.carrier.send(frame)

    async def hello(self) -> Self:
        frame = await self.next_control()
        assert frame.type is FrameType.HELLO, frame
        return self

    async def next_control(self) -> Frame:
        async with asyncio.timeout(WAIT):
            return await self.control.get()

    def open(
        self,
        dport: int,
        dst: str = "127.0.0.1",
        *,
        protocol: Proto = Proto.TCP,
        timeout: float = 5.0,
        credit: int = 256 * 1024,
    ) -> NearFlow:
        """Send OPEN."""
        self._number += 1
        flow = self.flows[self._number] = NearFlow(self, self._number, credit)
        what = Open(protocol, ip_address("10.0.0.1"), 40_000, ip_address(dst), dport, timeout, credit)
        self.send(encode_open(self._number, what))
        return flow

    async def close(self) -> None:
        await self.carrier.close("test over")
        await self.task

    def _on_frames(self, _carrier: Carrier, frames: list[Frame]) -> None:
        for view in frames:
            frame = view._replace(payload=bytes(view.payload))  # kept beyond the call
            if frame.flow:
                self.flows[frame.flow].receive(frame)
            else:
                self.control.put_nowait(frame)

    def _on_lost(self, _carrier: Carrier, reason: str) -> None:
        self.lost.set_result(reason)


class NearSide:
    """A manager in this process, and a client of it."""

    def __init__(self, manager: Manager, log: list[str]) -> None:
        self.manager = manager
        self.log = log
        self.channel = grpc.aio.insecure_channel(f"127.0.0.1:{manager.grpc_port}")
        self.stub: manager_pb2_grpc.ManagerAsyncStub = manager_pb2_grpc.ManagerStub(self.channel)  # type: ignore[assignment,no-untyped-call]
        self.carriers: list[NearCarrier] = []

    async def session(self, protocol: int = VERSION) -> pb.Session:
        return await self.stub.OpenSession(
            pb.OpenSessionRequest(protocol=protocol, client_version="1", client_name="me@here")
        )

    async def raw_carrier(self, token: str | None, version: int = VERSION) -> NearCarrier:
        near = await NearCarrier().connect(self.manager.carrier_port, token, version)
        self.carriers.append(near)
        return near

    async def carrier(self, token: str | None = None) -> NearCarrier:
        """Return a carrier that has been greeted, of a new session unless one is given."""
        near = await self.raw_carrier(token or (await self.session()).token)
        return await near.hello()


@contextlib.asynccontextmanager
async def near_side(
    *, reader: ApiReader | None = None, dialer: Dialer | None = None, **settings: object
) -> AsyncIterator[NearSide]:
    """Start a manager that may dial the loopback; drain it in the end."""
    log: list[str] = []
    config = ManagerConfig(**{"grpc_port": 0, "carrier_port": 0, "allow_loopback": True} | settings)  # type: ignore[arg-type]
    manager = Manager(config, log.append, reader=reader, dialer=dialer)
    await manager.start()
    near = NearSide(manager, log)
    try:
        yield near
    finally:
        for carrier in near.carriers:
            await carrier.close()
        await near.channel.close()
        await manager.drain(0)
