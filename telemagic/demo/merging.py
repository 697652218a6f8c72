"""How a patch changes an object: JSON merge patch, and a server-side apply without owners of fields. No I/O."""

from __future__ import annotations

import copy
from typing import Any, Final

Json = dict[str, Any]
# What tells the items of a list apart, first match first; kubernetes api, the `listMapKey` markers.
_KEYS: Final = (
    ("containerPort", "protocol"),
    ("port", "protocol"),
    ("mountPath",),
    ("ip",),
    ("type",),
    ("uid",),
    ("name",),
)


def merge_patch(target: Any, patch: Any) -> Any:  # noqa: ANN401 - JSON
    """Apply a JSON merge patch; RFC 7396 §2."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    merged = copy.deepcopy(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge_patch(merged.get(name), value)
    return merged


def apply(target: Any, wanted: Any) -> Any:  # noqa: ANN401 - JSON
    """Give an object all that is wanted, and leave it what is not mentioned; null takes away.

    Maps are merged, lists whose items have a name are merged by it, other lists are replaced. The real server-side
    apply also takes away what the same manager applied before and no longer mentions; here it stays. A strategic merge
    patch is nearly the same, and taken for it without its directives, whose names begin with a dollar.
    """
    if isinstance(wanted, dict):
        merged = copy.deepcopy(target) if isinstance(target, dict) else {}
        for name, value in wanted.items():
            if value is None:
                merged.pop(name, None)
            elif not str(name).startswith("$"):
                merged[name] = apply(merged.get(name), value)
        return merged
    if isinstance(wanted, list):
        return _apply_list(target if isinstance(target, list) else [], wanted)
    return copy.deepcopy(wanted)


def _apply_list(target: list[Any], wanted: list[Any]) -> list[Any]:
    fields = _key_of(wanted or target)
    if fields is None:
        return copy.deepcopy(wanted)
    # What is no such item is replaced, as if the list had been of another kind.
    kept = target if _key_of([*target, *wanted]) == fields else []
    merged = {_key(item, fields): copy.deepcopy(item) for item in kept}
    for item in wanted:
        merged[_key(item, fields)] = apply(merged.get(_key(item, fields)), item)
    return list(merged.values())


def _key(item: Json, fields: tuple[str, ...]) -> tuple[object, ...]:
    return (item[fields[0]], *(item.get(field, "TCP") for field in fields[1:]))  # a protocol's default


def _key_of(items: list[Any]) -> tuple[str, ...] | None:
    """Return what tells these items apart; None if they are to be replaced as a whole, as rules and subjects are."""
    if not items or not all(isinstance(item, dict) for item in items):
        return None
    if all("kind" in item and "uid" not in item for item in items):
        return None
    return next((key for key in _KEYS if all(_is_scalar(item.get(key[0])) for item in items)), None)


def _is_scalar(value: object) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool)
