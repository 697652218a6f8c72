"""What is said when containers cannot be run here."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tests.farend import containerd
from tests.farend.conftest import lacks_containers

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_only_root_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert lacks_containers() == "only root can run containers with containerd"


def test_the_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(containerd, "PLUGINS", tmp_path)
    assert lacks_containers() == "not installed: containerd containernetworking-plugins runc util-linux"
    for tool in ("containerd", "ctr", "unshare", "bridge"):
        (tmp_path / tool).touch(mode=0o755)
    assert lacks_containers() == "not installed: runc"
    (tmp_path / "runc").touch(mode=0o755)
    assert lacks_containers() == ""
