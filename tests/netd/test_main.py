"""netd's loop on a socket pair: what comes, what is answered, how it ends."""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from telehelper.codec import MAX_NETD_MESSAGE, Decoder, Envelope, encode
from telehelper.errors import HelperMissing
from telehelper.messages import (
    PROTOCOL_VERSION,
    Configure,
    Done,
    GetStatus,
    Message,
    NetdReady,
    OpenVif,
    Undo,
    VifOpened,
)
from telehelper.netd import main
from telehelper.netd.fakes import RecordingNet, RecordingResolver
from telehelper.netd.main import EX_OK, EX_PROTOCOL, adopt, hear, log, serve
from telehelper.netd.monitor import ORIGIN, Monitor
from telehelper.netd.vif import Vif

if TYPE_CHECKING:
    from collections.abc import Iterator

OPEN = OpenVif(PROTOCOL_VERSION, 65000)
CONFIGURE = Configure((), ("10.0.0.0/8",))


class Bench:
    """Both ends of the socket pair; requests are queued before netd's loop runs."""

    def __init__(self, far: socket.socket, near: socket.socket) -> None:
        self._far, self.near = far, near
        self.net = RecordingNet()
        self.said: list[str] = []
        self.fds: list[int] = []
        far.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)  # as adopt() does
        self.waking, self.wake = os.pipe()

    def open_vif(self) -> Vif:
        return Vif(os.open(os.devnull, os.O_RDWR), "tele0", 7, 0)

    def send(self, *requests: Message) -> None:
        self.near.sendall(b"".join(encode(request, number) for number, request in enumerate(requests, 1)))

    def run(self) -> int:
        """Run netd's loop until it ends; its exit code."""
        monitor = Monitor(self.net, self.open_vif, RecordingResolver(self.net.deeds), self.said.append)
        try:
            return serve(self._far, monitor, self.waking, self.said.append)
        finally:
            monitor.undo()
            self._far.close()

    def answers(self) -> list[Message]:
        """Everything that netd sent, from the first message to its EOF."""
        decoder, out = Decoder(), list[Envelope]()
        while True:
            data, fds, _, _ = socket.recv_fds(self.near, 65536, 4)
            self.fds += fds
            if not data:
                return [envelope.body for envelope in out]
            out += decoder.feed(data)


@contextmanager
def started() -> Iterator[Bench]:
    near, far = socket.socketpair()
    with near, far:
        bench = Bench(far, near)
        yield bench
        for fd in (*bench.fds, bench.waking, bench.wake):
            os.close(fd)


READY = NetdReady(PROTOCOL_VERSION, os.getpid())


def test_ready_comes_unasked_and_undo_ends_it() -> None:
    with started() as bench:
        bench.send(OPEN, CONFIGURE, Undo(), OPEN)  # what comes after Undo is not even looked at
        assert bench.run() == EX_OK
        assert bench.answers() == [READY, VifOpened("tele0", 7, 0, 10, ORIGIN), Done(), Done()]
        assert bench.net.deeds == ["up 7 mtu 65000", "add 10.0.0.0/8 dev 7", "delete 7 tele0"]


def nulls() -> int:
    links = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
    return [os.readlink(link) for link in links if os.path.lexists(link)].count(os.devnull)


def test_the_descriptor_comes_with_the_answer_and_netd_keeps_none() -> None:
    before = nulls()
    with started() as bench:
        bench.send(OPEN, Undo())
        bench.run()
        bench.answers()
        assert len(bench.fds) == 1
        assert nulls() == before + 1


def test_eof_is_the_end() -> None:
    with started() as bench:
        bench.send(OPEN, CONFIGURE)
        bench.near.shutdown(socket.SHUT_WR)
        assert bench.run() == EX_OK
        assert bench.net.deeds[-1] == "delete 7 tele0"


@pytest.mark.parametrize(
    "data",
    [
        encode(GetStatus(), 1),
        encode(CONFIGURE, 1),  # before OpenVif
        b"\0\0\0\2[]",
        (MAX_NETD_MESSAGE + 1).to_bytes(4, "big"),
    ],
)
def test_a_surprise_is_the_end(data: bytes) -> None:
    with started() as bench:
        bench.near.sendall(data)
        assert bench.run() == EX_PROTOCOL
        assert bench.answers() == [READY]
        assert bench.said[0].startswith("giving up: ")


def test_a_signal_is_the_end_though_requests_wait() -> None:
    with started() as bench:
        bench.send(OPEN)
        os.write(bench.wake, b"\x0f")
        assert bench.run() == EX_OK
        assert bench.net.deeds == []
        assert bench.said == ["asked to end by a signal"]


def test_a_data_plane_that_goes_without_reading_is_the_end() -> None:
    with started() as bench:
        bench.send(OPEN)
        bench.near.close()
        assert bench.run() == EX_OK
        assert bench.said[0].startswith("the data plane is gone: ")


def test_a_message_that_ends_early_is_waited_for_and_given_up_at_eof() -> None:
    with started() as bench:
        bench.near.sendall(encode(OPEN, 1)[:-1])
        bench.near.shutdown(socket.SHUT_WR)
        assert bench.run() == EX_OK
        assert bench.net.deeds == []


# --- who speaks --------------------------------------------------------------------------------------------------

OTHER = "import os, sys; os.write(int(sys.argv[1]), bytes.fromhex(sys.argv[2]))"


@contextmanager
def another_asks(bench: Bench, request: Message) -> Iterator[None]:
    """Have another process make a request, with a copy of our end, and end; it is reaped afterwards."""
    fd = bench.near.fileno()
    command = [sys.executable, "-I", "-c", OTHER, str(fd), encode(request, 1).hex()]
    with subprocess.Popen(command, pass_fds=[fd]):
        yield


def test_the_death_of_who_speaks_is_the_end_though_others_hold_the_socket() -> None:
    with started() as bench, another_asks(bench, OPEN):
        assert bench.run() == EX_OK
        assert [type(answer) for answer in bench.answers()] == [NetdReady, VifOpened]
        assert bench.said[-3:] == ["made tele0", "the data plane has ended", "undone: interface tele0"]


def test_a_second_process_is_a_surprise() -> None:
    with started() as bench:
        bench.send(OPEN)
        with another_asks(bench, Undo()):
            assert bench.run() == EX_PROTOCOL
        assert bench.said[-2:] == ["giving up: a second process speaks", "undone: interface tele0"]


def test_answers_that_nobody_reads_are_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    # Else the process that speaks could end while another keeps us waiting, with everything still configured.
    monkeypatch.setattr(main, "ANSWER_PATIENCE", 1)
    near, far = socket.socketpair()
    fd = far.detach()
    with near, adopt(fd) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)  # the least there is
        bench = Bench(sock, near)
        bench.send(OPEN, *[CONFIGURE] * 100)
        assert bench.run() == EX_OK
        assert bench.said[-2:] == [
            "the data plane is gone: Resource temporarily unavailable",
            "undone: interface tele0",
        ]
    for number in (fd, bench.waking, bench.wake):
        os.close(number)


def test_what_somebody_else_has_read_is_not_waited_for() -> None:
    near, far = socket.socketpair()
    with near, far, pytest.raises(BlockingIOError):
        hear(far)


# --- standard input ----------------------------------------------------------------------------------------------


def test_a_unix_stream_socket_is_adopted() -> None:
    near, far = socket.socketpair()
    fd = far.detach()
    sock = adopt(fd)
    assert os.readlink(f"/proc/self/fd/{fd}") == os.devnull
    near.sendall(b"x")
    assert sock.recv(1) == b"x"
    for thing in (near, sock):
        thing.close()
    os.close(fd)


def test_nothing_else_is() -> None:
    null = os.open(os.devnull, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        for fd in (null, sock.fileno()):
            with pytest.raises(HelperMissing, match="standard input is no socket"):
                adopt(fd)
    os.close(null)


# --- the log -----------------------------------------------------------------------------------------------------


def test_a_line_has_our_name() -> None:
    reader, writer = os.pipe()
    log("ready", writer)
    assert os.read(reader, 100) == b"telemagic-netd: ready\n"
    os.close(reader)
    log("nobody reads", writer)  # EPIPE
    os.close(writer)


def test_a_reader_that_is_stuck_loses_lines_and_holds_nobody_up() -> None:
    reader, writer = os.pipe()
    os.write(writer, bytes(fcntl.fcntl(writer, fcntl.F_GETPIPE_SZ)))
    log("lost", writer)
    os.close(reader)
    os.close(writer)
