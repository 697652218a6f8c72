"""The process of a demo cluster: `python -m telemagic.demo.daemon`; only :mod:`telemagic.demo.client` starts it.

Three processes come of it. The *launcher* waits until the cluster is ready or has failed, says so as one line of
JSON on its standard output, and ends; when it is killed, or who started it, there will be no cluster. The *guardian* makes the user namespace, waits for the third, and removes the
directory. The *init* is process 1 of a PID namespace of its own and runs the cluster: when it ends, for whatever
reason, the kernel ends every process of the cluster, and with them their namespaces, interfaces and mounts. Should
the guardian die, init sees the end of a pipe from it, removes the directory, and ends.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import select
import shutil
import signal
import socket
import sys
import threading
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any, NoReturn

from telehelper.errors import HelperError, TelemagicError

from telemagic.demo import lock, namespaces, network
from telemagic.demo.plan import AddressPlan

_STILL_THERE = 2.0  # seconds between looks at the directory
_UNWANTED_POLL = 200  # milliseconds
_STATE_SIZE = "size=1g,mode=0700"  # tmpfs: a limit, not a reservation; the shop's database is about 60 MiB


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m telemagic.demo.daemon", description=__doc__)
    parser.add_argument("--name", required=True)
    parser.add_argument("--directory", type=Path, required=True, help="private and empty; removed at the end")
    parser.add_argument("--slot", type=IPv4Network, required=True, help="the addresses to use")
    parser.add_argument("--listener", type=int, required=True, help="descriptor of a socket on 127.0.0.1")
    parser.add_argument("--network", required=True, help="identity of the listener's network namespace")
    parser.add_argument("--owned", action="store_true", help="end with the last owner")
    parser.add_argument("--ipv4-only", action="store_true", help="be a cluster without IPv6")
    parser.add_argument("--like", default="", help="look like a cluster of this kind")
    parser.add_argument("--no-manager", action="store_true", help="start without one")
    return parser.parse_args()


class Report:
    """The pipe to the launcher: one line, then it is closed."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._answered = False

    def wait_until_unwanted(self) -> bool:
        """Wait for the answer, or for the launcher's end before it: then it is True. For a thread of its own."""
        watch = select.poll()
        watch.register(self._fd, 0)  # poll(2): POLLERR, the reader has gone, is always reported
        while not self._answered:
            if watch.poll(_UNWANTED_POLL):
                return not self._answered
        return False

    def send(self, body: dict[str, Any]) -> bool:
        """Say how the start went; False if nobody is interested any more: whoever wanted it was interrupted."""
        self._answered = True
        try:
            os.write(self._fd, json.dumps(body).encode() + b"\n")
        except BrokenPipeError:
            return False
        return True

    def fail(self, error: TelemagicError) -> None:
        """Say why there will be no cluster."""
        self.send({"slug": error.slug, "message": error.message, "hint": error.hint})

    def close(self) -> None:
        """Close this process's end."""
        os.close(self._fd)


def main() -> int:
    """Launch, and wait for the word that it is ready."""
    starter = os.getppid()
    namespaces.die_with_parent(signal.SIGKILL)
    if os.getppid() != starter:
        return 1
    options = _arguments()
    reading, writing = os.pipe()
    if not os.fork():
        os.close(reading)
        os.setsid()
        _quiet(options.directory)
        _guard(options, Report(writing))
    os.close(writing)
    os.close(options.listener)
    with open(reading, "rb") as pipe:
        sys.stdout.buffer.write(pipe.readline())
    return 0


def _quiet(directory: Path) -> None:
    """Take standard input from nowhere, and put what we and the libraries say into a file."""
    log = os.environ.get("TELEMAGIC_DEMO_LOG") or directory / "daemon.log"
    for target, path, flags in (
        (0, os.devnull, os.O_RDONLY),
        (1, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND),
    ):
        fd = os.open(path, flags, 0o600)
        os.dup2(fd, target)
        os.close(fd)
    os.dup2(1, 2)


def _guard(options: argparse.Namespace, report: Report) -> NoReturn:
    """Be the guardian."""
    inode = options.directory.stat().st_ino
    alive, lifeline = os.pipe()
    try:
        namespaces.become_root_inside(namespaces.PID)
    except HelperError as error:
        report.fail(error)
        report.close()
        lock.remove(options.directory, inode)
        os._exit(1)
    init = os.fork()
    if not init:
        os.close(lifeline)
        os._exit(_init(options, report, alive, inode))
    report.close()
    os.close(alive)
    os.close(options.listener)
    signal.signal(signal.SIGTERM, lambda *_: os.kill(init, signal.SIGTERM))
    os.waitpid(init, 0)
    lock.remove(options.directory, inode)
    os._exit(0)


def _init(options: argparse.Namespace, report: Report, alive: int, inode: int) -> int:
    """Be process 1 of the cluster."""
    try:
        namespaces.unshare(namespaces.MOUNT | namespaces.NETWORK | namespaces.IPC)
        namespaces.mount("none", "/", flags=namespaces.MS_REC | namespaces.MS_PRIVATE)
        state = options.directory / "state"
        state.mkdir(mode=0o700)
        # The cluster's disk: memory that goes away with the mount namespace.
        namespaces.mount("tmpfs", state, "tmpfs", namespaces.MS_NOSUID | namespaces.MS_NODEV, _STATE_SIZE)
    except OSError as error:
        report.fail(HelperError(f"the demo's namespaces cannot be made: {error}"))
        return 1
    os.chdir("/")
    threading.Thread(target=_end_with_guardian, args=(alive, options.directory, inode), daemon=True).start()
    threading.Thread(target=_end_unwanted, args=(report,), daemon=True).start()
    import uvloop

    uvloop.run(_serve(options, report))
    return 0


def _end_unwanted(report: Report) -> None:
    if report.wait_until_unwanted():
        os._exit(
            1
        )  # who wanted us was killed or interrupted; the kernel ends the rest, the guardian tidies up


def _end_with_guardian(alive: int, directory: Path, inode: int) -> NoReturn:
    os.read(alive, 1)  # nothing is ever written: this returns when the guardian is gone
    with contextlib.suppress(OSError):
        namespaces.unmount_lazily(directory / "state")  # a mount point of one's own cannot be removed
    lock.remove(directory, inode)
    os._exit(1)


async def _serve(options: argparse.Namespace, report: Report) -> None:
    from telemagic.demo.cluster import Cluster
    from telemagic.demo.control import ControlServer

    listener = socket.socket(fileno=options.listener)
    listener.set_inheritable(False)  # it was inherited from the client; the pods must not have it
    ending = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ending.set)
    cluster: Cluster | None = None
    try:
        addresses = AddressPlan(options.slot, ipv6=not options.ipv4_only and network.has_ipv6())
        cluster = Cluster(
            options.name,
            options.directory,
            addresses,
            listener.getsockname()[1],
            like=options.like,
            has_manager=not options.no_manager,
        )
        await cluster.start()
        control = ControlServer(
            options.directory,
            cluster.listen,
            status=cluster.status,
            network=cluster.network_of,
            fault=cluster.fault,
            owned=options.owned,
            on_end=ending.set,
        )
        await control.serve(options.network, listener)
        if report.send({"ready": True}):
            report.close()
            await _until(ending, options.directory)
        await control.close()
    except TelemagicError as error:
        report.fail(error)
    finally:
        if cluster is not None:
            await cluster.close()
        shutil.rmtree(options.directory / "state", ignore_errors=True)


async def _until(ending: asyncio.Event, directory: Path) -> None:
    """Wait for the end, or until somebody has removed the directory: nobody can find the cluster any more then."""
    inode = _inode_of(directory)
    while not ending.is_set() and _inode_of(directory) == inode:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STILL_THERE):
                await ending.wait()


def _inode_of(directory: Path) -> int:
    try:
        return directory.stat().st_ino
    except FileNotFoundError:
        return 0


if __name__ == "__main__":
    sys.exit(main())
