from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from telehelper.errors import KubeconfigError

from telemagic import kubeconfig as kc

if TYPE_CHECKING:
    from pathlib import Path


def test_current_context(kubeconfig: Path) -> None:
    assert kc.read().choose() == kc.Context("demo", "embedded", "ada", "shop", "https://127.0.0.1:6443")
    assert kc.read().search == str(kubeconfig)


def test_named_context(kubeconfig: Path) -> None:
    assert kc.read(str(kubeconfig)).choose("staging").server == "https://127.0.0.1:7443"


def test_list_is_merged_first_wins(kubeconfig: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = tmp_path / "first"
    first.write_text("contexts: [{name: demo, context: {cluster: far, user: eve}}]")
    monkeypatch.setenv("KUBECONFIG", f"{first}:{tmp_path}/missing:{kubeconfig}")
    found = kc.read()
    assert found.search == f"{first}:{kubeconfig}"
    assert found.choose() == kc.Context("demo", "far", "eve", "", "https://127.0.0.1:7443")


def test_home_is_the_default(tmp_path: Path, kubeconfig: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBECONFIG")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".kube").mkdir()
    (tmp_path / ".kube/config").write_bytes(kubeconfig.read_bytes())
    assert kc.read().choose().name == "demo"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("contexts: [", "line 1: "),
        ("a: b\nc: [1,\n  }", "line 3: "),
        ("- a\n", "no mapping"),
        ("contexts: {}", "contexts is not a list"),
        ("clusters: [3]", "clusters is not a list of mappings"),
        ("", "no context is set"),
        ("current-context: ''", "no context is set"),
        ("current-context: gone", "no context 'gone'"),
        ("contexts: [{name: a, context: 3}]\ncurrent-context: a", "which has no server"),
        (b"\xff\xfe\x00", "not text"),
    ],
)
def test_unusable(tmp_path: Path, text: str | bytes, message: str) -> None:
    path = tmp_path / "config"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(KubeconfigError, match=message) as caught:
        kc.read(str(path)).choose()
    assert caught.value.hint


def test_did_you_mean(kubeconfig: Path) -> None:
    with pytest.raises(KubeconfigError, match="no context 'stagin'") as caught:
        kc.read().choose("stagin")
    assert caught.value.hint == "did you mean 'staging'?"
    with pytest.raises(KubeconfigError) as caught:
        kc.read().choose("zzz")
    assert caught.value.hint == "one of: broken, demo, staging"


def test_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(KubeconfigError, match="no kubeconfig at") as caught:
        kc.read(str(tmp_path / "none"))
    assert "--demo" in caught.value.hint
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    with pytest.raises(KubeconfigError, match="already runs inside a cluster"):
        kc.read(str(tmp_path / "none"))


def test_a_directory_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(KubeconfigError, match="cannot be read: Is a directory"):
        kc.read(str(tmp_path))


def test_closed_file(kubeconfig: Path) -> None:
    kubeconfig.chmod(0)
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)  # root may read everything
    try:
        with pytest.raises(KubeconfigError, match="cannot be read: Permission denied"):
            kc.read()
    finally:
        os.seteuid(before)
