"""The peers: `ssh -L` and `sshuttle` over an ssh server of our own, which is in the manager's pod as our manager is.

Both need only what is made here, in a directory that ends with the place: keys, a known-hosts file, and an
/etc/passwd with the two users there are. No configuration of the user's or the machine's is read. The server runs
in a nested user namespace as an ordinary user, since as root it would want users and groups that are not mapped here.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from telehelper.errors import HelperError, HelperMissing

from telemagic.bench.children import in_network, running
from telemagic.bench.topology import CARRIER_FAR
from telemagic.demo import link, namespaces

if TYPE_CHECKING:
    from collections.abc import Iterator

    from telemagic.bench.topology import Topology

_PORT: Final = 17022
_USER: Final = "bench"
_UID: Final = 1000
_START_TIMEOUT: Final = 15.0  # seconds; sshuttle takes two
_POLL: Final = 0.05  # seconds
_PACKAGES: Final = {"ssh": "openssh-client", "sshd": "openssh-server", "sshuttle": "sshuttle"}


@dataclass(frozen=True, slots=True)
class Server:
    """An ssh server that runs, and the command that reaches it without anything of the user's."""

    directory: Path

    def ssh(self) -> list[str]:
        """Return the client's command up to, and without, the host."""
        options = {
            "BatchMode": "yes",
            "Port": str(_PORT),
            "IdentityFile": str(self.directory / "client"),
            "IdentitiesOnly": "yes",
            "IdentityAgent": "none",
            "UserKnownHostsFile": str(self.directory / "known_hosts"),
            "GlobalKnownHostsFile": "none",
            "StrictHostKeyChecking": "yes",
            "ExitOnForwardFailure": "yes",
            "LogLevel": "ERROR",
        }
        words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        return [tool("ssh"), "-F", "none", *words]

    @property
    def login(self) -> str:
        """Return user and host."""
        return f"{_USER}@{CARRIER_FAR.ip}"


def tool(name: str) -> str:
    """Return the path of a program.

    Raises
    ------
    HelperMissing
        It is not installed.
    """
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin:/sbin")
    if found is None:
        raise HelperMissing(f"{name} is not installed", hint=f"apt install {_PACKAGES.get(name, name)}")
    return found


@contextlib.contextmanager
def ssh_forward(topology: Topology) -> Iterator[None]:
    """Forward the server's TCP ports from 127.0.0.1, each from the same number."""
    ports = [port for port in asdict(topology.ports).values() if port is not None]
    forwards = [word for port in ports for word in ("-L", f"127.0.0.1:{port}:{topology.pod}:{port}")]
    with _server(topology) as server:
        command = [*server.ssh(), "-N", "-n", *forwards, server.login]
        with running(command) as process:
            _wait(process, ("127.0.0.1", ports[0]), "ssh -L")
            try:
                yield
            finally:
                process.terminate()


@contextlib.contextmanager
def sshuttle(topology: Topology) -> Iterator[None]:
    """Send the server's address in the cluster through sshuttle."""
    program = tool("sshuttle")
    # Its firewall rules see only what has a route, and there is no default one; this one leads nowhere.
    with link.routed(topology.pod, "lo"), _server(topology) as server:
        command = [
            *(program, "--disable-ipv6"),
            *("--python", "python3", "--ssh-cmd", " ".join(server.ssh())),
            *("--remote", server.login, f"{topology.pod}/32"),
        ]
        with running(command) as process:
            _wait(process, (str(topology.pod), topology.ports.echo), "sshuttle")
            try:
                yield
            finally:
                process.terminate()


@contextlib.contextmanager
def _server(topology: Topology) -> Iterator[Server]:
    with tempfile.TemporaryDirectory(prefix="ssh-") as name:
        directory = Path(name)
        _populate(directory)
        _write_keys(directory)
        config = directory / "sshd_config"
        config.write_text(_config(directory))
        command = ["--uid", str(_UID), tool("sshd"), "-D", "-e", "-f", str(config)]
        with running(in_network(topology.manager, command), pass_fds=[topology.manager]) as process:
            _wait(process, (str(CARRIER_FAR.ip), _PORT), "sshd")
            try:
                yield Server(directory)
            finally:
                process.terminate()


def _populate(directory: Path) -> None:
    """Give the place its own /etc/passwd, once: sshd and ssh want to know who they are, and where home is."""
    path = Path("/etc/passwd")
    if path.read_text().startswith(f"{_USER}:"):
        return
    own = Path(tempfile.mkdtemp(prefix="passwd-")) / "passwd"
    users = ((_USER, _UID), ("root", 0))
    own.write_text("".join(f"{user}:x:{uid}:{uid}::{own.parent}:/bin/sh\n" for user, uid in users))
    own.parent.chmod(0o755)
    namespaces.mount(str(own), path, flags=namespaces.MS_BIND)


def _write_keys(directory: Path) -> None:
    for name in ("host", "client"):
        subprocess.run(  # noqa: S603 - our own command
            [tool("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(directory / name)],
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,
            check=True,
        )
    host_key = (directory / "host.pub").read_text()
    (directory / "known_hosts").write_text(f"[{CARRIER_FAR.ip}]:{_PORT} {host_key}")
    shutil.copy(directory / "client.pub", directory / "authorized_keys")


def _config(directory: Path) -> str:
    return f"""\
ListenAddress {CARRIER_FAR.ip}:{_PORT}
HostKey {directory}/host
AuthorizedKeysFile {directory}/authorized_keys
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
AllowTcpForwarding yes
MaxStartups 100
LogLevel ERROR
"""


def _wait(process: subprocess.Popen[str], address: tuple[str, int], name: str) -> None:
    """Wait until something answers at an address.

    Raises
    ------
    HelperError
        The process ended first, or it takes too long.
    """
    deadline = time.monotonic() + _START_TIMEOUT
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise HelperError(f"{name} ended with status {process.returncode}")
        with contextlib.suppress(OSError), socket.create_connection(address, timeout=1.0):
            return
        time.sleep(_POLL)
    raise HelperError(f"{name} was not ready within {_START_TIMEOUT:.0f} s")
