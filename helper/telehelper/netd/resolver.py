"""The host's resolver, pointed at us by the mechanism that fits: `resolved`, `resolvconf` or `none`."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable
from typing import Final

from telehelper.errors import ResolverError
from telehelper.messages import SetDns
from telehelper.netd.guardian import Guardian
from telehelper.netd.resolvconf import ResolvConf
from telehelper.netd.resolved import Resolved, leads_here

NS_GET_USERNS: Final = 0xB701  # ioctl_ns(2)


def owns_files(proc: str = "/proc", ioctl: Callable[[int, int], int] = fcntl.ioctl) -> bool:
    """Whether /etc belongs to the network namespace we are in, and not to a machine outside it.

    With `unshare -Urn` or `unshare -n` the network is a private one and /etc still the machine's: writing there would
    break names for everybody. Ask before dropping capabilities: /proc/1/ns cannot be read afterwards.
    """
    with open(f"{proc}/self/ns/mnt", "rb") as mounts:
        try:
            os.close(ioctl(mounts.fileno(), NS_GET_USERNS))
        except OSError as error:
            if error.errno == errno.EPERM:  # of a user namespace above ours
                return False
    try:
        net, mnt = (
            os.readlink(f"{proc}/self/{ns}") == os.readlink(f"{proc}/1/{ns}") for ns in ("ns/net", "ns/mnt")
        )
    except OSError:  # process 1 is not ours to look at: we are in a user namespace with mounts of its own
        return True
    return net or not mnt


class HostResolver:
    """What netd does to names on the real machine; the file with a guardian from before the first change on.

    May be set again: the same mechanism once more, since somebody overwrote it, or another one instead.
    """

    def __init__(self, conf: ResolvConf, *, owned: bool, resolved: Resolved | None = None) -> None:
        self._conf, self._owned = conf, owned
        self._resolved = resolved or Resolved()
        self._guardian: Guardian | None = None
        self._in_force = "none"

    def set(self, order: SetDns, index: int) -> str:
        """Point the host at ``order.nameserver``, behind this interface; the mechanism in force, or ResolverError."""
        for mechanism in self._possible(order) if order.mechanism == "auto" else [order.mechanism]:
            if mechanism != self._in_force:
                self.undo()
            try:
                self._use(mechanism, order, index)
            except ResolverError:
                if order.mechanism != "auto":
                    raise
            else:
                self._in_force = mechanism
                return mechanism
        raise AssertionError("'none' is always possible")

    def _possible(self, order: SetDns) -> list[str]:
        """List what may work here, first what changes least."""
        if not self._owned:
            return ["none"]
        by_bus = order.domains and leads_here(self._conf.read())
        return [*(["resolved"] if by_bus else []), "resolvconf", "none"]

    def _use(self, mechanism: str, order: SetDns, index: int) -> None:
        if mechanism == "none":
            return
        if not self._owned:  # its systemd-resolved would take our interface's number for another's
            raise ResolverError("/etc/resolv.conf is shared with a network outside this namespace")
        if mechanism == "resolved":
            self._resolved.point(index, order)
        else:
            self._take_file(order)

    def _take_file(self, order: SetDns) -> None:
        guardian = self._guardian or Guardian(self._conf.restore)
        try:
            self._conf.point(order)
            self._guardian = guardian
        finally:
            if self._guardian is None:
                guardian.dismiss()  # it restores, should half have been done

    def undo(self) -> None:
        """Put everything back and let the guardian go. Raises OSError or ResolverError."""
        in_force, self._in_force = self._in_force, "none"
        guardian, self._guardian = self._guardian, None
        if guardian is not None:
            try:
                self._conf.restore()
            finally:
                guardian.dismiss()
        if in_force == "resolved":
            self._resolved.revert()
