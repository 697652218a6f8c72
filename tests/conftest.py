"""What all tests share: what may be skipped, what must not be left behind, and a namespace to work in.

*Skipping.* A test says by its marker what it needs (netns, sudo, browser). What this machine lacks is found once; the
tests that need it are skipped and named at the end. With ``CI=true`` every skip, from whatever source, is a failure.

*Nothing left.* After every test that touches the system, the machine's links, routes, rules, resolv.conf and runtime
files and the processes started by the tests are compared with those before it.
"""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from tests import sandbox
from tests.machine import Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

CI: Final = os.environ.get("CI") == "true"
# Seconds until everything of ours must be gone, even after a kill -9. The tests of this very guard make it shorter.
GRACE: Final = float(os.environ.get("TELEMAGIC_TEST_GRACE", "5"))
GUARDED_MARKERS: Final = {"netns", "sudo", "browser"}
GUARDED_FOLDERS: Final = {"netns", "demo", "e2e", "notebooks", "netd_sudo", "browser"}
ORDER: Final = ("slow", "netns", "sudo", "browser")  # the later, the slower; unmarked tests come first

_OPEN_TUN: Final = """
import fcntl, os, struct
fd = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(fd, 0x400454CA, struct.pack("16sH22x", b"probe%d", 0x0001 | 0x1000))
"""

# One directory for the whole run; its path is short, because Unix sockets are made in it. Every process the tests
# start inherits the second variable, by which it is known as ours.
_runtime = tempfile.TemporaryDirectory(prefix="tele-t-")
RUNTIME_DIR: Final = Path(_runtime.name)
os.environ["TELEMAGIC_RUNTIME_DIR"] = os.environ["TELEMAGIC_TEST_RUN"] = str(RUNTIME_DIR)


def pytest_unconfigure() -> None:
    """Remove the runtime directory."""
    _runtime.cleanup()


# --- what is missing here ----------------------------------------------------------------------------------------


def _lacks_netns() -> str:
    if not Path("/dev/net/tun").exists():
        return "/dev/net/tun is missing (sudo modprobe tun)"
    unshare = ["unshare", "--user", "--map-root-user", "--net"]
    if subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode:
        return "user and network namespaces are not allowed (sysctl kernel.unprivileged_userns_clone=1)"
    done = subprocess.run([*unshare, sys.executable, "-I", "-c", _OPEN_TUN], capture_output=True, check=False)
    if done.returncode:
        why = done.stderr.decode().strip().rpartition("\n")[2]
        return f"/dev/net/tun cannot be used ({why}; sudo chmod 0666 /dev/net/tun)"
    return ""


def _lacks_sudo() -> str:
    if os.geteuid():
        return "only root can set up a user for whom sudo works"
    missing = [tool for tool in ("sudo", "useradd") if not shutil.which(tool)]
    return f"{' and '.join(missing)} not installed" if missing else ""


def _lacks_browser() -> str:
    if any(shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")):
        return ""
    return "Chromium is not installed (sudo apt-get install chromium)"


@cache
def lacking(marker: str) -> str:
    """Return what this machine lacks for tests with `marker`, in one line; empty when nothing."""
    probes = {"netns": _lacks_netns, "sudo": _lacks_sudo, "browser": _lacks_browser}
    return probes[marker]() if marker in probes else ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run fast tests first, so that a plain mistake shows within seconds."""

    def slowness(item: pytest.Item) -> int:
        return max(
            (ORDER.index(mark.name) + 1 for mark in item.iter_markers() if mark.name in ORDER), default=0
        )

    items.sort(key=slowness)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test that cannot run here; the hooks below make a failure of that under CI."""
    for mark in item.iter_markers():
        if reason := lacking(mark.name):
            pytest.skip(f"{mark.name}: {reason}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Under CI, turn a skipped test into a failed one."""
    report = yield
    if CI and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI=true forbids: {report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Under CI, turn a skipped file into a failed one."""
    report = yield
    if CI and report.outcome == "skipped":
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI=true forbids: {report.longrepr}"
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say loudly what was not tested; pytest's own line stays the last one."""
    reasons = sorted({str(report.longrepr[2]) for report in terminalreporter.stats.get("skipped", [])})
    if reasons:
        terminalreporter.section("NOT TESTED on this machine", yellow=True, bold=True)
        for reason in reasons:
            terminalreporter.line(reason.removeprefix("Skipped: "))


# --- nothing left ------------------------------------------------------------------------------------------------


def _is_guarded(item: pytest.Item) -> bool:
    folders = set(item.nodeid.partition("::")[0].split("/"))
    return bool(folders & GUARDED_FOLDERS or GUARDED_MARKERS & {mark.name for mark in item.iter_markers()})


def _leftovers(before: Snapshot) -> str:
    deadline = time.monotonic() + GRACE
    while difference := before.difference(Snapshot.take(RUNTIME_DIR)):
        if time.monotonic() > deadline:
            return difference
        time.sleep(0.1)
    return ""


@pytest.fixture(autouse=True)
def _nothing_left(request: pytest.FixtureRequest) -> Generator[None]:
    # Function-scoped and autouse: set up after fixtures of wider scope, whose processes may stay.
    if not _is_guarded(request.node):
        yield
        return
    before = Snapshot.take(RUNTIME_DIR)
    yield
    if left := _leftovers(before):
        pytest.fail(f"left behind {GRACE:g} s after the test (+ is new, - is gone):\n{left}", pytrace=False)


@pytest.fixture(scope="session", autouse=True)
def _nothing_left_at_all(request: pytest.FixtureRequest) -> Generator[None]:
    if not any(_is_guarded(item) for item in request.session.items):
        yield
        return
    before = Snapshot.take(RUNTIME_DIR)
    yield
    if left := _leftovers(before):
        pytest.fail(f"left behind {GRACE:g} s after all tests (+ is new, - is gone):\n{left}", pytrace=False)


# --- a namespace to work in --------------------------------------------------------------------------------------


@pytest.fixture
def sandboxed() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Give :func:`tests.sandbox.run`."""
    return sandbox.run


@pytest.fixture
def sandboxed_python() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Give ``run(code, *arguments, timeout=60)``, which runs Python source in the sandbox."""

    def run(code: str, *arguments: str, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
        return sandbox.run([sys.executable, "-c", code, *arguments], timeout=timeout)

    return run


@pytest.fixture
def no_collection() -> Generator[None, None, None]:
    """Collect no garbage meanwhile: nearly all of it would be a test server's own objects, or everybody's."""
    gc.disable()
    yield
    gc.enable()
