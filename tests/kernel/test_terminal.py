"""IPython in a terminal of its own, and Python's own prompt: what people see there."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

SETUP = (
    "from telemagic import session, control_fake; "
    "session.use(session.Session(control_fake.FakeLauncher(password={password!r})))\n"
)
ESCAPES = re.compile(r"\x1b(\[[0-9;?]*[a-zA-Z]|[=>]|\][^\x07]*\x07)")


class Terminal:
    """A program in a pseudo-terminal, and what is on its screen."""

    def __init__(self, argv: list[str], folder: Path) -> None:
        self._controlling, terminal = pty.openpty()
        environment = {**os.environ, "TERM": "dumb", "IPYTHONDIR": str(folder), "NO_COLOR": "1"}
        self.process = subprocess.Popen(
            argv, stdin=terminal, stdout=terminal, stderr=terminal, env=environment, start_new_session=True
        )
        os.close(terminal)
        self._seen = ""

    def until(self, text: str, seconds: float = 30.0) -> str:
        """Wait for a text; returns what came up to there since the last time."""
        patience = time.monotonic() + seconds
        while text not in self._seen:
            ready, _, _ = select.select([self._controlling], [], [], 0.2)
            assert time.monotonic() < patience, self._seen
            if ready:
                more = os.read(self._controlling, 65536).decode(errors="replace")
                self._seen += ESCAPES.sub("", more).replace("\r", "")
        before, _, self._seen = self._seen.partition(text)
        return before

    def type(self, text: str) -> None:
        os.write(self._controlling, text.encode())

    def close(self) -> None:
        self.process.kill()
        self.process.wait(5)
        os.close(self._controlling)


@pytest.fixture
def terminal(
    runtime: Path, kubeconfig: Path, tmp_path: Path
) -> Generator[Callable[..., Terminal], None, None]:
    open_ones: list[Terminal] = []

    def start(*argv: str) -> Terminal:
        open_ones.append(Terminal([sys.executable, *argv], tmp_path / "ipython"))
        return open_ones[-1]

    yield start
    for one in open_ones:
        one.close()


PHASES = ["Ask", "Network", "Tunnel", "CIDRs", "Routes", "Names", "Ready"]


def test_ipython(terminal: Callable[..., Terminal]) -> None:
    ipython = terminal("-m", "IPython", "--simple-prompt", "--no-banner", "--HistoryManager.enabled=False")
    ipython.until("In [1]: ")
    ipython.type(SETUP.format(password="open sesame"))
    ipython.until("In [2]: ")
    ipython.type("%load_ext telemagic\n")
    ipython.until("In [3]: ")
    ipython.type("%tele connect\n")
    above = ipython.until("[sudo] password for ada: ")
    assert "Connecting to demo" in above
    assert "an empty line cancels" in above
    ipython.type("open sesame\n")
    shown = ipython.until("In [4]: ")
    assert "open sesame" not in shown  # it is not echoed
    assert [line.split()[0] for line in shown.splitlines() if " done " in line] == PHASES
    assert re.search(r"Connected at [\d:]{8} to demo, namespace shop", shown)
    ipython.type("%%tele\n6 * 7\n\n")
    shown = ipython.until("In [5]: ")
    assert "42" in shown
    assert "Cell [4]: no flows in" in shown
    ipython.type("%tele flws\n")
    assert "did you mean 'flows'?" in ipython.until("In [6]: ")
    ipython.type("%tele disconnect\n")
    assert "Disconnected from demo: " in ipython.until("In [7]: ")
    ipython.type("%tele status\n")
    shown = ipython.until("In [8]: ")
    assert "NotConnected: not connected" in shown
    assert "Traceback" not in shown
    ipython.type("exit()\n")
    assert ipython.process.wait(20) == 0


def test_the_prompt_of_python(terminal: Callable[..., Terminal]) -> None:
    python = terminal("-i", "-q")
    python.until(">>> ")
    python.type(SETUP.format(password=""))
    python.until(">>> ")
    python.type("import telemagic; t = telemagic.connect()\n")
    shown = python.until(">>> ")
    assert "Connecting to demo" in shown
    assert [line.split()[0] for line in shown.splitlines() if " done " in line] == PHASES
    python.type("t\n")
    assert re.search(r"Connected at [\d:]{8} to demo, namespace shop", python.until(">>> "))
    python.type("t.disconnect()\n")
    assert "Disconnected from demo: " in python.until(">>> ")
    python.type("t.flows()\n")
    assert "NotConnected: the connection to demo is over" in python.until(
        ">>> "
    )  # with Python's own traceback
    python.type("exit()\n")
    assert python.process.wait(20) == 0


def test_a_script_s_output_is_its_own(runtime: Path, kubeconfig: Path) -> None:
    code = SETUP.format(password="") + "import telemagic\nwith telemagic.connect() as t: print(t.context)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("demo\n", "")
