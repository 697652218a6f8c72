"""Become a container's process: `python -m telemagic.demo.enter [--network FD] [--uid N] COMMAND…`.

Moves into a pod's network namespace, and with ``--uid`` into a nested user namespace in which the caller has that
uid, because PostgreSQL refuses to run as uid 0. Then it becomes the command.
"""

from __future__ import annotations

import argparse
import os

from telemagic.demo import namespaces


def main() -> None:
    """Do what the command line says; returns only by an exception."""
    parser = argparse.ArgumentParser(prog="python -m telemagic.demo.enter", description=__doc__)
    parser.add_argument("--network", type=int, help="descriptor of the network namespace")
    parser.add_argument("--uid", type=int, help="who to be")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    if options.network is not None:
        namespaces.setns(options.network, namespaces.NETWORK)
        os.close(options.network)
    if options.uid is not None:
        uid, gid = os.geteuid(), os.getegid()
        namespaces.unshare(namespaces.USER)
        namespaces.map_ids(uid, gid, inside_uid=options.uid, inside_gid=options.uid)
    os.execvp(options.command[0], options.command)  # noqa: S606 - becoming this command is the purpose


if __name__ == "__main__":
    main()
