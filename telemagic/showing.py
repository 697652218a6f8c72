"""How our tables look: the columns that people look for, and the digits that mean something; the data stays whole.

Only DataFrames that carry our facts (`attrs["telemagic"]`) are shown so, and what is made of them; others as before.
"""

from __future__ import annotations

import shutil
import sys
import textwrap
from html import escape
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pandas as pd

DECIMALS: Final = 3  # of milliseconds; below a microsecond there is only noise
MIN_COLUMNS: Final = 2  # that are shown however narrow a terminal is
_HTML: Final = "text/html"
_PLAIN: Final = "text/plain"
# pandas 3 calls it by its public name; by name, so that nothing has to be imported for it.
_FRAMES: Final = (("pandas", "DataFrame"), ("pandas.core.frame", "DataFrame"))
_NOTE: Final = '<div style="max-width: 60em; color: var(--jp-ui-font-color2, #757575)">{}</div>'


def wide(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the table so that it shows all of its columns."""
    frame = frame.copy(deep=False)
    frame.attrs["telemagic"] = _facts(frame) | {"wide": True}
    return frame


def html(frame: pd.DataFrame) -> str | None:
    """Return what a notebook shows; None where pandas is told to make no HTML."""
    import pandas as pd

    limit = None if _facts(frame).get("wide") else pd.get_option("display.max_columns")
    shown = _short(frame)
    with pd.option_context("display.max_columns", limit):
        table: str | None = shown._repr_html_()  # type: ignore[operator]  # pandas-stubs do not know it
    more = _more(frame, shown)
    return table if table is None or not more else table + _NOTE.format(escape(more))


def text(frame: pd.DataFrame) -> str:
    """Return what a terminal shows, as many columns as fit beside each other."""
    import pandas as pd

    width = pd.get_option("display.width") or 80
    if sys.stdout.isatty():
        width = shutil.get_terminal_size((width, 24)).columns
    if not _is_whole(frame):
        return repr(_rounded(frame))
    shown = _fitting(_short(frame), width - len(str(len(frame))), gap=2)
    with pd.option_context("display.max_columns", None, "display.width", width):
        return _with_note(repr(shown), _more(frame, shown), width)


def lines(frame: pd.DataFrame, width: int) -> str:
    """Return all rows, without an index; as many columns as fit into `width`, or all that are no details if it is 0."""
    if not len(frame):
        return "no rows"
    shown = _short(frame)
    if width and _is_whole(frame):
        shown = _fitting(shown, width + 1, gap=1)
    return _with_note(shown.to_string(index=False), _more(frame, shown) if width else "", width)


def _facts(frame: pd.DataFrame) -> dict[str, Any]:
    facts = frame.attrs.get("telemagic")
    return facts if isinstance(facts, dict) else {}


def _is_whole(frame: pd.DataFrame) -> bool:
    """Whether columns may be left out: no `wide`, and no choice of columns that the user has made already."""
    facts = _facts(frame)
    return not facts.get("wide") and set(facts.get("columns", ())) <= set(frame.columns)


def _short(frame: pd.DataFrame) -> pd.DataFrame:
    if not _is_whole(frame):
        return _rounded(frame)
    return _rounded(frame.loc[:, ~frame.columns.isin(_facts(frame).get("details", []))])


def _rounded(frame: pd.DataFrame) -> pd.DataFrame:
    times = [name for name, unit in _facts(frame).get("units", {}).items() if unit == "ms"]
    return frame.round(dict.fromkeys(times, DECIMALS))


def _fitting(frame: pd.DataFrame, width: int, gap: int) -> pd.DataFrame:
    """Leave out the last columns until the others, with a gap in front of each, fit."""
    for count in range(len(frame.columns)):
        width -= len(frame.iloc[:, [count]].to_string(index=False).partition("\n")[0]) + gap
        if width < 0 and count >= MIN_COLUMNS:
            return frame.iloc[:, :count]
    return frame


def _more(frame: pd.DataFrame, shown: pd.DataFrame) -> str:
    left = [str(name) for name in frame.columns if name not in shown.columns]
    many = "column" if len(left) == 1 else "columns"
    return f"{len(left)} more {many}, with --wide: {', '.join(left)}" if left else ""


def _with_note(table: str, note: str, width: int) -> str:
    folded: Iterable[str] = textwrap.wrap(note, width, subsequent_indent="  ") if note else ()
    return "\n".join((table, *folded))


# --- in IPython --------------------------------------------------------------------------------------------------


def _as_html(frame: pd.DataFrame) -> str | None:
    if _facts(frame):
        return html(frame)
    plain: str | None = frame._repr_html_()  # type: ignore[operator]  # as above
    return plain


def _as_text(frame: pd.DataFrame, printer: Any, _cycle: bool) -> None:  # noqa: ANN401  # IPython's signature
    said = text(frame) if _facts(frame) else repr(frame)
    with printer.group():
        for number, line in enumerate(said.split("\n")):
            if number:
                printer.break_()
            printer.text(line)


def register(shell: Any) -> None:  # noqa: ANN401  # IPython is untyped
    """Have a shell show our tables so. Whoever shows all DataFrames in a way of his own, such as itables, goes first."""
    for formatter, function in _formatters(shell):
        for module, name in _FRAMES:
            formatter.for_type_by_name(module, name, function)


def unregister(shell: Any) -> None:  # noqa: ANN401  # as above
    """Take that away again."""
    for formatter, function in _formatters(shell):
        for module, name in _FRAMES:
            if formatter.for_type_by_name(module, name) is function:
                formatter.pop(f"{module}.{name}", None)


def _formatters(shell: Any) -> list[tuple[Any, Any]]:  # noqa: ANN401  # as above
    formatters = shell.display_formatter.formatters
    return [(formatters[_HTML], _as_html), (formatters[_PLAIN], _as_text)]
