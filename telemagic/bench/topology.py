"""The place's network: the runner is the client, a demo cluster the far side, two veths go past the tunnel."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from dataclasses import dataclass
from ipaddress import IPv4Interface
from typing import TYPE_CHECKING, Final

from telemagic.bench import processes, timewait
from telemagic.bench.children import PYTHON, first_line, in_network, running
from telemagic.bench.footprint import MANAGER
from telemagic.bench.ports import Ports
from telemagic.demo import client, link
from telemagic.demo.network import in_thread_of

if TYPE_CHECKING:
    from ipaddress import IPv4Address

    from telemagic.demo.client import Demo

# TEST-NET-1 (RFC 5737), which no cluster has.
RAW_NEAR: Final = IPv4Interface("192.0.2.1/30")
RAW_FAR: Final = IPv4Interface("192.0.2.2/30")
CARRIER_NEAR: Final = IPv4Interface("192.0.2.5/30")
CARRIER_FAR: Final = IPv4Interface("192.0.2.6/30")
_START_TIMEOUT: Final = 20.0  # seconds for the server; takes one


@dataclass(frozen=True, slots=True)
class Topology:
    """What is there once it is built.

    Attributes
    ----------
    demo
        The cluster.
    server, manager
        Descriptors of the network namespaces of the pod that the bench's server is in, and of the manager's.
    pod
        The server's address in the cluster; RAW_FAR is its address past the tunnel.
    ports
        Where it listens on both.
    """

    demo: Demo
    server: int
    manager: int
    pod: IPv4Address
    ports: Ports

    @property
    def manager_network(self) -> int:
        """The inode of the manager's network namespace."""
        return os.fstat(self.manager).st_ino


def renew_manager(topology: Topology) -> None:
    """Let the kubelet start the manager anew: memory that one run of flows has used hides that of the next.

    Raises
    ------
    HelperError
        It does not come back.
    """
    old = processes.find(MANAGER, topology.manager_network)
    for entry in old:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(entry.name), signal.SIGKILL)

    def is_back() -> bool:
        new = set(processes.find(MANAGER, topology.manager_network)) - set(old)
        return bool(new) and all(found.is_ready for found in client.status())

    processes.wait_until(is_back, _START_TIMEOUT, "the manager does not start again")


def build(stack: contextlib.ExitStack) -> Topology:
    """Start everything; it lasts until the stack is closed, or the place ends.

    Raises
    ------
    TelemagicError
        Something does not start.
    """
    demo = stack.enter_context(client.ensure(name="bench", owned=True))
    server, manager = (demo.network_of(app) for app in ("catalog", "traffic-manager"))
    timewait.limit()
    in_thread_of(manager, timewait.limit)
    link.join("raw", RAW_NEAR, server, RAW_FAR)
    link.join("carrier", CARRIER_NEAR, manager, CARRIER_FAR)
    pod = link.address_of(server)
    command = [*PYTHON, "telemagic.bench.server", "--host", str(RAW_FAR.ip), "--host", str(pod)]
    process = stack.enter_context(running(in_network(server, command), pass_fds=[server]))
    ports = Ports(**json.loads(first_line(process, "ready ", _START_TIMEOUT)))
    return Topology(demo, server, manager, pod, ports)
