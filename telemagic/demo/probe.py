"""What a TUN interface can offload on this machine, found by making one: `python -m telemagic.demo.probe`.

In user and network namespaces of its own, so it needs no root, and nobody else sees the interface. Prints one JSON
object. ``namespaces`` and ``tun`` are empty, or say what is wrong as [message, hint]; ``offload`` has the TUN_F_* bits
(linux/if_tun.h) that netd would get.
"""

from __future__ import annotations

import json
import os

from telehelper.errors import TelemagicError
from telehelper.netd.vif import open_vif

from telemagic.demo import namespaces


def look() -> dict[str, object]:
    """Leave the caller's namespaces, for good, and look."""
    found: dict[str, object] = {"namespaces": [], "tun": [], "offload": 0}
    try:
        namespaces.become_root_inside(namespaces.NETWORK)
    except TelemagicError as error:
        found["namespaces"] = [error.message, error.hint]
        if os.geteuid():
            return found | {"tun": ["it takes a namespace to try", ""]}
        namespaces.unshare(namespaces.NETWORK)  # root needs no user namespace for it
    try:
        vif = open_vif()
    except TelemagicError as error:
        return found | {"tun": [error.message, error.hint]}
    os.close(vif.fd)
    return found | {"offload": vif.offload}


if __name__ == "__main__":
    print(json.dumps(look()))  # noqa: T201  # the parent reads it
