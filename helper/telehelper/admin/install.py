"""Putting a traffic manager into a cluster, and taking it out again; idempotent, and content with few rights.

What is forbidden and can be done without is skipped, and said: the ClusterRole for discovery (each user's own rights show
networks too), the users' Role (who may forward ports anyway needs none), a namespace that is there already.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Protocol

from telehelper.admin import manifests
from telehelper.errors import ClusterError, CredentialsRefused
from telehelper.kube.client import ApiNotFound

if TYPE_CHECKING:
    from collections.abc import Callable

    from telehelper.admin.manifests import Json

FIELD_MANAGER: Final = "telemagic"
ROLLOUT_TIMEOUT: Final = 120.0  # seconds until the manager must be ready: a node may have to pull the image
POLL: Final = 0.5  # seconds between looks at the rollout
IMAGE_PATIENCE: Final = 10.0  # seconds that pulling the image may fail: a kubelet tries again
_OPTIONAL: Final = {
    "ClusterRole": "the manager cannot find the cluster's networks itself; each user's own rights are asked instead",
    "ClusterRoleBinding": "the manager cannot find the cluster's networks itself; each user's own rights are asked instead",
    "Role": "users need the right to port-forward in this namespace from elsewhere",
    "Namespace": "it must be there already",
}
_NO_IMAGE: Final = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull")
_BUILD: Final = (
    "build it from helper/telehelper/manager/Containerfile, push it, and name it: --image REGISTRY/NAME:TAG"
)
_NO_START: Final = (
    "CrashLoopBackOff",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
)


class InstallFailed(ClusterError):
    """The manager was put into the cluster, but does not start; what was made stays, to be looked at."""

    slug = "install-failed"


class Cluster(Protocol):
    """What installing needs of an API client; failures are ClusterError."""

    async def get(self, path: str, **params: str) -> Json:
        """GET an object or a list."""

    async def apply(
        self, path: str, body: Json, *, field_manager: str, dry_run: bool = False, force: bool = False
    ) -> Json:
        """Apply an object on the server's side, and return what became of it."""

    async def delete(self, path: str, *, dry_run: bool = False) -> Json:
        """Delete an object with what it owns."""


@dataclass(frozen=True, slots=True)
class Step:
    """What became of one object. ``state``: created, configured, unchanged, skipped, deleted, absent, kept or ready."""

    object: str
    state: str
    detail: str = ""


async def install(
    cluster: Cluster,
    tell: Callable[[Step], None],
    *,
    namespace: str = manifests.NAMESPACE,
    image: str = manifests.IMAGE,
    dry_run: bool = False,
    patience: float = ROLLOUT_TIMEOUT,
) -> None:
    """Apply all objects and wait until the manager is ready.

    Parameters
    ----------
    tell
        Hears of each object as it is done.
    dry_run
        Have the API server check everything and change nothing. It cannot check what would be in a namespace that is
        not there yet.
    patience
        Seconds for the rollout.

    Raises
    ------
    CredentialsRefused
        Something that cannot be done without is forbidden.
    InstallFailed
        The manager does not get ready.
    """
    is_there = True
    for wanted in manifests.manifests(namespace, image):
        if dry_run and not is_there and "namespace" in wanted["metadata"]:
            tell(Step(manifests.title(wanted), "created", "not checked: its namespace is not there yet"))
            continue
        step = await _apply(cluster, wanted, dry_run=dry_run)
        is_there = is_there and not (wanted["kind"] == "Namespace" and step.state == "created")
        tell(step)
    if not dry_run:
        tell(await _rollout(cluster, namespace, image, patience))


async def _apply(cluster: Cluster, wanted: Json, *, dry_run: bool) -> Step:
    path, title = manifests.path(wanted), manifests.title(wanted)
    try:
        before = await _find(cluster, path)
        after = await cluster.apply(path, wanted, field_manager=FIELD_MANAGER, dry_run=dry_run, force=True)
    except CredentialsRefused as error:
        lost = _OPTIONAL.get(wanted["kind"])
        if lost is None or error.data.get("status") == "401":
            raise
        return Step(title, "skipped", f"forbidden: {lost}")
    if before is None:
        return Step(title, "created")
    same = before["metadata"].get("resourceVersion") == after["metadata"].get("resourceVersion")
    return Step(title, "unchanged" if same else "configured")


async def _find(cluster: Cluster, path: str) -> Json | None:
    try:
        return await cluster.get(path)
    except ApiNotFound:
        return None


async def _rollout(cluster: Cluster, namespace: str, image: str, patience: float) -> Step:
    where = manifests.collection("Deployment", "apps/v1", namespace)
    began = monotonic()
    trouble: list[str] = []
    while monotonic() - began < patience:
        deployment = await cluster.get(f"{where}/{manifests.NAME}")
        if _is_rolled_out(deployment):
            return Step(f"deployment {namespace}/{manifests.NAME}", "ready", f"{monotonic() - began:.1f} s")
        pods = await cluster.get(
            f"/api/v1/namespaces/{namespace}/pods", labelSelector=f"app.kubernetes.io/name={manifests.NAME}"
        )
        trouble = [*_refusals(deployment), *waiting_reasons(pods)]
        if _lacks_image(trouble) and monotonic() - began > IMAGE_PATIENCE:
            break
        await asyncio.sleep(POLL)
    if _lacks_image(trouble):
        raise InstallFailed(f"the cluster cannot pull the image {image}", hint=_BUILD)
    raise InstallFailed(
        f"the manager was not ready within {patience:.0f} s{': ' if trouble else ''}{', '.join(trouble)}",
        hint=f"kubectl -n {namespace} describe pod -l app.kubernetes.io/name={manifests.NAME}",
    )


def _lacks_image(trouble: list[str]) -> bool:
    return any(reason in _NO_IMAGE for reason in trouble)


def _is_rolled_out(deployment: Json) -> bool:
    """Tell whether all replicas are of the present generation and ready (as ``kubectl rollout status`` does)."""
    status, wanted = deployment.get("status") or {}, int(deployment["spec"].get("replicas", 1))
    if int(status.get("observedGeneration", 0)) < int(deployment["metadata"].get("generation", 0)):
        return False
    counts = [int(status.get(name) or 0) for name in ("updatedReplicas", "availableReplicas", "replicas")]
    return counts[0] >= wanted and counts[1] >= wanted and counts[2] <= counts[0]


def _refusals(deployment: Json) -> list[str]:
    """Return why no pod can be made: a quota, an admission policy."""
    return [
        str(condition.get("message") or condition.get("reason"))
        for condition in (deployment.get("status") or {}).get("conditions") or ()
        if condition.get("type") == "ReplicaFailure" and condition.get("status") == "True"
    ]


def waiting_reasons(pods: Json) -> list[str]:
    """Return why containers of a PodList do not run, each once: ``ErrImagePull``, ``CrashLoopBackOff``."""
    found: list[str] = []
    for pod in pods.get("items") or ():
        for status in (pod.get("status") or {}).get("containerStatuses") or ():
            waiting = (status.get("state") or {}).get("waiting") or {}
            if waiting.get("reason") in (*_NO_IMAGE, *_NO_START):
                found.append(str(waiting["reason"]))
    return list(dict.fromkeys(found))


async def uninstall(
    cluster: Cluster,
    tell: Callable[[Step], None],
    *,
    namespace: str = manifests.NAMESPACE,
    dry_run: bool = False,
) -> None:
    """Delete what `install` made, last first; what is shared or not ours stays, and is named."""
    for made in reversed(manifests.manifests(namespace)):
        path, title = manifests.path(made), manifests.title(made)
        try:
            found = await _find(cluster, path)
            kept = await _reason_to_keep(cluster, found, namespace) if found is not None else ""
            if found is None:
                tell(Step(title, "absent"))
            elif kept:
                tell(Step(title, "kept", kept))
            else:
                await cluster.delete(path, dry_run=dry_run)
                tell(Step(title, "deleted"))
        except ApiNotFound:
            tell(Step(title, "absent"))
        except CredentialsRefused as error:
            if made["kind"] not in _OPTIONAL or error.data.get("status") == "401":
                raise
            tell(Step(title, "kept", f"forbidden: {error.message}"))


async def _reason_to_keep(cluster: Cluster, found: Json, namespace: str) -> str:
    labels: dict[str, Any] = found["metadata"].get("labels") or {}
    name, _, value = manifests.OURS.partition("=")
    if labels.get(name) != value:
        return "telemagic did not make it"
    if found["kind"] == "ClusterRole":
        bindings = await cluster.get(
            manifests.collection("ClusterRoleBinding", "rbac.authorization.k8s.io/v1"),
            labelSelector=manifests.OURS,
        )
        role = found["metadata"]["name"]
        own = {manifests.title(made) for made in manifests.manifests(namespace)}
        used = [
            item["metadata"]["name"]
            for item in bindings.get("items") or ()
            if item["roleRef"]["name"] == role and f"clusterrolebinding {item['metadata']['name']}" not in own
        ]
        return f"{used[0]} needs it" if used else ""
    if found["kind"] == "Namespace":
        return await _others_in(cluster, namespace)
    return ""


async def _others_in(cluster: Cluster, namespace: str) -> str:
    """Return what somebody else has in a namespace that we made; deleting it would take that along."""
    for group, plural in (
        ("/api/v1", "pods"),
        ("/api/v1", "services"),
        ("/api/v1", "persistentvolumeclaims"),
    ):
        try:
            found = await cluster.get(f"{group}/namespaces/{namespace}/{plural}")
        except ApiNotFound:
            continue
        names = [
            item["metadata"]["name"]
            for item in found.get("items") or ()
            if (item["metadata"].get("labels") or {}).get("app.kubernetes.io/managed-by") != "telemagic"
        ]
        if names:
            return f"{plural} {names[0]} of somebody else is in it"
    return ""
