"""How an error shows itself: two lines where it is raised, a card where it is a value; plain text for everything else.

Importing this teaches the errors, which know nothing of notebooks, how to look there.
"""

from __future__ import annotations

import contextlib
import os
import sys
from html import escape
from typing import TYPE_CHECKING, Final

from telehelper import errors

from telemagic import cards, live

if TYPE_CHECKING:
    from collections.abc import Iterator

# SGR, ECMA-48 §8.3.117. No red: an error's background is red already. Lab leaves "faint" out, which reads well all the same.
_BOLD: Final = "\x1b[1m"
_FAINT: Final = "\x1b[2m"
_PLAIN: Final = "\x1b[0m"


def lines(error: errors.TelemagicError, *, coloured: bool = False) -> list[str]:
    """Return what a cell shows instead of a traceback: what and why, and what to do, if anything."""
    name, message = type(error).__name__, cards.printable(error.message)
    remedy = cards.printable(error.hint)
    if not coloured:
        return [f"{name}: {message}", *([f"  try: {remedy}"] if remedy else [])]
    return [
        f"{_BOLD}{name}{_PLAIN}: {message}",
        *([f"{_FAINT}  try: {remedy}{_PLAIN}"] if remedy else []),
    ]


def card(error: errors.TelemagicError) -> cards.Card:
    """Return the card of an error that is looked at as a value: `error` at the end of a cell, `t.last_error`."""
    html = (
        '<div class="tm-what tm-failed"><i class="tm-mark" aria-label="error"></i>'
        f'<b>{escape(type(error).__name__)}</b></div><div class="tm-why">{escape(error.message)}</div>'
    )
    if error.hint:
        html += f'<div class="tm-try"><b>try</b>{escape(error.hint)}</div>'
    return cards.Card("\n".join(lines(error)), cards.box(html))


def shows_colour(shell: object) -> bool:
    """Whether somebody looks at this shell's errors, so that colours are no noise.

    A front end with a person before it lets cells ask him something; nbclient and papermill, whose output goes to logs,
    do not. See https://no-color.org for the variable.
    """
    if os.environ.get("NO_COLOR") or shell is None:
        return False
    if live.is_kernel(shell):
        return bool(getattr(shell.kernel, "_allow_stdin", False))  # type: ignore[attr-defined]  # is_kernel says so
    return sys.stdout is not None and sys.stdout.isatty()


def is_short(shell: object) -> bool:
    """Whether errors are two lines; `%config TeleMagics.short_errors = False` wants the whole chain."""
    return all(getattr(one, "short_errors", True) for one in getattr(shell, "configurables", ()))


@contextlib.contextmanager
def short_interrupts(shell: object) -> Iterator[None]:
    """Have a cell that the user interrupts say so in a word: where in our code that was tells him nothing."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        if is_short(shell):
            interrupt._render_traceback_ = lambda: ["KeyboardInterrupt"]  # type: ignore[attr-defined]  # IPython's hook
        raise


class Look:
    """How errors show themselves in IPython; see :class:`telehelper.errors.Look`."""

    def lines(self, error: errors.TelemagicError) -> list[str]:
        """Return two lines, or IPython's own traceback with the remedy below it."""
        shell = live.current_shell()
        if shell is None or not (error.is_bug or not is_short(shell)):
            return lines(error, coloured=shows_colour(shell))
        whole = shell.InteractiveTB.structured_traceback(type(error), error, error.__traceback__, tb_offset=1)
        return [*whole, *lines(error, coloured=False)[1:]]

    def bundle(self, error: errors.TelemagicError) -> dict[str, str]:
        """Return the card."""
        return card(error)._repr_mimebundle_()


errors.use_look(Look())
