"""A node with containerd for all tests here, and what must be there for it."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from tests.conftest import RUNTIME_DIR
from tests.farend import cgroups, containerd, image
from tests.farend.control import IDLE

if TYPE_CHECKING:
    from collections.abc import Iterator

GONE_WITHIN: Final = 15.0  # seconds
_UNSHARE: Final = ("--mount", "--net", "--pid", "--ipc", "--uts", "--fork", "--kill-child", "--mount-proc")


def lacks_containers() -> str:
    """Return what this machine lacks to run containers, in one line; empty when nothing."""
    if os.geteuid():
        return "only root can run containers with containerd"
    packages = {"containerd": "containerd", "ctr": "containerd", "runc": "runc", "unshare": "util-linux"}
    missing = {package for tool, package in packages.items() if not shutil.which(tool)}
    if not (containerd.PLUGINS / "bridge").exists():
        missing.add("containernetworking-plugins")
    return f"not installed: {' '.join(sorted(missing))}" if missing else ""


def inhabitants(namespace: str) -> list[str]:
    """Return the command lines of the processes in this process namespace."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if str((process / "ns/pid").readlink()) == namespace:
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip())
    return found


@pytest.fixture(scope="package")
def node() -> Iterator[Path]:
    """A node that runs; gives the folder with its control socket and its kubeconfig. Nothing of it is left."""
    if why := lacks_containers():
        pytest.skip(why)
    cgroups.sweep()
    folder = RUNTIME_DIR / "farend"
    (folder / "state").mkdir(parents=True)
    try:
        yield from _run(folder)
    finally:
        cgroups.remove(cgroups.name())
        in_memory = list((folder / "state").iterdir())
        shutil.rmtree(folder)
    assert not in_memory
    assert str(folder) not in Path("/proc/self/mountinfo").read_text()


def _run(folder: Path) -> Iterator[Path]:
    command = [sys.executable, "-m", "tests.farend.node", str(folder), str(IDLE), cgroups.name()]
    # Its processes come and go within a test; that all end with it is checked here, not by the guard of all tests.
    environment = {name: value for name, value in os.environ.items() if name != "TELEMAGIC_TEST_RUN"}
    environment["GRPC_ENABLE_FORK_SUPPORT"] = "0"  # it prints warnings when others fork
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(
            ["unshare", *_UNSHARE, *command],
            cwd=image.REPOSITORY,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,  # an interrupt is ours to act upon
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        namespace = ""
        try:
            namespace = _namespace_of(process)
            image.build(folder)  # while the node starts
            said = process.stdout.readline()
            assert said == "up\n", f"{said}{(folder / 'log').read_text()}"
            yield folder
            process.stdin.close()
            process.wait(GONE_WITHIN)
        finally:
            process.kill()  # and with it everything in its namespaces, if it has not ended by itself
            process.wait()
            _wait_gone(namespace)
    assert not inhabitants(namespace)


def _namespace_of(process: subprocess.Popen[str]) -> str:
    """Return the process namespace of the child that `unshare` makes."""
    deadline = time.monotonic() + GONE_WITHIN
    own = os.readlink("/proc/self/ns/pid")
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError, ValueError):
            (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            if (found := os.readlink(f"/proc/{child}/ns/pid")) != own:
                return found
        time.sleep(0.01)
    pytest.fail("unshare does not start", pytrace=False)


def _wait_gone(namespace: str) -> None:
    deadline = time.monotonic() + GONE_WITHIN
    while inhabitants(namespace) and time.monotonic() < deadline:
        time.sleep(0.05)
