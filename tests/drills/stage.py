"""What drills are played on: a kernel whose data plane stops at a phase, the processes to hit, and the checks of promises."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.drills import paused
from tests.e2e.inside import Untouched, helpers, machine, own_files, wait_until
from tests.e2e.kernels import Kernel
from tests.e2e.test_lifetime import pids
from tests.soak.looking import manager

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.e2e.kernels import Answer

# How many times a promise's seconds a drill waits for it: the machine that tests run on has more to do. What took longer
# than promised is told as such; `python -m tests.drills` fails then.
FACTOR: Final = float(os.environ.get("TELEMAGIC_DRILL_FACTOR", "4"))
PATIENCE: Final = 90.0  # seconds for anything at all; a hang
LOST: Final = ("HelperLost", "NotConnected")
_PAUSED: Final = f"""
import os, sys, telemagic.launch
telemagic.launch.start.__kwdefaults__["datapath"] = (sys.executable, "-P", {paused.__file__!r}, "telehelper.datapath")
"""
FETCH: Final = """
def fetch():
    import urllib.request
    with urllib.request.urlopen("http://catalog.shop:8000/products", timeout=20) as answer:
        return len(answer.read()) > 0
"""
# A connection that is open, and waits for something that never comes.
HANG: Final = """
def hang():
    import socket
    with socket.create_connection(("tally.shop", 7000), timeout=10) as sock:
        sock.settimeout(None)
        print("open")
        try:
            return sock.recv(1)
        except OSError as error:
            return type(error).__name__
"""


class Stage:
    """One sandbox's kernel and machine, for one drill after the other.

    Attributes
    ----------
    seconds
        How long the promise of the drill took so far; 0 if it was not come to.
    """

    def __init__(self) -> None:
        self.untouched = Untouched()
        self._kernel: Kernel | None = None
        self._within = 0.0
        self.seconds = 0.0

    def begin(self, within: float) -> None:
        """Begin a drill whose promise has this limit."""
        self._within, self.seconds = within, 0.0

    @contextlib.contextmanager
    def promised(self) -> Iterator[None]:
        """Measure what is promised: the block begins with the fault, and ends with what the user sees.

        Where there are several, as when a fault ends, the longest counts.
        """
        began = time.monotonic()
        yield
        took = time.monotonic() - began
        self.seconds = max(self.seconds, took)
        limit = self._within * FACTOR
        assert took < limit, f"took {took:.1f} s instead of {self._within:g} s"

    @property
    def kernel(self) -> Kernel:
        """A kernel, the same until it is killed."""
        if self._kernel is None or self._kernel.process.poll() is not None:
            self._kernel = Kernel()
            self._kernel.run(_PAUSED, FETCH, HANG, "import telemagic", "None")
        return self._kernel

    def connect(self, phase: str = "", options: str = "") -> None:
        """Start connecting; with a phase, until the data plane has stopped there."""
        self.kernel.start(
            f"os.environ['TELEMAGIC_DRILL_PHASE'] = {phase!r}",
            f"tele = telemagic.connect(timeout=60, {options})",  # the promises have their own limits
            "'connected'",
        )
        if phase and phase not in ("run", "disconnect"):
            assert wait_until(self.is_stopped, PATIENCE), self.kernel.answer(1)
        else:
            self.connected()

    def connected(self) -> None:
        """Connecting must succeed."""
        answer = self.kernel.answer(PATIENCE)
        assert answer.value == "'connected'", answer

    def is_stopped(self) -> bool:
        """Whether the data plane stands still."""
        return any(state_of(pid) == "T" for pid in pids("datapath"))

    def go_on(self) -> None:
        """Let a data plane that stands still go on."""
        for pid in pids("datapath"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def works(self, within: float = 0.0) -> None:
        """Something of the cluster can be fetched, in time; at once unless told otherwise."""
        until = time.monotonic() + within * FACTOR
        while (answer := self.kernel.run("fetch()", seconds=PATIENCE)).value != "True":
            assert time.monotonic() < until, answer
            time.sleep(0.2)

    def disconnect(self) -> None:
        """Disconnecting must succeed."""
        answer = self.kernel.run("tele.disconnect()", seconds=PATIENCE)
        assert answer.error == "", answer

    def clean(self, within: float) -> None:
        """Nothing of ours is left, in time."""
        untouched = self.untouched
        is_clean = wait_until(
            lambda: not helpers() and machine() == untouched.before and own_files() == untouched.files,
            within * FACTOR,
        )
        assert is_clean, (helpers(), own_files(), machine(), untouched.before)

    def check_lost(self) -> None:
        """Asking says soon that the connection is gone."""
        eventually(
            lambda: self.kernel.run("tele.status", seconds=PATIENCE).error in LOST, 2.0, "status says so"
        )
        self.kernel.run("tele.status", seconds=PATIENCE).check_error(*LOST)

    def close(self) -> None:
        """End the kernel, and whatever a failed drill has left standing still."""
        self.go_on()
        if self._kernel is not None:
            self._kernel.__exit__(None, None, None)
            self._kernel = None


@contextlib.contextmanager
def own_runtime() -> Iterator[None]:
    """Put the connections' sockets into a directory of this sandbox's own: others are at work at the same time."""
    shared = os.environ["TELEMAGIC_RUNTIME_DIR"]
    with tempfile.TemporaryDirectory(prefix="tele-d-") as path:
        os.environ["TELEMAGIC_RUNTIME_DIR"] = path
        try:
            yield
        finally:
            os.environ["TELEMAGIC_RUNTIME_DIR"] = shared


def state_of(pid: int) -> str:
    """Return a process's state (proc_pid_stat(5)); empty if it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def kill(who: str, stage: Stage) -> None:
    """Kill -9 one of the processes, or several at once: `kernel and netd`."""
    kernel = stage.kernel  # once: after its death there is another
    found = {
        "kernel": lambda: [kernel.pid],
        "data plane": lambda: pids("datapath"),
        "manager": lambda: [manager()],
    }
    victims = [found.get(each, partial(pids, each))() for each in who.split(" and ")]
    assert all(victims), f"there is no {who}"
    for pid in itertools.chain(*victims):
        os.kill(pid, signal.SIGKILL)
    if "kernel" in who.split(" and "):
        kernel.process.wait()


def one_line(answer: Answer) -> None:
    """It is an error that says what, and what to do, in one line each."""
    answer.check_error(answer.error)
    assert answer.error not in (
        "AssertionError",
        "Exception",
        "OSError",
        "TelemagicError",
        "KeyError",
        "TypeError",
    ), answer


def ip(*words: str) -> None:
    """Change this sandbox's network by hand."""
    subprocess.run(["ip", *words], check=True, capture_output=True)


def eventually(condition: Callable[[], object], seconds: float, what: str) -> None:
    """Wait for it, as long as is promised and the machine's load asks for."""
    assert wait_until(condition, seconds * FACTOR), f"not within {seconds:g} s: {what}"


def say(text: str) -> None:
    """Write a line for whoever runs the drills."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
