"""Which DNS this machine uses by itself: the nameservers for names that are not ours, and its own search names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from telehelper.core.resolv_conf import ResolvConf, parse_resolv_conf

PATH: Final = Path("/etc/resolv.conf")
STUB: Final = "127.0.0.53"  # systemd-resolved; it will read our file and send everything back to us, so:
UPLINKS: Final = Path("/run/systemd/resolve/resolv.conf")  # … ask the servers it uses itself
MAX_SEARCH: Final = 6  # names in all; what glibc before 2.26 and musl take, and netd permits
_NAME: Final = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)(\.(?!-)[a-z0-9_-]{1,63}(?<!-))*")  # what netd permits


def read_host_dns(ours: str = "", path: Path = PATH, uplinks: Path = UPLINKS) -> ResolvConf:
    """Read the machine's configuration; call before it is changed.

    Parameters
    ----------
    ours
        Our own resolver's address, which is never its own upstream; empty while it has none.

    Returns
    -------
    ResolvConf
        Nameservers never include systemd-resolved's stub where that can be avoided; search names have no final dot.
    """
    found = parse_resolv_conf(_read(path))
    servers = found.nameservers
    if servers == (STUB,):
        servers = parse_resolv_conf(_read(uplinks)).nameservers or servers
    names = (name.rstrip(".") for name in found.search)
    return ResolvConf(
        tuple(server for server in servers if server != ours),
        tuple(name for name in names if len(name) <= 253 and _NAME.fullmatch(name)),
    )


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="latin-1")
    except OSError:
        return ""
