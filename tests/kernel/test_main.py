from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from telemagic.__main__ import main

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from telemagic.control_fake import FakeLauncher
    from telemagic.session import Session

FOREGROUND = """
import sys
from telemagic import session, shell
from telemagic.control_fake import FakeLauncher
from functools import partial
shell.ShellSession = partial(shell.ShellSession, FakeLauncher())
from telemagic.__main__ import main
sys.exit(main(["connect"]))
"""


@pytest.fixture
def foreground(runtime: Path, kubeconfig: Path) -> Generator[subprocess.Popen[str], None, None]:
    process = subprocess.Popen(
        [sys.executable, "-c", FOREGROUND], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    seen = []
    while not any("Ctrl-C disconnects" in line for line in seen):
        seen.append(process.stdout.readline())
        assert seen[-1], process.communicate()
    yield process
    process.kill()
    process.communicate()


@pytest.mark.parametrize(
    ("line", "status", "text"),
    [
        ("flws", 2, "telemagic: unknown subcommand 'flws': did you mean 'flows'?\n  try: telemagic help\n"),
        ("status", 1, "telemagic: nothing is connected\n  try: telemagic connect\n"),
        ("flows --context x", 1, "telemagic: nothing is connected to x\n  try: telemagic connect\n"),
        ("disconnect", 1, "telemagic: nothing is connected\n  try: telemagic connect\n"),
        ("connect --context demmo", 1, "did you mean 'demo'?\n"),
    ],
)
def test_errors(
    runtime: Path, kubeconfig: Path, capsys: pytest.CaptureFixture[str], line: str, status: int, text: str
) -> None:
    assert main(line.split()) == status
    out, err = capsys.readouterr()
    assert (out, err[-len(text) :]) == ("", text)


def test_commands_are_named_as_they_are_typed_here(
    runtime: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What notebooks are told to try begins with %tele."""
    missing = tmp_path / "none"
    assert main(["connect", "--kubeconfig", str(missing)]) == 1
    assert capsys.readouterr().err == (
        f"telemagic: no kubeconfig at {missing}\n"
        "  try: telemagic connect --kubeconfig FILE, or without a cluster: telemagic connect --demo\n"
    )
    assert main(["demo"]) == 0
    assert capsys.readouterr().out == "no demo cluster is up\n  try: telemagic demo up\n"


def test_what_is_too_wide_for_a_terminal_is_folded(
    foreground: subprocess.Popen[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["status"]) == 0
    in_a_pipe = capsys.readouterr().out
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "60")
    assert main(["status"]) == 0
    folded = capsys.readouterr().out
    assert max(map(len, in_a_pipe.splitlines())) > 60
    assert max(map(len, folded.splitlines())) <= 60
    assert folded.split() == in_a_pipe.split()


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    for line in ([], ["help"], ["--help"]):
        assert main(line) == 0
        assert capsys.readouterr().out.startswith("usage: telemagic COMMAND")


def test_asks_a_connection_of_another_process(
    foreground: subprocess.Popen[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status"]) == 0
    assert capsys.readouterr().out.startswith("Connected to demo, namespace shop (at ")
    assert main(["flows", "--context", "demo"]) == 0
    assert capsys.readouterr().out.startswith("no rows\n")
    assert main(["routes", "--context", "staging"]) == 1
    assert foreground.poll() is None  # asking did not end it


def test_interrupt_ends_the_foreground(foreground: subprocess.Popen[str], runtime: Path) -> None:
    foreground.send_signal(signal.SIGINT)
    out, err = foreground.communicate(timeout=5)
    assert (foreground.returncode, err) == (0, "")
    assert "Disconnected from demo" in out
    assert os.listdir(runtime) == []


def test_several_are_listed(
    session: Session, foreground: subprocess.Popen[str], capsys: pytest.CaptureFixture[str]
) -> None:
    from telemagic import connect

    connect("staging")
    assert main(["status"]) == 1
    assert "several are connected: " in capsys.readouterr().err
    assert main(["status", "--context", "staging"]) == 0
    assert "Connected to staging" in capsys.readouterr().out


def test_stale_socket_is_nothing(session: Session, launcher: FakeLauncher, runtime: Path) -> None:
    import socket

    runtime.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(runtime / "dead.sock"))
    assert main(["status"]) == 1


def test_disconnect_from_another_process(
    runtime: Path, kubeconfig: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runtime.mkdir(mode=0o700)
    path = runtime / "abc.sock"
    fake = subprocess.Popen([sys.executable, "-m", "telemagic.control_fake", str(path)])
    try:
        until = time.monotonic() + 5
        while not path.exists():
            assert time.monotonic() < until
            time.sleep(0.01)
        assert main(["disconnect"]) == 0
        assert capsys.readouterr().out == f"Disconnected from demo: ended the helper (pid {fake.pid})\n"
        assert fake.wait(5) == 0
        assert not path.exists()
    finally:
        fake.kill()
        fake.wait(5)
