"""What keeps our Unix sockets to one user: the directory they are in, and who is at their other end.

Both ends use it, so that neither has to believe the other. It protects against other users of this machine; root can do
everything anyway.
"""

from __future__ import annotations

import os
import socket
import stat
import struct
from pathlib import Path
from typing import Final

from telehelper.errors import HelperMissing

ROOT: Final = 0
_UCRED: Final = struct.Struct("3i")  # struct ucred of unix(7): pid, uid, gid
_UID_MAP: Final = Path("/proc/self/uid_map")
_OVERFLOW: Final = Path("/proc/sys/kernel/overflowuid")
_ALL_UIDS: Final = ["0", "0", "4294967295"]  # the map of the first user namespace
_REMEDY: Final = "point TELEMAGIC_RUNTIME_DIR at a private directory of yours"


def peer_of(sock: socket.socket) -> tuple[int, int]:
    """Return pid and uid of the process at the other end of a Unix socket (unix(7), SO_PEERCRED)."""
    pid, uid, _ = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return pid, uid


def is_own(uid: int) -> bool:
    """Whether this uid, as the kernel tells it, is certainly our own.

    Somebody who has no uid in our user namespace is shown with the overflow uid, which may be ours too.
    """
    return uid == os.geteuid() and uid != _stranger()


def check_directory(path: Path) -> None:
    """See that a directory is private: real, ours, closed to everybody else, and nobody else can put another in its place.

    Raises
    ------
    HelperMissing
        It is not.
    OSError
        It is not there.
    """
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode):  # lstat: a symlink is refused too
        raise HelperMissing(f"{path} is not a directory", hint=f"look at it, then: rm {path}")
    if not is_own(found.st_uid):
        raise HelperMissing(f"{path} belongs to uid {found.st_uid}, not to you", hint=_REMEDY)
    if stat.S_IMODE(found.st_mode) & 0o077:
        raise HelperMissing(
            f"{path} is open to other users (mode {stat.S_IMODE(found.st_mode):04o})",
            hint=f"chmod 700 {path}",
        )
    if not os.access(path, os.W_OK | os.X_OK):
        raise HelperMissing(
            f"{path} cannot be written to: a read-only file system, or its mode", hint=_REMEDY
        )
    for parent in path.parents:
        _check_parent(path, parent)


def _check_parent(path: Path, parent: Path) -> None:
    found = parent.stat()
    # In a user namespace root is nobody we know of.
    if found.st_uid not in (ROOT, os.geteuid(), _stranger()):
        raise HelperMissing(f"{path} is below {parent}, which belongs to uid {found.st_uid}", hint=_REMEDY)
    if found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX and not _is_group_only_ours(found):
        raise HelperMissing(
            f"{path} is below {parent}, where other users may rename it (mode {stat.S_IMODE(found.st_mode):04o})",
            hint=_REMEDY,
        )


def _is_group_only_ours(found: os.stat_result) -> bool:
    """Whether only the group may write and that is our own: where each user has a group, umask 002 is usual."""
    return not found.st_mode & 0o002 and found.st_gid == os.getegid() and found.st_uid == os.geteuid()


def _stranger() -> int:
    """Return the uid that strangers are shown with; -1 in the first user namespace, where everybody has one."""
    try:
        if _UID_MAP.read_text().split() == _ALL_UIDS:
            return -1
        return int(_OVERFLOW.read_text())
    except (OSError, ValueError):
        return 65534  # the kernel's default
