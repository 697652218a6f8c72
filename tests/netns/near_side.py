"""The near side of a test: client code, run by the real kernel's TCP against the stack. No root needed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

ROOT: Final = Path(__file__).parent.parent.parent
HOSTS: Final = {4: "198.18.0.9", 6: "fd00:198:18::9"}

PRELUDE: Final = """
import errno, hashlib, json, resource, socket, struct, subprocess, threading, time
from tests.netns.far_side import *
HOST = {host!r}
BLOCK = bytes(range(256)) * 4096
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
def connect(port, timeout=20.0, **options):
    s = socket.socket(socket.AF_INET6 if ":" in HOST else socket.AF_INET)
    s.settimeout(timeout)
    for option in options.get("before", ()):
        s.setsockopt(*option)
    s.connect((HOST, port))
    return s
def read_all(s):
    got = b""
    while part := s.recv(65536):
        got += part
    return got
def reset(s):
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    s.close()
def counts():
    s = connect(COUNTS)
    found = json.loads(read_all(s))
    s.close()
    return found
def settled():
    "Counts of the flows that last did not change for half a second."
    before, now = None, counts()
    while before != now:
        time.sleep(0.5)
        before, now = now, {{n: c for n, c in counts().items() if n in now}}
    return now
def upload(port, size):
    "Send; return what the far side says of it, after what it should."
    s = connect(port)
    digest = hashlib.sha256()
    while size:
        part = BLOCK[:size]
        s.sendall(part); digest.update(part); size -= len(part)
    s.shutdown(socket.SHUT_WR)
    got = read_all(s).decode()
    s.close()
    return got == digest.hexdigest()
def pattern(size):
    digest = hashlib.sha256()
    while size:
        part = BLOCK[:size]; digest.update(part); size -= len(part)
    return digest.digest()
def download(port, s=None):
    s = s or connect(port)
    digest, got, buffer = hashlib.sha256(), 0, bytearray(1 << 20)
    while n := s.recv_into(buffer):
        digest.update(memoryview(buffer)[:n]); got += n
    s.close()
    return got == SOURCES[port] and digest.digest() == pattern(got)
"""


def run(code: str, *options: str, family: int = 4) -> tuple[list[str], dict[str, Any]]:
    """Run client code against the stack; return its lines and the facts about the stack."""
    if not Path("/dev/net/tun").exists() or shutil.which("unshare") is None:
        pytest.skip("needs /dev/net/tun and unshare (util-linux)")
    text = PRELUDE.format(host=HOSTS[family]) + code
    command = ["unshare", "-Urn", sys.executable, "-m", "tests.netns.tun_shell", *options, "--", text]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    lines = done.stdout.splitlines()
    assert lines and lines[-1].startswith("stack: "), done.stderr  # noqa: PT018  # one message for both
    facts = json.loads(lines[-1].removeprefix("stack: "))
    assert facts["status"] == 0, done.stderr
    assert facts["open"] == 0, facts
    assert facts["lost"] == [], facts
    return lines[:-1], facts
