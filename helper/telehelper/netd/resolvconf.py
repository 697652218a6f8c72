"""Pointing /etc/resolv.conf at us and back; the file in force is its own undo journal.

What we put there starts with a line that says which netd wrote it, and carries what it replaced as a comment. So
whoever finds it, this netd, its guardian or any later netd, can put the old file back without other state: there is
no journal to lose at a power cut, and nothing else to clean up. A file without our line was rewritten by somebody
else (NetworkManager, dhclient) after us; it is newer and right, so it stays.

A regular file is rewritten in place in one write: that keeps owner, mode and label, and is the only way for a bind
mount, as in containers, where rename(2) gives EBUSY. A symbolic link (systemd-resolved) is replaced by rename, never
written through. glibc ≥ 2.26 notices either at the next lookup.

Several connections stack: a second one finds the first's file and replaces it like any other, so its upstream is the
first's resolver. Each file carries all that is below it, and whoever leaves, from the top or from between, takes out its
own layer only; data planes see the file change and read anew what is below theirs. A lock on the directory keeps two
netds from rewriting at once: it needs no file and goes with the process.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

from telehelper.errors import ResolverError
from telehelper.messages import SetDns

PATH: Final = Path("/etc/resolv.conf")
LOCK_TRIES, LOCK_PAUSE = 100, 0.02  # how often and how many seconds apart; rewriting takes 1 ms
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


class Layer(NamedTuple):
    """One connection's file: whose it is, what it replaced, and what it says."""

    owner: Owner
    former: Former
    body: str

    def text(self) -> str:
        """Return the file."""
        mark, was = " ".join(map(str, self.owner)), json.dumps(self.former._asdict())
        return f"# telemagic netd {mark}\n# was {was}\n{self.body}"


def render(order: SetDns) -> str:
    """Write what our file says; the order's values were checked (`permits.py`)."""
    search = f"search {' '.join(order.search)}\n" if order.search else ""
    return (
        "# Put here by %tele connect, taken away by %tele disconnect. Left over? The next connect repairs it.\n"
        f"nameserver {order.nameserver}\n{search}options ndots:{order.ndots} timeout:1 attempts:3\n"
    )


def layers(text: str) -> list[Layer]:
    """Read the connections' files out of the one in force, the uppermost first."""
    found: list[Layer] = []
    while mark := _MARK.match(text):
        try:
            was = json.loads(mark[4])
            former = Former(str(was["kind"]), str(was["text"]))
        except (ValueError, KeyError):
            break  # edited by hand: no longer ours
        found.append(Layer(Owner(int(mark[1]), int(mark[2]), mark[3]), former, text[mark.end() :]))
        text = former.text if former.kind == "file" else ""
    return found


def without(stack: list[Layer], is_gone: Callable[[Owner], bool]) -> Former:
    """Return what is to be there when some layers are taken out of a stack that is not empty."""
    rest = stack[-1].former
    for layer in reversed(stack):
        if not is_gone(layer.owner):
            rest = Former("file", layer._replace(former=rest).text())
    return rest


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

    def read(self) -> str:
        """Return what the file says, empty if there is none."""
        try:
            with open(self._path, "rb") as file:
                return file.read(MAX_FILE + 1).decode("latin-1")
        except FileNotFoundError:
            return ""

    def heal(self) -> bool:
        """Take out what netds that are dead left behind; True if there was something."""
        return self._take_out(lambda owner: Owner.of(owner.pid, self._proc) != owner)

    def point(self, order: SetDns) -> None:
        """Put our file there, or raise ResolverError: it cannot be written."""
        try:
            with self._locked():
                stack = layers(self.read())
                was = without(stack, self._owner.__eq__) if stack else self._former()
                data = Layer(self._owner, was, render(order)).text().encode("latin-1")
                if len(data) > MAX_FILE:
                    raise ResolverError(f"{self._path} is longer than {MAX_FILE} bytes")
                self._put(data)
        except OSError as error:
            hint = f"look at: lsattr {self._path}; mount | grep resolv"
            raise ResolverError(f"cannot write {self._path}: {error.strerror}", hint=hint) from error

    def restore(self) -> bool:
        """Take our layer out of the file if it is still there; True if so. Raises OSError."""
        self._temporary.unlink(missing_ok=True)  # of a process killed between writing and renaming
        return self._take_out(self._owner.__eq__)

    def _take_out(self, is_gone: Callable[[Owner], bool]) -> bool:
        with self._locked():
            stack = layers(self.read())
            found = any(is_gone(layer.owner) for layer in stack)
            if found:
                self._put_back(without(stack, is_gone))
            return found

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other netds out. One that is stuck inside is not waited for long: rather two writers than no undo."""
        directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for _ in range(LOCK_TRIES):
                try:
                    fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    time.sleep(LOCK_PAUSE)
            yield
        finally:
            os.close(directory)

    def _former(self) -> Former:
        if self._path.is_symlink():
            return Former("link", os.readlink(self._path))
        return Former("file", self.read()) if self._path.exists() else Former("absent")

    def _put(self, data: bytes) -> None:
        replaced = self._path.is_symlink() or not self._path.exists()
        if replaced:
            fd = os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            mode = 0o644  # whatever the umask
        else:
            mode = stat.S_IMODE(os.stat(self._path).st_mode)
            with suppress(PermissionError):  # another's: then its mode must do
                os.chmod(
                    self._path, mode | stat.S_IWUSR
                )  # a read-only one is closed even to root without capabilities
            fd = os.open(self._path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            with suppress(PermissionError):
                os.fchmod(fd, mode)
            os.write(fd, data)  # first all of the new, then the end: no reader meets an empty file
            os.ftruncate(fd, len(data))
        finally:
            os.close(fd)
        if replaced:
            os.rename(self._temporary, self._path)

    def _put_back(self, former: Former) -> None:
        if former.kind == "file":
            self._put(former.text.encode("latin-1"))
        elif former.kind == "link":
            self._temporary.unlink(missing_ok=True)
            os.symlink(former.text, self._temporary)
            os.rename(self._temporary, self._path)
        else:
            self._path.unlink(missing_ok=True)
