"""Directories and peers as they are; other users are real where the tests run as root."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from telehelper import private
from telehelper.errors import HelperMissing
from telehelper.private import check_directory, is_own, peer_of

STRANGER = 54321  # a uid that no account here has
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "run"
    path.mkdir(mode=0o700)
    return path


def test_a_private_directory_passes(folder: Path) -> None:
    check_directory(folder)


def test_one_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        check_directory(tmp_path / "none")


def test_a_link_to_a_private_directory_is_refused(folder: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(folder)
    with pytest.raises(HelperMissing, match="is not a directory"):
        check_directory(link)


@pytest.mark.parametrize("mode", [0o701, 0o710, 0o770, 0o777, 0o1777])
def test_one_that_others_may_enter_is_refused(folder: Path, mode: int) -> None:
    folder.chmod(mode)
    with pytest.raises(HelperMissing, match="open to other users") as caught:
        check_directory(folder)
    assert caught.value.hint == f"chmod 700 {folder}"


def test_another_users_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: mine + 1)
    with pytest.raises(HelperMissing, match=f"belongs to uid {mine}, not to you"):
        check_directory(folder)


@pytest.mark.parametrize("mode", [0o777, 0o733, 0o702])
def test_one_that_others_may_replace_is_refused(folder: Path, mode: int) -> None:
    folder.parent.chmod(mode)
    with pytest.raises(HelperMissing, match="where other users may rename it"):
        check_directory(folder)


@pytest.mark.parametrize("mode", [0o1777, 0o755, 0o775])
def test_a_sticky_parent_or_one_of_our_own_group_passes(folder: Path, mode: int) -> None:
    folder.parent.chmod(mode)
    check_directory(folder)


@needs_root
def test_a_parent_of_another_user_is_refused(folder: Path) -> None:
    os.chown(folder.parent, STRANGER, STRANGER)
    with pytest.raises(HelperMissing, match=f"which belongs to uid {STRANGER}"):
        check_directory(folder)


@needs_root
def test_a_parent_that_another_group_may_write_to_is_refused(folder: Path) -> None:
    os.chown(folder.parent, -1, STRANGER)
    folder.parent.chmod(0o770)
    with pytest.raises(HelperMissing, match="where other users may rename it"):
        check_directory(folder)


# --- peers -------------------------------------------------------------------------------------------------------


def test_we_are_our_own_peer() -> None:
    one, two = socket.socketpair()
    with one, two:
        assert peer_of(one) == (os.getpid(), os.geteuid())
    assert is_own(os.geteuid())
    assert not is_own(os.geteuid() + 1)


def test_the_uid_of_strangers_is_nobodys_own_in_a_user_namespace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uids, overflow = tmp_path / "uid_map", tmp_path / "overflowuid"
    monkeypatch.setattr(private, "_UID_MAP", uids)
    monkeypatch.setattr(private, "_OVERFLOW", overflow)
    monkeypatch.setattr(os, "geteuid", lambda: 65534)
    uids.write_text("         0          0 4294967295\n")
    overflow.write_text("65534\n")
    assert is_own(65534)  # the first namespace: here it is an account like any other
    uids.write_text("         65534       1000          1\n")
    assert not is_own(65534)
    overflow.write_text("40000\n")
    assert is_own(65534)
    overflow.unlink()
    assert not is_own(65534)


CONNECT = """
import os, socket, sys
path, uid = sys.argv[1], int(sys.argv[2])
if uid:
    os.setgroups([]); os.setgid(uid); os.setuid(uid)
with socket.socket(socket.AF_UNIX) as sock:
    sock.connect(path)
    sock.recv(1)
"""


def peer_seen_from(folder: Path, command: list[str]) -> int:
    """Let a program connect to a socket that everybody can reach; return the uid it is seen with."""
    for path in (folder, folder.parent):
        path.chmod(0o755)
    with socket.create_server(str(folder / "s"), family=socket.AF_UNIX) as server:
        os.chmod(folder / "s", 0o777)
        with subprocess.Popen(command, cwd="/") as process:
            connection, _ = server.accept()
            with connection:
                uid = peer_of(connection)[1]
        assert process.returncode == 0
    return uid


@needs_root
def test_a_real_other_user_is_seen_as_that() -> None:
    # Not in tmp_path, which is closed to other users from its root on.
    folder = Path(f"/tmp/tele-private-{os.getpid()}/run")
    folder.mkdir(parents=True)
    try:
        uid = peer_seen_from(folder, [sys.executable, "-c", CONNECT, str(folder / "s"), str(STRANGER)])
    finally:
        subprocess.run(["rm", "-r", str(folder.parent)], check=True)
    assert uid == STRANGER
    assert not is_own(uid)


LOOK_INSIDE = """
import os, socket, sys
from pathlib import Path
from telehelper.errors import HelperMissing
from telehelper.private import check_directory, is_own, peer_of
sock = socket.socket(socket.AF_UNIX)
sock.connect(sys.argv[1] + "/s")
print(os.geteuid(), peer_of(sock)[1], is_own(peer_of(sock)[1]))
try:
    check_directory(Path(sys.argv[1]))
except HelperMissing as error:
    print(error)
"""


@pytest.mark.netns
def test_from_a_user_namespace_that_has_no_uid_for_us_we_are_strangers(folder: Path) -> None:
    with socket.create_server(str(folder / "s"), family=socket.AF_UNIX):
        # No --map: inside everybody, ourselves too, is the overflow uid.
        command = ["unshare", "--user", sys.executable, "-c", LOOK_INSIDE, str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"65534 65534 False\n{folder} belongs to uid 65534, not to you\n"
