"""How netd gets its rights on this machine: directly, by sudo, or not at all and why."""

from __future__ import annotations

import errno
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from telehelper.errors import HelperMissing, UsageError

CAP_NET_ADMIN: Final = 12  # linux/capability.h
NO_ROOT_HINT: Final = "install sudo, run Jupyter as root, or work rootless: telemagic demo shell"
TUN_HINT: Final = "sudo modprobe tun; in a container: --device /dev/net/tun --cap-add NET_ADMIN"
CAP_HINT: Final = "in a container: --device /dev/net/tun --cap-add NET_ADMIN"


@dataclass(frozen=True, slots=True)
class Rights:
    """What this process may do, as the kernel says it."""

    uid: int
    effective: int
    ambient: int
    no_new_privs: bool

    @classmethod
    def of_self(cls, status: Path = Path("/proc/self/status")) -> Rights:
        """Read them from /proc (proc_pid_status(5))."""
        fields = dict(line.split(":\t", 1) for line in status.read_text().splitlines() if ":\t" in line)
        return cls(
            uid=os.geteuid(),
            effective=int(fields["CapEff"], 16),
            ambient=int(fields["CapAmb"], 16),
            no_new_privs=fields.get("NoNewPrivs") == "1",
        )

    def can_configure(self) -> bool:
        """Whether a child of ours can configure the network: capabilities of others than root need to be ambient."""
        caps = self.effective if self.uid == 0 else self.ambient
        return bool(caps >> CAP_NET_ADMIN & 1)


def check_tun(device: str = "/dev/net/tun", *, open_it: bool) -> None:
    """See that there is a TUN device, before anybody types a password.

    Parameters
    ----------
    open_it
        Try to open it: only when netd will have no more rights than we have.

    Raises
    ------
    HelperMissing
        There is none, or it cannot be opened.
    """
    if not os.path.exists(device):
        raise HelperMissing(f"there is no {device}", hint=TUN_HINT)
    if not open_it:
        return
    try:
        os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        hint = TUN_HINT if error.errno in (errno.ENODEV, errno.ENXIO, errno.ENOENT) else CAP_HINT
        raise HelperMissing(f"cannot open {device}: {error.strerror}", hint=hint) from error


def find_sudo(rights: Rights) -> str | None:
    """Choose the way: None to run netd directly, else the path of sudo.

    Raises
    ------
    HelperMissing
        Neither is possible; the message says why.
    """
    if rights.can_configure():
        return None
    if rights.uid == 0:
        raise HelperMissing("root here lacks the capability NET_ADMIN", hint=CAP_HINT)
    if rights.no_new_privs:
        raise HelperMissing(
            "sudo cannot work here: no_new_privs is set for this process",
            hint="start Jupyter without it (docker: --security-opt no-new-privileges=false; "
            "JupyterHub: allow_privilege_escalation), or: telemagic demo shell",
        )
    sudo = shutil.which("sudo")
    if sudo is None:
        raise HelperMissing("netd needs root, and there is no sudo on this machine", hint=NO_ROOT_HINT)
    return sudo


def choose(elevate: str) -> str | None:
    """Path of sudo, or None to run netd directly; ``elevate`` is auto, direct or sudo."""
    if elevate not in ("auto", "direct", "sudo"):
        raise UsageError(f"{elevate!r} is no way to elevate", hint="auto, direct or sudo")
    rights = Rights.of_self()
    if elevate == "sudo":
        rights = Rights(rights.uid or 1, 0, 0, rights.no_new_privs)
    sudo = None if elevate == "direct" else find_sudo(rights)
    check_tun(open_it=sudo is None)
    return sudo
