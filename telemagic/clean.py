"""What comes from a cluster, made fit to be printed before anything of it is a value in a notebook.

Names, images' messages, reasons, texts of API servers and managers: any of them may hold what steers a terminal, or
turns the direction of what stands beside it. They all come in by the control connection, and are cleaned there; tables
and changes travel as JSON within such a text, and are cleaned when that is read. What is only shown, such as the doctor's
findings, is cleaned by the cards (:mod:`telemagic.cards`).
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TypeVar

from telehelper.errors import printable
from telehelper.messages import Message

M = TypeVar("M", bound=Message)
JsonT = TypeVar("JsonT")


def clean_message(message: M) -> M:
    """Return a message whose texts are printable; itself, where they are."""
    changed = {}
    for field in fields(message):
        value = getattr(message, field.name)
        cleaned = clean(value)
        if cleaned is not value:
            changed[field.name] = cleaned
    return replace(message, **changed) if changed else message


def clean(value: JsonT) -> JsonT:
    """Return a value of JSON, or of a message's field, whose texts are printable; itself, where they are."""
    return _clean(value)  # type: ignore[return-value]  # of the same type


def _clean(value: object) -> object:
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, Message):
        return clean_message(value)
    if isinstance(value, dict):
        pairs = [(_clean(key), _clean(item)) for key, item in value.items()]
        same = all(a is b and c is d for (a, c), (b, d) in zip(pairs, value.items(), strict=True))
        return value if same else dict(pairs)
    if isinstance(value, list | tuple):
        items = [_clean(item) for item in value]
        same = all(a is b for a, b in zip(items, value, strict=True))
        return value if same else type(value)(items)
    return value
