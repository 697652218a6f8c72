"""What a table's columns are: one list per table, from which its dtypes, its documentation and its units come."""

from __future__ import annotations

import contextlib
import gc
import json
import sys
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, TypeVar

from telehelper.errors import printable

from telemagic import late

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import pandas as pd

F = TypeVar("F", bound="Callable[..., Any]")

TIME: Final = "datetime64[ns, UTC]"
BLOCK: Final = 64 * 1024  # characters that are read at once; some two hundred flows, which stay in the cache
_TEXT: Final = ("str", "category")
_REAL: Final = ("float64", TIME)


@dataclass(frozen=True, slots=True)
class Column:
    """One column: where its values come from, what they become, what they mean.

    ``scale`` turns the row's unit into the column's. ``instead`` is a further source, for where the first has nothing.
    A ``detail`` is there, but shown only where all columns are asked for.
    """

    name: str
    source: str  # field of the row
    dtype: str
    unit: str = ""
    scale: float = 1.0
    meaning: str = ""
    instead: str = ""
    detail: bool = False


Schema = tuple[Column, ...]


def milliseconds(name: str, source: str, meaning: str) -> Column:
    """Return a column of durations, whose source is in seconds."""
    return Column(name, source, "float64", "ms", 1e3, meaning)


def details(*schema: Column) -> Schema:
    """Return the columns as details."""
    return tuple(replace(column, detail=True) for column in schema)


def units(schema: Schema) -> dict[str, str]:
    """Return the unit of each column that has one."""
    return {column.name: column.unit for column in schema if column.unit}


def describe(schema: Schema) -> str:
    """Return one line per column for people: name, dtype, unit, meaning."""
    kinds = [f"{column.dtype} [{column.unit}]" if column.unit else column.dtype for column in schema]
    name_width = max(len(column.name) for column in schema)
    kind_width = max(map(len, kinds))
    lines = (
        f"{column.name:{name_width}}  {kind:{kind_width}}  {column.meaning}".rstrip()
        for column, kind in zip(schema, kinds, strict=True)
    )
    return "\n".join(lines)


def documents(schema: Schema) -> Callable[[F], F]:
    """Append the columns to the docstring of a function that returns the table."""

    def add(function: F) -> F:
        if function.__doc__ is not None:  # python -OO has none
            indent = " " * 8
            columns = describe(schema).replace("\n", f"\n{indent}")
            function.__doc__ = f"{function.__doc__.rstrip()}\n\n{indent}Columns\n{indent}-------\n{indent}{columns}\n{indent}"
        return function

    return add


# --- from rows to a table ----------------------------------------------------------------------------------------


def read(text: str, names: Sequence[str], schema: Schema) -> pd.DataFrame:
    """Make a table of rows that came as JSON text: lists of values in the order of `names`.

    Values beyond those names are left out: a newer data plane may know more.
    """
    builder = Builder(schema)
    with without_collector():
        for rows in blocks(text):
            builder.add(dict(zip(names, zip(*rows, strict=True), strict=False)))
    return builder.frame()


def of_rows(rows: Sequence[Sequence[Any]], names: Sequence[str], schema: Schema) -> pd.DataFrame:
    """Make a table of rows that were read already; as :func:`read`."""
    builder = Builder(schema)
    if rows:
        builder.add(dict(zip(names, zip(*rows, strict=True), strict=False)))
    return builder.frame()


def build(rows: Sequence[object], schema: Schema) -> pd.DataFrame:
    """Make a table of objects; a negative number or time is one that is not known."""
    builder = Builder(schema)
    sources = {name for column in schema for name in (column.source, column.instead) if name}
    builder.add({name: [getattr(row, name) for row in rows] for name in sources})
    return builder.frame()


def blocks(text: str, size: int = BLOCK) -> Iterator[list[list[Any]]]:
    """Read a list of rows piece by piece, each about `size` characters: what fits into the cache is twice as fast.

    A piece that was cut within a string, which may hold anything, is no JSON; then it is cut later.
    """
    loads = _loads(precise=False)  # tables round what they take from it
    start = 1
    while True:
        cut = text.find("],[", start + size)
        while cut >= 0:
            try:
                rows = loads(f"[{text[start : cut + 1]}]")
            except ValueError:
                cut = text.find("],[", cut + 1)
            else:
                break
        if cut < 0:
            rows = loads(f"[{text[start:]}")
        if rows:
            yield rows
        if cut < 0:
            return
        start = cut + 2


def parse(text: str) -> Any:  # noqa: ANN401  # whatever JSON holds
    """Read JSON text, with what there is without importing pandas for it."""
    return _loads(precise=True)(text) if "pandas" in sys.modules else json.loads(text)


def _loads(*, precise: bool) -> Callable[[str], Any]:
    """Choose a parser: pandas' own needs a third of the time, or half if its last digits are to be :mod:`json`'s."""
    # Its name is public in pandas, but not documented.
    ours = getattr(import_module("pandas.io.json"), "ujson_loads", None)
    if ours is None:
        return json.loads

    def loads(text: str) -> Any:  # noqa: ANN401  # as above
        try:
            return ours(text, precise_float=precise)
        except ValueError:  # no JSON; or a number below 2.3e-308, which is too small for it
            return json.loads(text)

    return loads


@contextlib.contextmanager
def without_collector() -> Iterator[None]:
    """Keep Python from looking for garbage among ten thousand new lists, which takes a quarter of the time."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


class Builder:
    """Makes a table of columns that come in pieces, so that a piece's Python objects are gone before the next."""

    def __init__(self, schema: Schema) -> None:
        late.load("pandas")  # 0.4 s, and only tables need it
        self._schema = schema
        self._words: dict[str, dict[str, int]] = {}  # per column of text: each word's number
        self._shown: dict[str, dict[str, int]] = {}  # likewise, of printable words, which may be fewer
        self._pieces: dict[str, list[Any]] = {column.name: [] for column in schema}

    def add(self, values: Mapping[str, Sequence[Any]]) -> None:
        """Take a piece: columns of one length, by their sources' names."""
        for column in self._schema:
            found = values[column.source]
            if column.instead:
                found = [first or second for first, second in zip(found, values[column.instead], strict=True)]
            self._pieces[column.name].append(self._converted(found, column))

    def frame(self) -> pd.DataFrame:
        """Return the table."""
        import pandas as pd

        return pd.DataFrame({column.name: self._column(column) for column in self._schema}, copy=False)

    def _converted(self, values: Sequence[Any], column: Column) -> Any:  # noqa: ANN401  # a numpy array
        import numpy as np

        if column.dtype in _TEXT:
            words = self._words.setdefault(column.name, {})
            shown = self._shown.setdefault(column.name, {})
            for word in set(values).difference(words):
                words[word] = shown.setdefault(printable(word), len(shown))
            return np.fromiter(map(words.__getitem__, values), dtype=np.int32, count=len(values))
        if column.dtype == "boolean":
            return np.array([-1 if value is None else int(value) for value in values], dtype=np.int64)
        kind = np.int64 if column.dtype == "Int64" else np.float64
        return np.fromiter(values, dtype=kind, count=len(values))  # it looks at each only once

    def _column(self, column: Column) -> Any:  # noqa: ANN401  # what pandas takes
        import numpy as np
        import pandas as pd

        pieces = self._pieces[column.name]
        kind = np.int32 if column.dtype in _TEXT else np.float64 if column.dtype in _REAL else np.int64
        values: Any = np.concatenate(pieces) if pieces else np.empty(0, dtype=kind)
        if column.dtype in _TEXT:
            return _worded(values, list(self._shown.get(column.name, ())), column.dtype)
        unknown = values < 0
        if column.dtype == "Int64":
            return pd.arrays.IntegerArray(values, unknown)
        if column.dtype == "boolean":
            return pd.arrays.BooleanArray(values == 1, unknown)
        if column.dtype == TIME:
            # Microseconds are what a double of Unix seconds can hold; rounding there keeps 1.1 from 1.099999999.
            stamps = (np.rint(values * 1e6).astype(np.int64) * 1000).view("datetime64[ns]")
            stamps[unknown] = np.datetime64("NaT", "ns")
            return pd.DatetimeIndex(stamps).tz_localize("UTC")
        # No clock here is finer than a nanosecond; rounding there makes 0.0015 s 1.5 ms, and not 1.5000000000000002.
        return np.where(unknown, np.nan, np.rint(values * 1e9) * column.scale / 1e9)


def _worded(numbers: Any, words: list[str], dtype: str) -> Any:  # noqa: ANN401  # numpy's and pandas' arrays
    import numpy as np
    import pandas as pd

    if dtype == "category":
        order = sorted(range(len(words)), key=words.__getitem__)
        places = np.empty(len(words), dtype=np.int32)
        places[order] = np.arange(len(words))
        kinds = pd.Index([words[number] for number in order], dtype="str")
        return pd.Categorical.from_codes(places[numbers], kinds)
    return pd.Series(words, dtype="str").array.take(numbers)  # `object` before pandas 3
