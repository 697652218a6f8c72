"""Where the doctor looks: files, descriptors and two child processes. Everything can be replaced, as tests do."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from telemagic import elevate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

EX_CONFIG: Final = (
    os.EX_CONFIG
)  # what netd exits with when it cannot start; sudo, when it does not run it, with 1
CHILD_PATIENCE: Final = 10.0  # seconds; the probe takes 0.15, sudo as long as its directory service
# -P: not the notebook's directory first
PROBE: Final = (sys.executable, "-P", "-m", "telemagic.demo.probe")
_MARK: Final = re.compile(r"# telemagic netd (\d+) (\d+) (\S+)\n")  # the first line of our /etc/resolv.conf


class Tun(NamedTuple):
    """What trying a TUN showed: what is wrong with namespaces and with the device, each (message, hint), and TUN_F_* bits."""

    namespaces: Sequence[str]
    device: Sequence[str]
    offload: int


def try_tun(command: Sequence[str] = PROBE) -> Tun:
    """Make a TUN, in a child process and in namespaces of its own. Never raises."""
    try:
        done = subprocess.run(  # noqa: S603  # our own command
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=CHILD_PATIENCE, check=True
        )
        found = json.loads(done.stdout)
        return Tun(found["namespaces"], found["tun"], found["offload"])
    except (OSError, subprocess.SubprocessError, ValueError, KeyError) as error:
        return Tun((), (f"it could not be tried: {error}", ""), 0)


def sudo_is_silent(sudo: str) -> bool:
    """Whether sudo needs no password; as a connect, which tries that first."""
    return _run_silently(sudo, "true") == 0


def sudo_runs_netd(sudo: str, program: str) -> bool:
    """Whether sudo runs the root-owned copy without a password: it does nothing then but complain of its input."""
    return _run_silently(sudo, program) == EX_CONFIG


def _run_silently(sudo: str, program: str) -> int:
    try:
        return subprocess.run(  # noqa: S603  # the path comes from $PATH, as for everybody
            [sudo, "-n", "--", program],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=CHILD_PATIENCE,
            check=False,
        ).returncode
    except (OSError, subprocess.SubprocessError):
        return -1


def interfaces() -> list[str]:
    """Return the names of the network interfaces."""
    return [name for _, name in socket.if_nameindex()]


@dataclass
class Machine:
    """The machine, as far as telemagic depends on it. `root` is where its files are."""

    root: Path = Path("/")
    release: str = field(default_factory=lambda: os.uname().release)
    rights: Callable[[], elevate.Rights] = elevate.Rights.of_self
    sudo_is_silent: Callable[[str], bool] = sudo_is_silent
    sudo_runs_netd: Callable[[str, str], bool] = sudo_runs_netd
    try_tun: Callable[[], Tun] = try_tun
    interfaces: Callable[[], list[str]] = interfaces
    version: Callable[[str], str] = metadata.version

    @cached_property
    def tun(self) -> Tun:
        """What trying a TUN showed; tried once."""
        return self.try_tun()

    def read(self, path: str) -> str | None:
        """Return a file's text, or None if there is no such file."""
        try:
            return (self.root / path).read_text(encoding="latin-1")
        except (FileNotFoundError, NotADirectoryError):
            return None

    def processes(self) -> set[str]:
        """Return the names of the running programs, as the kernel has them: at most 15 characters (proc(5), comm)."""
        found = set()
        for path in (self.root / "proc").glob("[0-9]*/comm"):
            with contextlib.suppress(OSError):  # it has just ended
                found.add(path.read_text(encoding="latin-1").strip())
        return found

    def is_mount(self, path: str) -> bool:
        """Whether something is mounted exactly there (proc_pid_mountinfo(5))."""
        lines = (self.read("proc/self/mountinfo") or "").splitlines()
        return any(line.split()[4] == f"/{path}" for line in lines)

    def stale_netd(self) -> int:
        """Return the pid of the netd that left its /etc/resolv.conf behind; 0 if none did."""
        found = _MARK.match(self.read("etc/resolv.conf") or "")
        if found is None:
            return 0
        pid, started, boot = found.groups()
        is_this_boot = (self.read("proc/sys/kernel/random/boot_id") or "").strip() == boot
        # After the command, which is in parentheses and may hold anything, the 20th field is the start (proc_pid_stat(5)).
        fields = (self.read(f"proc/{pid}/stat") or "").rpartition(")")[2].split()
        is_alive = is_this_boot and len(fields) > 19 and fields[19] == started and fields[0] not in "ZX"
        return 0 if is_alive else int(pid)
