"""A place to try things in: a network of its own with nothing in it, and an /etc that is private.

What runs inside is root of its own user namespace, so it may make TUN interfaces, set routes and rewrite
/etc/resolv.conf, and none of it is seen outside. There is no default route: what telemagic does not carry goes
nowhere.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from telemagic.demo import namespaces

_RESOLV_CONF = """\
# private to this shell; no name server until telemagic connects
options timeout:1 attempts:1
"""


def enter() -> None:
    """Move this process, which must have one thread, into a sandbox of its own.

    Raises
    ------
    HelperMissing
        The machine does not let the user make namespaces.
    """
    namespaces.become_root_inside(namespaces.NETWORK | namespaces.MOUNT)
    namespaces.mount("none", "/", flags=namespaces.MS_REC | namespaces.MS_PRIVATE)
    namespaces.loopback_up()
    scratch = Path(tempfile.mkdtemp(prefix="telemagic-etc-"))
    namespaces.mount("tmpfs", scratch, "tmpfs", namespaces.MS_NOSUID | namespaces.MS_NODEV, "mode=0755")
    try:
        _private_etc(scratch)
    finally:
        namespaces.unmount_lazily(scratch)
        scratch.rmdir()


def _private_etc(scratch: Path) -> None:
    etc = Path("/etc")
    files = {etc / "resolv.conf": _RESOLV_CONF, etc / "nsswitch.conf": _only_files_and_dns()}
    try:
        _overlay(etc, scratch)
    except OSError:
        # Before Linux 5.11 only real root may mount an overlay; then single files do, in place.
        for number, (path, text) in enumerate(files.items()):
            copy = scratch / str(number)
            copy.write_text(text)
            namespaces.mount(str(copy), path.resolve(), flags=namespaces.MS_BIND)
        return
    for path, text in files.items():
        path.unlink(missing_ok=True)  # often a symbolic link out of /etc, to a file of the machine
        path.write_text(text)


def _overlay(lower: Path, scratch: Path) -> None:
    upper, work = scratch / "upper", scratch / "work"
    upper.mkdir()
    work.mkdir()
    namespaces.mount(
        "overlay", lower, "overlay", options=f"lowerdir={lower},upperdir={upper},workdir={work},userxattr"
    )


def _only_files_and_dns() -> str:
    """Return nsswitch.conf without resolvers that live outside, such as nss-resolve: they see another network."""
    try:
        text = Path("/etc/nsswitch.conf").read_text()
    except FileNotFoundError:
        text = ""
    kept = re.sub(r"(?m)^hosts:.*\n?", "", text)
    return f"{kept.rstrip()}\nhosts: files dns\n"
