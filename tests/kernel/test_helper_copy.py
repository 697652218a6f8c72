"""The root-owned copy of netd: what is in it, and when it is not to be trusted. By real sudo: tests/netd_sudo."""

from __future__ import annotations

import io
import json
import os
import pwd
import shutil
import stat
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from telehelper import __version__
from telehelper.errors import HelperMissing, HelperRefused

from telemagic import helper_copy
from telemagic.commands import helper
from telemagic.helper_copy import ABSENT, OTHER, READY, UNSAFE, Copy, look, pack, unsafe_above

if TYPE_CHECKING:
    from collections.abc import Iterator

ME = os.getuid()
PYTHON = Path(os.path.realpath(sys.executable))


@pytest.fixture(scope="module")
def archive() -> bytes:
    return pack(PYTHON, Path("/nowhere"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy in a directory of ours, made as `helper install` makes it, but by ourselves."""
    directory = tmp_path_factory.mktemp("copy") / "libexec" / "telemagic"
    script = ["/bin/sh", "-c", helper_copy.INSTALL, "telemagic", str(directory), str(PYTHON)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            helper_copy, "THEIRS", ("jeepney",)
        )  # pyroute2's 240 files prove no more, and take their time
        done = subprocess.run(script, input=pack(PYTHON, directory), capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (0, b"begun\n"), done.stderr
    return directory


@pytest.fixture
def copy(made: Path) -> Iterator[Path]:
    """The same for each test, which may do with it what it likes: making one takes two seconds."""
    pristine = made.parents[1] / "pristine"
    shutil.copytree(made.parent, pristine, symlinks=True)
    yield made
    shutil.rmtree(made.parent, ignore_errors=True)
    pristine.rename(made.parent)


def found(directory: Path) -> Copy:
    return look(directory, owner=ME)


def test_there_is_none(tmp_path: Path) -> None:
    assert look(tmp_path / "none") == Copy(ABSENT)


def test_it_is_netd_and_what_that_imports_and_nothing_else(archive: bytes) -> None:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        members = {member.name: member for member in tar}
    assert {name.split("/")[1] for name in members if name.startswith("lib/")} == {
        "telehelper",
        "pyroute2",
        "jeepney",
    }
    ours = {name for name in members if name.startswith("lib/telehelper/")}
    assert {name for name in ours if "/netd/" not in name} == {
        f"lib/telehelper/{name}.py" for name in ("__init__", "codec", "errors", "messages")
    }
    assert "lib/telehelper/netd/main.py" in ours
    assert "lib/telehelper/netd/fakes.py" not in ours
    modes = {name: member.mode for name, member in members.items()}
    assert {name for name, mode in modes.items() if mode != 0o644} == {"netd"}
    assert modes["netd"] == 0o755


def test_one_that_was_just_made_is_ready(copy: Path) -> None:
    assert found(copy) == Copy(READY, __version__)
    assert list((copy / "lib/telehelper/netd").rglob("*.pyc")), "compiled ahead: it must not write any"


def test_making_it_again_replaces_it(copy: Path) -> None:
    (copy / "lib" / "old.py").write_text("")
    script = ["/bin/sh", "-c", helper_copy.INSTALL, "telemagic", str(copy), str(PYTHON)]
    subprocess.run(
        script, input=pack(PYTHON, copy), capture_output=True, check=True
    )  # this time with all of it
    assert found(copy).state == READY
    done = subprocess.run(
        [copy / "netd"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert done.returncode == 78, done.stderr
    assert done.stderr.startswith("telemagic-netd: cannot start: standard input is no socket")
    assert [path.name for path in copy.parent.iterdir()] == ["telemagic"]


def test_a_broken_archive_leaves_what_was_there(copy: Path) -> None:
    script = ["/bin/sh", "-c", helper_copy.INSTALL, "telemagic", str(copy), str(PYTHON)]
    done = subprocess.run(script, input=b"no archive", capture_output=True, check=False)
    assert done.returncode != 0
    assert found(copy).state == READY
    assert [path.name for path in copy.parent.iterdir()] == ["telemagic"]


def test_root_runs_no_program_of_the_user_s_path(copy: Path, tmp_path: Path) -> None:
    for name in ("tar", "mkdir", "rm", "mv", "rmdir"):
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
        program.chmod(0o755)
    for script in (helper_copy.INSTALL, helper_copy.UNINSTALL):
        command = ["/bin/sh", "-c", script, "telemagic", str(copy), str(PYTHON)]
        environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
        subprocess.run(command, input=b"no archive", capture_output=True, check=False, env=environment)
    assert found(copy).state == ABSENT
    assert not (tmp_path / "ran").exists()


def test_nothing_is_put_where_others_can_write(tmp_path: Path) -> None:
    place = tmp_path / "local"
    place.mkdir()
    helper_copy.check_place(place / "libexec" / "telemagic", owner=ME)
    place.chmod(0o777)
    with pytest.raises(HelperRefused, match=f"would not be root's alone: {place} is writable by everybody"):
        helper_copy.check_place(place / "libexec" / "telemagic", owner=ME)


def test_removing_it_removes_the_directory_above_if_it_is_empty(copy: Path) -> None:
    script = ["/bin/sh", "-c", helper_copy.UNINSTALL, "telemagic", str(copy)]
    subprocess.run(script, check=True, stdout=subprocess.DEVNULL)
    assert not copy.parent.exists()
    assert found(copy).state == ABSENT


@pytest.mark.parametrize(
    ("what", "problem"),
    [
        ("lib/telehelper/netd/main.py", "is writable by everybody"),
        ("lib", "is writable by everybody"),
        ("netd", "is writable by everybody"),
        (".", "is writable by everybody"),
        ("..", "is writable by everybody"),
    ],
)
def test_what_others_can_write_is_unsafe(copy: Path, what: str, problem: str) -> None:
    path = copy / what
    path.chmod(stat.S_IMODE(path.stat().st_mode) | 0o002)
    state = found(copy)
    assert state.state == UNSAFE
    assert problem in state.problem


@pytest.mark.parametrize("what", ["lib/telehelper/codec.py", "netd", "manifest.json"])
def test_what_was_changed_is_unsafe(copy: Path, what: str) -> None:
    (copy / what).write_text((copy / what).read_text() + "\n#")
    assert found(copy).state == UNSAFE


@pytest.mark.parametrize("what", ["lib/telehelper/codec.py", "netd", "manifest.json"])
def test_what_lacks_a_part_is_unsafe(copy: Path, what: str) -> None:
    (copy / what).unlink()
    assert found(copy).state == UNSAFE


def test_what_has_more_than_was_put_there_is_unsafe(copy: Path) -> None:
    (copy / "lib" / "socket.py").write_text("")
    assert "not as it was installed" in found(copy).problem


def test_a_link_inside_is_unsafe(copy: Path) -> None:
    (copy / "lib" / "more").symlink_to("/tmp")
    assert "symbolic link" in found(copy).problem


@pytest.mark.skipif(ME != 0, reason="only root can give files away")
def test_another_owner_is_unsafe(copy: Path) -> None:
    os.chown(copy / "lib" / "telehelper", 12345, 0)
    assert "belongs to uid 12345" in found(copy).problem


@pytest.mark.skipif(ME != 0, reason="only root can give files to other groups")
def test_a_group_that_can_write_is_unsafe(copy: Path) -> None:
    os.chown(copy / "netd", 0, 54)
    (copy / "netd").chmod(0o775)
    assert "writable by group 54" in found(copy).problem


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"version": "0.0.1"}, "another version"),
        ({"code": "0"}, "of other code"),
    ],
)
def test_another_version_is_not_used(copy: Path, changes: dict[str, str], problem: str) -> None:
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps(manifest | changes))
    state = found(copy)
    assert (state.state, problem in state.problem) == (OTHER, True), state


def test_what_connect_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    for state, expected in ((ABSENT, None), (OTHER, None), (READY, ["/usr/local/libexec/telemagic/netd"])):
        monkeypatch.setattr(helper_copy, "look", lambda *_, state=state: Copy(state))
        assert helper_copy.command() == expected
    monkeypatch.setattr(helper_copy, "look", lambda *_: Copy(UNSAFE, problem="/usr is writable by everybody"))
    with pytest.raises(HelperRefused, match="not to be trusted: /usr is writable by everybody") as caught:
        helper_copy.command()
    assert "helper install" in caught.value.hint


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (ABSENT, "this environment's netd, by sudo"),
        (READY, "connect uses it"),
        (OTHER, "not used: why"),
        (UNSAFE, "connect refuses"),
    ],
)
def test_every_state_is_described(state: str, words: str) -> None:
    assert words in helper.describe(Copy(state, "1", "why"))


@pytest.mark.parametrize(
    ("name", "shown"),
    [("ada", "ada"), ("ada.l-2_x", "ada.l-2_x"), ("ALL", "#1815"), ("CORP\\ada", "#1815"), ("", "#1815")],
)
def test_the_line_for_sudoers_names_the_user_and_nobody_else(
    name: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGNAME", "ALL")

    def getpwuid(uid: int) -> pwd.struct_passwd:
        assert uid == 1815
        if not name:
            raise KeyError(uid)
        return pwd.struct_passwd((name, "x", uid, uid, "", "/", "/bin/sh"))

    monkeypatch.setattr(pwd, "getpwuid", getpwuid)
    assert helper.sudoers_user(1815) == shown


def test_a_link_above_is_followed_and_its_owner_must_be_roots(tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    real.mkdir()
    link.symlink_to(real)
    assert unsafe_above(link / "x", owner=ME) == "" if (real / "x").touch() is None else ""
    real.chmod(0o777)
    assert "writable by everybody" in unsafe_above(link / "x", owner=ME)


def test_a_python_that_users_can_change_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "python3"
    own.write_text("#!/bin/sh\necho True /usr\n")
    own.chmod(0o777)
    monkeypatch.setattr(helper_copy, "_pythons", lambda: iter([own]))
    with pytest.raises(HelperMissing, match="writable by everybody"):
        helper_copy.find_python()


def test_a_python_that_is_too_old_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "python3"
    own.write_text("#!/bin/sh\necho False /usr\n")
    own.chmod(0o755)
    monkeypatch.setattr(helper_copy, "_pythons", lambda: iter([own]))
    with pytest.raises(HelperMissing, match="no Python of root's" if ME else "is too old"):
        helper_copy.find_python()
