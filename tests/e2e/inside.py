"""Run a test's body inside a sandbox: namespaces of its own, the demo's API server, no default route.

``@inside`` makes of a function a test that starts a fresh Python in the sandbox, which imports the module and calls the
function there, as its root. The rest are the things such bodies do: look at what is there, find and end processes.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from tests import sandbox

if TYPE_CHECKING:
    from collections.abc import Callable

    from telemagic.demo.client import Demo

GONE_WITHIN: Final = 5.0  # seconds, the promise
# What `ip` shows of a carrier: the kernel notes its coming and going in its own time (RFC 2863 §3.1.12), whoever caused it
CARRIER: Final = re.compile(r"\b(NO-CARRIER|M-DOWN|LOWER_UP),|,(M-DOWN|LOWER_UP)(?=>)| state \w+| linkdown")
HELPERS: Final = ("telehelper.datapath", "telehelper.netd")


def inside(timeout: float = 60.0) -> Callable[[Callable[[], None]], Callable[[Demo], None]]:
    """Make a test of a function that runs in a sandbox."""

    def decorate(body: Callable[[], None]) -> Callable[[Demo], None]:
        def test(cluster: Demo) -> None:
            run(cluster, f"from {body.__module__} import {body.__name__} as test; test.body()", timeout)

        test.__name__, test.__doc__, test.__module__ = body.__name__, body.__doc__, body.__module__
        test.body = body  # type: ignore[attr-defined]  # where the sandbox finds it
        return pytest.mark.netns(test)

    return decorate


def run(cluster: Demo, code: str, timeout: float = 60.0) -> str:
    """Run Python source in a sandbox with the cluster's API server; return what it prints."""
    command = [sys.executable, "-W", "error::ResourceWarning", "-c", code]
    try:
        done = sandbox.run(command, timeout=timeout, cluster=cluster.name)
    except subprocess.TimeoutExpired as late:
        pytest.fail(f"not done within {timeout:g} s\n{late.stdout}\n{late.stderr}\n{late}", pytrace=False)
    assert done.returncode == 0, f"status {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "ending leftover process" not in done.stderr, done.stderr
    return done.stdout


def wait_until(condition: Callable[[], object], seconds: float = GONE_WITHIN) -> bool:
    """Poll; tells whether it came true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def helpers(*names: str) -> list[int]:
    """Pids of living processes of this network namespace that run one of these modules; all helpers by default."""
    here = Path("/proc/self/ns/net").readlink()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().split(b"\0")
            is_ours = any(name.encode() in words for name in names or HELPERS)
            if is_ours and (entry / "ns/net").readlink() == here:
                found.append(int(entry.name))
    return found


def kill(*pids: int) -> None:
    """Kill processes before any of them can react to the end of another: all are stopped first."""
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in pids:
            os.kill(pid, number)


def machine() -> str:
    """Describe links, addresses, routes and the resolver's configuration, without what they do by themselves."""
    parts = [Path("/etc/resolv.conf").read_text(), " ".join(sorted(os.listdir("/etc")))]
    for command in (
        "link",
        "-4 address",
        "-6 address",
        "-4 route show table all",
        "-6 route show table all",
        "rule",
    ):
        done = subprocess.run(["ip", *command.split()], capture_output=True, text=True, check=True)
        parts.append(CARRIER.sub("", done.stdout))
    return "\n".join(parts)


def own_files() -> list[str]:
    """Return files of connections in the runtime directory."""
    from telemagic.paths import runtime_dir

    return sorted(p.name for p in runtime_dir().iterdir() if not p.name.startswith("demo"))


class Untouched:
    """Remembers the machine, and checks that it is the same again and nothing of ours is left, within five seconds."""

    def __init__(self) -> None:
        self.before = machine()
        self.files = own_files()

    def check(self) -> None:
        """Raise AssertionError with what is different."""
        is_clean = wait_until(
            lambda: not helpers() and machine() == self.before and own_files() == self.files, GONE_WITHIN
        )
        left = (helpers(), own_files(), machine(), "was", self.files, self.before)
        assert is_clean, "\n".join(map(str, left))


def tally(sock: socket.socket) -> dict[str, object]:
    """End what was sent to the demo's tally, and return its answer."""
    sock.shutdown(socket.SHUT_WR)
    with sock.makefile("rb") as stream:
        answer: dict[str, object] = json.loads(stream.read())
    return answer
