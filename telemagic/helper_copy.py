"""The root-owned copy of netd: what is in it, whether it may be trusted, how it is put there and taken away.

In a virtual environment of the user's, what sudo runs is a file that the user can change. A copy that belongs to root,
with an interpreter that does, makes it possible to permit netd, and nothing else, without a password. It has netd, the
few modules of ours that it needs, pyroute2 and jeepney; its interpreter imports from there and from its own library only
(``-I -S``).

What a connect runs, by the copy's state:

=======  =============================================================================================
absent   netd of this environment, by sudo, with its password
ready    the copy: it is the same code as this environment's
other    as absent: the copy is of an older or newer version; `status` and `doctor` say so
unsafe   nothing: somebody but root can change it, or did. Connecting is refused until it is put right
=======  =============================================================================================
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import os
import re
import shutil
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from telehelper import __version__, errors
from telehelper.errors import HelperMissing, HelperRefused

if TYPE_CHECKING:
    from collections.abc import Iterator

DIRECTORY: Final = Path("/usr/local/libexec/telemagic")
PROGRAM: Final = "netd"
MANIFEST: Final = "manifest.json"
PYTHONS: Final = ("python3", "python3.14", "python3.13", "python3.12", "python3.11")
OLDEST: Final = (3, 11)
OURS: Final = ("__init__", "codec", "errors", "messages")  # of telehelper, besides netd/
THEIRS: Final = ("pyroute2", "jeepney")

ABSENT, READY, OTHER, UNSAFE = "absent", "ready", "other", "unsafe"

_PROGRAM: Final = """\
#!{python} -ISB
import sys

sys.path.insert(0, "{directory}/lib")
from telehelper.netd.main import main

sys.exit(main())
"""

# Root runs this, with a tar archive on standard input. What was there stays until the new one is complete.
# With programs of the system's own, should sudo have kept the user's PATH.
_BEGIN: Final = """\
set -eu
PATH=/usr/sbin:/usr/bin:/sbin:/bin:/run/current-system/sw/bin
export PATH
echo begun
"""
INSTALL: Final = f"""{_BEGIN}\
umask 022
directory=$1 python=$2
mkdir -p "${{directory%/*}}"
new=$directory.new-$$
trap 'rm -rf "$new"' EXIT
mkdir "$new"
tar -x -f - -C "$new" --no-same-owner --no-same-permissions
"$python" -IS -m compileall -q -s "$new" -p "$directory" "$new/lib"
rm -rf "$directory"
mv "$new" "$directory"
"""
UNINSTALL: Final = f"""{_BEGIN}\
rm -rf "$1"
rmdir "${{1%/*}}" 2>/dev/null || true
"""

SUDOERS: Final = """\
To connect without a password, put this one line into a file of its own (sudo visudo -f /etc/sudoers.d/telemagic):

    {user} ALL=(root) NOPASSWD: {program} ""

What it gives away: every program that runs as {user} can then, unasked, make a TUN interface, have networks routed
to it and have names answered behind it, as far as SECURITY.md says, and nothing else. The empty "" means that no
argument can be added. Never write such a line for a Python, or for anything in a directory of {user}'s own: whoever can
change what it runs is root. If {user} is removed or telemagic is uninstalled, remove the line too."""


@dataclass(frozen=True, slots=True)
class Copy:
    """What was found. ``problem``: why it is not ready, in one line."""

    state: str
    version: str = ""
    problem: str = ""


def look(directory: Path = DIRECTORY, *, owner: int = 0) -> Copy:
    """Look at the copy, without running it. ``owner``: whom it must belong to; tests have no other root.

    Its security does not hang on this look: what only root can change does not change after it.
    """
    if not os.path.lexists(directory):
        return Copy(ABSENT)
    try:
        problem = unsafe_above(directory, owner=owner) or _unsafe_inside(directory, owner)
        if problem:
            return Copy(UNSAFE, problem=problem)
        manifest = json.loads((directory / MANIFEST).read_text())
        version, files, python = manifest["version"], manifest["files"], manifest["python"]
        program = (directory / PROGRAM).read_text()
    except (OSError, ValueError, KeyError, TypeError) as error:
        return Copy(UNSAFE, problem=f"{directory} is not whole: {error}")
    if program != _program(Path(python), directory) or files != _digest(_sources(directory / "lib")):
        return Copy(UNSAFE, version, f"{directory} is not as it was installed")
    if owner == 0 and (problem := unsafe_above(Path(os.path.realpath(python)))):
        return Copy(UNSAFE, version, problem)
    if (version, manifest.get("code")) != (__version__, _digest(own_sources())):
        which = "of other code" if version == __version__ else "another version"
        return Copy(OTHER, version, f"the copy in {directory} is {version}, {which} than {__version__}")
    return Copy(READY, version)


def command(directory: Path = DIRECTORY) -> list[str] | None:
    """Return how to run the copy, or None to run this environment's netd; by the table above.

    Raises
    ------
    HelperRefused
        The copy is unsafe.
    """
    found = look(directory)
    if found.state == UNSAFE:
        raise HelperRefused(
            f"the root-owned copy of netd is not to be trusted: {found.problem}",
            hint="telemagic helper install puts it right, telemagic helper uninstall removes it",
        )
    return [str(directory / PROGRAM)] if found.state == READY else None


# --- whom files belong to ----------------------------------------------------------------------------------------


def unsafe_above(path: Path, *, owner: int = 0) -> str:
    """Return why others than root could change what is at a path, by any directory above it; empty if nobody can."""
    real = Path(os.path.realpath(path))
    for part in dict.fromkeys((path, *path.parents, real, *real.parents)):
        problem = _unsafe(part, (0, owner), link=True, sticky=part not in (path, real))
        if problem:
            return problem
    return ""


def _unsafe(path: Path, owners: tuple[int, ...], *, link: bool = False, sticky: bool = False) -> str:
    """Look at one file. ``link``: it may be a link; ``sticky``: it may be a directory like /tmp, above others."""
    found = os.lstat(path)
    if found.st_uid not in owners:
        return f"{path} belongs to uid {found.st_uid}"
    if stat.S_ISLNK(found.st_mode):
        return "" if link else f"{path} is a symbolic link"
    if sticky and found.st_mode & stat.S_ISVTX:
        return ""  # what is in there can be moved by its owner only
    if found.st_mode & stat.S_IWOTH:
        return f"{path} is writable by everybody"
    if found.st_mode & stat.S_IWGRP and found.st_gid not in owners:
        return f"{path} is writable by group {found.st_gid}"
    return ""


def _unsafe_inside(directory: Path, owner: int) -> str:
    for folder, folders, files in os.walk(directory):
        for name in (*folders, *files):
            problem = _unsafe(Path(folder, name), (owner,))
            if problem:
                return problem
    return ""


# --- making it ---------------------------------------------------------------------------------------------------


def own_sources() -> dict[str, bytes]:
    """Return our part of the copy, by the path below ``lib``."""
    root = Path(errors.__file__).parent
    files = [*(root / f"{name}.py" for name in OURS), *sorted((root / "netd").glob("*.py"))]
    return {
        f"telehelper/{path.relative_to(root)}": path.read_bytes() for path in files if path.name != "fakes.py"
    }


def _their_sources() -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for name in THEIRS:
        spec = importlib.util.find_spec(name)  # not imported: the kernel stays light
        if spec is None or spec.origin is None:
            raise HelperMissing(f"the package {name} is not installed here", hint=f"pip install {name}")
        root = Path(spec.origin).parent
        found |= {
            f"{name}/{path.relative_to(root)}": path.read_bytes() for path in sorted(root.rglob("*.py"))
        }
    return found


def _sources(library: Path) -> dict[str, bytes]:
    return {str(path.relative_to(library)): path.read_bytes() for path in sorted(library.rglob("*.py"))}


def _digest(sources: dict[str, bytes]) -> str:
    whole = hashlib.sha256()
    for name in sorted(sources):
        whole.update(f"{name}\0{len(sources[name])}\0".encode() + sources[name])
    return whole.hexdigest()


def _program(python: Path, directory: Path) -> str:
    return _PROGRAM.format(python=python, directory=directory)


def pack(python: Path, directory: Path = DIRECTORY) -> bytes:
    """Return the copy as a tar archive, for an interpreter and a place."""
    import tarfile  # late: nothing else needs it, and this module is loaded with the magics

    own = own_sources()
    sources = own | _their_sources()
    manifest: dict[str, Any] = {
        "version": __version__,
        "code": _digest(own),
        "files": _digest(sources),
        "python": str(python),
    }
    files = {f"lib/{name}": data for name, data in sources.items()}
    files |= {MANIFEST: json.dumps(manifest).encode(), PROGRAM: _program(python, directory).encode()}
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o755 if name == PROGRAM else 0o644
            archive.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def check_place(directory: Path = DIRECTORY, *, owner: int = 0) -> None:
    """See that the directory can be root's alone, before anything is put there.

    Raises
    ------
    HelperRefused
        Somebody else can change a directory above it.
    """
    there = next(parent for parent in directory.parents if parent.exists())
    if problem := unsafe_above(there, owner=owner):
        raise HelperRefused(
            f"{directory} would not be root's alone: {problem}",
            hint=f"have it changed so that only root can write there: ls -ld {there}",
        )


def find_python() -> Path:
    """Return an interpreter that only root can change, with its library.

    Raises
    ------
    HelperMissing
        There is none that is new enough; the message says what is wrong with the best one.
    """
    problems: list[str] = []
    for path in _pythons():
        problem = _unfit(path)
        if not problem:
            return path
        problems.append(problem)
    raise HelperMissing(
        f"no Python of root's that is {OLDEST[0]}.{OLDEST[1]} or later: {problems[0] if problems else 'there is none'}",
        hint="install the system's own, as by: sudo apt install python3",
    )


def _pythons() -> Iterator[Path]:
    found = [path for name in PYTHONS if (path := _which(name))]
    yield from dict.fromkeys(Path(os.path.realpath(path)) for path in (*found, sys.executable))


def _which(name: str) -> str | None:
    return shutil.which(name, path="/usr/bin:/usr/local/bin:/bin")


def _unfit(python: Path) -> str:
    if problem := unsafe_above(python):
        return problem
    asked = "import os, sys; print(sys.version_info[:2] >= (3, 11), os.path.realpath(os.__file__))"
    done = subprocess.run([python, "-ISc", asked], capture_output=True, text=True, check=False)  # noqa: S603  # root's
    answer = re.fullmatch(r"(True|False) (.+)\n", done.stdout)
    if answer is None or answer[1] == "False":
        return f"{python} is too old"
    return unsafe_above(Path(answer[2]))
