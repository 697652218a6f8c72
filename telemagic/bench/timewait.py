"""Connections that were closed keep their port for a minute (TIME_WAIT), and connecting gets slow as ports run out.

Who closes first keeps the port: here, and where a proxy closes on our behalf. One address has 28,232 ports to another
by default; when half are taken, connect(2) goes through thousands to find one: 28,000 connections/s become 450. In a
network namespace of our own the number kept can be limited; what is over is let go at once.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

LIMIT: Final = 1000
_LIMIT_FILE: Final = Path("/proc/sys/net/ipv4/tcp_max_tw_buckets")
_COUNT_FILE: Final = Path("/proc/net/sockstat")


def limit() -> None:
    """Keep no more than `LIMIT`, in the network namespace of the calling thread; never call it in the machine's own."""
    _LIMIT_FILE.write_text(str(LIMIT))


def count() -> int:
    """Return how many there are in this network namespace."""
    found = re.search(r"^TCP:.* tw (\d+)", _COUNT_FILE.read_text(), re.MULTILINE)
    return int(found[1]) if found else 0
