"""Strategies for what is nearly right: valid values with some parts replaced, and texts and numbers that hurt."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Final

from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Sequence

# Numbers, texts and addresses at the edges of what a parser takes; a lone surrogate is what JSON's \ud800 gives.
EDGES: Final[tuple[Any, ...]] = (
    None, True, False, 0, -1, 1, 80, 65_535, 65_536, 2**31, 2**53, 10**30, 10**400, 1.5, float("inf"), -0.0,
    "", " ", "\0", "a\nb", "\ud800", "x" * 300, "é.shop", "10.0.0.0/8", "0.0.0.0/0", "::/0", "fe80::1%eth0", "10.0.0.1",
    "1e999", "None", "TCP", "-", "..", "~", "*", "2026-13-45T99:00:00Z", "0001-01-01T00:00:00", [], {}, [[]], [{}],
    {"a": {}}, [None], ["10.0.0.1", 7, None],
)  # fmt: skip
edges: Final = st.sampled_from(EDGES)
junk: Final = st.recursive(
    edges | st.integers() | st.text(max_size=20) | st.ip_addresses().map(str),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def places(value: object, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths to everything in a value, itself excepted."""
    found = [path] if path else []
    if isinstance(value, dict):
        children = list(value.items())
    elif isinstance(value, list):
        children = list(enumerate(value))
    else:
        children = []
    for key, child in children:
        found += places(child, (*path, key))
    return found


def replace(value: Any, path: tuple[Any, ...], new: object) -> None:
    """Put `new` at a path; nothing happens if an earlier replacement has taken the place away."""
    *way, last = path
    for key in way:
        try:
            value = value[key]
        except (KeyError, IndexError, TypeError):
            return
    if isinstance(value, dict) or (isinstance(value, list) and isinstance(last, int) and last < len(value)):
        value[last] = new


@st.composite
def mutated(draw: st.DrawFn, samples: Sequence[Any], most: int = 4) -> Any:
    """Take one of the samples, and replace up to `most` of its parts."""
    value = copy.deepcopy(draw(st.sampled_from(samples)))
    everywhere = places(value)
    if everywhere:
        for path in draw(st.lists(st.sampled_from(everywhere), max_size=most)):
            replace(value, path, copy.deepcopy(draw(junk)))
    return value


@st.composite
def spoiled(draw: st.DrawFn, samples: Sequence[bytes], most: int = 6) -> bytes:
    """Take one of the samples; change some of its bytes, cut it or append to it."""
    data = bytearray(draw(st.sampled_from(samples)))
    for at, value in draw(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=most)):
        if data:
            data[at % len(data)] = value
    if draw(st.booleans()):
        del data[draw(st.integers(0, len(data))) :]
    return bytes(data) + draw(st.binary(max_size=12))
