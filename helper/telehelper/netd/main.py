"""netd: started as root, it configures one TUN interface and the resolver, and takes both back.

Theory of operation
-------------------
*Goal.* Be all that runs as root, and never leave anything behind. netd sees no packet, no kubeconfig and no network.

*Start.* Standard input is a Unix stream socket; the data plane (the user's process) has the other end. netd shrinks
itself (`powers.py`), repairs what a dead netd may have left (`resolvconf.py`), and sends `NetdReady`.

*Requests.* Four, by the table in `permits.py`: `OpenVif` once, `Configure` and `SetDns` as often as wanted, `Undo`.
Every value is checked again here. A bad value is refused and netd goes on; a request that is not permitted, a
malformed or an oversized one, or one of another process than the first, means that the other side is broken or
hostile: netd undoes everything and exits.

*End.* `Undo`, EOF, the death of the process that speaks (watched by pidfd: others may hold its socket), SIGTERM,
surprise, and a bug of ours all lead to the same `Monitor.undo`. The death of our parent does not: that is sudo, or the
kernel of one notebook of several. SIGINT, SIGHUP and SIGQUIT are ignored: they come from a terminal that we have
nothing to do with.

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
import struct
from contextlib import suppress

from pyroute2 import IPRoute

from telehelper.codec import MAX_NETD_MESSAGE, Decoder, encode
from telehelper.errors import ControlError, HelperMissing, TelemagicError
from telehelper.messages import NETD_LOG_PREFIX, PROTOCOL_VERSION, NetdReady
from telehelper.netd.monitor import Monitor, Reply
from telehelper.netd.netlink import Netlink
from telehelper.netd.plan import Log
from telehelper.netd.powers import drop, shed
from telehelper.netd.resolvconf import ResolvConf
from telehelper.netd.resolver import HostResolver, owns_files
from telehelper.netd.vif import open_vif

# sysexits.h; never 1, which is what sudo exits with when it does not run us
EX_OK, EX_PROTOCOL, EX_CONFIG = 0, 76, 78
ANSWER_PATIENCE = 5  # seconds that the other side may leave its answers unread, while we hear and see nothing


def log(text: str, fd: int = 2) -> None:
    """Write a line for people. One that nobody reads is dropped: a stuck reader must not keep us from undoing."""
    with suppress(OSError):
        if select.select([], [fd], [], 0)[1]:
            os.write(fd, f"{NETD_LOG_PREFIX}{text}\n".encode())


def adopt(fd: int) -> socket.socket:
    """Take a descriptor as our socket and put /dev/null in its place; HelperMissing if it is no Unix stream socket."""
    with suppress(OSError):
        found = socket.socket(fileno=os.dup(fd))
        if (found.family, found.type) == (socket.AF_UNIX, socket.SOCK_STREAM):
            found.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            found.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", ANSWER_PATIENCE, 0))
            os.dup2(os.open(os.devnull, os.O_RDONLY), fd)
            return found
        found.close()
    raise HelperMissing("standard input is no socket; if sudoers has log_input, exempt telemagic from it")


def hear(sock: socket.socket) -> tuple[bytes, int]:
    """Receive bytes and the id of the process that sent them, 0 if we cannot see it; descriptors are not taken."""
    # Not waited for: somebody with a copy of our end may have read what select() saw. struct ucred of unix(7): pid, uid, gid
    data, notes, _, _ = sock.recvmsg(65536, socket.CMSG_SPACE(12), socket.MSG_DONTWAIT)
    pids = [struct.unpack("3i", note)[0] for _, kind, note in notes if kind == socket.SCM_CREDENTIALS]
    return data, pids[0] if pids else 0


def answer(sock: socket.socket, reply: Reply, request: int) -> None:
    """Send a reply, with its descriptor if it has one, and close our copy of that."""
    data = encode(reply.message, request)
    try:
        sent = socket.send_fds(sock, [data], [reply.fd]) if reply.fd is not None else 0
    finally:
        if reply.fd is not None:
            os.close(reply.fd)
    sock.sendall(data[sent:])


def serve(sock: socket.socket, monitor: Monitor, wake: int, say: Log = log) -> int:
    """Answer requests until the end, or until ``wake`` is readable; the exit code. Undoing is the caller's."""
    decoder, speaker, watched = Decoder(MAX_NETD_MESSAGE), 0, [wake, sock.fileno()]
    try:
        sock.sendall(encode(NetdReady(PROTOCOL_VERSION, os.getpid())))
        while True:
            readable = select.select(watched, [], [])[0]
            if readable != watched[1:2]:
                say("asked to end by a signal" if wake in readable else "the data plane has ended")
                return EX_OK
            data, pid = hear(sock)
            if not data:
                return EX_OK
            if not speaker and pid:
                speaker = pid
                watched.append(os.pidfd_open(pid))
            if pid != speaker:
                raise ControlError("a second process speaks")
            for envelope in decoder.feed(data):
                reply = monitor.handle(envelope.body)
                answer(sock, reply, envelope.id)
                if reply.last:
                    return EX_OK
    except ControlError as error:
        say(f"giving up: {error}")
        return EX_PROTOCOL
    except OSError as error:  # the data plane went away between request and answer, or does not take it
        say(f"the data plane is gone: {error.strerror}")
        return EX_OK


def main() -> int:  # pragma: no cover  # shrinks its own process; tests/netd/test_real.py runs the real one
    """Run netd on standard input; the exit code."""
    try:
        owned = owns_files()
        shed()
        sock = adopt(0)
        waking, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake)
        signal.signal(signal.SIGTERM, lambda _number, _frame: None)  # the byte in the pipe is all we need
        net = Netlink(IPRoute())  # each of its calls runs an event loop of its own; ours is a select
        drop()
        conf = ResolvConf()
        if owned and conf.heal():
            log("repaired /etc/resolv.conf, left by a netd that was killed")
        monitor = Monitor(net, open_vif, HostResolver(conf, owned=owned), log)
    except (TelemagicError, OSError) as error:
        log(f"cannot start: {error}")
        return EX_CONFIG
    log(f"ready, pid {os.getpid()}")
    try:
        return serve(sock, monitor, waking)
    finally:
        monitor.undo()
