"""Pairs of virtual Ethernet links, for sandboxes."""

from __future__ import annotations

import json
import subprocess
import time
from typing import Final

WITHIN: Final = 5.0  # seconds


def cable(one: str, other: str) -> None:
    """Make two links that are connected to each other, and wait until the kernel calls both up.

    It notes a moment after the command that there is a carrier (RFC 2863 §3.1.12, operational state), which who
    compares the machine before and after would take for a change. They have no link-local address, whose checking would
    be seen as a change, too.

    Raises:
        TimeoutError: They did not come up within five seconds.
    """
    subprocess.run(["ip", "link", "add", one, "type", "veth", "peer", "name", other], check=True)
    for name in (one, other):
        subprocess.run(["ip", "link", "set", name, "addrgenmode", "none", "up"], check=True)
    deadline = time.monotonic() + WITHIN
    while {_operational_state(name) for name in (one, other)} != {"UP"}:
        if time.monotonic() > deadline:
            message = f"{one} and {other} did not come up within {WITHIN:g} s"
            raise TimeoutError(message)
        time.sleep(0.005)


def _operational_state(name: str) -> str:
    # Not /sys/class/net: that is of the network namespace that /sys was mounted in.
    (link,) = json.loads(subprocess.check_output(["ip", "-json", "link", "show", "dev", name]))
    return str(link["operstate"])
