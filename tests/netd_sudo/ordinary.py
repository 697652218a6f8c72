"""Become an ordinary user for whom sudo works, in a machine of its own: `python ordinary.py SUDOERS COMMAND…` as root.

The user, its password, the sudoers file and /run are bind mounts and tmpfs in a private mount namespace; the network
namespace is private too. Nothing outside changes, and all of it is gone with the last process.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import tempfile
from pathlib import Path

NAME, UID = "teletest", 54321
PASSWORD = "right horse"
HASH = "$6$telemagic$FfERIrpICDJtllVGfv3xnyJbr5SXSzDJ/on1sulqdHVhJ9LnDvwcdZxODg00oY/RMG6wxmVsrzQnPmssPnZrA."
CLONE_NEWNS, CLONE_NEWNET = 0x00020000, 0x40000000  # linux/sched.h
ROOT = Path(__file__).resolve().parents[2]
DEFAULTS = "Defaults lecture=never,!syslog,!mail_badpass,!mail_always,timestamp_timeout=0,passwd_tries=3\n"


def mount(*arguments: str | Path) -> None:
    subprocess.run(["mount", *arguments], check=True)


def replace(target: str, text: str, mode: int, folder: Path) -> None:
    """Put a file of our own over `target`."""
    own = folder / target.strip("/").replace("/", "-")
    own.write_text(text)
    own.chmod(mode)
    mount("--bind", own, target)


def open_up(paths: list[Path], folder: Path) -> None:
    """Make these paths reachable for everybody, whatever directory above them is closed (a pyenv in /root)."""
    closed = {parent for path in paths for parent in path.parents if not parent.stat().st_mode & 0o001}
    for number, directory in enumerate(sorted(closed)):
        saved = folder / f"saved-{number}"
        saved.mkdir()
        mount("--rbind", directory, saved)
        mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", directory)
        for path in paths:
            if directory in path.parents:
                path.mkdir(parents=True, exist_ok=True)
                mount("--rbind", saved / path.relative_to(directory), path)


def become(sudoers: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS | CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "unshare")
    mount("--make-rprivate", "/")
    for empty in ("/run", "/usr/local"):
        mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", empty)
    folder = Path(tempfile.mkdtemp(dir="/run"))
    folder.chmod(0o755)
    line = f"{NAME}:x:{UID}:{UID}::/nonexistent:/bin/sh\n"
    replace("/etc/passwd", Path("/etc/passwd").read_text() + line, 0o644, folder)
    replace("/etc/group", Path("/etc/group").read_text() + f"{NAME}:x:{UID}:\n", 0o644, folder)
    replace(
        "/etc/shadow", Path("/etc/shadow").read_text() + f"{NAME}:{HASH}:19000:0:99999:7:::\n", 0o600, folder
    )
    replace("/etc/resolv.conf", "nameserver 192.0.2.1\n", 0o644, folder)
    rules = folder / "sudoers.d"
    rules.mkdir(mode=0o750)
    (rules / "telemagic").write_text(DEFAULTS + sudoers)
    (rules / "telemagic").chmod(0o440)
    mount("--bind", rules, "/etc/sudoers.d")
    open_up([Path(sys.base_prefix), Path(sys.prefix), ROOT], folder)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def main() -> None:
    become(sys.argv[1].replace("PYTHON", sys.executable))
    runtime = Path("/run/user")
    runtime.mkdir(mode=0o700)
    os.chown(runtime, UID, UID)
    os.environ["TELEMAGIC_RUNTIME_DIR"] = str(runtime)
    os.chdir(ROOT)
    drop = ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups"]
    os.execvp(drop[0], [*drop, *sys.argv[2:]])


if __name__ == "__main__":
    main()
