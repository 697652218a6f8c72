"""Which distributions are needed, for what, by the metadata of those that are installed."""

from __future__ import annotations

from importlib import metadata
from typing import Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

OURS: Final = "telemagic"
PARTS: Final = ("product", "demo", "manager", "test")  # the narrowest first; all but the product are extras


def _wanted(name: str, extra: str) -> list[Requirement]:
    found = [Requirement(text) for text in metadata.requires(name) or ()]
    return [each for each in found if each.marker is None or each.marker.evaluate({"extra": extra})]


def _reach(name: str, extra: str, seen: set[tuple[str, str]]) -> None:
    if (name, extra) in seen:
        return
    seen.add((name, extra))
    for requirement in _wanted(name, extra):
        inner = canonicalize_name(requirement.name)
        for each in ("", *requirement.extras):
            _reach(inner, each, seen)


def needed(part: str) -> set[str]:
    """Names of the distributions that a part needs, directly or not; without ours."""
    seen: set[tuple[str, str]] = set()
    _reach(OURS, "" if part == "product" else part, seen)
    return {name for name, _ in seen} - {OURS}


def by_part() -> dict[str, str]:
    """Each distribution with the narrowest part that needs it."""
    found: dict[str, str] = {}
    for part in PARTS:
        for name in sorted(needed(part)):
            found.setdefault(name, part)
    return dict(sorted(found.items()))
