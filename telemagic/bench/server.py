"""The far end of `telemagic bench`: `python -m telemagic.bench.server --host ADDRESS [--host ADDRESS]`.

Prints one line ``ready {"sink": …}`` with the ports when it listens, and ends at the end of its standard input, or
with SIGTERM. Echo, bulk and UDP are processes of their own, so that none waits for the lock of another's interpreter;
they and iperf3 die with this one, however it ends.
"""

from __future__ import annotations

import argparse
import contextlib
import ipaddress
import os
import select
import shutil
import signal
import socket
import sys
import threading
import time
from typing import TYPE_CHECKING, Final

from telemagic.bench import bulk_service
from telemagic.bench.accept import serve
from telemagic.bench.dial import raise_descriptor_limit
from telemagic.bench.echo_service import SPARE, EchoService
from telemagic.bench.ports import Ports
from telemagic.bench.udp_service import UdpCounter
from telemagic.demo.namespaces import die_with_parent

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PROG: Final = "python -m telemagic.bench.server"
BACKLOG: Final = 4096  # connections not yet accepted; what somaxconn allows by default
IPERF3_STARTS: Final = 5.0  # seconds until it must say that it listens
_IPERF3_LISTENS: Final = b"Server listening"


class Listeners:
    """One socket per service and address, with the same port on each address."""

    def __init__(self, hosts: Sequence[str], ports: Ports) -> None:
        self._hosts = hosts
        self._all: list[socket.socket] = []
        self.sink = self._listen(ports.sink)
        self.source = self._listen(ports.source)
        self.echo = self._listen(ports.echo)
        self.udp_counts = self._listen(ports.udp)
        port = self.udp_counts[0].getsockname()[1]
        self.udp = [self._bind(host, port, socket.SOCK_DGRAM) for host in hosts]

    def _listen(self, port: int) -> list[socket.socket]:
        found: list[socket.socket] = []
        for host in self._hosts:
            listener = self._bind(host, port, socket.SOCK_STREAM)
            listener.listen(BACKLOG)
            port = listener.getsockname()[1]
            found.append(listener)
        return found

    def _bind(self, host: str, port: int, kind: socket.SocketKind) -> socket.socket:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.socket(family, kind)
        self._all.append(listener)
        if kind is socket.SOCK_STREAM:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family is socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((host, port))
        return listener

    def ports(self, iperf3: int | None) -> Ports:
        """Return where they listen."""
        sink, source, echo, udp = (
            sockets[0].getsockname()[1] for sockets in (self.sink, self.source, self.echo, self.udp)
        )
        return Ports(sink, source, echo, udp, iperf3)

    def close(self) -> None:
        """Close this process's copies."""
        for listener in self._all:
            listener.close()


class Children:
    """Processes that live no longer than this one."""

    def __init__(self) -> None:
        self._pids: list[int] = []

    def start(self, run: Callable[[], None]) -> None:
        """Run a function that does not return, in a new process. Call it while there is one thread only."""
        parent = os.getpid()
        pid = os.fork()
        if pid:
            self._pids.append(pid)
            return
        try:
            die_with_parent(signal.SIGKILL)
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's; the parent ends us
            if os.getppid() == parent:
                run()
        finally:
            os._exit(1)

    def end(self) -> None:
        """Kill and reap them."""
        for pid in self._pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in self._pids:
            os.waitpid(pid, 0)


def in_threads(*jobs: Callable[[], None]) -> None:
    """Do all jobs, this thread the last."""
    for job in jobs[:-1]:
        threading.Thread(target=job, daemon=True).start()
    jobs[-1]()


def start_services(children: Children, sockets: Listeners) -> None:
    """Start all but iperf3."""
    limit = raise_descriptor_limit() - SPARE
    children.start(lambda: EchoService(sockets.echo, limit).run())
    children.start(
        lambda: in_threads(
            *(lambda s=s: serve(s, bulk_service.sink) for s in sockets.sink),
            *(lambda s=s: serve(s, bulk_service.source) for s in sockets.source),
        )
    )
    counter = UdpCounter()
    children.start(
        lambda: in_threads(
            *(lambda s=s: serve(s, counter.answer) for s in sockets.udp_counts),
            *(lambda s=s: counter.count(s) for s in sockets.udp),
        )
    )


def start_iperf3(children: Children, host: str, port: int) -> int:
    """Start an iperf3 server, and return the reading end of its output; -1 when it does not listen in time."""
    reading, writing = os.pipe()
    path = shutil.which("iperf3") or ""

    def run() -> None:
        os.dup2(writing, 1)
        os.dup2(writing, 2)
        os.execv(path, [path, "-s", "-B", host, "-p", str(port), "--forceflush"])  # noqa: S606  # no shell

    children.start(run)
    os.close(writing)
    said, until = b"", time.monotonic() + IPERF3_STARTS
    while _IPERF3_LISTENS not in said:
        ready, _, _ = select.select([reading], [], [], max(0.0, until - time.monotonic()))
        more = os.read(reading, 4096) if ready else b""
        if not more:
            os.close(reading)
            return -1
        said += more
    return reading


def wait_for_eof(outputs: Sequence[int]) -> None:
    """Wait for the end of standard input; meanwhile throw away what iperf3 says, or it would stop at a full pipe."""
    poller = select.poll()
    for fd in (0, *outputs):
        poller.register(fd, select.POLLIN)
    while True:
        for fd, _ in poller.poll():
            if not os.read(fd, 1 << 16):
                if fd == 0:
                    return
                poller.unregister(fd)


def address(text: str) -> str:
    """Take an IP address, for argparse."""
    try:
        return str(ipaddress.ip_address(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until the end of standard input."""
    parser = argparse.ArgumentParser(prog=PROG, description="the far end of telemagic bench")
    parser.add_argument(
        "--host", type=address, action="append", required=True, help="an address to listen on"
    )
    parser.add_argument("--any-port", action="store_true", help="free ports instead of the usual ones")
    parser.add_argument("--no-iperf3", action="store_true", help="even if it is installed")
    options = parser.parse_args(arguments)
    wanted = Ports(0, 0, 0, 0, 0) if options.any_port else Ports()
    try:
        sockets = Listeners(options.host, wanted)
    except OSError as error:
        sys.stderr.write(f"{PROG}: cannot listen on {' and '.join(options.host)}: {error.strerror}\n")
        sys.stderr.write("  try: an address of this machine; --any-port if the ports are taken\n")
        return 1
    children = Children()
    try:
        start_services(children, sockets)
        outputs: list[int] = []
        iperf3 = None if options.no_iperf3 or not shutil.which("iperf3") else wanted.iperf3
        if iperf3 is not None:
            iperf3 = iperf3 or free_port(options.host[0])
            outputs = [start_iperf3(children, host, iperf3) for host in options.host]
        ports = sockets.ports(None if -1 in outputs else iperf3)
        sockets.close()
        sys.stdout.write(f"ready {ports.to_json()}\n")
        sys.stdout.flush()
        wait_for_eof([fd for fd in outputs if fd >= 0])
    except KeyboardInterrupt:
        return 130  # 128 + SIGINT, as shells count
    finally:
        children.end()
    return 0


def free_port(host: str) -> int:
    """Find a port that nobody listens on."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
