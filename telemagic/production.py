"""Which contexts are production, where a slip costs real money: their cards carry a banner that cannot be overlooked."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

DEFAULT: Final = ("*prod*",)

_patterns: list[str] = [*DEFAULT]


def use(patterns: Iterable[str]) -> None:
    """Replace the patterns: shell wildcards, compared without regard to case."""
    _patterns[:] = patterns


def pattern_of(context: str) -> str:
    """Return the pattern that a context's name matches; empty for an ordinary one."""
    return next((each for each in _patterns if fnmatchcase(context.lower(), each.lower())), "")
