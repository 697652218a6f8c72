"""The host's resolver, pointed at us by the mechanism that fits: `resolvconf` or `none`."""

from __future__ import annotations

import errno
import fcntl
import os
from typing import TYPE_CHECKING, Final

from telehelper.errors import ResolverError
from telehelper.netd.guardian import Guardian

if TYPE_CHECKING:
    from collections.abc import Callable

    from telehelper.messages import SetDns
    from telehelper.netd.resolvconf import ResolvConf

NS_GET_USERNS: Final = 0xB701  # ioctl_ns(2)


def owns_files(proc: str = "/proc", ioctl: Callable[[int, int], int] = fcntl.ioctl) -> bool:
    """Whether /etc belongs to the network namespace we are in, and not to a machine outside it.

    With `unshare -Urn` or `unshare -n` the network is a private one and /etc still the machine's: writing there would
    break names for everybody. Ask before dropping capabilities: /proc/1/ns cannot be read afterwards.
    """
    mounts = os.open(f"{proc}/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.close(ioctl(mounts, NS_GET_USERNS))
    except OSError as error:
        if error.errno == errno.EPERM:  # of a user namespace above ours
            return False
    finally:
        os.close(mounts)
    try:
        same = {
            kind: os.readlink(f"{proc}/self/ns/{kind}") == os.readlink(f"{proc}/1/ns/{kind}")
            for kind in ("net", "mnt")
        }
    except OSError:  # process 1 is not ours to look at: we are in a user namespace with mounts of its own
        return True
    return same["net"] or not same["mnt"]


class HostResolver:
    """`Resolver` of the monitor on a real file, with a guardian from before the first change on."""

    def __init__(self, conf: ResolvConf, *, owned: bool) -> None:
        self._conf = conf
        self._owned = owned
        self._guardian: Guardian | None = None

    def set(self, order: SetDns) -> str:
        """Point the host at ``order.nameserver`` if that is wanted and possible; the mechanism, or ResolverError."""
        usable = self._owned and self._conf.is_writable()
        if order.mechanism == "none" or (order.mechanism == "auto" and not usable):
            return "none"
        if not self._owned:
            raise ResolverError("/etc/resolv.conf is shared with a network outside this namespace")
        self._guardian = Guardian(self._conf.restore)
        self._conf.point(order)
        return "resolvconf"

    def undo(self) -> None:
        """Put the old file back and let the guardian go. Raises OSError."""
        guardian, self._guardian = self._guardian, None
        if guardian is None:
            return
        try:
            self._conf.restore()
        finally:
            guardian.dismiss()
