"""Stands in for the data plane in the launcher's tests: it listens, says so, and ends with netd.

`TELEMAGIC_STUB` says what else: die, mute (never ready), or vif (have an interface made and configured first).
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
import time

from telehelper.codec import Decoder, encode
from telehelper.messages import PROTOCOL_VERSION, Configure, Message, OpenVif


def receive(netd: socket.socket) -> str:
    """Wait for netd's next message; the descriptors that come with it stay open."""
    decoder = Decoder()
    while True:
        data, _, _, _ = socket.recv_fds(netd, 65536, 4)
        for envelope in decoder.feed(data):
            return type(envelope.body).__name__
        if not data:
            return "EOF"


def ask(netd: socket.socket, request: Message) -> str:
    netd.sendall(encode(request, 1))
    return receive(netd)


def bring_up(netd: socket.socket) -> None:
    """Have an interface made."""
    answers = [
        receive(netd),
        ask(netd, OpenVif(PROTOCOL_VERSION, 65000)),
        ask(netd, Configure(("198.19.240.1/32",), ("198.18.0.0/20",))),
    ]
    if answers != ["NetdReady", "VifOpened", "Done"]:
        sys.exit(f"netd answered {answers}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--socket")
    parser.add_argument("--netd-fd", type=int)
    parser.add_argument("--ready-fd", type=int)
    options = parser.parse_args()
    how = os.environ.get("TELEMAGIC_STUB", "")
    if how == "die":
        sys.exit("no such luck")
    netd = socket.socket(fileno=options.netd_fd)
    if how == "vif":
        bring_up(netd)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(options.socket)
        server.listen()
        if how != "mute":
            os.write(options.ready_fd, b"ready\n")
        os.close(options.ready_fd)
        if how == "mute":
            time.sleep(60)
        while netd.recv(65536):
            pass
    os.unlink(options.socket)


main()
