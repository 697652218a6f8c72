"""From rows to tables: nothing is lost, whatever texts hold and wherever they are cut."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from telehelper.errors import printable

from telemagic import schema
from telemagic.schema import TIME, Column

NAMES = ("n", "word", "kind", "span", "at")
SCHEMA = (
    Column("n", "n", "Int64", "bytes", meaning="a number"),
    Column("word", "word", "str", meaning="a text"),
    Column("kind", "kind", "category"),
    schema.milliseconds("span_ms", "span", "how long"),
    Column("at", "at", TIME),
    Column("either", "word", "str", instead="kind"),
)


@dataclass
class Row:
    n: int
    word: str
    kind: str
    span: float
    at: float
    yes: bool | None = None


def test_one_line_per_column_says_what_it_is() -> None:
    assert schema.describe(SCHEMA).splitlines() == [
        "n        Int64 [bytes]        a number",
        "word     str                  a text",
        "kind     category",
        "span_ms  float64 [ms]         how long",
        "at       datetime64[ns, UTC]",
        "either   str",
    ]
    assert schema.units(SCHEMA) == {"n": "bytes", "span_ms": "ms"}


def test_a_docstring_gets_the_columns() -> None:
    @schema.documents(SCHEMA[:2])
    def table() -> None:
        """Return it."""

    assert table.__doc__ is not None
    assert [line.strip() for line in table.__doc__.splitlines()] == [
        "Return it.",
        "",
        "Columns",
        "-------",
        "n     Int64 [bytes]  a number",
        "word  str            a text",
        "",
    ]

    def bare() -> None: ...

    assert schema.documents(SCHEMA)(bare).__doc__ is None  # as under -OO


def test_unknown_values() -> None:
    frame = schema.build([Row(-1, "", "b", -1.0, -1.0), Row(3, "w", "a", 0.25, 0.0)], SCHEMA)
    assert frame["n"].tolist() == [pd.NA, 3]
    assert pd.isna(frame["span_ms"][0])
    assert frame["span_ms"][1] == 250.0
    assert frame["at"][0] is pd.NaT
    assert frame["at"][1] == pd.Timestamp(0, tz="UTC")
    assert frame["either"].tolist() == ["b", "w"]
    assert list(frame["kind"].cat.categories) == ["a", "b"]  # sorted, whatever came first
    assert frame["kind"].tolist() == ["b", "a"]


def test_durations_are_what_one_expects_to_read() -> None:
    text = '[[0,"","",%s,0]]'
    for seconds, shown in (
        ("0.0015", 1.5),
        ("0.001100000000000001", 1.1),
        ("1.2345e-05", 0.012345),
        ("3e-10", 0.0),
    ):
        assert schema.read(text % seconds, NAMES, SCHEMA)["span_ms"][0] == shown


def test_booleans_of_three_kinds() -> None:
    rows = [Row(1, "", "", 0, 0, yes) for yes in (True, False, None)]
    frame = schema.build(rows, (Column("yes", "yes", "boolean"),))
    assert frame["yes"].tolist() == [True, False, pd.NA]
    assert str(frame["yes"].dtype) == "boolean"


@pytest.mark.parametrize("make", [lambda: schema.build([], SCHEMA), lambda: schema.read("[]", NAMES, SCHEMA)])
def test_no_rows_keep_the_dtypes(make: Any) -> None:
    frame = make()
    assert len(frame) == 0
    full = schema.build([Row(1, "w", "k", 1.0, 1.0)], SCHEMA)
    assert frame.dtypes.drop("kind").to_dict() == full.dtypes.drop("kind").to_dict()
    assert str(frame["kind"].dtype) == "category"
    assert frame["kind"].cat.categories.dtype == full["kind"].cat.categories.dtype


def test_what_a_newer_data_plane_knows_more_is_left_out() -> None:
    frame = schema.read('[[1,"w","k",1.5,2.5,"more"]]', NAMES, SCHEMA)
    assert frame.iloc[0].tolist() == [1, "w", "k", 1500.0, pd.Timestamp(2.5, unit="s", tz="UTC"), "w"]
    assert schema.of_rows([[1, "w", "k", 1.5, 2.5, "more"]], NAMES, SCHEMA).equals(frame)


_words = st.text(alphabet=st.sampled_from([*'],["\\', "a", "\n", "é", "\U0001f600", "\x00"]), max_size=8)
_rows = st.lists(
    st.tuples(
        st.integers(0, 2**63 - 1),
        _words,
        _words,
        st.one_of(st.just(-1.0), st.floats(0, 1e6)),
        st.one_of(st.just(-1.0), st.floats(0, 4e9)),
    ).map(list),
    max_size=12,
)


@settings(max_examples=100, deadline=None)
@given(_rows, st.integers(1, 120), st.booleans())
def test_wherever_the_text_is_cut_the_rows_are_the_same(
    rows: list[list[Any]], size: int, ascii_only: bool
) -> None:
    """Words are full of brackets, commas and quotes, so many a cut is within one."""
    text = json.dumps(rows, separators=(",", ":"), ensure_ascii=ascii_only)
    got = [row for piece in schema.blocks(text, size) for row in piece]
    assert [row[:3] for row in got] == [row[:3] for row in rows]
    for row, expected in zip(got, rows, strict=True):
        assert row[3:] == pytest.approx(expected[3:], rel=1e-14)  # which tables round away


@settings(max_examples=50, deadline=None)
@given(_rows)
def test_a_table_holds_what_the_rows_hold(rows: list[list[Any]]) -> None:
    frame = schema.read(json.dumps(rows), NAMES, SCHEMA)
    assert frame["n"].tolist() == [row[0] for row in rows]
    assert frame["word"].tolist() == [printable(row[1]) for row in rows]
    assert frame["kind"].tolist() == [printable(row[2]) for row in rows]
    assert frame["either"].tolist() == [printable(row[1] or row[2]) for row in rows]
    for span, at, row in zip(frame["span_ms"], frame["at"], rows, strict=True):
        assert pd.isna(span) if row[3] < 0 else abs(span - row[3] * 1e3) <= 1e-6  # a nanosecond
        assert at is pd.NaT if row[4] < 0 else abs(at.timestamp() - row[4]) < 2e-6


def test_words_that_become_the_same_when_they_are_made_printable_are_one() -> None:
    """A cluster may choose them so; pandas wants a category's words to differ."""
    rows = [[n, word, word, 0.0, 0.0] for n, word in enumerate(["\x1b", r"\x1b", "a", "\x1b"])]
    frame = schema.read(json.dumps(rows), NAMES, SCHEMA)
    for column in ("word", "kind"):
        assert frame[column].tolist() == [r"\x1b", r"\x1b", "a", r"\x1b"]
    assert list(frame["kind"].cat.categories) == [r"\x1b", "a"]


def test_pieces_have_the_size_they_should() -> None:
    rows = [[number] for number in range(1000)]
    text = json.dumps(rows, separators=(",", ":"))
    pieces = list(schema.blocks(text, 100))
    assert len(pieces) > 30
    assert max(map(len, pieces)) < 40
    assert [row for piece in pieces for row in piece] == rows


def test_what_is_no_json_is_an_error() -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # two parsers, two messages
        list(schema.blocks("[[1],[2],[3]x]", 1))


def test_the_standard_librarys_parser_says_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pandas that has no parser of its own to offer."""
    text = '[[1,"w","k",0.1,1750000000.123456]]'
    ours = schema.read(text, NAMES, SCHEMA)
    import pandas.io.json

    monkeypatch.delattr(pandas.io.json, "ujson_loads")
    assert schema.read(text, NAMES, SCHEMA).equals(ours)


def test_the_collector_is_left_as_it_was() -> None:
    assert gc.isenabled()
    schema.read("[[]]", (), ())
    assert gc.isenabled()
    gc.disable()
    try:
        schema.read("[[]]", (), ())
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_reading_a_change_imports_no_pandas() -> None:
    code = "import sys; from telemagic import schema; assert schema.parse('[1.5]') == [1.5]; print('pandas' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
    assert schema.parse('{"a": [0.1]}') == {"a": [0.1]}
