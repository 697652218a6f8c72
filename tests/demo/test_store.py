"""The store: versions, changes and copies."""

from __future__ import annotations

import asyncio
from typing import Any

from telemagic.demo.kinds import KIND
from telemagic.demo.store import Store

PODS = KIND["pods"]


def pod(name: str, **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "shop"}, "spec": spec}


def changes(store: Store, version: int) -> list[tuple[str, str]]:
    found = store.since(version)
    assert found is not None
    return [(change.type, change.object["metadata"]["name"]) for change in found]


def test_every_change_is_told_once() -> None:
    store = Store()
    start = store.version
    store.put(PODS, pod("one"))
    store.put(PODS, pod("one", nodeName="n"))
    store.put(PODS, pod("two"))
    store.delete(PODS, "shop", "one")
    assert changes(store, start) == [
        ("ADDED", "one"),
        ("MODIFIED", "one"),
        ("ADDED", "two"),
        ("DELETED", "one"),
    ]
    assert [item["metadata"]["name"] for item in store.list(PODS)] == ["two"]


def test_an_equal_object_is_no_change() -> None:
    store = Store()
    first = store.put(PODS, pod("one", nodeName="n"))
    assert store.put(PODS, first) is first
    assert store.put(PODS, pod("one", nodeName="n")) is first
    assert store.put(PODS, pod("one")) is not first


def test_what_is_stored_is_a_copy() -> None:
    store, mine = Store(), pod("one", nodeName="n")
    stored = store.put(PODS, mine)
    mine["spec"]["nodeName"] = "changed"
    assert stored["spec"]["nodeName"] == "n"
    assert "resourceVersion" not in mine["metadata"]


def test_the_last_state_of_what_is_deleted_has_a_version_of_its_own() -> None:
    store = Store()
    first = store.put(PODS, pod("one"))
    last = store.delete(PODS, "shop", "one")
    assert last is not None
    assert (
        int(last["metadata"]["resourceVersion"]) == store.version > int(first["metadata"]["resourceVersion"])
    )
    assert store.delete(PODS, "shop", "one") is None


def test_what_is_too_long_ago_is_not_told() -> None:
    store = Store()
    start = store.version
    for number in range(1_001):
        store.put(PODS, pod("one", number=number))
    assert store.since(start) is None
    assert store.since(store.version) is not None


def test_waiting_ends_with_the_next_change() -> None:
    async def run() -> None:
        store = Store()
        waiting = asyncio.create_task(store.wait())
        await asyncio.sleep(0)
        store.put(PODS, pod("one"))
        async with asyncio.timeout(5):
            await waiting

    asyncio.run(run())
