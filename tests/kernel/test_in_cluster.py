from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from telehelper.errors import KubeconfigError, NotConnected

import telemagic
from telemagic import in_cluster
from telemagic.connection import Connection

if TYPE_CHECKING:
    from pathlib import Path

    from telemagic.control_fake import FakeLauncher
    from telemagic.session import Session


@pytest.fixture
def pod(session: Session, kubeconfig: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A pod as the kubelet makes it; returns where the service account is."""
    account = tmp_path / "serviceaccount"
    account.mkdir()
    (account / "token").write_text("secret")
    (account / "namespace").write_text("ml\n")
    monkeypatch.setattr(in_cluster, "SERVICE_ACCOUNT", account)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    return account


def run(shell: Any, line: str) -> Any:
    result = shell.run_cell(line)
    result.raise_error()
    return result.result


def test_nothing_is_connected_and_that_is_said(pod: Path, shell: Any, launcher: FakeLauncher) -> None:
    found = run(shell, "%tele connect")
    assert isinstance(found, Connection)
    assert launcher.started == []
    assert (found.context, found.namespace, found.is_open) == ("in-cluster", "ml", True)
    text = repr(found)
    assert "runs inside the cluster already, in namespace ml" in text
    assert "%tele connect --kubeconfig FILE" in text
    assert set(found._repr_mimebundle_()) == {"text/plain", "text/html"}
    assert run(shell, "%tele connect") is found
    assert "connected to in-cluster, namespace ml" in run(shell, "%tele").text


def test_a_kernel_shows_its_card_and_no_error(
    pod: Path, shell: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shell, "kernel", object(), raising=False)  # what tells a notebook from a terminal
    found = run(shell, "%tele connect")
    said = capsys.readouterr()
    assert "runs inside the cluster already" in said.out
    assert "NotConnected" not in said.out + said.err
    assert found.last_error is None


@pytest.mark.parametrize(
    "line",
    [
        "flows",
        "routes",
        "services",
        "pods",
        "status",
        "ping postgres:5432",
        "resolve postgres",
        "fault data-plane-killed",
    ],
)
def test_what_is_not_there_says_so(pod: Path, shell: Any, line: str) -> None:
    run(shell, "%tele connect;")
    with pytest.raises(NotConnected, match="runs inside the cluster, where nothing passes through") as caught:
        run(shell, f"%tele {line}")
    assert "services' names as they are" in caught.value.hint


def test_the_faults_are_told_and_whether_they_are_possible_nobody_knows(pod: Path, shell: Any) -> None:
    run(shell, "%tele connect;")
    assert run(shell, "%tele fault").possible.isna().all()


def test_what_only_a_real_connection_has(pod: Path) -> None:
    found = telemagic.connect()
    with pytest.raises(NotConnected):
        found.nothing_like_this  # type: ignore[attr-defined]  # noqa: B018
    assert not hasattr(found, "_repr_png_")


def test_disconnecting_is_fine(pod: Path, session: Session, shell: Any) -> None:
    found = run(shell, "%tele connect")
    assert "nothing is undone" in run(shell, "%tele disconnect").text
    assert session.connection is None
    assert not found.is_open
    with telemagic.connect() as again:
        assert again.is_open
    assert not again.is_open
    assert session.connection is None

    async def both_ways() -> bool:
        async with telemagic.aconnect() as found:
            return found.is_open

    assert asyncio.run(both_ways())
    assert session.connection is None


def test_a_connected_cell(pod: Path, shell: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(shell, "%%tele\n6 * 7") == 42
    assert "no flows: this notebook runs inside the cluster" in capsys.readouterr().out


def test_another_cluster_can_be_connected(pod: Path, shell: Any, kubeconfig: Path, session: Session) -> None:
    run(shell, "%tele connect;")
    connection = run(shell, f"%tele connect --kubeconfig {kubeconfig}")
    assert connection.context == "demo"
    assert session.connection is connection


def test_what_is_named_is_connected(
    pod: Path, shell: Any, kubeconfig: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(KubeconfigError):
        run(shell, "%tele connect --context other")
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))  # a user's own kubeconfig wins
    assert run(shell, "%tele connect").context == "demo"


@pytest.mark.parametrize("lacking", ["token", "KUBERNETES_SERVICE_HOST"])
def test_half_a_pod_is_none(pod: Path, shell: Any, lacking: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (pod / "token").unlink() if lacking == "token" else monkeypatch.delenv(lacking)
    with pytest.raises(KubeconfigError):
        run(shell, "%tele connect")


def test_a_pod_without_a_namespace_file(pod: Path) -> None:
    (pod / "namespace").unlink()
    assert telemagic.connect().namespace == "default"


def test_exit_and_fork_have_nothing_to_do(pod: Path, session: Session) -> None:
    found = telemagic.connect()
    found.forget()
    session.close()
    assert not found.is_open
