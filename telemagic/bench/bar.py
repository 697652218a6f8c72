"""How far a run is: a line that redraws itself in a terminal, a card that does in a notebook, else nothing."""

from __future__ import annotations

import sys
import time
from html import escape
from typing import TYPE_CHECKING, Any, Final, Self, TextIO

from telemagic import cards, live

if TYPE_CHECKING:
    from collections.abc import Callable

_WIDTH: Final = 30  # characters
_CLEAR: Final = "\r\x1b[K"  # to the line's begin, erase to its end (ECMA-48)


class Bar:
    """Shows nothing; what shows something says how."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Leave nothing on the screen: the result follows, or an error."""

    def show(self, at: int, of: int, doing: str) -> None:
        """Take how many steps of how many are done, and what comes now."""


class TerminalBar(Bar):
    """One line, redrawn in place."""

    def __init__(self, out: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._out = out or sys.stderr
        self._clock = clock
        self._began = clock()

    def show(self, at: int, of: int, doing: str) -> None:
        """Redraw."""
        filled = _WIDTH * at // of
        line = (
            f"{'█' * filled}{'░' * (_WIDTH - filled)} {at}/{of}  {doing}  {self._clock() - self._began:.0f} s"
        )
        self._write(_CLEAR + cards.printable(line))

    def __exit__(self, *_: object) -> None:
        self._write(_CLEAR)

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()


class NotebookBar(Bar):
    """One display that changes in place."""

    def __init__(self) -> None:
        self._display: Any = None  # IPython's DisplayHandle

    def show(self, at: int, of: int, doing: str) -> None:
        """Appear, or redraw."""
        card = _card(at, of, doing)
        if self._display is None:
            from IPython.display import display

            self._display = display(card, display_id=True)
        else:
            self._display.update(card)

    def __exit__(self, kind: object = None, *_: object) -> None:
        if self._display is not None:
            word = "Measured" if kind is None else "Not measured to the end"
            html = (
                "" if kind is None else cards.box(f'<div class="tm-note">{word}</div>')
            )  # the result follows
            self._display.update(cards.Card(word, html))


def _card(at: int, of: int, doing: str) -> cards.Card:
    html = (
        f'<div class="tm-head tm-busy"><i class="tm-dot"></i><span>Measuring</span><b>{escape(doing)}</b>'
        f'<span class="tm-right">{at}/{of}</span></div>'
        f'<progress value="{at}" max="{of}" style="width:100%"></progress>'
    )
    return cards.Card(f"Measuring {cards.printable(doing)}: {at}/{of}", cards.box(html))


def choose() -> Bar:
    """Choose by where we are: a notebook, a terminal, or anything else."""
    if live.is_kernel(live.current_shell()):
        return NotebookBar()
    return TerminalBar() if sys.stderr.isatty() else Bar()
