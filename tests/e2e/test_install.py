"""Installing a manager into a cluster that has none, connecting by it, and taking it out, on a real API server."""

from __future__ import annotations

import subprocess
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from telehelper.errors import CredentialsRefused, ManagerUnavailable, TelemagicError

from telemagic.installed import Installed
from telemagic.parser import Line, Tree
from telemagic.session import Session
from tests.demo.clusters import private_runtime, start
from tests.e2e.inside import Untouched, inside

if TYPE_CHECKING:
    from collections.abc import Iterator

    from telemagic.demo.client import Demo

pytestmark = pytest.mark.netns


@pytest.fixture(scope="module")
def cluster() -> Iterator[Demo]:
    """A cluster without a manager."""
    with private_runtime(), start(owned=True, no_manager=True) as found:
        yield found


def tele(*words: str) -> Any:
    tree = Tree("telemagic")
    line = tree.parse(words)
    assert isinstance(line, Line)
    return tree.run(Session(), line)


def install(*words: str) -> dict[str, str]:
    shown = tele("install", *words)
    assert isinstance(shown, Installed)
    return {f"{step.object} {step.state}": step.detail for step in shown}


def kinds(steps: dict[str, str]) -> set[str]:
    return {step.rpartition(" ")[2] for step in steps}


@inside()
def test_installed_used_and_taken_out() -> None:
    before = Untouched()
    import telemagic

    with pytest.raises(ManagerUnavailable, match="no traffic manager") as none:
        telemagic.connect(via="manager")
    assert "%tele install" in none.value.hint
    assert kinds(install("--dry-run")) == {"created"}
    with pytest.raises(ManagerUnavailable):
        telemagic.connect(via="manager")
    assert kinds(install()) == {"created", "ready"}
    assert kinds(install()) == {"unchanged", "ready"}
    with telemagic.connect(via="manager") as connection:
        assert connection.status.manager.startswith("telemagic/telemagic-manager-")
        assert {row["confidence"] for row in connection.status.to_dict()["cidrs"]} == {"certain"}
        with urllib.request.urlopen("http://catalog.shop:8000/health", timeout=10) as answer:
            assert answer.status == 200
    assert kinds(install("--uninstall")) == {"deleted"}
    assert kinds(install("--uninstall")) == {"absent"}
    with pytest.raises(ManagerUnavailable):
        telemagic.connect(via="manager")
    before.check()


@inside()
def test_in_a_namespace_of_ones_own() -> None:
    import telemagic

    assert "ready" in kinds(install("-n", "team-a"))
    with pytest.raises(ManagerUnavailable):
        telemagic.connect(via="manager")
    with telemagic.connect(via="manager", manager_namespace="team-a") as connection:
        assert connection.status.manager.startswith("team-a/")
    assert kinds(install("-n", "team-a", "--uninstall")) == {"deleted"}


def test_an_image_that_is_not_there(cluster: Demo) -> None:
    where = ("--kubeconfig", str(cluster.kubeconfig))
    with pytest.raises(TelemagicError, match="cannot pull the image") as caught:
        tele("install", *where, "--image", "registry.invalid/nothing:1", "--timeout", "2")
    assert "--image" in caught.value.hint
    assert "--uninstall" in caught.value.hint
    assert kinds(install(*where, "--uninstall")) == {"deleted"}


def test_without_the_rights_it_says_which_and_what_was_made(cluster: Demo) -> None:
    with pytest.raises(CredentialsRefused, match="cannot patch resource") as caught:
        tele("install", "--kubeconfig", str(cluster.viewer_kubeconfig), "-n", "default")
    assert caught.value.hint


def test_the_yaml_of_a_dry_run_is_what_kubectl_applies(cluster: Demo) -> None:
    shown = tele("install", "--kubeconfig", str(cluster.kubeconfig), "--dry-run")
    names = [f"{each['kind'].lower()}" for each in yaml.safe_load_all(shown.yaml)]
    kubectl = ["kubectl", "--kubeconfig", str(cluster.kubeconfig)]
    applied = subprocess.run(
        [*kubectl, "apply", "--validate=false", "-f", "-"],
        input=shown.yaml,
        text=True,
        capture_output=True,
        check=False,
    )
    assert applied.returncode == 0, applied.stderr
    assert [line.partition("/")[0].partition(".")[0] for line in applied.stdout.splitlines()] == names
    assert kinds(install("--kubeconfig", str(cluster.kubeconfig))) <= {"unchanged", "configured", "ready"}
    assert kinds(install("--kubeconfig", str(cluster.kubeconfig), "--uninstall")) == {"deleted"}
