"""What commands return: objects that show themselves and can be used as data."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from telemagic import cards

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from telehelper import messages


class Status:
    """What is connected to what: every field of the data plane's status as attribute and as item, as it was when asked.

    `dict(status)` and :meth:`to_dict` give plain data; times are Unix seconds.
    """

    def __init__(self, row: messages.Status, notices: Sequence[str] = ()) -> None:
        self.row = row
        self._notices = tuple(notices)
        self._at = time.time()

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  # the row's field decides the type
        if name.startswith("_") or name == "row":  # not yet set, as while unpickling
            raise AttributeError(name)
        return getattr(self.row, name)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self.keys()]

    def __getitem__(self, name: str) -> Any:  # noqa: ANN401  # as above
        return self.to_dict()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __len__(self) -> int:
        return len(self.keys())

    def keys(self) -> list[str]:
        """Return the names of the fields."""
        return list(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain dicts, lists and values, fit for JSON."""
        return {name: _plain(value) for name, value in asdict(self.row).items()}

    def __repr__(self) -> str:
        return self._card().text

    def _card(self) -> cards.Card:
        return cards.status(self.row, self._notices, self._at)

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        return self._card()._repr_mimebundle_()


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


class Text:
    """Lines for people, such as help: shown as they are."""

    def __init__(self, text: str) -> None:
        self.text = text.rstrip("\n")

    def __repr__(self) -> str:
        return self.text
