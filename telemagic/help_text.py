"""How help is laid out: prose and tables folded for the width there is, as notebooks break lines in the midst of words."""

from __future__ import annotations

import argparse
import re
import textwrap
from typing import Final

GAP: Final = re.compile(r" {2,}(?=\S)")  # between the columns of a table; in front of an indented line
MIN_CELL: Final = 24  # characters; a last column narrower than that would be one word per line


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Folds descriptions; lists subcommands without argparse's heading of their metavariable."""

    def _format_action(self, action: argparse.Action) -> str:
        if action.nargs != argparse.PARSER:
            return super()._format_action(action)
        subactions = action._get_subactions()  # type: ignore[attr-defined]  # of subparsers only
        return "".join(map(super()._format_action, subactions))

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n\n".join(fold(part, width - len(indent)) for part in text.split("\n\n"))


def fold_lines(text: str, width: int) -> str:
    """Fold the lines that are too long, each within the column that it ends in."""
    return "\n".join(_fold_line(line, width) if len(line) > width else line for line in text.split("\n"))


def fold(paragraph: str, width: int) -> str:
    """Fold a paragraph. If it is a table or indented, line by line: what is folded stays in its column."""
    if GAP.search(paragraph) is None:
        return textwrap.fill(paragraph, width)
    return fold_lines(paragraph, width)


def _fold_line(line: str, width: int) -> str:
    gaps = list(GAP.finditer(line))
    start = gaps[-1].end() if gaps else 0
    if width - start < MIN_CELL:
        start = gaps[0].end()
    # Paths and names of pods are copied from here, so they stay in one piece.
    return textwrap.fill(
        line, width, subsequent_indent=" " * start, break_long_words=False, break_on_hyphens=False
    )
