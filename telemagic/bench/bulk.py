"""Bulk transfers with a sender of our own: blocks of 1 MiB, measured where they arrive."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TYPE_CHECKING, Final

from telemagic.bench.dial import BLOCK, PATIENCE, why
from telemagic.bench.meter import Meter, bits_per_second
from telemagic.demo.namespaces import die_with_parent

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from telemagic.bench.dial import FarEnd
    from telemagic.bench.meter import Timeline
    from telemagic.bench.ports import Ports

WARM_UP: Final = 0.5  # seconds cut off, or a quarter if that is less
_SETTLE: Final = 0.3  # seconds of a background flow before anything is measured beside it
_REPORT: Final = 1 << 20  # bytes; a sink's report of 120 s is 250 kB


def warm_up(seconds: float) -> float:
    """Return how much of a transfer is not measured."""
    return min(WARM_UP, seconds / 4)


def upload(connection: socket.socket, seconds: float) -> Timeline:
    """Send for so long, and return when it arrived."""
    block = bytes(BLOCK)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        connection.sendall(block)
    connection.shutdown(socket.SHUT_WR)
    report = bytearray()
    while more := connection.recv(BLOCK):
        report += more
        if len(report) > _REPORT:
            raise ConnectionError("what answers is no sink")
    try:
        return [(float(when), int(count)) for when, count in json.loads(report)]
    except (ValueError, TypeError) as error:
        raise ConnectionError("what answers is no sink") from error


def download(connection: socket.socket, seconds: float) -> Timeline:
    """Receive for so long, and return when it arrived."""
    connection.sendall(b"%.3f\n" % seconds)
    buffer = bytearray(BLOCK)
    meter = Meter()
    while count := connection.recv_into(buffer):
        meter.add(count, time.monotonic())
    return meter.timeline()


def transfer(far: FarEnd, ports: Ports, *, up: bool, flows: int, seconds: float) -> float:
    """Transfer over so many flows at once, and return the bits per second that arrived.

    Raises
    ------
    OSError
        A flow broke, or carried nothing for `PATIENCE` seconds.
    ValueError
        There is not enough to tell a rate from.
    """
    together = Barrier(flows, timeout=PATIENCE)

    def flow() -> Timeline:
        try:
            connection = far.dial(ports.sink if up else ports.source)
        except OSError:
            together.abort()
            raise
        with connection:
            together.wait()
            return upload(connection, seconds) if up else download(connection, seconds)

    with ThreadPoolExecutor(flows) as pool:
        jobs = [pool.submit(flow) for _ in range(flows)]
    failed = [error for job in jobs if (error := job.exception())]
    for error in failed:
        if isinstance(error, OSError):  # and not the others' complaint that it did not come to the barrier
            raise error
    return bits_per_second([job.result() for job in jobs], warm_up(seconds))


class Beside:
    """One flow that is kept busy in another process while something else is measured; flowing when the block begins.

    Parameters
    ----------
    far, ports
        The server.
    up
        Whether it is an upload.
    seconds
        It flows for at least so long. Leaving the block ends it in any case.
    """

    def __init__(self, far: FarEnd, ports: Ports, *, up: bool, seconds: float) -> None:
        context = multiprocessing.get_context("fork")  # nothing to import again; we have one thread here
        self._ours, theirs = context.Pipe()
        total = seconds + 2 * _SETTLE
        self._process = context.Process(
            target=_flow_beside, args=(far, ports, up, total, theirs, os.getpid()), daemon=True
        )
        self._patience = total + PATIENCE
        self._process.start()
        theirs.close()

    def __enter__(self) -> Beside:
        try:
            self._hear(PATIENCE)
        except BaseException:
            self.close()
            raise
        time.sleep(_SETTLE)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def rate(self) -> float:
        """Wait for its end, and return the bits per second that arrived."""
        return self._hear(self._patience)

    def _hear(self, patience: float) -> float:
        try:
            told = self._ours.recv() if self._ours.poll(patience) else "no answer"
        except EOFError:
            told = "its process died"
        if isinstance(told, str):
            raise ConnectionError(f"the bulk flow beside it: {told}")
        return float(told)

    def close(self) -> None:
        """End its process."""
        self._process.kill()
        self._process.join()
        self._process.close()
        self._ours.close()


def _flow_beside(far: FarEnd, ports: Ports, up: bool, seconds: float, told: Connection, parent: int) -> None:
    """Tell 0 when the flow begins and its rate when it ends, or what went wrong."""
    die_with_parent(signal.SIGKILL)
    if os.getppid() != parent:
        return
    try:
        with far.dial(ports.sink if up else ports.source) as connection:
            told.send(0.0)
            line = (upload if up else download)(connection, seconds)
        told.send(bits_per_second([line], warm_up(seconds)))
    except (OSError, ValueError) as error:
        told.send(why(error))
