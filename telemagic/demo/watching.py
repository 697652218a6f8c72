"""Watches: what there is and then every change, as the API tells of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from telemagic.demo.refusals import Refused, bad_request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from telemagic.demo.kinds import Kind, Target
    from telemagic.demo.store import Store

Json = dict[str, Any]


def since(query: Mapping[str, str]) -> int | None:
    """Return the version after which a watch wants changes; None if it wants all that is there first.

    Raises
    ------
    Refused
        `resourceVersion` is none.
    """
    asked = query.get("resourceVersion", "")
    if asked in ("", "0") or query.get("sendInitialEvents") == "true":
        return None
    try:
        return int(asked)
    except ValueError:
        raise bad_request(f'invalid resource version "{asked}"') from None


async def events(store: Store, target: Target, query: Mapping[str, str]) -> AsyncIterator[Json]:
    """Go through the events of a watch, without an end; :func:`since` has not refused its query."""
    kind = target.kind
    after = since(query)
    version = store.version if after is None else after
    if after is None:
        for item in store.list(kind, target.namespace):
            yield {"type": "ADDED", "object": item}
    if query.get("sendInitialEvents") == "true":
        yield _bookmark(kind, version)
    while True:
        changes = store.since(version)
        if changes is None:
            gone = Refused(410, "Expired", f"too old resource version: {version} ({store.version})")
            yield {"type": "ERROR", "object": gone.status}
            return
        for change in changes:
            version = change.version
            where = change.object["metadata"].get("namespace", "")
            if change.kind == kind and target.namespace in ("", where):
                yield {"type": change.type, "object": change.object}
        if version >= store.version:
            await store.wait()


def _bookmark(kind: Kind, version: int) -> Json:
    metadata = {
        "resourceVersion": str(version),
        "annotations": {"k8s.io/initial-events-end": "true"},
    }
    return {
        "type": "BOOKMARK",
        "object": {"kind": kind.kind, "apiVersion": kind.group_version, "metadata": metadata},
    }
