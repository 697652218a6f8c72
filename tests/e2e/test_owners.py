"""Whose flows are and where they lead, through all of it; and another user of the machine, who gets nothing."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from telehelper.codec import Decoder, encode
from telehelper.messages import PROTOCOL_VERSION, Done, Hello, Message, Welcome
from telehelper.observing import FLOW_COLUMNS, CellEnded, CellStarted, FlowTable, GetFlows, Introduce

from tests.e2e.inside import inside, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from telemagic.demo.client import Demo

STRANGER: Final = 54321  # a uid without an account
CATALOG: Final = ("catalog.shop", 8000)
# Connects, gets one byte, and is gone: as short-lived as a program can be that has an answer.
FETCH: Final = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 10) as sock:
    sock.sendall(b"GET /healthz HTTP/1.0\\r\\n\\r\\n")
    sock.recv(1)
"""


class Control:
    """A connection of this process to the data plane, besides that of telemagic itself."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(10)
        self._socket.connect(str(path))
        self._decoder = Decoder()
        self.ask(Hello(PROTOCOL_VERSION, os.getpid()), Welcome)

    def ask(self, request: Message, kind: type[Message]) -> Any:  # the caller knows what it asked for
        """Send a request and wait for its answer; events are passed over."""
        self._socket.sendall(encode(request, 1))
        while True:
            for envelope in self._decoder.feed(self._socket.recv(65536)):
                if envelope.id == 1:
                    assert isinstance(envelope.body, kind), envelope.body
                    return envelope.body

    def tell(self, notification: Message) -> None:
        """Send what nobody answers."""
        self._socket.sendall(encode(notification))

    def flows(self) -> list[dict[str, Any]]:
        """Return the flow table."""
        table = self.ask(GetFlows(), FlowTable)
        return [dict(zip(FLOW_COLUMNS, row, strict=True)) for row in json.loads(table.rows)]

    def close(self) -> None:
        """Leave."""
        self._socket.close()


@contextlib.contextmanager
def program(name: str) -> Iterator[str]:
    """Give the path of a program that /proc shows by this name: it is Python."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.symlink_to(sys.executable)
        yield str(path)


def fetch() -> None:
    with socket.create_connection(CATALOG, 10) as sock:
        sock.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert sock.recv(1)


def by_process(control: Control, wanted: set[str]) -> dict[str, dict[str, Any]]:
    """Wait until flows of all these processes are known and where they lead; return one of each."""

    def seen() -> dict[str, dict[str, Any]]:
        rows = control.flows()
        return {row["process"]: row for row in rows if row["process"] and row["service"]}

    assert wait_until(lambda: wanted <= seen().keys(), 15), control.flows()
    return seen()


@inside()
def test_flows_know_their_process_notebook_and_cell_and_where_they_lead() -> None:
    import telemagic

    with telemagic.connect() as tele, program("tele-psql") as psql, program("tele-cron") as cron:
        control = Control(tele.socket_path)
        control.ask(Introduce("sales.ipynb"), Done)
        fetch()  # before there is a cell
        control.tell(CellStarted(5, time.monotonic()))
        fetch()
        target = [psql, "-I", "-S", "-c", FETCH, *map(str, CATALOG)]
        subprocess.run(["/bin/sh", "-c", '"$@"; true', "sh", *target], check=True)
        control.tell(CellEnded(5, time.monotonic()))
        # An orphan: the shell that started it has ended when it connects. It is none of the kernel's family, which is
        # looked at first: on a busy machine its socket has to be there for a moment to be found.
        later = "import time; time.sleep(0.3)" + FETCH + "    time.sleep(1)\n"
        subprocess.run(
            ["/bin/sh", "-c", '"$@" &', "sh", cron, "-I", "-S", "-c", later, *map(str, CATALOG)], check=True
        )
        own = Path("/proc/self/comm").read_text().strip()
        rows = by_process(control, {own, "tele-psql", "tele-cron"})
        cells = [(row["pid"], row["cell"]) for row in control.flows() if row["process"] == own]
        control.close()

    assert cells == [(os.getpid(), -1), (os.getpid(), 5)]
    for row in rows.values():
        assert row["uid"] == os.geteuid()
        assert (row["service"], row["namespace"], row["node"]) == ("catalog.shop", "shop", "demo-node")
        assert row["pod"].startswith("catalog-")
    assert rows[own]["notebook"] == "sales.ipynb"
    assert (rows["tele-psql"]["notebook"], rows["tele-psql"]["cell"]) == ("sales.ipynb", 5)
    assert rows["tele-psql"]["pid"] not in (os.getpid(), -1)
    assert (rows["tele-cron"]["notebook"], rows["tele-cron"]["cell"]) == ("", -1)


# --- another user ------------------------------------------------------------------------------------------------

CONNECTED: Final = """
import os, socket, sys, telemagic
with telemagic.connect(share=sys.argv[1] == "share") as tele:
    for family in (socket.AF_INET, socket.AF_INET6):
        print(socket.getaddrinfo("catalog.shop", 8000, family)[0][4][0])
    print(os.getpid(), tele.socket_path, flush=True)
    for line in sys.stdin:
        print(*tele.status.notices, sep="\\t", flush=True)
"""
# As root into the sandbox's network, then an ordinary user; nothing is imported afterwards.
VISIT: Final = """
import ctypes, os, socket, sys
pid, uid, what, *target = sys.argv[1:]
libc = ctypes.CDLL(None, use_errno=True)
assert libc.setns(os.open(f"/proc/{pid}/ns/net", os.O_RDONLY), 0x40000000) == 0
os.setgroups([]); os.setgid(int(uid)); os.setuid(int(uid))
try:
    if what == "unix":
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(target[0])
    else:
        host, port = target
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM if what == "tcp" else socket.SOCK_DGRAM)
        sock.settimeout(10)
        sock.connect((host, int(port)))
        sock.send(b"GET /healthz HTTP/1.0\\r\\n\\r\\n")
        sock.recv(1)
    print("reached")
except OSError as error:
    print(type(error).__name__)
"""


class Host:
    """A sandbox in which root has connected, seen from outside, where there are other users."""

    def __init__(self, cluster: Demo, how: str) -> None:
        inner = [sys.executable, "-c", CONNECTED, how]
        command = [sys.executable, "-m", "telemagic.demo.shell", "--name", cluster.name, "--", *inner]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
        self.addresses = [self.line(), self.line()]
        self.pid, self.socket_path = self.line().split()

    def line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def visit(self, what: str, *target: str, uid: int = STRANGER) -> str:
        """Do something there as another user."""
        command = [sys.executable, "-c", VISIT, self.pid, str(uid), what, *target]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
        return done.stdout.strip()

    def notices(self) -> list[str]:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self.line().split("\t")

    def close(self) -> None:
        self._process.communicate(timeout=30)
        assert self._process.returncode == 0


@pytest.mark.netns
@pytest.mark.sudo
def test_another_user_of_the_machine_is_refused_at_once(cluster: Demo) -> None:
    host = Host(cluster, "")
    for address in host.addresses:
        for what in ("tcp", "udp"):
            assert host.visit(what, address, "8000") == "ConnectionRefusedError"
        assert host.visit("tcp", address, "8000", uid=0) == "reached"  # root can become us anyway
    assert host.visit("unix", host.socket_path) == "PermissionError"
    notices = host.notices()
    # The sandbox's user namespace has no uid for the visitor.
    assert [line for line in notices if line.startswith("flows were refused: 4 of ")], notices
    assert [line for line in notices if "uid 65534" in line], notices
    host.close()


@pytest.mark.netns
@pytest.mark.sudo
def test_with_share_other_users_pass(cluster: Demo) -> None:
    host = Host(cluster, "share")
    assert [host.visit("tcp", address, "8000") for address in host.addresses] == ["reached"] * 2
    assert host.visit("unix", host.socket_path) == "PermissionError"
    assert [line for line in host.notices() if line.startswith("--share: everybody")]
    host.close()
