"""The real Linux TCP against our stack, over a real TUN in a namespace of its own; no root needed."""

from __future__ import annotations

from typing import Final

import pytest

from tests.netns.near_side import run

pytestmark = pytest.mark.netns

# Address family, and options of the shell.
EVERY_WAY: Final = pytest.mark.parametrize(
    ("family", "options"),
    [(4, ()), (6, ()), (4, ("--no-offload",)), (6, ("--no-offload",))],
    ids=["IPv4", "IPv6", "IPv4-no-offload", "IPv6-no-offload"],
)
BOTH_FAMILIES: Final = pytest.mark.parametrize(
    ("family", "options"), [(4, ()), (6, ("--no-offload",))], ids=["IPv4", "IPv6-no-offload"]
)
Options = tuple[str, ...]
CREDIT: Final = 256 * 1024  # bytes that either side may send before the other grants more


# --- data --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", [4, 6])
def test_200_mb_each_way_intact(family: int) -> None:
    lines, facts = run("print(upload(SINK, 200_000_123), download(19))", family=family)
    assert lines == ["True True"]
    assert sorted(facts["flows"]) == [
        ["CLOSED", "closed", 0, 200_000_000],
        ["CLOSED", "closed", 200_000_123, 64],
    ]
    assert facts["drops"] == {}


@pytest.mark.parametrize("family", [4, 6])
def test_without_offload(family: int) -> None:
    lines, facts = run("print(upload(SINK, 5_000_123), download(18))", "--no-offload", family=family)
    assert lines == ["True True"]
    assert facts["drops"] == {}


@BOTH_FAMILIES
def test_both_directions_of_one_flow_at_once(family: int, options: Options) -> None:
    lines, facts = run(
        """
s, size = connect(ECHO), 20_000_123
def send():
    left = size
    while left:
        part = BLOCK[:left]; s.sendall(part); left -= len(part)
    s.shutdown(socket.SHUT_WR)
sender = threading.Thread(target=send); sender.start()
digest, got = hashlib.sha256(), 0
while part := s.recv(1 << 20):
    digest.update(part); got += len(part)
sender.join(); s.close()
print(got == size and digest.digest() == pattern(size))
""",
        *options,
        family=family,
    )
    assert lines == ["True"]
    assert facts["flows"] == [["CLOSED", "closed", 20_000_123, 20_000_123]]


@EVERY_WAY
def test_sequence_numbers_wrap_in_both_directions(family: int, options: Options) -> None:
    # Ours start at 2**32 - 70,000 (tun_shell). The kernel's can be chosen before connect (TCP_REPAIR, as CRIU does).
    lines, facts = run(
        """
REPAIR, QUEUE, SEQ, SEND, NO_PROBE = 19, 20, 21, 2, -1  # linux/tcp.h
def number(s, value=None):
    s.setsockopt(socket.IPPROTO_TCP, REPAIR, 1)
    s.setsockopt(socket.IPPROTO_TCP, QUEUE, SEND)
    if value is not None:
        s.setsockopt(socket.IPPROTO_TCP, SEQ, struct.pack("I", value))
    found = struct.unpack("I", s.getsockopt(socket.IPPROTO_TCP, SEQ, 4))[0]
    s.setsockopt(socket.IPPROTO_TCP, REPAIR, NO_PROBE)
    return found
s = socket.socket(socket.AF_INET6 if ":" in HOST else socket.AF_INET)
s.settimeout(20)
first = number(s, 2**32 - 50_000)
s.connect((HOST, ECHO))
for round in range(20):
    text = bytes([round]) * 10_000
    s.sendall(text)
    got = b""
    while len(got) < len(text):
        got += s.recv(len(text))
    assert got == text
last = number(s)
print(first, last)
s.shutdown(socket.SHUT_WR); assert read_all(s) == b""; s.close()
""",
        *options,
        family=family,
    )
    assert lines == [f"{2**32 - 50_000} {200_000 - 50_000 + 1}"]  # the SYN takes a number too
    assert facts["flows"] == [["CLOSED", "closed", 200_000, 200_000]]
    assert facts["drops"] == {}


# --- opening and closing -----------------------------------------------------------------------------------------


@EVERY_WAY
def test_half_close_by_near_still_gets_the_reply(family: int, options: Options) -> None:
    lines, facts = run(
        "s = connect(ECHO); s.sendall(b'hello'); s.shutdown(socket.SHUT_WR); print(read_all(s).decode()); s.close()",
        *options,
        family=family,
    )
    assert lines == ["hello"]
    assert facts["flows"] == [["CLOSED", "closed", 5, 5]]
    assert facts["drops"] == {}


@BOTH_FAMILIES
def test_half_close_by_far_still_takes_text(family: int, options: Options) -> None:
    _, facts = run(
        """
s = connect(18)
while s.recv(1 << 20): pass
s.sendall(b"y" * 100_000)
s.close()
""",
        *options,
        family=family,
    )
    assert facts["flows"] == [["CLOSED", "closed", 100_000, 20_000_000]]
    assert facts["drops"] == {}


@BOTH_FAMILIES
def test_both_close_at_once(family: int, options: Options) -> None:
    lines, facts = run(
        """
s = connect(CROSSING); s.sendall(b"x"); s.shutdown(socket.SHUT_WR)
print(read_all(s)); s.close()
def state():
    for name in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in open(name):
            if ":%04X " % CROSSING in line:
                return line.split()[3]
until = time.monotonic() + 10
while (found := state()) == "0B" and time.monotonic() < until: time.sleep(0.01)  # CLOSING
print(found)
""",
        *options,
        family=family,
    )
    assert lines == ["b''", "06"]  # TIME_WAIT: the kernel saw a FIN before its own was acknowledged
    assert facts["states"] == ["CLOSING"]
    assert facts["flows"] == [["CLOSED", "closed", 1, 0]]
    assert facts["drops"] == {}


@EVERY_WAY
def test_reset_by_far_and_by_near(family: int, options: Options) -> None:
    lines, facts = run(
        """
s = connect(RESET); s.sendall(b"x")
try:
    s.recv(1)
except ConnectionResetError:
    print("reset")
s = connect(ECHO); s.sendall(b"x"); s.recv(1); reset(s)
""",
        *options,
        family=family,
    )
    assert lines == ["reset"]
    assert facts["flows"] == [
        ["CLOSED", "by the service", 1, 0],
        ["CLOSED", "reset by the application", 1, 1],
    ]
    assert facts["resets"] == 1


@BOTH_FAMILIES
def test_a_process_killed_in_the_middle_of_a_download_resets(family: int, options: Options) -> None:
    _, facts = run(
        """
import os, signal
pid = os.fork()
if not pid:
    s = connect(18); s.recv(1000); os.kill(os.getpid(), signal.SIGKILL)
os.waitpid(pid, 0)
""",
        *options,
        family=family,
    )
    assert [flow[:2] for flow in facts["flows"]] == [["CLOSED", "reset by the application"]]
    assert facts["resets"] == 1


# --- windows -----------------------------------------------------------------------------------------------------


@BOTH_FAMILIES
def test_a_far_side_without_credit_stops_the_client_and_both_go_on(family: int, options: Options) -> None:
    lines, facts = run(
        """
s = connect(GATE); s.setblocking(False)
size, sent, quiet, digest = 20_000_000, 0, 0, hashlib.sha256()
while quiet < 5:
    try:
        n = s.send(BLOCK); digest.update(BLOCK[:n]); sent += n; quiet = 0
        BLOCK = BLOCK[n:] + BLOCK[:n]
    except BlockingIOError:
        quiet += 1; time.sleep(0.1)
(far_sent, far_received), = settled().values()
print(sent < size, far_sent, far_received)
connect(RELEASE).close()
s.settimeout(20)
while sent < size:
    n = s.send(BLOCK[:size - sent]); digest.update(BLOCK[:n]); sent += n
    BLOCK = BLOCK[n:] + BLOCK[:n]
s.shutdown(socket.SHUT_WR)
print(read_all(s).decode() == digest.hexdigest()); s.close()
""",
        *options,
        family=family,
    )
    stopped, far_sent, far_received = lines[0].split()
    assert (stopped, far_sent, lines[1]) == ("True", "0", "True")
    # The whole of the first credit but what would make less than a segment, and not a byte more.
    assert CREDIT - 1460 < int(far_received) <= CREDIT
    assert ["CLOSED", "closed", 20_000_000, 64] in facts["flows"]


@BOTH_FAMILIES
def test_a_client_that_does_not_read_stops_the_far_side_and_both_go_on(family: int, options: Options) -> None:
    lines, facts = run(
        """
s = connect(18, before=[(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)])
(far_sent, far_received), = settled().values()
print(far_sent)
print(download(18, s))
""",
        *options,
        family=family,
    )
    # What the kernel took into its buffer (twice 64 KiB at most, socket(7)), and a window that waits with us.
    assert CREDIT < int(lines[0]) <= CREDIT + 2 * 65536
    assert lines[1] == "True"
    assert facts["flows"][-1] == ["CLOSED", "closed", 0, 20_000_000]


def test_a_client_that_resets_while_its_window_is_closed() -> None:
    lines, facts = run(
        """
s = connect(SWALLOW); s.settimeout(0.5)
try:
    while True: s.sendall(BLOCK)
except TimeoutError:
    print("stopped")
reset(s)
"""
    )
    assert lines == ["stopped"]
    assert [flow[:2] for flow in facts["flows"]] == [["CLOSED", "reset by the application"]]
    assert CREDIT - 1460 < facts["flows"][0][2] <= CREDIT
    assert facts["resets"] == 1


# --- time and number ---------------------------------------------------------------------------------------------


@BOTH_FAMILIES
def test_keep_alive_is_answered(family: int, options: Options) -> None:
    lines, _ = run(
        """
s = connect(ECHO)
s.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
for name, value in ((socket.TCP_KEEPIDLE, 1), (socket.TCP_KEEPINTVL, 1), (socket.TCP_KEEPCNT, 1)):
    s.setsockopt(socket.IPPROTO_TCP, name, value)
time.sleep(3.2)
s.sendall(b"still here"); print(s.recv(100).decode()); s.close()
""",
        *options,
        family=family,
    )
    assert lines == ["still here"]


def test_a_thousand_flows_at_once() -> None:
    lines, facts = run(
        """
flows = [connect(ECHO) for _ in range(1000)]
for i, s in enumerate(flows): s.sendall(b"%d" % i * 1000)
def whole(s, size):
    got = b""
    while len(got) < size:
        got += s.recv(size)
    return got
print(all(whole(s, len(b"%d" % i) * 1000) == b"%d" % i * 1000 for i, s in enumerate(flows)))
for s in flows: s.close()
"""
    )
    assert lines == ["True"]
    assert [flow[:2] for flow in facts["flows"]] == [["CLOSED", "closed"]] * 1000
    assert facts["drops"] == {}


def test_udp_answers_and_refusals() -> None:
    lines, _ = run(
        """
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(5); s.connect((HOST, ECHO))
s.send(b"ping"); print(s.recv(100).decode())
s.send(b"x" * 1400); print(len(s.recv(2000)))
r = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); r.settimeout(5); r.connect((HOST, REFUSED))
r.send(b"ping")
try:
    r.recv(100)
except ConnectionRefusedError:
    print("refused")
"""
    )
    assert lines == ["ping", "1400", "refused"]
