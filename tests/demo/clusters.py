"""Start demo clusters in tests, look into them, and prove that nothing of them stays behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from telehelper.errors import HelperMissing

from telemagic.demo import client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from telemagic.demo.client import Demo

GONE_WITHIN = 5.0  # seconds, the promise


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Poll; tells whether it came true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def processes(runtime: Path) -> list[int]:
    """Every living process that was started with this runtime directory, this one and its shells excepted."""
    marker = f"TELEMAGIC_RUNTIME_DIR={runtime}".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if marker in (entry / "environ").read_bytes().split(b"\0") and _is_alive(entry):
                found.append(int(entry.name))
    return found


def _is_alive(entry: Path) -> bool:
    return (entry / "stat").read_text().rpartition(")")[2].split()[0] != "Z"


def open_files() -> int:
    """How many descriptors this process has open."""
    return len(os.listdir("/proc/self/fd"))


async def settled(before: int) -> None:
    """Wait until a client's TLS transports have closed themselves, which they do after their session."""
    async with asyncio.timeout(GONE_WITHIN):
        while open_files() > before:  # noqa: ASYNC110 - the transports tell nobody when they are done
            await asyncio.sleep(0.005)


def node_pid(runtime: Path) -> int:
    """The process that is number 1 of the only cluster in a runtime directory."""
    for pid in processes(runtime):
        with contextlib.suppress(OSError):
            status = Path(f"/proc/{pid}/status").read_text()
            ids = next(line for line in status.splitlines() if line.startswith("NSpid")).split()[1:]
            if len(ids) > 1 and ids[-1] == "1":
                return pid
    raise AssertionError(f"no cluster runs in {runtime}")


def pod_pids(runtime: Path, word: str) -> list[int]:
    """The processes of a cluster that have a word in their command line."""
    found = []
    for pid in processes(runtime):
        with contextlib.suppress(OSError):
            if word.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
    return found


def run_beside(pid: int, script: str) -> str:
    """Run a Python script in the network namespace of a process of a cluster, and return what it prints."""
    enter = ["nsenter", "--target", str(pid), "--user", "--net", "--preserve-credentials"]
    done = subprocess.run([*enter, sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextlib.contextmanager
def private_runtime() -> Iterator[Path]:
    """Give the tests a runtime directory of their own, and check that it ends up empty."""
    path = Path(tempfile.mkdtemp(prefix="tm-"))
    before = os.environ.get("TELEMAGIC_RUNTIME_DIR")
    os.environ["TELEMAGIC_RUNTIME_DIR"] = str(path)
    try:
        yield path
        assert wait_until(lambda: not processes(path), GONE_WITHIN), processes(path)
        assert wait_until(lambda: not list(path.iterdir()), GONE_WITHIN), list(path.iterdir())
    finally:
        if before is None:
            del os.environ["TELEMAGIC_RUNTIME_DIR"]
        else:
            os.environ["TELEMAGIC_RUNTIME_DIR"] = before
        shutil.rmtree(path, ignore_errors=True)


def start(**options: object) -> Demo:
    """Start a demo; a machine that cannot is a reason to skip, but not under CI."""
    try:
        return client.ensure(**options)  # type: ignore[arg-type]
    except HelperMissing as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(f"NO DEMO CLUSTER HERE: {error}; {error.hint}")
