"""The demo daemon's control socket, as a client meets it when the daemon is frozen, or ends in the middle."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest
from telehelper.errors import HelperLost

from telemagic.demo import client, control

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A socket where a daemon's would be, on which nobody answers."""
    tmp_path.chmod(0o700)
    monkeypatch.setenv("TELEMAGIC_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "demo-demo").mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        with control._short_path(tmp_path / "demo-demo") as path:
            listening.bind(path)
        listening.listen()
        yield listening


def connect(directory: Path, timeout: float = 0.05) -> socket.socket:
    connection = control.connect(directory / "demo-demo", timeout)
    assert connection is not None
    return connection


def test_a_frozen_daemon_is_told_with_its_pid(daemon: socket.socket, tmp_path: Path) -> None:
    connection = connect(tmp_path)
    with pytest.raises(HelperLost, match=r"has not answered for 0.05 s") as caught:
        control.ask(connection, "status")
    assert caught.value.hint == f"if it stays so: kill -KILL {os.getpid()}"
    assert control.ask(connection, "status") is None  # a late answer is nobody's


def test_a_daemon_that_ends_in_the_middle(daemon: socket.socket, tmp_path: Path) -> None:
    connection = connect(tmp_path, 5.0)
    daemon.accept()[0].close()
    assert control.ask(connection, "status") is None
    connection.close()


def test_looking_for_one_that_ends_leaves_no_descriptor(daemon: socket.socket, tmp_path: Path) -> None:
    before = os.listdir("/proc/self/fd")
    child = os.fork()
    if not child:
        daemon.accept()[0].close()
        os._exit(0)
    with pytest.raises(HelperLost, match="is not up") as caught:
        client.find()
    os.waitpid(child, 0)
    assert len(os.listdir("/proc/self/fd")) == len(before)
    assert caught.value.hint == "start it: telemagic demo up"
