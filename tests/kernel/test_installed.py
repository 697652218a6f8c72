"""What `%tele install` shows, and what it asks its child for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml
from telehelper.errors import KubeconfigError, UsageError

from telemagic import admin
from telemagic.installed import Installed, Step
from telemagic.parser import Line, Tree
from telemagic.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

STEPS = (
    Step("namespace telemagic", "created"),
    Step("clusterrole <x>", "skipped", "forbidden: <why>"),
    Step("deployment telemagic/telemagic-manager", "ready", "1.2 s"),
)


def test_the_steps_are_text_html_and_a_table() -> None:
    shown = Installed("Installed into dev, namespace telemagic", STEPS, "kind: Namespace\n")
    assert "skipped     clusterrole <x>  (forbidden: <why>)" in repr(shown)
    html = shown._repr_mimebundle_()["text/html"]
    assert "&lt;why&gt;" in html
    assert "<why>" not in html
    assert "tm-warned" in html
    assert list(shown) == list(STEPS)
    assert len(shown) == 3
    assert list(shown.frame.columns) == ["object", "state", "detail"]
    assert str(shown.frame["state"].dtype) == "category"
    assert "kind: Namespace" not in repr(shown)


def test_a_dry_run_shows_the_yaml_too() -> None:
    shown = Installed("Dry run", STEPS, "kind: <Namespace>\n", show_yaml=True)
    assert "kind: <Namespace>" in repr(shown)
    assert "kind: &lt;Namespace&gt;" in shown._repr_mimebundle_()["text/html"]


@pytest.fixture
def kubeconfig(tmp_path: Path) -> Path:
    path = tmp_path / "kubeconfig"
    body = {
        "current-context": "dev",
        "contexts": [{"name": "dev", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
        "users": [{"name": "u", "user": {}}],
    }
    path.write_text(yaml.safe_dump(body))
    return path


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    seen: list[list[str]] = []

    def run(task: str, arguments: list[str], on_step: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        seen.append([task, *arguments])
        on_step({"object": "namespace x", "state": "created", "detail": ""})
        return {"yaml": "kind: Namespace\n"}

    monkeypatch.setattr(admin, "run", run)
    return seen


def tele(*words: str) -> Any:
    tree = Tree("%tele")
    line = tree.parse(words)
    assert isinstance(line, Line)
    return tree.run(Session(), line)


def test_the_flags_reach_the_child(kubeconfig: Path, asked: list[list[str]]) -> None:
    shown = tele("install", "--kubeconfig", str(kubeconfig), "-n", "team-a", "--image", "r/m:1", "--dry-run")
    expected = [
        "--context",
        "dev",
        "--namespace",
        "team-a",
        "--timeout",
        "120.0",
        "--image",
        "r/m:1",
        "--dry-run",
    ]
    assert asked == [["install", "--kubeconfig", str(kubeconfig), *expected]]
    assert shown.title == "Dry run, nothing was changed; would be installed into dev, namespace team-a"
    assert shown.steps == (Step("namespace x", "created"),)
    assert tele("install", "--kubeconfig", str(kubeconfig), "--uninstall").title.startswith(
        "Uninstalled from dev"
    )
    assert "--uninstall" in asked[-1]


def test_a_wrong_context_costs_no_child(kubeconfig: Path, asked: list[list[str]]) -> None:
    with pytest.raises(KubeconfigError, match="no context 'prod'"):
        tele("install", "--kubeconfig", str(kubeconfig), "--context", "prod")
    with pytest.raises(UsageError):
        tele("install", "--bogus")
    assert asked == []
