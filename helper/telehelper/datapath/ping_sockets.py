"""Whose an ICMP echo is, as far as it can be known: sock_diag knows no ping sockets, /proc/net lists them.

A ping socket (icmp(7), IPPROTO_ICMP) owns its identifier, so its owner is certain. A raw socket owns nothing: the
program writes what it likes. Making one takes CAP_NET_RAW, which root has, and where ping sockets are not allowed
(sysctl net.ipv4.ping_group_range) the program `ping`, for everybody. So of raw sockets it is only known whose there are.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from telehelper.datapath.sock_diag import Socket

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from telehelper.core.frames import Address

# Bytes of a table: some 500 sockets, beyond that nothing is found. The kernel goes through the table from its start for each
# page that is read: 64 KiB take 0.6 ms, 256 KiB 8 ms.
MAX_SIZE: Final = 64 * 1024
_TABLES: Final = {4: ("icmp", "raw"), 6: ("icmp6", "raw6")}
_ICMP: Final = {4: 1, 6: 58}  # protocol numbers
_ANY_HEADER: Final = 255  # IPPROTO_RAW: the program makes the whole packet
_COLUMNS: Final = 10  # of net/ipv4/raw.c and ping.c, as far as they are read: … uid timeout inode


def find_ping(
    src: Address, ident: int, mine: Collection[int], folder: Path = Path("/proc/net")
) -> Socket | None:
    """Return the socket that an echo request came from; None if there is none, or it cannot be told.

    Parameters
    ----------
    src
        The request's source.
    ident
        Its identifier.
    mine
        Uids to be believed in where several raw sockets come into question.
    """
    pings, raws = _TABLES[src.version]
    for number, found in _rows(folder / pings):
        if number == ident:
            return found
    protocols = (_ICMP[src.version], _ANY_HEADER)
    owners = [found for number, found in _rows(folder / raws) if number in protocols]
    trusted = [found for found in owners if found.uid in mine]
    return next(iter(trusted or owners), None)


def _rows(path: Path) -> Iterator[tuple[int, Socket]]:
    """Yield the local port, which is an identifier or a protocol's number, and the socket."""
    try:
        with path.open("rb") as file:
            lines = file.read(MAX_SIZE).splitlines()[1:]
    except OSError:  # no IPv6 here, or no /proc
        return
    for line in lines:
        words = line.split()
        if len(words) >= _COLUMNS:
            yield int(words[1].rpartition(b":")[2], 16), Socket(int(words[7]), int(words[9]))
