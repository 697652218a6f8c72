"""Installing and uninstalling, against an API server in a dictionary; tests/e2e/test_install.py has the real one."""

from __future__ import annotations

import asyncio
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import pytest
from telehelper.admin import install as module
from telehelper.admin import manifests
from telehelper.admin.install import InstallFailed, Step, install, uninstall, waiting_reasons
from telehelper.errors import CredentialsRefused
from telehelper.kube.client import ApiNotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

DEPLOYMENT = "/apis/apps/v1/namespaces/telemagic/deployments/telemagic-manager"


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL", 0.001)
    monkeypatch.setattr(module, "IMAGE_PATIENCE", 0.0)


class FakeCluster:
    """Keeps objects by path. `forbidden`: kinds that may not be touched; a Deployment is rolled out after some looks."""

    def __init__(self, forbidden: Collection[str] = (), waiting: str = "", looks: int = 2) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        self.changes: list[str] = []
        self.version = 1
        self._forbidden = forbidden
        self._waiting = waiting
        self._looks = looks

    async def get(self, path: str, **params: str) -> dict[str, Any]:
        if path == DEPLOYMENT and path in self.objects:
            self._looks -= 1
        if path in self.objects:
            return self._deployed(deepcopy(self.objects[path]))
        items = [each for where, each in self.objects.items() if where.rpartition("/")[0] == path]
        if path.endswith("/pods"):
            items = [*items, self._pod()] if DEPLOYMENT in self.objects and params else items
            return {"items": items}
        if items or path.rpartition("/")[2] in ("services", "persistentvolumeclaims", "clusterrolebindings"):
            return {"items": items}
        raise ApiNotFound(f"no {path}")

    def _deployed(self, found: dict[str, Any]) -> dict[str, Any]:
        if found["kind"] == "Deployment":
            ready = int(self._looks <= 0 and not self._waiting)
            counts = {
                "updatedReplicas": 1,
                "replicas": 1,
                "availableReplicas": ready,
                "observedGeneration": 1,
            }
            found["status"] = counts
            found["metadata"]["generation"] = 1
        return found

    def _pod(self) -> dict[str, Any]:
        labels = {"app.kubernetes.io/managed-by": "telemagic"}
        state = {"waiting": {"reason": self._waiting}} if self._waiting else {"running": {}}
        return {
            "metadata": {"name": "p", "labels": labels},
            "status": {"containerStatuses": [{"state": state}]},
        }

    async def apply(
        self,
        path: str,
        body: dict[str, Any],
        *,
        field_manager: str,
        dry_run: bool = False,
        force: bool = False,
    ) -> dict[str, Any]:
        assert (field_manager, force) == ("telemagic", True)
        self._check(body["kind"])
        before = self.objects.get(path)
        same = before is not None and {**before["metadata"], "resourceVersion": ""} == {
            **body["metadata"],
            "resourceVersion": "",
        }
        if before is not None and same and before.get("spec") == body.get("spec"):
            return deepcopy(before)
        self.version += 1
        after = deepcopy(body)
        after["metadata"]["resourceVersion"] = str(self.version)
        if not dry_run:
            self.objects[path] = after
            self.changes.append(f"apply {manifests.title(body)}")
        return deepcopy(after)

    async def delete(self, path: str, *, dry_run: bool = False) -> dict[str, Any]:
        found = self.objects[path]
        self._check(found["kind"])
        if not dry_run:
            del self.objects[path]
            self.changes.append(f"delete {manifests.title(found)}")
        return found

    def _check(self, kind: str) -> None:
        if kind in self._forbidden:
            raise CredentialsRefused(f"forbids {kind}")


def run(work: Callable[[Callable[[Step], None]], Any]) -> list[Step]:
    told: list[Step] = []
    asyncio.run(work(told.append))
    return told


def states(told: list[Step]) -> dict[str, str]:
    return {step.object: step.state for step in told}


def test_everything_is_made_once() -> None:
    cluster = FakeCluster()
    first = run(lambda tell: install(cluster, tell))
    assert [step.state for step in first] == ["created"] * 6 + ["ready"]
    assert len(cluster.objects) == 6
    changes = list(cluster.changes)
    again = run(lambda tell: install(cluster, tell))
    assert [step.state for step in again] == ["unchanged"] * 6 + ["ready"]
    assert cluster.changes == changes


def test_another_image_changes_the_deployment_alone() -> None:
    cluster = FakeCluster()
    run(lambda tell: install(cluster, tell))
    told = run(lambda tell: install(cluster, tell, image="telemagic/manager:next"))
    changed = [step.object for step in told if step.state == "configured"]
    assert changed == ["deployment telemagic/telemagic-manager"]


def test_a_dry_run_changes_nothing_and_says_what_it_could_not_check() -> None:
    cluster = FakeCluster()
    told = run(lambda tell: install(cluster, tell, dry_run=True))
    assert cluster.objects == {}
    assert [step.state for step in told] == ["created"] * 6
    assert "not checked" in told[-1].detail
    run(lambda tell: install(cluster, tell))
    checked = run(lambda tell: install(cluster, tell, dry_run=True, image="x/y:2"))
    assert states(checked)["deployment telemagic/telemagic-manager"] == "configured"
    assert all("not checked" not in step.detail for step in checked)


def test_what_is_forbidden_and_not_needed_is_skipped_and_named() -> None:
    cluster = FakeCluster(forbidden={"ClusterRole", "ClusterRoleBinding", "Role", "Namespace"})
    told = run(lambda tell: install(cluster, tell))
    skipped = [step for step in told if step.state == "skipped"]
    assert len(skipped) == 4
    assert all(step.detail.startswith("forbidden: ") for step in skipped)
    assert told[-1].state == "ready"


def test_what_is_needed_must_be_permitted() -> None:
    with pytest.raises(CredentialsRefused, match="Deployment"):
        run(lambda tell: install(FakeCluster(forbidden={"Deployment"}), tell))


def test_an_image_that_cannot_be_pulled_is_named_with_what_to_do() -> None:
    with pytest.raises(InstallFailed, match="cannot pull the image x/y:1") as caught:
        run(lambda tell: install(FakeCluster(waiting="ErrImagePull"), tell, image="x/y:1"))
    assert "--image" in caught.value.hint


def test_a_manager_that_crashes_is_waited_for_and_then_named() -> None:
    with pytest.raises(InstallFailed, match=r"not ready within 0 s: CrashLoopBackOff") as caught:
        run(lambda tell: install(FakeCluster(waiting="CrashLoopBackOff"), tell, patience=0.05))
    assert "kubectl -n telemagic describe pod" in caught.value.hint


def test_an_admission_that_refuses_pods_is_told() -> None:
    conditions = [{"type": "ReplicaFailure", "status": "True", "message": "exceeded quota"}]
    assert module._refusals({"status": {"conditions": conditions}}) == ["exceeded quota"]
    assert module._refusals({"status": {"conditions": [{"type": "Available", "status": "True"}]}}) == []
    assert module._refusals({}) == []


@pytest.mark.parametrize(
    ("status", "is_done"),
    [
        ({}, False),
        ({"observedGeneration": 1, "updatedReplicas": 2, "availableReplicas": 2, "replicas": 2}, False),
        ({"observedGeneration": 2, "updatedReplicas": 2, "availableReplicas": 2, "replicas": 2}, True),
        ({"observedGeneration": 2, "updatedReplicas": 2, "availableReplicas": 2, "replicas": 3}, False),
        ({"observedGeneration": 2, "updatedReplicas": 1, "availableReplicas": 2, "replicas": 2}, False),
        ({"observedGeneration": 2, "updatedReplicas": 2, "availableReplicas": None, "replicas": 2}, False),
    ],
)
def test_rolled_out_is_what_kubectl_calls_so(status: dict[str, Any], is_done: bool) -> None:
    deployment = {"metadata": {"generation": 2}, "spec": {"replicas": 2}, "status": status}
    assert module._is_rolled_out(deployment) is is_done


def test_reasons_are_those_of_containers_that_do_not_run() -> None:
    waiting = {"containerStatuses": [{"state": {"waiting": {"reason": "ContainerCreating"}}}]}
    crashing = {"containerStatuses": [{"state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}
    pods = {"items": [{"status": waiting}, {"status": crashing}, {"status": crashing}, {"status": None}, {}]}
    assert waiting_reasons(pods) == ["CrashLoopBackOff"]


def test_uninstalling_leaves_nothing() -> None:
    cluster = FakeCluster()
    run(lambda tell: install(cluster, tell))
    told = run(lambda tell: uninstall(cluster, tell))
    assert [step.state for step in told] == ["deleted"] * 6
    assert cluster.objects == {}
    assert [step.state for step in run(lambda tell: uninstall(cluster, tell))] == ["absent"] * 6


def test_a_dry_run_of_uninstalling_says_what_would_go() -> None:
    cluster = FakeCluster()
    run(lambda tell: install(cluster, tell))
    told = run(lambda tell: uninstall(cluster, tell, dry_run=True))
    assert [step.state for step in told] == ["deleted"] * 6
    assert len(cluster.objects) == 6


def test_what_is_not_ours_or_shared_stays() -> None:
    cluster = FakeCluster()
    run(lambda tell: install(cluster, tell))
    other = manifests.manifests("team-a")[3]
    cluster.objects[manifests.path(other)] = other
    cluster.objects["/api/v1/namespaces/telemagic/services/db"] = {
        "kind": "Service",
        "metadata": {"name": "db"},
    }
    del cluster.objects[DEPLOYMENT]["metadata"]["labels"]["app.kubernetes.io/managed-by"]
    told = {step.object: step for step in run(lambda tell: uninstall(cluster, tell))}
    assert told["deployment telemagic/telemagic-manager"].detail == "telemagic did not make it"
    assert told["clusterrole telemagic-discovery"].detail == "telemagic-discovery-team-a needs it"
    assert told["namespace telemagic"].detail == "services db of somebody else is in it"
    assert told["role telemagic/telemagic-user"].state == "deleted"


def test_what_may_not_be_deleted_is_kept_and_named() -> None:
    cluster = FakeCluster()
    run(lambda tell: install(cluster, tell))
    cluster._forbidden = {"ClusterRole"}
    told = {step.object: step for step in run(lambda tell: uninstall(cluster, tell))}
    assert told["clusterrole telemagic-discovery"].state == "kept"
    assert told["clusterrole telemagic-discovery"].detail.startswith("forbidden")
