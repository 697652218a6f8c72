"""The demo API server's objects: what there is, and every change since the start."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Matcher = Callable[["dict[str, Any]"], bool]

_HISTORY: Final = 1_000  # changes that a watch can catch up with


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of object, as discovery shows it."""

    group_version: str
    plural: str
    kind: str
    namespaced: bool = True
    singular: str = ""
    short: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ("get", "list", "watch")

    @property
    def resource(self) -> dict[str, Any]:
        """The entry in an APIResourceList."""
        entry: dict[str, Any] = {
            "name": self.plural,
            "singularName": self.singular or self.kind.lower(),
            "namespaced": self.namespaced,
            "kind": self.kind,
            "verbs": list(self.verbs),
        }
        if self.short:
            entry["shortNames"] = list(self.short)
        if self.plural in ("pods", "services", "deployments", "replicasets"):
            entry["categories"] = ["all"]
        return entry


KINDS: Final = (
    Kind("v1", "namespaces", "Namespace", namespaced=False, short=("ns",)),
    Kind("v1", "nodes", "Node", namespaced=False, short=("no",)),
    Kind("v1", "pods", "Pod", short=("po",)),
    Kind("v1", "services", "Service", short=("svc",)),
    Kind("v1", "endpoints", "Endpoints", singular="endpoints", short=("ep",)),
    Kind("v1", "events", "Event", short=("ev",)),
    Kind("v1", "configmaps", "ConfigMap", short=("cm",)),
    Kind("v1", "secrets", "Secret"),
    Kind("v1", "serviceaccounts", "ServiceAccount", short=("sa",)),
    Kind("apps/v1", "deployments", "Deployment", short=("deploy",)),
    Kind("apps/v1", "replicasets", "ReplicaSet", short=("rs",)),
    Kind("apps/v1", "statefulsets", "StatefulSet", short=("sts",)),
    Kind("apps/v1", "daemonsets", "DaemonSet", short=("ds",)),
    Kind("discovery.k8s.io/v1", "endpointslices", "EndpointSlice"),
    Kind("networking.k8s.io/v1", "servicecidrs", "ServiceCIDR", namespaced=False),
    Kind("coordination.k8s.io/v1", "leases", "Lease"),
)


@dataclass(frozen=True, slots=True)
class Change:
    """Something happened to an object: ADDED, MODIFIED or DELETED."""

    version: int
    type: str
    kind: Kind
    object: dict[str, Any]


class Store:
    """All objects of the cluster by kind, namespace and name; versions count every change."""

    def __init__(self) -> None:
        self.version = 1
        self._objects: dict[tuple[Kind, str, str], dict[str, Any]] = {}
        self._changes: deque[Change] = deque(maxlen=_HISTORY)
        self._changed = asyncio.Event()

    def put(self, kind: Kind, item: dict[str, Any]) -> None:
        """Add an object, or replace the one with its name."""
        metadata = item["metadata"]
        key = (kind, metadata.get("namespace", ""), metadata["name"])
        self.version += 1
        metadata["resourceVersion"] = str(self.version)
        stored = {"apiVersion": kind.group_version, "kind": kind.kind, **item}
        change = "MODIFIED" if key in self._objects else "ADDED"
        self._objects[key] = stored
        self._changes.append(Change(self.version, change, kind, stored))
        self._changed.set()
        self._changed = asyncio.Event()

    def get(self, kind: Kind, namespace: str, name: str) -> dict[str, Any] | None:
        """Return one object, or None."""
        return self._objects.get((kind, namespace, name))

    def list(self, kind: Kind, namespace: str = "") -> list[dict[str, Any]]:
        """Return the objects of a kind, of one namespace or of all."""
        return [
            item
            for (found, where, _), item in sorted(self._objects.items(), key=lambda entry: entry[0][1:])
            if found == kind and namespace in ("", where)
        ]

    def since(self, version: int) -> Iterator[Change] | None:
        """Return the changes after a version, or None if that is too long ago."""
        if version < self.version - len(self._changes):
            return None
        return (change for change in list(self._changes) if change.version > version)

    async def wait(self) -> None:
        """Wait for the next change."""
        await self._changed.wait()


def selector(labels: str, fields: str) -> Callable[[dict[str, Any]], bool]:
    """Return a predicate for `labelSelector` and `fieldSelector`.

    Raises
    ------
    ValueError
        A requirement that this server does not know.
    """
    tests = [_label_test(part.strip()) for part in _split(labels)]
    tests += [_field_test(part.strip()) for part in fields.split(",") if part.strip()]
    return lambda item: all(test(item) for test in tests)


def _split(labels: str) -> list[str]:
    parts: list[str] = []
    depth = 0
    for char in labels:
        depth += (char == "(") - (char == ")")
        if not parts or (char == "," and depth == 0):
            parts.append("")
        if char != "," or depth:
            parts[-1] += char
    return [part for part in parts if part.strip()]


def _label_test(text: str) -> Matcher:
    def labels(item: dict[str, Any]) -> dict[str, str]:
        found: dict[str, str] = item["metadata"].get("labels", {})
        return found

    for operator, negated in ((" notin ", True), (" in ", False)):
        key, found, values = text.partition(operator)
        if found:
            wanted = {value.strip() for value in values.strip().strip("()").split(",")}
            return lambda item: (labels(item).get(key.strip()) in wanted) is not negated
    if text.startswith("!"):
        return lambda item: text[1:].strip() not in labels(item)
    return _equality(text, labels) or (lambda item: text in labels(item))


def _equality(text: str, values: Callable[[dict[str, Any]], dict[str, str]]) -> Matcher | None:
    for operator in ("!=", "==", "="):
        key, found, value = text.partition(operator)
        if found:
            wanted = value.strip()
            return lambda item: (values(item).get(key.strip()) == wanted) is (operator != "!=")
    return None


def _field_test(text: str) -> Matcher:
    test = _equality(text, _fields)
    if test is None:
        raise ValueError(f"field selector {text!r} is not understood")
    return test


def _fields(item: dict[str, Any]) -> dict[str, str]:
    metadata, spec, status = item["metadata"], item.get("spec", {}), item.get("status", {})
    involved = item.get("involvedObject", {})
    return {
        "metadata.name": metadata["name"],
        "metadata.namespace": metadata.get("namespace", ""),
        "spec.nodeName": spec.get("nodeName", ""),
        "status.phase": status.get("phase", ""),
        **{f"involvedObject.{name}": value for name, value in involved.items()},
    }
