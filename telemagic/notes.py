"""What is said beside a result: notices of a table, whose own display has no place for them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from telemagic import cards, live, showing

if TYPE_CHECKING:
    import pandas as pd


def shown(frame: pd.DataFrame, *, wide: bool = False) -> pd.DataFrame:
    """Show the table's notices; return the table. `wide`: so that it will show all of its columns."""
    say(frame.attrs["telemagic"]["notices"])
    return showing.wide(frame) if wide else frame


def say(lines: list[str]) -> None:
    """Show lines, in a notebook as a card, elsewhere on standard error."""
    if lines and live.current_shell() is None:
        for line in lines:
            sys.stderr.write(f"note: {cards.printable(line)}\n")
    elif lines:
        from IPython.display import display

        display(cards.notes(lines))
