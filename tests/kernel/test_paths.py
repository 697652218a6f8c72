from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest
from telehelper.errors import HelperMissing

from telemagic import paths

if TYPE_CHECKING:
    from pathlib import Path


def test_made_private(runtime: Path) -> None:
    os.umask(os.umask(0))  # whatever it is
    assert paths.runtime_dir() == runtime
    assert stat.S_IMODE(runtime.stat().st_mode) == 0o700
    assert paths.runtime_dir() == runtime  # again


def test_xdg_directory_of_ours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TELEMAGIC_RUNTIME_DIR")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert paths.runtime_dir() == tmp_path / "telemagic"


@pytest.mark.parametrize("xdg", ["", "/nonexistent"])
def test_falls_back_to_tmp(monkeypatch: pytest.MonkeyPatch, xdg: str) -> None:
    monkeypatch.delenv("TELEMAGIC_RUNTIME_DIR")
    monkeypatch.setenv("XDG_RUNTIME_DIR", xdg)
    assert str(paths.runtime_path()) == f"/tmp/telemagic-{os.getuid()}"


def test_wide_mode_is_refused(runtime: Path) -> None:
    runtime.mkdir(mode=0o755)
    with pytest.raises(HelperMissing, match=r"open to other users \(mode 0755\)") as caught:
        paths.runtime_dir()
    assert caught.value.hint == f"chmod 700 {runtime}"


def test_symlink_is_refused(runtime: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    runtime.symlink_to(tmp_path)
    with pytest.raises(HelperMissing, match="not a directory"):
        paths.runtime_dir()


def test_file_is_refused(runtime: Path) -> None:
    runtime.write_text("")
    with pytest.raises(HelperMissing, match="cannot be made"):
        paths.runtime_dir()


def test_foreign_owner_is_refused(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.getuid() == 0:
        runtime.mkdir(mode=0o700)
        os.chown(runtime, 12345, 12345)
    else:
        monkeypatch.setenv("TELEMAGIC_RUNTIME_DIR", "/usr")
    with pytest.raises(HelperMissing, match=r"belongs to uid \d+, not to you"):
        paths.runtime_dir()


def test_unmakeable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TELEMAGIC_RUNTIME_DIR", "/proc/none/such")
    with pytest.raises(HelperMissing, match="cannot be made"):
        paths.runtime_dir()


def test_too_long_for_a_socket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TELEMAGIC_RUNTIME_DIR", str(tmp_path / ("x" * 100)))
    with pytest.raises(HelperMissing, match="longer than the 107 bytes"):
        paths.socket_path("key")


def test_one_that_cannot_be_written_to(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime.mkdir(mode=0o700)
    monkeypatch.setattr(
        os, "access", lambda *_: False
    )  # a read-only file system: root's mode bits hide nothing else
    with pytest.raises(HelperMissing, match="cannot be written to") as caught:
        paths.runtime_dir()
    assert "TELEMAGIC_RUNTIME_DIR" in caught.value.hint
