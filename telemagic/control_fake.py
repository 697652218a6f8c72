"""A data plane that is none: answers on a real Unix socket with given rows. For tests of everything above it.

`python -m telemagic.control_fake PATH` runs one as a process of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from telehelper import codec, messages, observing, views
from telehelper.codec import Decoder
from telehelper.errors import SudoDenied, TelemagicError
from telehelper.messages import PHASES, PROTOCOL_VERSION, Failed, Message, PhaseChanged

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

STATUS: Final = messages.Status(
    state="connected",
    context="demo",
    namespace="shop",
    server="https://127.0.0.1:6443",
    via="manager",
    manager="telemagic/telemagic-manager-0",
    manager_version="0.1.0",
    device="tele0",
    address="198.19.240.1",
    dns="resolvconf",
    dns_server="198.19.240.2",
    cluster_domain="cluster.local",
    connected_at=1_750_000_000.0,
    rtt=0.0014,
    carriers=2,
    flows_open=1,
    flows_total=3,
    bytes_up=5_120,
    bytes_down=1_430_000,
    cidrs=(
        messages.CidrRow("198.18.16.0/20", "pods", "spec.podCIDR of 2 nodes", "certain"),
        messages.CidrRow("198.18.0.0/20", "services", "ServiceCIDR kubernetes", "likely"),
    ),
    offload="csum, tso4, tso6",
    carrier="portforward",
)


@dataclass(slots=True)
class Script:
    """What a fake does. ``hang_at`` names the phase that never ends, ``failure`` ends connecting there or at last."""

    status: messages.Status = STATUS
    flows: observing.FlowTable = field(default_factory=lambda: observing.FlowTable(1_750_000_001.5, "[]"))
    routes: messages.RouteTable = field(default_factory=lambda: messages.RouteTable(()))
    answers: dict[type[Message], Message] = field(default_factory=dict)  # to further requests, by type
    snapshot: str = '{"at":0,"status":{},"flows":[],"series":[],"events":[]}'  # answers Watch
    events: observing.EventTable = field(default_factory=lambda: observing.EventTable(()))
    latency: observing.LatencyTable = field(default_factory=lambda: observing.LatencyTable(0.0, ()))
    before_snapshot: Callable[[], Awaitable[None]] | None = None  # what happens while a snapshot is made
    hang_at: str = ""
    failure: TelemagicError | None = None
    phase_seconds: float = 0.0  # that each phase takes
    version: int = PROTOCOL_VERSION
    mute: bool = False  # answers nothing at all, not even Hello


TABLES: Final[dict[type[Message], str]] = {  # request → what of the script answers it
    messages.GetStatus: "status",
    messages.GetRoutes: "routes",
    observing.GetFlows: "flows",
    observing.GetEvents: "events",
    observing.GetLatency: "latency",
}


class FakeDatapath:
    """Listens at `path` until the last kernel has gone, then removes the socket, like the real one."""

    def __init__(self, path: Path, script: Script | None = None) -> None:
        self.path = path
        self.script = script or Script()
        self.connected = False
        self.requests: list[Message] = []
        self.notifications: list[Message] = []
        self.changes = 0  # number of the last change
        self.over = asyncio.Event()
        self._writers: set[asyncio.StreamWriter] = set()
        self._watching: dict[asyncio.StreamWriter, float] = {}  # interval in seconds
        self._server: asyncio.Server
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def datapath_pid(self) -> int:
        """The process it runs in; a launcher returns this object."""
        return os.getpid()

    netd_pid = datapath_pid

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_unix_server(self._serve, self.path)

    async def close(self) -> None:
        """Go at once, as if killed, but without leaving the socket."""
        if self.over.is_set():
            return
        self.over.set()
        self.path.unlink(missing_ok=True)
        self._server.close()
        for writer in list(self._writers):
            writer.close()

    async def say(self, event: Message) -> None:
        """Send an event to every kernel."""
        for writer in self._writers:
            writer.write(codec.encode(event))

    @property
    def intervals(self) -> list[float]:
        """How often, in seconds, those who watch want to be told."""
        return list(self._watching.values())

    async def change(self, text: str) -> None:
        """Tell a change to every kernel that watches."""
        self.changes += 1
        for writer in self._watching:
            writer.write(codec.encode(observing.SnapshotChanged(self.changes, text)))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        decoder = Decoder()
        greeted = False
        try:
            while data := await reader.read(65536):
                for envelope in decoder.feed(data):
                    greeted = True
                    if not envelope.id:
                        self.notifications.append(envelope.body)
                        continue
                    self.requests.append(envelope.body)
                    task = asyncio.create_task(self._answer(envelope.id, envelope.body, writer))
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)
        except ConnectionError:
            pass  # an end like another
        finally:
            self._writers.discard(writer)
            self._watching.pop(writer, None)
            writer.close()
            if greeted and not self._writers:
                for task in list(self._tasks):
                    task.cancel()
                await self.close()

    async def _answer(self, number: int, request: Message, writer: asyncio.StreamWriter) -> None:
        reply = await self._reply(request, writer)
        if reply is not None:
            with contextlib.suppress(ConnectionError):
                writer.write(codec.encode(reply, number))
                await writer.drain()
            if isinstance(request, messages.Connect) and isinstance(reply, Failed):
                await self.close()

    async def _watch(self, request: observing.Watch, writer: asyncio.StreamWriter) -> Message:
        self._watching[writer] = request.interval
        if self.script.before_snapshot is not None:
            await self.script.before_snapshot()
        return observing.Snapshot(self.changes, self.script.snapshot)

    async def _reply(self, request: Message, writer: asyncio.StreamWriter) -> Message | None:
        script = self.script
        if script.mute:
            return None
        if (scripted := script.answers.get(type(request))) is not None:
            return scripted
        match request:
            case messages.Hello():
                return messages.Welcome(script.version, os.getpid(), self.connected)
            case messages.Connect():
                return await self._connect(request, writer)
            case views.GetServices():
                return views.ServiceTable(())
            case observing.Watch():
                return await self._watch(request, writer)
            case observing.Unwatch():
                self._watching.pop(writer, None)
                self.changes = 0  # a new watch counts anew
                return messages.Done()
            case messages.Disconnect() | observing.Introduce():
                return messages.Done()
        if type(request) in TABLES:
            table: Message = getattr(script, TABLES[type(request)])
            return table
        return Failed("helper-refused", f"{type(request).__name__} is no request")

    async def _connect(self, request: messages.Connect, writer: asyncio.StreamWriter) -> Message:
        for phase in PHASES[1:]:
            writer.write(codec.encode(PhaseChanged(phase, "started", "", 0.0)))
            if phase == self.script.hang_at:
                if self.script.failure is not None:
                    writer.write(codec.encode(PhaseChanged(phase, "failed", "", self.script.phase_seconds)))
                    return Failed.of(self.script.failure)
                await asyncio.Event().wait()
            await asyncio.sleep(self.script.phase_seconds)
            writer.write(codec.encode(PhaseChanged(phase, "done", DETAILS[phase], self.script.phase_seconds)))
        if self.script.failure is not None:
            return Failed.of(self.script.failure)
        self.connected = True
        self.script.status = replace(
            self.script.status,
            context=request.context,
            namespace=request.namespace or self.script.status.namespace,
        )
        return self.script.status


DETAILS: Final = {
    "TUN": "tele0, csum and TSO offload",
    "tunnel": "manager telemagic/telemagic-manager-0, 2 carriers",
    "CIDRs": "198.18.16.0/20, 198.18.0.0/20",
    "routes": "2 routes to tele0",
    "DNS": "resolvconf, 198.19.240.2",
    "ready": "",
}


class FakeLauncher:
    """Starts fakes on the running loop; asks for `password` first, if there is one, like sudo: three tries."""

    def __init__(self, script: Script | None = None, password: str = "") -> None:
        self.script = script or Script()
        self.password = password
        self.started: list[FakeDatapath] = []
        self.elevate_hangs = False
        self.cancelled = 0

    async def __call__(
        self,
        socket_path: Path,
        *,
        ask: Callable[[str], Awaitable[str | None]] | None,
        on_phase: Callable[[str, str, str], None],
        elevate: str = "auto",
    ) -> FakeDatapath:
        """Start one, as `telemagic.launch.start` does."""
        on_phase("elevate", "started", "")
        try:
            if self.elevate_hangs:
                await asyncio.Event().wait()
            await self._authenticate(ask)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        on_phase("elevate", "done", "sudo" if self.password else "already root")
        fake = FakeDatapath(socket_path, self.script)
        starting = asyncio.ensure_future(fake.start())
        try:
            await asyncio.shield(starting)
        except asyncio.CancelledError:  # leaves nothing, as the real one
            await starting
            await fake.close()
            raise
        self.started.append(fake)
        return fake

    async def _authenticate(self, ask: Callable[[str], Awaitable[str | None]] | None) -> None:
        if not self.password:
            return
        if ask is None:
            raise SudoDenied(
                "sudo needs a password and nobody can be asked", hint="run sudo -v in a terminal"
            )
        for _ in range(3):
            answer = await ask("[sudo] password for ada:")
            if answer == self.password:
                return
            if not answer:
                raise SudoDenied("the password prompt was cancelled")
        raise SudoDenied("three wrong passwords")


async def _main(path: Path) -> None:
    fake = FakeDatapath(path)
    await fake.start()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, lambda: asyncio.ensure_future(fake.close()))
    await fake.over.wait()


if __name__ == "__main__":
    asyncio.run(_main(Path(sys.argv[1])))
