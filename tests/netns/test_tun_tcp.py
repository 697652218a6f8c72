"""The real Linux TCP against our stack, over a real TUN in a namespace of its own; no root needed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

pytestmark = pytest.mark.netns

ROOT: Final = Path(__file__).parent.parent.parent
SHELL: Final = Path(__file__).parent / "tun_shell.py"
PRELUDE: Final = """
import errno, hashlib, json, socket, struct, time
HOST = "198.18.0.9"
ECHO, SINK, SOURCE, SWALLOW, REFUSED, BLACK_HOLE, NO_ROUTE, RESET = 7, 9, 19, 20, 1, 2, 3, 4
BLOCK = bytes(range(256)) * 4096
def connect(port, timeout=20.0):
    return socket.create_connection((HOST, port), timeout)
def read_all(s):
    got = b""
    while part := s.recv(65536):
        got += part
    return got
"""


def run(code: str, *options: str) -> tuple[list[str], dict[str, Any]]:
    """Run client code against the stack; return its lines and the facts about the stack."""
    if not Path("/dev/net/tun").exists() or shutil.which("unshare") is None:
        pytest.skip("needs /dev/net/tun and unshare (util-linux)")
    command = ["unshare", "-Urn", sys.executable, str(SHELL), PRELUDE + code, *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    lines = done.stdout.splitlines()
    assert lines and lines[-1].startswith("stack: "), done.stderr  # noqa: PT018  # one message for both
    facts = json.loads(lines[-1].removeprefix("stack: "))
    assert facts["status"] == 0, done.stderr
    assert facts["open"] == 0
    return lines[:-1], facts


UPLOAD: Final = """
size = {size}
s = connect(SINK)
digest, sent = hashlib.sha256(), 0
while sent < size:
    s.sendall(BLOCK); digest.update(BLOCK); sent += len(BLOCK)
s.shutdown(socket.SHUT_WR)
assert read_all(s).decode() == digest.hexdigest()
print(sent)
"""
DOWNLOAD: Final = """
s = connect(SOURCE)
digest, got, buffer = hashlib.sha256(), 0, bytearray(1 << 20)
while n := s.recv_into(buffer):
    digest.update(memoryview(buffer)[:n]); got += n
expected, left = hashlib.sha256(), 200_000_000
while left:
    n = min(left, len(BLOCK)); expected.update(BLOCK[:n]); left -= n
assert digest.digest() == expected.digest()
s.close()
print(got)
"""


def test_200_mb_each_way_intact() -> None:
    lines, facts = run(UPLOAD.format(size=200_000_000) + DOWNLOAD)
    assert lines == ["200278016", "200000000"]
    assert [flow[:2] for flow in facts["flows"]] == [["CLOSED", "closed"]] * 2
    assert facts["flows"][0][2:] == [200_278_016, 64]
    assert facts["flows"][1][2:] == [0, 200_000_000]


def test_without_offload() -> None:
    lines, _ = run(
        UPLOAD.format(size=5_000_000) + "s = connect(ECHO)\ns.sendall(b'x' * 5000)\n"
        "s.shutdown(socket.SHUT_WR)\nprint(len(read_all(s)))",
        "no-offload",
    )
    assert lines == ["5242880", "5000"]


def test_half_close_by_near_still_gets_the_reply() -> None:
    lines, facts = run(
        "s = connect(ECHO); s.sendall(b'hello'); s.shutdown(socket.SHUT_WR); print(read_all(s).decode()); s.close()"
    )
    assert lines == ["hello"]
    assert facts["flows"] == [["CLOSED", "closed", 5, 5]]


def test_half_close_by_far_still_takes_text() -> None:
    _, facts = run(
        """
s = connect(SOURCE)
while s.recv(1 << 20): pass
s.sendall(b"y" * 100_000)
s.close()
"""
    )
    assert facts["flows"] == [["CLOSED", "closed", 100_000, 200_000_000]]


def test_refused_unreachable_and_black_hole() -> None:
    lines, facts = run(
        """
for port in (REFUSED, NO_ROUTE, BLACK_HOLE):
    start = time.monotonic()
    try:
        connect(port, 2.5)
    except OSError as error:
        print(type(error).__name__, errno.errorcode.get(error.errno), time.monotonic() - start < 1)
"""
    )
    assert lines == [
        "ConnectionRefusedError ECONNREFUSED True",
        "OSError EHOSTUNREACH True",
        "TimeoutError None False",
    ]
    assert len(facts["flows"]) == 3  # the SYN that was sent again after a second was not dialed again
    assert facts["drops"]["SYN to a black hole"] >= 1


def test_reset_by_far_and_by_near() -> None:
    lines, facts = run(
        """
s = connect(RESET); s.sendall(b"x")
try:
    s.recv(1)
except ConnectionResetError:
    print("reset")
s = connect(ECHO); s.sendall(b"x"); s.recv(1)
s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)); s.close()
"""
    )
    assert lines == ["reset"]
    assert facts["flows"] == [
        ["CLOSED", "by the service", 1, 0],
        ["CLOSED", "reset by the application", 1, 1],
    ]
    assert facts["resets"] == 1


def test_a_far_side_that_does_not_read_stops_the_near_one() -> None:
    lines, _ = run(
        """
s = connect(SWALLOW); s.setblocking(False)
sent, quiet = 0, 0
while quiet < 5:
    try:
        sent += s.send(BLOCK); quiet = 0
    except BlockingIOError:
        quiet += 1; time.sleep(0.1)
print(sent < 16_000_000)
s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)); s.close()
"""
    )
    assert lines == ["True"]


def test_an_application_that_pauses_gets_everything() -> None:
    lines, _ = run(
        "s = connect(SOURCE); time.sleep(2.5); n = 0\nwhile p := s.recv(1 << 20): n += len(p)\nprint(n); s.close()"
    )
    assert lines == ["200000000"]


def test_keep_alive_is_answered() -> None:
    lines, _ = run(
        """
s = connect(ECHO)
s.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
for name, value in ((socket.TCP_KEEPIDLE, 1), (socket.TCP_KEEPINTVL, 1), (socket.TCP_KEEPCNT, 1)):
    s.setsockopt(socket.IPPROTO_TCP, name, value)
time.sleep(3.5)
s.sendall(b"still here"); print(s.recv(100).decode()); s.close()
"""
    )
    assert lines == ["still here"]


def test_five_hundred_flows_at_once() -> None:
    lines, facts = run(
        """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (2048, 2048)) if resource.getrlimit(resource.RLIMIT_NOFILE)[1] >= 2048 else None
flows = [connect(ECHO) for _ in range(500)]
for i, s in enumerate(flows): s.sendall(b"%d" % i)
print(all(s.recv(100) == b"%d" % i for i, s in enumerate(flows)))
for s in flows: s.close()
"""
    )
    assert lines == ["True"]
    assert len(facts["flows"]) == 500


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
