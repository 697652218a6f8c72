"""JSON text read row by row: thousands of rows in one call would keep all other threads waiting, event loops among them."""

from __future__ import annotations

import json
import re
from typing import Any, Final

_DECODER: Final = json.JSONDecoder()
_NEXT: Final = re.compile(r"[^\s,:]")  # where the next value begins, or something ends


def read_table(text: str) -> list[Any]:
    """Read a list as :func:`json.loads` does."""
    return _table(text, _next(text, 0))[0]


def read_tables(text: str) -> dict[str, Any]:
    """Read an object whose long values are lists of lists, as :func:`json.loads` does."""
    found: dict[str, Any] = {}
    at = _next(text, _next(text, 0) + 1)
    while text[at] != "}":
        name, at = _DECODER.raw_decode(text, at)
        at = _next(text, at)
        found[name], at = _table(text, at) if text.startswith("[[", at) else _DECODER.raw_decode(text, at)
        at = _next(text, at)
    return found


def _table(text: str, at: int) -> tuple[list[Any], int]:
    rows, at = [], _next(text, at + 1)
    while text[at] != "]":
        row, at = _DECODER.raw_decode(text, at)
        rows.append(row)
        at = _next(text, at)
    return rows, at + 1


def _next(text: str, at: int) -> int:
    found = _NEXT.search(text, at)
    if found is None:
        raise ValueError("the text ends too early")
    return found.start()
