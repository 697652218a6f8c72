"""Notices of a table, shown beside it: a DataFrame's own display has no place for them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from telemagic import cards, live, showing

if TYPE_CHECKING:
    import pandas as pd


def shown(frame: pd.DataFrame, *, wide: bool = False) -> pd.DataFrame:
    """Show the table's notices, in a notebook as a card, elsewhere on standard error; return the table.

    `wide`: so that it will show all of its columns.
    """
    notices: list[str] = frame.attrs["telemagic"]["notices"]
    if notices and live.current_shell() is None:
        for line in notices:
            sys.stderr.write(f"note: {cards.printable(line)}\n")
    elif notices:
        from IPython.display import display

        display(cards.notes(notices))
    return showing.wide(frame) if wide else frame
