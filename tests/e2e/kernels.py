"""Pythons that are driven line by line, as a Jupyter kernel is cell by cell, to be interrupted and killed."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

PATIENCE: Final = 20.0  # seconds for an answer, unless a test says less
_LOOP: Final = """
import json, signal, sys
scope = {}
signal.signal(signal.SIGINT, signal.SIG_IGN)  # between two lines, as in a Jupyter kernel
for line in iter(sys.stdin.readline, ""):
    answer = {"value": None}
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        *statements, last = json.loads(line)
        for statement in statements:
            exec(statement, scope)
        answer["value"] = repr(eval(last, scope))
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    except BaseException as error:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        answer = {"error": type(error).__name__, "message": str(error), "hint": getattr(error, "hint", ""),
                  "data": getattr(error, "data", {})}
    print(json.dumps(answer), flush=True)
"""
CONNECT: Final = ("import telemagic", "tele = telemagic.connect()", "'connected'")


@dataclass(frozen=True)
class Answer:
    """What a line came to: its value's repr, or the error."""

    value: str | None = None
    error: str = ""
    message: str = ""
    hint: str = ""
    data: dict[str, str] | None = None

    def check_error(self, *kinds: str) -> None:
        """It is one of these errors, with one line that says what, and one that says what to do."""
        assert self.error in kinds, self
        assert self.message, self
        assert "\n" not in self.message + self.hint, self
        assert len(self.message) < 300, self
        assert self.hint, self


class Kernel:
    """One process. As a context manager it is killed at the end, if it still lives."""

    def __init__(self, *, stderr: int | None = None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-u", "-c", _LOOP],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            start_new_session=True,
        )
        self._rest = b""

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def start(self, *code: str) -> None:
        """Start statements, the last of which is an expression."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(code).encode() + b"\n")
        self.process.stdin.flush()

    def line(self, seconds: float = PATIENCE) -> str:
        """Wait for a line of output."""
        assert self.process.stdout is not None
        deadline = time.monotonic() + seconds
        while b"\n" not in self._rest:
            left = deadline - time.monotonic()
            ready = select.select([self.process.stdout], [], [], max(left, 0))[0]
            assert ready, f"no answer within {seconds} s"
            data = os.read(self.process.stdout.fileno(), 65536)
            assert data, "it ended"
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode()

    def answer(self, seconds: float = PATIENCE) -> Answer:
        """Wait for what was started."""
        return Answer(**json.loads(self.line(seconds)))

    def run(self, *code: str, seconds: float = PATIENCE) -> Answer:
        """Run statements, the last of which is an expression."""
        self.start(*code)
        return self.answer(seconds)

    def connect(self) -> None:
        """Connect to the cluster of $KUBECONFIG; must succeed."""
        answer = self.run(*CONNECT)
        assert answer.value == "'connected'", answer

    def signal(self, number: int) -> None:
        """Send a signal, and with SIGKILL bury it."""
        os.kill(self.pid, number)
        if number == signal.SIGKILL:
            self.process.wait()

    def close(self) -> None:
        """End its input, so that the interpreter exits."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None and not stream.closed:
                stream.close()


def kubeconfig_for(server: str, path: Path) -> Path:
    """Write a copy of $KUBECONFIG with another server."""
    found = yaml.safe_load(Path(os.environ["KUBECONFIG"]).read_text())
    for cluster in found["clusters"]:
        cluster["cluster"]["server"] = server
    path.write_text(yaml.safe_dump(found))
    return path


@contextlib.contextmanager
def silent_server() -> Iterator[Path]:
    """Run an API server that accepts connections and never says a word; gives a kubeconfig for it."""
    with (
        tempfile.TemporaryDirectory() as directory,
        socket.create_server(("127.0.0.1", 0), backlog=64) as server,
    ):
        port = server.getsockname()[1]
        yield kubeconfig_for(f"https://127.0.0.1:{port}", Path(directory) / "kubeconfig")
