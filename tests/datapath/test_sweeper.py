"""The child that removes a killed data plane's socket files: a real one, with real sockets."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Final

import pytest
from telehelper.datapath.sweeper import Sweeper, identity, sweep

if TYPE_CHECKING:
    from pathlib import Path

GONE_WITHIN: Final = 5.0  # seconds
LISTEN: Final = """
import pathlib, socket, sys
from telehelper.datapath.sweeper import Sweeper
path = pathlib.Path(sys.argv[1])
sweeper = Sweeper(path, path.with_suffix(".rpc"))
with socket.socket(socket.AF_UNIX) as listening:
    listening.bind(str(path))
    path.with_suffix(".rpc").touch()
    sweeper.listening()
    print("listening", flush=True)
    sys.stdin.read()
"""


def listen(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))


def wait_until_gone(path: Path) -> None:
    deadline = time.monotonic() + GONE_WITHIN
    while path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_files_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    command = [sys.executable, "-c", LISTEN, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"listening\n"
        assert {each.name for each in tmp_path.iterdir()} == {"a.sock", "a.rpc"}
        process.kill()
    wait_until_gone(path)
    assert list(tmp_path.iterdir()) == []


def test_a_successors_socket_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    listen(path)
    mine = identity(path)
    path.unlink()
    listen(path)
    sweep(path, mine, ())
    assert path.exists()
    sweep(path, identity(path), (tmp_path / "never there",))
    assert not path.exists()


def test_what_belongs_to_a_socket_goes_although_the_socket_has_gone(tmp_path: Path) -> None:
    (tmp_path / "a.rpc").touch()
    sweep(tmp_path / "a.sock", b"", (tmp_path / "a.rpc",))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Python 3.12: other tests may have left threads
def test_dismissed_it_ends(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    sweeper = Sweeper(path)
    sweeper.dismiss()
    with pytest.raises(ChildProcessError):
        os.waitpid(sweeper.pid, 0)
