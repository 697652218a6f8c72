"""The ways from the client to the far side, each open for a `with` block: bare, ours over each carrier, the peers'."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from telemagic import api
from telemagic.bench import footprint, peers, processes
from telemagic.bench.children import PYTHON, first_line, running
from telemagic.bench.topology import CARRIER_FAR, RAW_FAR
from telemagic.paths import runtime_dir

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from telemagic.bench.topology import Topology

CARRIER_PORT: Final = 8084  # the demo manager's plain TCP listener
DELAY: Final = 0.010  # seconds each way, of rtt20
_CONNECT_TIMEOUT: Final = 30.0  # seconds
_END_TIMEOUT: Final = 10.0  # seconds; takes half of one
_RELAY_TIMEOUT: Final = 10.0  # seconds until it listens; takes half of one


@dataclass(frozen=True, slots=True)
class Way:
    """A way that is open: where the far side's server is found, and how to cut it, where that is possible."""

    host: str
    cut: Callable[[], None] | None = None


@contextlib.contextmanager
def opened(path: str, topology: Topology) -> Iterator[Way]:
    """Open a way.

    Raises
    ------
    TelemagicError
        It cannot be opened.
    """
    match path:
        case "raw":
            yield Way(str(RAW_FAR.ip))
        case "rtt20":
            with relayed(path, topology) as way:
                yield way
        case "tcp" | "portforward":
            carrier = f"tcp://{CARRIER_FAR.ip}:{CARRIER_PORT}" if path == "tcp" else path
            with _tunnel(topology, carrier, topology.demo.kubeconfig):
                yield Way(str(topology.pod))
        case "sshuttle":
            with peers.sshuttle(topology):
                yield Way(str(topology.pod))
        case "ssh-L":
            with peers.ssh_forward(topology):
                yield Way("127.0.0.1")
        case _:
            raise AssertionError(path)


@contextlib.contextmanager
def relayed(path: str, topology: Topology) -> Iterator[Way]:
    """Open one of our ways with a relay in front of its carriers, which can cut them."""
    forwarded = path == "portforward"
    host, port = ("127.0.0.1", topology.demo.port) if forwarded else (str(CARRIER_FAR.ip), CARRIER_PORT)
    delay = DELAY if path == "rtt20" else 0.0
    options = ("--host", host, "--port", str(port), "--delay", str(delay))
    with running([*PYTHON, "telemagic.bench.relay", *options]) as relay:
        own = int(first_line(relay, "ready ", _RELAY_TIMEOUT))
        kubeconfig = _moved(topology, own) if forwarded else topology.demo.kubeconfig
        carrier = path if forwarded else f"tcp://127.0.0.1:{own}"

        def cut() -> None:
            assert relay.stdin is not None  # noqa: S101 - for mypy
            relay.stdin.write("cut\n")
            relay.stdin.flush()

        with _tunnel(topology, carrier, kubeconfig):
            yield Way(str(topology.pod), cut)


@contextlib.contextmanager
def _tunnel(topology: Topology, carrier: str, kubeconfig: Path) -> Iterator[None]:
    with api.connect(
        context=topology.demo.context,
        kubeconfig=kubeconfig,
        timeout=_CONNECT_TIMEOUT,
        # All of it said: what is measured must not depend on the user's defaults.
        dns="none",
        on_conflict="refuse",
        via="manager",
        manager_namespace="telemagic",
        carrier=carrier,
        on_phase=lambda _: None,  # silent
    ):
        yield
    # Its helper has undone all and is about to exit; the next way must not share the machine with it.
    processes.wait_until(lambda: not footprint.helpers(), _END_TIMEOUT, "the last way's helper does not end")


def _moved(topology: Topology, port: int) -> Path:
    """Write a kubeconfig by which the API server is behind another port."""
    path = runtime_dir() / f"relay-{port}.kubeconfig"
    path.touch(mode=0o600)
    text = topology.demo.kubeconfig.read_text()
    path.write_text(text.replace(f"127.0.0.1:{topology.demo.port}", f"127.0.0.1:{port}"))
    return path
