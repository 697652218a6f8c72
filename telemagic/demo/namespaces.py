"""Linux namespaces by system call: Python's own `os.unshare` and `os.setns` came with 3.12."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import socket
import struct
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

from telehelper.errors import HelperMissing

if TYPE_CHECKING:
    from collections.abc import Iterator

# clone(2), from <linux/sched.h>
MOUNT: Final = 0x0002_0000
IPC: Final = 0x0800_0000
USER: Final = 0x1000_0000
PID: Final = 0x2000_0000
NETWORK: Final = 0x4000_0000

# mount(2) and umount2(2), from <linux/mount.h>
MS_NOSUID: Final = 0x2
MS_NODEV: Final = 0x4
MS_NOEXEC: Final = 0x8
MS_BIND: Final = 0x1000
MS_REC: Final = 0x4000
MS_PRIVATE: Final = 0x4_0000
MNT_DETACH: Final = 0x2

# netdevice(7), from <linux/sockios.h> and <linux/if.h>
_SIOCGIFFLAGS: Final = 0x8913
_SIOCSIFFLAGS: Final = 0x8914
_IFF_UP: Final = 0x1
_IFREQ: Final = struct.Struct("16sH14x")

_PR_SET_PDEATHSIG: Final = 1  # prctl(2)
_PR_SET_CHILD_SUBREAPER: Final = 36

_libc: Final = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def unshare(flags: int) -> None:
    """Leave the given namespaces for new ones; unshare(2). With `NETWORK` alone, only this thread moves."""
    _check(_libc.unshare(flags), "unshare")


def setns(fd: int, kind: int) -> None:
    """Move this thread into the namespace behind a descriptor; setns(2)."""
    _check(_libc.setns(fd, kind), "setns")


def mount(source: str, target: str | Path, kind: str = "none", flags: int = 0, options: str = "") -> None:
    """Mount something; mount(2)."""
    result = _libc.mount(
        source.encode(), str(target).encode(), kind.encode(), ctypes.c_ulong(flags), options.encode()
    )
    _check(result, f"mount {kind} on {target}")


def unmount_lazily(target: str | Path) -> None:
    """Take a mount out of the tree now; it ends when nothing uses it; umount2(2) with MNT_DETACH."""
    _check(_libc.umount2(str(target).encode(), MNT_DETACH), f"umount {target}")


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent dies; prctl(2) PR_SET_CHILD_SUBREAPER."""
    _check(_libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "prctl")


def die_with_parent(signal: int) -> None:
    """Get this signal when the thread that started this process ends; prctl(2) PR_SET_PDEATHSIG."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, signal, 0, 0, 0), "prctl")


def map_ids(uid: int, gid: int, *, inside_uid: int, inside_gid: int) -> None:
    """Say who the caller is in the user namespace it has just made.

    One identity only, which is all that user_namespaces(7) lets an ordinary user map; root takes the same way.
    """
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{inside_uid} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{inside_gid} {gid} 1")


def become_root_inside(extra: int = 0) -> None:
    """Enter a new user namespace as its root, and with it the `extra` namespaces. The process must have one thread.

    Raises
    ------
    HelperMissing
        This machine does not let the user make namespaces; the hint says which setting to change.
    """
    uid, gid = os.geteuid(), os.getegid()
    try:
        unshare(USER)
        map_ids(uid, gid, inside_uid=0, inside_gid=0)
        if extra:
            unshare(extra)
    except OSError as error:
        raise HelperMissing(
            f"this machine refuses user namespaces ({os.strerror(error.errno or errno.EPERM)})",
            hint=_remedy(),
        ) from error


def _remedy() -> str:
    settings = {
        "kernel.apparmor_restrict_unprivileged_userns": ("1", "0"),
        "kernel.unprivileged_userns_clone": ("0", "1"),
        "user.max_user_namespaces": ("0", "15000"),
    }
    for name, (bad, good) in settings.items():
        with contextlib.suppress(OSError):
            if Path("/proc/sys", *name.split(".")).read_text().strip() == bad:
                return f"ask the administrator for: sysctl -w {name}={good}"
    return "in a container allow them (docker run --security-opt seccomp=unconfined), or run on the host"


def network_identity() -> str:
    """Name the network namespace of this thread, as device and inode of its file in /proc."""
    found = os.stat("/proc/thread-self/ns/net")
    return f"{found.st_dev}:{found.st_ino}"


def open_network() -> int:
    """Open this thread's network namespace; the descriptor keeps it alive."""
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def new_network() -> int:
    """Make a network namespace beside the caller's, and return a descriptor for it."""
    made: list[int] = []

    def make() -> None:
        unshare(NETWORK)
        made.append(open_network())

    # A thread moves alone, and ends: coming back would need one more descriptor and one more way to fail.
    thread = threading.Thread(target=make, name="new-network")
    thread.start()
    thread.join()
    if not made:
        raise OSError(errno.EPERM, "a network namespace cannot be made")
    return made[0]


@contextlib.contextmanager
def inside_network(fd: int) -> Iterator[None]:
    """Be in another network namespace for a moment, with this thread only.

    Sockets made in the block stay there for life. The block must not await or yield to other code.
    """
    home = open_network()
    try:
        setns(fd, NETWORK)
        try:
            yield
        finally:
            setns(home, NETWORK)
    finally:
        os.close(home)


def loopback_up() -> None:
    """Bring `lo` up if it is down, as it is in every new network namespace."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        answer = fcntl.ioctl(any_socket, _SIOCGIFFLAGS, _IFREQ.pack(b"lo", 0))
        flags = _IFREQ.unpack(answer)[1]
        if not flags & _IFF_UP:
            fcntl.ioctl(any_socket, _SIOCSIFFLAGS, _IFREQ.pack(b"lo", flags | _IFF_UP))
