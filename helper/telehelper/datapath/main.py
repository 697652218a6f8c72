"""The data plane's process: the control socket, netd's descriptor, one event loop.

Lifetime is a chain of ends of file. No kernel left, or netd gone, or the device gone: everything is taken down and
the process ends; netd reads the end of our socket and undoes what it did. So whichever process is killed, the rest
follows, and the device's routes go with its last descriptor; a child of ours removes our socket files (`sweeper.py`).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import resource
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop

from telehelper.datapath.control_io import ControlServer
from telehelper.datapath.netd_client import NetdClient
from telehelper.datapath.service import DataPlane
from telehelper.datapath.sweeper import Sweeper
from telehelper.errors import TelemagicError

if TYPE_CHECKING:
    from collections.abc import Sequence


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m telehelper.datapath", description=__doc__)
    parser.add_argument("--socket", type=Path, required=True, help="where to listen for kernels")
    parser.add_argument("--netd-fd", type=int, required=True, help="our end of the socket pair to netd")
    parser.add_argument(
        "--ready-fd", type=int, default=-1, help="gets a line when the control socket listens"
    )
    return parser


def _relay_path(path: Path) -> Path:
    return path.with_suffix(".rpc")


async def _serve(options: argparse.Namespace, sweeper: Sweeper) -> int:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    planes: list[DataPlane] = []  # netd may go before there is one

    def netd_lost(reason: str) -> None:
        for plane in planes:
            plane.lost(reason)
        stop.set()

    netd = NetdClient(socket.socket(fileno=options.netd_fd), on_lost=netd_lost)
    path: Path = options.socket
    plane = DataPlane(netd, _relay_path(path), lambda event: control.broadcast(event))
    planes.append(plane)
    control = ControlServer(path, plane)
    try:
        await control.start()
    except TelemagicError as error:
        print(f"telemagic: {error}", file=sys.stderr)  # noqa: T201  # stderr is the data plane's log
        netd.close()
        return 1
    sweeper.listening()
    if options.ready_fd >= 0:
        os.write(options.ready_fd, b"ready\n")
        os.close(options.ready_fd)
    waits = [asyncio.ensure_future(event.wait()) for event in (stop, plane.ended, control.gone)]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    status = 0
    try:
        await plane.close()
    except TelemagicError as error:
        print(f"telemagic: {error}", file=sys.stderr)  # noqa: T201  # stderr is the data plane's log
        status = 1
    await control.close()
    for wait in waits:
        wait.cancel()
    return status


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until nobody needs us."""
    options = _parser().parse_args(arguments)
    resource.setrlimit(
        resource.RLIMIT_CORE, (0, 0)
    )  # tokens and keys are in here: no core dump may have them
    # A login plugin is the only child there will be, and grpc would have its say in the log about each.
    os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
    # Before everything else: the child must have no thread of ours, and none of our sockets.
    sweeper = Sweeper(options.socket, _relay_path(options.socket))
    try:
        with contextlib.suppress(KeyboardInterrupt):
            return uvloop.run(_serve(options, sweeper))
        return 1
    finally:
        sweeper.dismiss()
