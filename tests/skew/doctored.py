"""A process of ours that says it is of another version: `python -P doctored.py telehelper.datapath OPTIONS…`.

TELEMAGIC_SKEW holds what is changed, as words NAME=VALUE: protocol (control sockets), mux (carriers and the session), version
(of the distribution). The word after the script's name makes the process known as what it is.
"""

from __future__ import annotations

import os
import sys


def doctor(changes: str) -> None:
    """Change versions, before anybody has copied them."""
    import telehelper
    from telehelper import messages
    from telehelper.core import frames

    for name, _, value in (change.partition("=") for change in changes.split()):
        if name == "protocol":
            messages.PROTOCOL_VERSION = int(value)  # type: ignore[misc]
        elif name == "mux":
            frames.VERSION = int(value)  # type: ignore[misc]
            frames.SPOKEN = (int(value),)  # type: ignore[attr-defined]  # of manager and near side, where there are several
        else:
            telehelper.__version__ = value


def main() -> int:
    """Be that process."""
    doctor(os.environ.get("TELEMAGIC_SKEW", ""))
    if sys.argv[1] == "telehelper.netd":
        from telehelper.netd.main import main as netd

        return netd()
    from telehelper.datapath.main import main as datapath

    return datapath(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
