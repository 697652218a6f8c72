"""The demo API server's objects: what there is, and every change since the start."""

from __future__ import annotations

import asyncio
import copy
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from telemagic.demo.kinds import Kind

    Matcher = Callable[["dict[str, Any]"], bool]

_HISTORY: Final = 1_000  # changes that a watch can catch up with


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

    def put(self, kind: Kind, item: dict[str, Any]) -> dict[str, Any]:
        """Add an object, or replace the one with its name, and return it as it is stored: a copy, not to be changed.

        An object that is there and equal stays as it is, with its version.
        """
        key = _key(kind, item)
        before = self._objects.get(key)
        if before is not None and _unversioned(before) == _unversioned(item):
            return before
        stored = copy.deepcopy({"apiVersion": kind.group_version, "kind": kind.kind, **item})
        self._record("ADDED" if before is None else "MODIFIED", kind, stored)
        self._objects[key] = stored
        return stored

    def delete(self, kind: Kind, namespace: str, name: str) -> dict[str, Any] | None:
        """Remove an object, and return its last state; None if there was none."""
        found = self._objects.pop((kind, namespace, name), None)
        if found is None:
            return None
        last = copy.deepcopy(found)
        self._record("DELETED", kind, last)
        return last

    def _record(self, change: str, kind: Kind, item: dict[str, Any]) -> None:
        self.version += 1
        item["metadata"]["resourceVersion"] = str(self.version)
        self._changes.append(Change(self.version, change, kind, item))
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


def _key(kind: Kind, item: dict[str, Any]) -> tuple[Kind, str, str]:
    metadata = item["metadata"]
    return kind, metadata.get("namespace", ""), metadata["name"]


def _unversioned(item: dict[str, Any]) -> dict[str, Any]:
    metadata = {name: value for name, value in item["metadata"].items() if name != "resourceVersion"}
    return {
        **{name: value for name, value in item.items() if name not in ("apiVersion", "kind")},
        "metadata": metadata,
    }


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
        "status.podIP": status.get("podIP", ""),
        **{f"involvedObject.{name}": value for name, value in involved.items()},
    }
