"""Keep a demo cluster's pods running, as a kubelet does: prepare, start, watch for readiness, restart."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from telehelper.errors import HelperMissing

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from telemagic.demo.programs import Command, PodSpec

_LOG_LINES: Final = 10_000  # per pod; older ones are dropped
_FIRST_BACKOFF: Final = 0.5  # seconds; a kubelet begins with 10, nobody wants to wait for that here
_LONGEST_BACKOFF: Final = 10.0  # seconds
_STEADY: Final = 10.0  # seconds of life after which the back-off starts again
_GRACE: Final = 2.0  # seconds between SIGTERM and SIGKILL


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of a container's output, with its time in seconds since the epoch."""

    time: float
    text: str


@dataclass(slots=True)
class Pod:
    """A pod as it is now."""

    spec: PodSpec
    network: int
    phase: str = "Pending"
    ready: bool = False
    pid: int = 0
    restarts: int = 0
    started: float = 0.0
    last_exit: int | None = None
    log: deque[LogLine] = field(default_factory=lambda: deque(maxlen=_LOG_LINES))
    lines: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def note(self, text: str) -> None:
        """Add a line to the log, and wake who follows it."""
        self.log.append(LogLine(time.time(), text))
        self.lines += 1
        self.wake()

    def wake(self) -> None:
        """Wake everyone who waits for a change."""
        self.changed.set()
        self.changed = asyncio.Event()

    def last_words(self) -> str:
        """Return the last line of the log, for error messages."""
        return self.log[-1].text if self.log else "nothing in its log"


class Kubelet:
    """Runs pods until it is closed. `on_change` is called whenever what the API shows of a pod has changed."""

    def __init__(self, on_change: Callable[[Pod], None]) -> None:
        self._on_change = on_change
        self._tasks: dict[int, asyncio.Task[None]] = {}  # by the descriptor of the pod's network
        self._processes: dict[int, asyncio.subprocess.Process] = {}

    def start(self, pod: Pod, after: Awaitable[None]) -> None:
        """Prepare a pod at once, and run its container once `after` is done (the network is there)."""
        self._tasks[pod.network] = asyncio.create_task(self._supervise(pod, after), name=pod.spec.name)

    async def stop(self, pod: Pod) -> None:
        """End a pod's process, politely at first, and its supervision; returns when nothing of it runs."""
        task, process = self._tasks.pop(pod.network), self._processes.get(pod.network)
        if process is not None:
            await _end([process])  # and the task reads what it says until then
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def wait_ready(self, pods: Iterable[Pod], seconds: float) -> None:
        """Wait until all of the pods are ready.

        Raises
        ------
        HelperMissing
            One is not, in time, or never will be; the message ends with the last line of its log.
        """
        deadline = time.monotonic() + seconds
        for pod in pods:
            while not pod.ready:
                try:
                    async with asyncio.timeout_at(
                        asyncio.get_running_loop().time() + deadline - time.monotonic()
                    ):
                        await pod.changed.wait()
                except TimeoutError:
                    raise self._not_ready(pod) from None
                if pod.phase == "Failed":
                    raise self._not_ready(pod)

    @staticmethod
    def _not_ready(pod: Pod) -> HelperMissing:
        for line in pod.log:
            print(f"{pod.spec.name}: {line.text}", file=sys.stderr)  # noqa: T201 - the daemon's own log
        return HelperMissing(
            f"the demo's {pod.spec.name} does not start: {pod.last_words()}",
            hint="look at the whole log: set TELEMAGIC_DEMO_LOG to a file and try again",
        )

    async def close(self) -> None:
        """End all processes, politely at first."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await _end(list(self._processes.values()))
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _supervise(self, pod: Pod, after: Awaitable[None]) -> None:
        program = pod.spec.program
        for command in program.prepare:
            if status := await self._run(pod, command, None):
                pod.phase = "Failed"
                pod.last_exit = status
                self._publish(pod)
                return
        await after
        backoff = _FIRST_BACKOFF
        while True:
            began = time.monotonic()
            pod.last_exit = await self._run(pod, program.command, pod.network)
            pod.ready, pod.pid = False, 0
            self._publish(pod)
            backoff = _FIRST_BACKOFF if time.monotonic() - began > _STEADY else backoff
            await asyncio.sleep(backoff)
            backoff = min(2 * backoff, _LONGEST_BACKOFF)
            pod.restarts += 1

    async def _run(self, pod: Pod, command: Command, network: int | None) -> int:
        """Run one command to its end and collect what it says; with a network it is the container itself."""
        process = await asyncio.create_subprocess_exec(
            *command.entered(network),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            pass_fds=() if network is None else (network,),
            env={**os.environ, **pod.spec.environment},
        )
        self._processes[pod.network] = process
        if network is not None:
            pod.phase, pod.pid, pod.started = "Running", process.pid, time.time()
            self._publish(pod)
        try:
            feeding = asyncio.create_task(_feed(process.stdin, command.stdin.encode()))
            await self._collect(pod, process, watching=network is not None)
            await feeding
            return await process.wait()
        finally:
            self._processes.pop(pod.network, None)

    async def _collect(self, pod: Pod, process: asyncio.subprocess.Process, *, watching: bool) -> None:
        assert process.stdout is not None  # noqa: S101 - asked for above; for mypy
        while True:
            try:
                line = await process.stdout.readline()
            except ValueError:  # longer than the reader's 64 KiB; the rest is still there
                continue
            if not line:
                return
            text = line.decode(errors="replace").rstrip("\n")
            pod.note(text)
            if watching and not pod.ready and re.search(pod.spec.program.ready_line, text):
                pod.ready = True
                self._publish(pod)

    def _publish(self, pod: Pod) -> None:
        self._on_change(pod)
        pod.wake()


async def _end(processes: Sequence[asyncio.subprocess.Process]) -> None:
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
    try:
        async with asyncio.timeout(_GRACE):
            await asyncio.gather(*(process.wait() for process in processes))
    except TimeoutError:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                process.kill()


async def _feed(stdin: asyncio.StreamWriter | None, data: bytes) -> None:
    assert stdin is not None  # noqa: S101 - asked for by the caller; for mypy
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        stdin.write(data)
        await stdin.drain()
    stdin.close()
