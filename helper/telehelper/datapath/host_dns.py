"""Which DNS this machine uses by itself: the nameservers for names that are not ours, and its own search names."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Final

from telehelper.core.resolv_conf import ResolvConf, parse_resolv_conf

PATH: Final = Path("/etc/resolv.conf")
STUB: Final = "127.0.0.53"  # systemd-resolved; it will read our file and send everything back to us, so:
UPLINKS: Final = Path("/run/systemd/resolve/resolv.conf")  # … ask the servers it uses itself
MAX_SEARCH: Final = 6  # names in all; what glibc before 2.26 and musl take, and netd permits
_WAS: Final = re.compile(r"# telemagic netd [^\n]*\n# was (\{.*\})\n")
_NAME: Final = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)(\.(?!-)[a-z0-9_-]{1,63}(?<!-))*")  # what netd permits


def read_host_dns(ours: str = "", path: Path = PATH, uplinks: Path = UPLINKS) -> ResolvConf:
    """Read the machine's configuration; call before it is changed.

    Parameters
    ----------
    ours
        Our own resolver's address, which is never its own upstream; empty while it has none.

    Where the file in force is ours, what it replaced is read: that of another connection below it too.

    Returns
    -------
    ResolvConf
        Nameservers never include systemd-resolved's stub where that can be avoided; search names have no final dot.
    """
    text = find_layer(ours, path) if ours else None
    found = parse_resolv_conf(_read(path) if text is None else text)
    servers = found.nameservers
    if servers == (STUB,):
        servers = parse_resolv_conf(_read(uplinks)).nameservers or servers
    names = (name.rstrip(".") for name in found.search)
    return ResolvConf(
        tuple(server for server in servers if server != ours),
        tuple(name for name in names if len(name) <= 253 and _NAME.fullmatch(name)),
    )


def find_layer(ours: str, path: Path = PATH) -> str | None:
    """Return what the file with our nameserver replaced, be that in force or below others; None if it is not there.

    Each connection's file carries the one before it (`netd/resolvconf.py`).
    """
    text = _read(path)
    while carried := _WAS.match(text):
        try:
            was = json.loads(carried[1])
            below = str(was["text"]) if was["kind"] == "file" else _read(path.parent / str(was["text"]))
        except (ValueError, KeyError, TypeError):
            return None
        if parse_resolv_conf(text).nameservers == (ours,):
            return below
        text = below
    return None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="latin-1")
    except OSError:
        return ""
