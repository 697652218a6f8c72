"""What is shown, as JSON text that kernels hand on without reading it."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from telehelper.messages import Message

dump: Final = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


def values_of(row: Message) -> list[object]:
    """Return the values of a row's fields, in their order."""
    return [getattr(row, field.name) for field in fields(row)]


def join(head: Mapping[str, object], parts: Mapping[str, str]) -> str:
    """Return one object as text: `head`, which must not be empty, and the values of `parts`, which are text already."""
    return dump(head)[:-1] + "".join(f',"{name}":{text}' for name, text in parts.items()) + "}"
