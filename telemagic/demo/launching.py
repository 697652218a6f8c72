"""Start the daemon of a demo cluster, and hear how that went; blocking."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Final

from telehelper.errors import HelperError, from_wire

from telemagic.demo import control, namespaces, plan

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from telemagic.demo.plan import Network

ASK_TIMEOUT: Final = 15.0  # seconds; the daemon answers in milliseconds unless the machine is very busy


def start(name: str, directory: Path, options: Iterable[str], used: Iterable[Network]) -> socket.socket:
    """Start a daemon, and return a connection to it. The caller holds the lock.

    Parameters
    ----------
    name, directory
        Of the demo; what is in the directory is removed.
    options
        More words of the daemon's command line.
    used
        Networks of others, which it must keep away from.

    Raises
    ------
    HelperError
        It does not start; as the kind that says why.
    """
    shutil.rmtree(directory, ignore_errors=True)
    addresses = plan.choose([*used, *plan.routed_networks()])
    directory.mkdir(mode=0o700)
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        command = [
            *(
                sys.executable,
                "-P",
                "-m",
                "telemagic.demo.daemon",
                "--name",
                name,
                "--directory",
                str(directory),
            ),
            *("--slot", str(addresses.slot), "--listener", str(listener.fileno())),
            *("--network", namespaces.network_identity(), *options),
        ]
        launched = subprocess.run(  # noqa: S603 - our own module with our own arguments
            command, pass_fds=[listener.fileno()], stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
    answer = json.loads(launched.stdout or "{}")
    if "slug" in answer:
        raise from_wire(answer["slug"], answer["message"], answer["hint"], {})
    connection = control.connect(directory, ASK_TIMEOUT) if answer else None
    if connection is None:
        why = launched.stderr.decode(errors="replace").strip().splitlines() or _log_of(directory)
        raise HelperError(f"the demo cluster does not start: {why[-1] if why else 'no reason given'}")
    return connection


def _log_of(directory: Path) -> list[str]:
    try:
        return (directory / "daemon.log").read_text(errors="replace").strip().splitlines()
    except FileNotFoundError:
        return []
