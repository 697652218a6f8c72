"""Pointing /etc/resolv.conf at us and back; the file in force is its own undo journal.

What we put there starts with a line that says which netd wrote it, and carries what it replaced as a comment. So
whoever finds it, this netd, its guardian or any later netd, can put the old file back without other state: there is
no journal to lose at a power cut, and nothing else to clean up. A file without our line was rewritten by somebody
else (NetworkManager, dhclient) after us; it is newer and right, so it stays.

A regular file is rewritten in place in one write: that keeps owner, mode and label, and is the only way for a bind
mount, as in containers, where rename(2) gives EBUSY. A symbolic link (systemd-resolved) is replaced by rename, never
written through. glibc ≥ 2.26 notices either at the next lookup.

One connection at a time may hold the file. A second is refused: on top of the first, its upstreams would be the
first's resolver, which dies with the first.
"""

from __future__ import annotations

import json
import os
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from telehelper.errors import ResolverError

if TYPE_CHECKING:
    from telehelper.messages import SetDns

PATH: Final = Path("/etc/resolv.conf")
MAX_FILE: Final = 65536  # bytes; what we are ready to carry as a comment
_MARK: Final = re.compile(r"# telemagic netd (\d+) (\d+) ([0-9a-f-]+)\n# was (\{.*\})\n")


class Owner(NamedTuple):
    """A process, without mistaking a later one with the same pid: start time in clock ticks, boot id."""

    pid: int
    started: int
    boot: str

    @classmethod
    def of(cls, pid: int, proc: Path = Path("/proc")) -> Owner | None:
        """Identify a living process (proc_pid_stat(5)); None if it is dead, or a zombie."""
        try:
            fields = (proc / str(pid) / "stat").read_text().rpartition(")")[2].split()
            boot = (proc / "sys/kernel/random/boot_id").read_text().strip()
        except OSError:
            return None
        return None if fields[0] in "ZX" else cls(pid, int(fields[19]), boot)


class Former(NamedTuple):
    """What was there before: ``kind`` is file (text: content, as Latin-1), link (text: target) or absent."""

    kind: str
    text: str = ""


def render(order: SetDns, owner: Owner, former: Former) -> bytes:
    """Write our file; the order's values were checked (`permits.py`)."""
    lines = [
        f"# telemagic netd {owner.pid} {owner.started} {owner.boot}",
        f"# was {json.dumps(former._asdict())}",
        "# Put here by %tele connect, taken away by %tele disconnect. Left over? The next connect repairs it.",
        f"nameserver {order.nameserver}",
        *([f"search {' '.join(order.search)}"] if order.search else []),
        f"options ndots:{order.ndots} timeout:1 attempts:2",
    ]
    return ("\n".join(lines) + "\n").encode("latin-1")


def _parse_ours(text: str) -> tuple[Owner, Former] | None:
    found = _MARK.match(text)
    if found is None:
        return None
    try:
        was = json.loads(found[4])
        return Owner(int(found[1]), int(found[2]), found[3]), Former(str(was["kind"]), str(was["text"]))
    except (ValueError, KeyError):
        return None  # edited by hand: no longer ours


class ResolvConf:
    """The machine's resolver file, on behalf of one netd."""

    def __init__(self, path: Path = PATH, proc: Path = Path("/proc")) -> None:
        self._path = path
        self._proc = proc
        owner = Owner.of(os.getpid(), proc)
        if owner is None:
            raise ResolverError("/proc is not mounted")
        self._owner = owner
        self._temporary = path.with_name(f".{path.name}.telemagic-{owner.pid}")

    def is_writable(self) -> bool:
        """Whether we could take the file over."""
        return os.access(self._path.parent if self._is_replaced() else self._path, os.W_OK)

    def heal(self) -> bool:
        """Put the old file back if a netd left its own behind; True if so."""
        ours = _parse_ours(self._read())
        if ours is None or Owner.of(ours[0].pid, self._proc) == ours[0]:
            return False
        self._put_back(ours[1])
        return True

    def point(self, order: SetDns) -> None:
        """Put our file there, or raise ResolverError: another connection holds it, or it cannot be written."""
        ours = _parse_ours(self._read())
        if ours is not None:
            raise ResolverError(
                f"another connection (netd {ours[0].pid}) answers for {self._path} already",
                hint="%tele disconnect in that notebook first",
                pid=str(ours[0].pid),
            )
        try:
            self._put(render(order, self._owner, self._former()))
        except OSError as error:
            raise ResolverError(
                f"cannot write {self._path}: {error.strerror}",
                hint=f"look at: lsattr {self._path}; mount | grep resolv",
            ) from error

    def restore(self) -> bool:
        """Put the old file back if ours is still there; True if so. Raises OSError."""
        self._temporary.unlink(missing_ok=True)  # of a process killed between writing and renaming
        ours = _parse_ours(self._read())
        if ours is None or ours[0] != self._owner:
            return False
        self._put_back(ours[1])
        return True

    def _read(self) -> str:
        try:
            with open(self._path, "rb") as file:
                return file.read(MAX_FILE + 1).decode("latin-1")
        except FileNotFoundError:
            return ""

    def _former(self) -> Former:
        try:
            mode = os.lstat(self._path).st_mode
        except FileNotFoundError:
            return Former("absent")
        if stat.S_ISLNK(mode):
            return Former("link", os.readlink(self._path))
        text = self._read()
        if len(text) > MAX_FILE:
            raise ResolverError(f"{self._path} is longer than {MAX_FILE} bytes")
        return Former("file", text)

    def _is_replaced(self) -> bool:
        return self._path.is_symlink() or not self._path.exists()

    def _put(self, data: bytes) -> None:
        if self._is_replaced():
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(self._temporary, flags, 0o644)
            try:
                os.fchmod(fd, 0o644)  # whatever the umask
                os.write(fd, data)
            finally:
                os.close(fd)
            os.rename(self._temporary, self._path)
            return
        fd = os.open(self._path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.write(fd, data)  # first all of the new, then the end: no reader meets an empty file
            os.ftruncate(fd, len(data))
        finally:
            os.close(fd)

    def _put_back(self, former: Former) -> None:
        if former.kind == "file":
            self._put(former.text.encode("latin-1"))
        elif former.kind == "link":
            self._temporary.unlink(missing_ok=True)
            os.symlink(former.text, self._temporary)
            os.rename(self._temporary, self._path)
        else:
            self._path.unlink(missing_ok=True)
