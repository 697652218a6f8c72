"""netd: started as root, it configures one TUN interface and the resolver, and takes both back.

Theory of operation
-------------------
*Goal.* Be all that runs as root, and never leave anything behind. netd sees no packet, no kubeconfig and no network.

*Start.* Standard input is a Unix stream socket; the data plane (the user's process) has the other end. netd shrinks
itself (`powers.py`), repairs what a dead netd may have left (`resolvconf.py`), and sends `NetdReady`.

*Requests.* Four, by the table in `permits.py`: `OpenVif` once, `Configure` and `SetDns` as often as wanted, `Undo`.
Every value is checked again here. A bad value is refused and netd goes on; a request that is not permitted, a
malformed or an oversized one means that the other side is broken or hostile: netd undoes everything and exits.

*End.* `Undo`, EOF, SIGTERM, surprise, and a bug of ours all lead to the same `Monitor.undo`. SIGINT, SIGHUP and
SIGQUIT are ignored: they come from a terminal that we have nothing to do with.

*Who dies, and what follows.* The only descriptor of the TUN is the data plane's; netd closes its own at once.

=====================  ==========================================================================================
killed with SIGKILL    then
=====================  ==========================================================================================
data plane             the kernel closes the TUN: interface, addresses, routes are gone; netd sees EOF, restores
                       the resolver, exits
netd                   the guardian (`guardian.py`) restores the resolver; the data plane sees EOF and exits, which
                       takes the interface
guardian               nothing: netd restores by itself
netd and guardian      the interface goes with the data plane; the next netd repairs the resolver
sudo                   nothing, with use_pty or without: netd goes on, its socket is what counts
everything             as the line before
=====================  ==========================================================================================

*Invariants.* What was changed is recorded before the change (`resolvconf.py`: inside the file). The interface is
deleted by index and name, so never a stranger's that took the number. Undo runs every step, whatever the others did.

*systemd-resolved* keeps what it was told with the interface, and forgets it with that (`resolved.py`).

*Left out.* Routing rules and private tables; a named socket for sudo
configurations that log input and so put a pipe where our socket should be: netd says so and exits.
"""

from __future__ import annotations

import os
import select
import signal
import socket
from typing import TYPE_CHECKING

from pyroute2 import IPRoute

from telehelper.codec import MAX_NETD_MESSAGE, Decoder, encode
from telehelper.errors import ControlError, TelemagicError
from telehelper.messages import NETD_LOG_PREFIX, PROTOCOL_VERSION, NetdReady
from telehelper.netd.monitor import Monitor, Reply
from telehelper.netd.netlink import Netlink
from telehelper.netd.powers import harden
from telehelper.netd.resolvconf import ResolvConf
from telehelper.netd.resolver import HostResolver, owns_files
from telehelper.netd.vif import open_vif

if TYPE_CHECKING:
    from collections.abc import Callable

# sysexits.h; never 1, which is what sudo exits with when it does not run us
EX_OK, EX_PROTOCOL, EX_CONFIG = 0, 76, 78


def log(text: str, fd: int = 2) -> None:
    """Write a line for people. One that nobody reads is dropped: a stuck reader must not keep us from undoing."""
    try:
        if select.select([], [fd], [], 0)[1]:
            os.write(fd, f"{NETD_LOG_PREFIX}{text}\n".encode())
    except OSError:
        return


def adopt(fd: int) -> socket.socket | None:
    """Take a descriptor as our socket and put /dev/null in its place; None if it is no Unix stream socket."""
    try:
        found = socket.socket(fileno=os.dup(fd))
    except OSError:
        return None
    if found.family != socket.AF_UNIX or found.type != socket.SOCK_STREAM:
        found.close()
        return None
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, fd)
    os.close(null)
    return found


def answer(sock: socket.socket, reply: Reply, request: int) -> None:
    """Send a reply, with its descriptor if it has one, and close our copy of that."""
    data = encode(reply.message, request)
    try:
        sent = socket.send_fds(sock, [data], [reply.fd]) if reply.fd is not None else 0
    finally:
        if reply.fd is not None:
            os.close(reply.fd)
    sock.sendall(data[sent:])


def serve(sock: socket.socket, monitor: Monitor, wake: int, say: Callable[[str], None] = log) -> int:
    """Answer requests until the end, or until ``wake`` is readable; the exit code. Undoing is the caller's."""
    decoder = Decoder(MAX_NETD_MESSAGE)
    try:
        sock.sendall(encode(NetdReady(PROTOCOL_VERSION, os.getpid())))
        while True:
            readable, _, _ = select.select([sock.fileno(), wake], [], [])
            if wake in readable:
                say("asked to end by a signal")
                return EX_OK
            data = sock.recv(65536)
            if not data:
                return EX_OK
            for envelope in decoder.feed(data):
                reply = monitor.handle(envelope.body)
                answer(sock, reply, envelope.id)
                if reply.last:
                    return EX_OK
    except ControlError as error:
        say(f"giving up: {error}")
        return EX_PROTOCOL
    except OSError as error:  # the data plane went away between request and answer
        say(f"the data plane is gone: {error.strerror}")
        return EX_OK


def main() -> int:  # pragma: no cover  # shrinks its own process; tests/netd/test_real.py runs the real one
    """Run netd on standard input; the exit code."""
    owned = owns_files()
    harden()
    sock = adopt(0)
    if sock is None:
        log("standard input is no socket; if sudoers has log_input, exempt telemagic from it")
        return EX_CONFIG
    waking, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGTERM, lambda _number, _frame: None)  # the byte in the pipe is all we need
    try:
        conf = ResolvConf()
        if owned and conf.heal():
            log("repaired /etc/resolv.conf, left by a netd that was killed")
        net = Netlink(IPRoute())  # each of its calls runs an event loop of its own; ours is a select
        monitor = Monitor(net, open_vif, HostResolver(conf, owned=owned), log)
    except (TelemagicError, OSError) as error:
        log(f"cannot start: {error}")
        return EX_CONFIG
    log(f"ready, pid {os.getpid()}")
    try:
        return serve(sock, monitor, waking)
    finally:
        monitor.undo()
