"""One registration with one traffic manager: the control connection and the carriers that its token opened."""

from __future__ import annotations

import asyncio
import errno
from time import monotonic
from typing import TYPE_CHECKING, Final, Self

from telehelper.background import begin
from telehelper.carrier import Carrier
from telehelper.core.frames import SPOKEN, Frame, FrameType, decode_coded, encode_coded
from telehelper.core.mux import Mux
from telehelper.datapath.backoff import BackOff
from telehelper.datapath.cluster import ManagerControl, ManagerPod, find_manager
from telehelper.errors import ManagerTooOld, ManagerUnavailable, SessionExpired, TelemagicError, TunnelError
from telehelper.kube.client import ApiNotFound

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from telehelper.datapath.openers import CarrierOpener
    from telehelper.datapath.registration import Registration
    from telehelper.datapath.tunnel import CarrierLike, Tunnel
    from telehelper.kube.client import ApiClient
    from telehelper.rpc.manager_pb2 import ClusterInfo

CARRIERS: Final = 2  # a second one lets a flow on it live when the first dies
HELLO_TIMEOUT: Final = 5.0  # seconds for the manager to answer HELLO


class TunnelCarrier:
    """A carrier of the tunnel: says HELLO, then passes frames to the tunnel."""

    def __init__(self, tunnel: Tunnel) -> None:
        self._tunnel = tunnel
        self._carrier: Carrier | None = None
        self._is_leaving = False  # GOAWAY has come
        self._hop = ""
        self._hello: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task: asyncio.Task[None] | None = None

    async def open(
        self, opener: CarrierOpener, pod: ManagerPod, session: Registration, protocol: int = SPOKEN[0]
    ) -> Self:
        """Open a connection and say HELLO, in the `protocol` that the session was opened with.

        Raises
        ------
        ManagerUnavailable, ManagerUntrusted, SessionExpired, ApiServerUnavailable, CredentialsRefused
            What it failed on; nothing is left open.
        """
        self._hop = opener.hop(pod)
        stream = await opener.open(pod, session)
        self._carrier = Carrier(stream, Mux(monotonic()), on_frames=self._frames, on_lost=self._lost)
        self._task = asyncio.create_task(self._carrier.run())
        self._carrier.send(encode_coded(FrameType.HELLO, 0, protocol, session.token))
        try:
            async with asyncio.timeout(HELLO_TIMEOUT):
                await self._hello
        except TimeoutError:
            await self.close("no HELLO")
            raise ManagerUnavailable(
                f"the traffic manager did not say HELLO within {HELLO_TIMEOUT:.0f} s"
            ) from None
        except BaseException:
            await self.close("no HELLO")
            raise
        if not self.is_open:
            raise ManagerUnavailable("a carrier was lost right after HELLO")
        return self

    @property
    def is_open(self) -> bool:
        """Whether it has not been lost yet and may open flows."""
        return self._carrier is not None and self._carrier.is_open and not self._is_leaving

    @property
    def rtt(self) -> float | None:
        """Round-trip time of the heartbeat, in seconds."""
        return self._carrier.mux.rtt if self._carrier is not None else None

    @property
    def min_rtt(self) -> float | None:
        """The least one measured."""
        return self._carrier.mux.min_rtt if self._carrier is not None else None

    def send(self, frame: Frame) -> None:
        """Queue a frame."""
        if self._carrier is not None:
            if frame.type is FrameType.RST:
                self._carrier.drop_flow(frame.flow)
            self._carrier.send(frame)

    def probe(self) -> None:
        """Have the manager show soon that it is there, or be lost."""
        if self._carrier is not None:
            self._carrier.probe()

    async def close(self, reason: str) -> None:
        """Close; the tunnel is not told."""
        self._hello.cancel()
        if self._carrier is not None and self._task is not None:
            await self._carrier.close(reason)
            await self._task

    def _frames(self, _: Carrier, frames: list[Frame]) -> None:
        if not self._hello.done():
            self._greeted(frames.pop(0))
        if not self._is_greeted():
            return
        if flowless := [frame for frame in frames if not frame.flow]:
            frames = [frame for frame in frames if frame.flow]
            if not self._is_leaving and any(frame.type is FrameType.GOAWAY for frame in flowless):
                self._is_leaving = True
                self._tunnel.carrier_leaving(self, f"the traffic manager is going away ({self._hop})")
        if frames:
            self._tunnel.carrier_frames(frames)

    def _is_greeted(self) -> bool:
        return self._hello.done() and not self._hello.cancelled() and self._hello.exception() is None

    def _greeted(self, frame: Frame) -> None:
        code, text = decode_coded(frame) if frame.type in (FrameType.HELLO, FrameType.GOAWAY) else (0, "")
        if frame.type is FrameType.HELLO and code in SPOKEN:
            self._hello.set_result(None)
        elif frame.type is FrameType.GOAWAY:
            kind = ManagerTooOld if code == errno.EPROTONOSUPPORT else SessionExpired
            self._hello.set_exception(kind(f"the traffic manager refused a carrier: {text}"))
        else:
            raise TunnelError(f"{frame.type.name} instead of HELLO {SPOKEN[-1]} to {SPOKEN[0]}")

    def _lost(self, _: Carrier, reason: str) -> None:
        if self._is_greeted():
            self._tunnel.carrier_lost(self, f"{reason} ({self._hop})")
        elif not self._hello.done():
            self._hello.set_exception(ManagerUnavailable(f"a carrier was lost before HELLO: {reason}"))


class ManagerUplink:
    """A session with a manager. Made by :func:`open_uplink`."""

    def __init__(
        self, tunnel: Tunnel, api: ApiClient, pod: ManagerPod, relay_path: Path, opener: CarrierOpener
    ) -> None:
        self.pod = pod
        self.control = ManagerControl(api, pod, relay_path)
        self.carriers: list[TunnelCarrier] = []
        self._info: ClusterInfo | None = None
        self._ended: TelemagicError | None = None  # why the watch ended
        self._first_info = asyncio.Event()
        self._tunnel = tunnel
        self._opener = opener
        self._watch: asyncio.Task[None] | None = None
        self._back_off = BackOff()  # of the control connection

    @property
    def manager(self) -> str:
        """Namespace and name of the manager's pod."""
        return f"{self.pod.namespace}/{self.pod.name}"

    @property
    def manager_version(self) -> str:
        """The manager's version."""
        return str(self.control.session.manager_version)

    @property
    def info(self) -> ClusterInfo:
        """The cluster's networks and names, as last told."""
        if self._info is None:
            raise self._ended or ManagerUnavailable("the traffic manager has not told the cluster's networks")
        return self._info

    async def open(self, carriers: int = CARRIERS) -> Self:
        """Register, and open carriers and watch; on failure everything is closed again."""
        try:
            await self.control.open()
            # Each is ours to close from the moment it is open: we may be cancelled while another is being opened.
            opening = [self.add_carrier() for _ in range(carriers)]
            for result in await asyncio.gather(*opening, return_exceptions=True):
                if isinstance(result, BaseException):
                    raise result
            if not all(carrier.is_open for carrier in self.carriers):
                # While the others were being opened; the tunnel did not know it yet, so nobody was told.
                raise ManagerUnavailable("a carrier was lost right after HELLO")
        except BaseException:
            await self.close("connecting failed")
            raise
        self._watch = begin(self._watch_info())
        return self

    async def wait_info(self) -> ClusterInfo:
        """Wait for the first word on the cluster's networks."""
        await self._first_info.wait()
        return self.info

    async def add_carrier(self) -> TunnelCarrier:
        """Open one more carrier of the same session."""
        control = self.control
        carrier = await TunnelCarrier(self._tunnel).open(
            self._opener, self.pod, control.session, control.protocol
        )
        self.carriers.append(carrier)
        return carrier

    def wake(self) -> None:
        """See :class:`~telehelper.datapath.tunnel.Uplink`."""
        self._back_off.wake()

    async def close(self, reason: str, keep: Collection[CarrierLike] = ()) -> None:
        """Close watch, control connection, and all carriers but those to `keep`."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        if self._info is None and self._ended is None:
            self._ended = ManagerUnavailable(f"the traffic manager has gone: {reason}")
        self._first_info.set()  # nobody waits for what will not come
        carriers = [carrier for carrier in self.carriers if carrier not in keep]
        self.carriers = []
        await asyncio.gather(*(carrier.close(reason) for carrier in carriers), return_exceptions=True)
        await self.control.close()

    async def _watch_info(self) -> None:
        """Follow the cluster's networks until the manager does not know us any more.

        Losing the control connection is no reason to end: the carriers keep the session alive meanwhile.
        """
        while True:
            try:
                async for info in self.control.watch():
                    self._back_off.reset()
                    self._info = info
                    self._first_info.set()
                    self._tunnel.info_changed(info)
                error: TelemagicError = ManagerUnavailable("the traffic manager ended the watch")
            except TelemagicError as caught:
                error = caught
            if isinstance(error, SessionExpired) or self._info is None:
                break
            self._tunnel.control_lost(self, error.message)
            await self._back_off.wait()
        self._ended = error
        self._first_info.set()
        # Not from inside the watch: losing the session closes this uplink, and so cancels the watch.
        asyncio.get_running_loop().call_soon(self._tunnel.session_lost, self, error.message)


async def open_uplink(
    tunnel: Tunnel, api: ApiClient, namespace: str, relay_path: Path, opener: CarrierOpener
) -> ManagerUplink:
    """Find a ready manager in `namespace` and register with it.

    Raises
    ------
    ManagerUnavailable, ManagerUntrusted, ManagerTooOld, SessionExpired, ApiServerUnavailable, CredentialsRefused
        What it failed on; nothing is left open.
    """
    pod = await find_manager(api, namespace)
    try:
        return await ManagerUplink(tunnel, api, pod, relay_path, opener).open()
    except ApiNotFound as error:
        raise ManagerUnavailable(
            f"the traffic manager {pod.namespace}/{pod.name} has just gone: {error}",
            hint="%tele connect again",
        ) from error
