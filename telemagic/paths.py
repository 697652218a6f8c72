"""The private directory that holds this user's sockets."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from telehelper.errors import HelperMissing

SOCKET_PATH_LIMIT: Final = 107  # bytes; sun_path of unix(7) is 108 with its final NUL


def runtime_dir() -> Path:
    """Return the directory for sockets, made if it is not there.

    `$TELEMAGIC_RUNTIME_DIR`, else `$XDG_RUNTIME_DIR/telemagic`, else `/tmp/telemagic-<uid>`. Whoever can write to
    it can pose as the helper, so it must be a real directory, ours, and closed to everybody else (mode 0700).

    Raises
    ------
    HelperMissing
        The directory cannot be made, or is not private.
    """
    path = runtime_path()
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.lstat()
    except OSError as error:
        raise HelperMissing(
            f"the runtime directory {path} cannot be made: {error.strerror}",
            hint="point TELEMAGIC_RUNTIME_DIR at a private directory of yours",
        ) from error
    _check(path, found)
    return path


def runtime_path() -> Path:
    """Return where the directory is, or would be; touches nothing."""
    chosen = os.environ.get("TELEMAGIC_RUNTIME_DIR")
    if chosen:
        return Path(chosen).absolute()
    session = os.environ.get("XDG_RUNTIME_DIR")
    # After `su` or in a container the variable may still name another user's, or a missing, directory.
    if session and os.access(session, os.W_OK | os.X_OK) and Path(session).stat().st_uid == os.getuid():
        return Path(session).absolute() / "telemagic"
    return Path(f"/tmp/telemagic-{os.getuid()}")  # noqa: S108  # checked for owner, type and mode below


def _check(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISDIR(found.st_mode):  # lstat: a symlink is refused too
        raise HelperMissing(f"{path} is not a directory", hint=f"look at it, then: rm {path}")
    if found.st_uid != os.getuid():
        raise HelperMissing(
            f"{path} belongs to uid {found.st_uid}, not to you",
            hint="point TELEMAGIC_RUNTIME_DIR at a private directory of yours",
        )
    if not os.access(path, os.W_OK | os.X_OK):
        raise HelperMissing(
            f"{path} cannot be written to: a read-only file system, or its mode",
            hint="point TELEMAGIC_RUNTIME_DIR at a private directory of yours",
        )
    if stat.S_IMODE(found.st_mode) & 0o077:
        raise HelperMissing(
            f"{path} is open to other users (mode {stat.S_IMODE(found.st_mode):04o})",
            hint=f"chmod 700 {path}",
        )


def socket_path(key: str) -> Path:
    """Return the path of the control socket with this key.

    Raises
    ------
    HelperMissing
        The runtime directory is refused, or its path is too long for a Unix socket.
    """
    path = runtime_dir() / f"{key}.sock"
    if len(os.fsencode(path)) > SOCKET_PATH_LIMIT:
        raise HelperMissing(
            f"{path} is longer than the {SOCKET_PATH_LIMIT} bytes a Unix socket's path may have",
            hint="point TELEMAGIC_RUNTIME_DIR at a directory with a shorter path",
        )
    return path
