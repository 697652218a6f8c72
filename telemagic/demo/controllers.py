"""The demo cluster's controllers: what follows from its objects, and is brought about by changing others.

Deployments get ReplicaSets, those get pods, services get endpoints, namespaces get a service account, and what an
owner leaves behind goes, too. Level-triggered as Kubernetes' own: every round looks at all there is and ends when
nothing is left to change, so a round after a round does nothing. No I/O.

Left out: maxSurge and maxUnavailable (a new template's pods come first, the old ones go when those are ready), scaling
subresources, and pods that fail for good.
"""

from __future__ import annotations

import copy
import hashlib
import json
import time
import uuid
from typing import TYPE_CHECKING, Any, Final

from telemagic.demo import endpoints
from telemagic.demo.kinds import KIND
from telemagic.demo.objects import NODE_NAME, condition, timestamp
from telemagic.demo.writer import suffix

if TYPE_CHECKING:
    from collections.abc import Mapping

    from telemagic.demo.kinds import Kind
    from telemagic.demo.plan import AddressPlan
    from telemagic.demo.store import Store

Json = dict[str, Any]
_HASH_LENGTH: Final = 9
_REVISION: Final = "deployment.kubernetes.io/revision"
_DEPLOYMENTS, _REPLICA_SETS, _PODS = KIND["deployments"], KIND["replicasets"], KIND["pods"]
_OWNERS: Final = {kind.kind: kind for kind in (_DEPLOYMENTS, _REPLICA_SETS, KIND["services"])}


class Controllers:
    """Keep a store's objects in order.

    Parameters
    ----------
    store
        What to look at and to change.
    plan
        Where the API server itself is found, for the endpoints of `kubernetes`.
    """

    def __init__(self, store: Store, plan: AddressPlan) -> None:
        self._store = store
        self._plan = plan

    def reconcile(self) -> None:
        """Change what has to be, until nothing has."""
        version = 0
        while version != self._store.version:
            version = self._store.version
            self._namespaces()
            self._collect_garbage()
            for deployment in self._store.list(_DEPLOYMENTS):
                self._deployment(deployment)
            for replica_set in self._store.list(_REPLICA_SETS):
                self._replica_set(replica_set)
            self._services()

    def _namespaces(self) -> None:
        for namespace in self._store.list(KIND["namespaces"]):
            name = namespace["metadata"]["name"]
            if "deletionTimestamp" not in namespace["metadata"]:
                if self._store.get(KIND["serviceaccounts"], name, "default") is None:
                    self._create(
                        KIND["serviceaccounts"], {"metadata": {"name": "default", "namespace": name}}
                    )
                continue
            inside = [
                (kind, item)
                for kind in KIND.values()
                if kind.namespaced
                for item in self._store.list(kind, name)
            ]
            for kind, item in inside:
                self._remove(kind, item)
            if not any(self._store.list(kind, name) for kind in KIND.values() if kind.namespaced):
                self._store.delete(KIND["namespaces"], "", name)

    def _collect_garbage(self) -> None:
        """Remove what has an owner that is not there any more."""
        for kind in (_REPLICA_SETS, _PODS, KIND["endpoints"], KIND["endpointslices"]):
            for item in self._store.list(kind):
                owner = _controller(item)
                if owner is None or owner.get("kind") not in _OWNERS:
                    continue
                where = item["metadata"].get("namespace", "")
                found = self._store.get(_OWNERS[owner["kind"]], where, owner.get("name", ""))
                if found is None or found["metadata"].get("uid") != owner.get("uid"):
                    self._remove(kind, item)

    def _deployment(self, deployment: Json) -> None:
        spec, metadata = deployment["spec"], deployment["metadata"]
        wanted = int(spec.get("replicas", 1))
        name = f"{metadata['name']}-{template_hash(spec['template'])}"
        sets = {item["metadata"]["name"]: item for item in self._owned(_REPLICA_SETS, deployment)}
        if name not in sets:
            revision = 1 + max(map(_revision, sets.values()), default=0)
            sets[name] = self._create(_REPLICA_SETS, _replica_set(deployment, name, revision))
        current = sets.pop(name)
        self._scale(current, wanted)
        if int(current.get("status", {}).get("readyReplicas", 0)) >= wanted:
            for old in sets.values():
                self._scale(old, 0)
        status = _deployment_status(deployment, current, [current, *sets.values()])
        revision_now = {_REVISION: str(_revision(current))}
        changed = {**deployment, "status": status}
        changed["metadata"] = {**metadata, "annotations": {**_annotations(deployment), **revision_now}}
        self._store.put(_DEPLOYMENTS, changed)

    def _scale(self, replica_set: Json, replicas: int) -> None:
        if replica_set["spec"]["replicas"] != replicas:
            spec = {**replica_set["spec"], "replicas": replicas}
            self._store.put(_REPLICA_SETS, {**replica_set, "spec": spec})

    def _replica_set(self, replica_set: Json) -> None:
        wanted = replica_set["spec"]["replicas"]
        pods = [pod for pod in self._owned(_PODS, replica_set) if is_live(pod)]
        pods.sort(key=lambda pod: (not is_ready(pod), pod["metadata"]["name"]))
        for pod in pods[wanted:]:
            self._remove(_PODS, pod)
        del pods[wanted:]
        pods += [self._create(_PODS, _pod(replica_set)) for _ in range(wanted - len(pods))]
        ready = sum(map(is_ready, pods))
        generation = replica_set["metadata"].get("generation", 1)
        counts = {"replicas": len(pods), "readyReplicas": ready, "availableReplicas": ready}
        self._store.put(
            _REPLICA_SETS, {**replica_set, "status": {**counts, "observedGeneration": generation}}
        )

    def _services(self) -> None:
        pods = [pod for pod in self._store.list(_PODS) if is_live(pod) and pod["status"].get("podIP")]
        for service in self._store.list(KIND["services"]):
            made = endpoints.build(service, pods, self._plan)
            if made is None:
                continue
            flat, slices = made
            for kind, item in ((KIND["endpoints"], flat), *((KIND["endpointslices"], one) for one in slices)):
                self._keep(kind, item, service)

    def _keep(self, kind: Kind, item: Json, service: Json) -> None:
        """Store what is made of a service, with the identity it has had so far."""
        metadata = item["metadata"]
        before = self._store.get(kind, metadata["namespace"], metadata["name"])
        own = {**metadata, "ownerReferences": _owner(service)}
        if before is None:
            self._create(kind, {**item, "metadata": own})
            return
        kept = {name: before["metadata"][name] for name in ("uid", "creationTimestamp")}
        self._store.put(kind, {**item, "metadata": {**own, **kept}})

    def _owned(self, kind: Kind, owner: Json) -> list[Json]:
        uid = owner["metadata"]["uid"]
        found = self._store.list(kind, owner["metadata"].get("namespace", ""))
        return [item for item in found if (_controller(item) or {}).get("uid") == uid]

    def _create(self, kind: Kind, item: Json) -> Json:
        made = {"uid": str(uuid.uuid4()), "creationTimestamp": timestamp(time.time())}
        return self._store.put(kind, {**item, "metadata": {**item["metadata"], **made}})

    def _remove(self, kind: Kind, item: Json) -> None:
        """Delete an object; a pod's end only begins here, the kubelet's part is the rest."""
        metadata = item["metadata"]
        if kind != _PODS or item["spec"].get("hostNetwork"):
            self._store.delete(kind, metadata.get("namespace", ""), metadata["name"])
        elif "deletionTimestamp" not in metadata:
            going = copy.deepcopy(item)
            going["metadata"]["deletionTimestamp"] = timestamp(time.time())
            self._store.put(kind, going)


def template_hash(template: Json) -> str:
    """Return what tells a pod template from others, in a ReplicaSet's name."""
    text = json.dumps(template, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:_HASH_LENGTH]


def is_live(pod: Json) -> bool:
    """Tell whether nobody has deleted a pod."""
    return "deletionTimestamp" not in pod["metadata"]


def is_ready(pod: Json) -> bool:
    """Tell whether a pod is ready."""
    conditions = pod.get("status", {}).get("conditions") or ()
    return any(one.get("type") == "Ready" and one.get("status") == "True" for one in conditions)


def _annotations(item: Json) -> dict[str, str]:
    return item["metadata"].get("annotations") or {}


def _revision(replica_set: Json) -> int:
    text = _annotations(replica_set).get(_REVISION, "")
    return int(text) if text.isdecimal() else 0


def _controller(item: Json) -> Mapping[str, str] | None:
    owners = item["metadata"].get("ownerReferences") or ()
    return next((owner for owner in owners if owner.get("controller")), None)


def _owner(item: Json) -> list[Json]:
    metadata = item["metadata"]
    return [
        {
            "apiVersion": item["apiVersion"],
            "kind": item["kind"],
            "name": metadata["name"],
            "uid": metadata["uid"],
            "controller": True,
            "blockOwnerDeletion": True,
        }
    ]


def _replica_set(deployment: Json, name: str, revision: int) -> Json:
    spec, metadata = deployment["spec"], deployment["metadata"]
    template = copy.deepcopy(spec["template"])
    hashed = {"pod-template-hash": name.rpartition("-")[2]}
    template["metadata"]["labels"] |= hashed
    return {
        "metadata": {
            "name": name,
            "namespace": metadata["namespace"],
            "labels": template["metadata"]["labels"],
            "annotations": {_REVISION: str(revision)},
            "ownerReferences": _owner(deployment),
            "generation": 1,
        },
        "spec": {
            "replicas": int(spec.get("replicas", 1)),
            "selector": {"matchLabels": {**spec["selector"]["matchLabels"], **hashed}},
            "template": template,
        },
        "status": {"replicas": 0},
    }


def _deployment_status(deployment: Json, current: Json, sets: list[Json]) -> Json:
    ready, updated = (int(current.get("status", {}).get(name, 0)) for name in ("readyReplicas", "replicas"))
    wanted = int(deployment["spec"].get("replicas", 1))
    since = timestamp(time.time())
    is_available = ready >= wanted
    for before in deployment.get("status", {}).get("conditions") or ():
        if (before["type"], before["status"]) == ("Available", str(is_available)):
            since = before["lastTransitionTime"]
    return {
        "observedGeneration": deployment["metadata"].get("generation", 1),
        "replicas": sum(int(item.get("status", {}).get("replicas", 0)) for item in sets),
        "updatedReplicas": updated,
        "readyReplicas": ready,
        "availableReplicas": ready,
        "unavailableReplicas": max(wanted - ready, 0),
        "conditions": [condition("Available", ok=is_available, since=since)],
    }


def _pod(replica_set: Json) -> Json:
    template, metadata = replica_set["spec"]["template"], replica_set["metadata"]
    found: Json = copy.deepcopy({"metadata": template.get("metadata") or {}, "spec": template["spec"]})
    found["metadata"] |= {
        "name": f"{metadata['name']}-{suffix()}",
        "generateName": f"{metadata['name']}-",
        "namespace": metadata["namespace"],
        "ownerReferences": _owner(replica_set),
    }
    found["spec"].setdefault("restartPolicy", "Always")
    found["spec"].setdefault("serviceAccountName", "default")
    if not found["spec"].get("hostNetwork"):
        found["spec"]["nodeName"] = NODE_NAME
    found["status"] = {"phase": "Pending"}
    return found
