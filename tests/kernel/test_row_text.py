"""Text read row by row is what json reads, whatever stands in it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemagic.row_text import read_table, read_tables
from tests.browser.traffic import Traffic

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
LAYOUTS = st.sampled_from([{}, {"separators": (",", ":")}, {"indent": 1}, {"ensure_ascii": False}])


@given(st.lists(VALUES), LAYOUTS)
def test_any_list(values: list[Any], layout: dict[str, Any]) -> None:
    assert read_table(json.dumps(values, **layout)) == values


@given(st.dictionaries(st.text(), VALUES | st.lists(st.lists(VALUES, max_size=3))), LAYOUTS)
def test_any_object(values: dict[str, Any], layout: dict[str, Any]) -> None:
    assert read_tables(json.dumps(values, **layout)) == values


def test_a_snapshot() -> None:
    text = Traffic(flows=300).snapshot()
    assert read_tables(text) == json.loads(text)
    rows = json.dumps(json.loads(text)["flows"])
    assert read_table(rows) == json.loads(rows)


@pytest.mark.parametrize("wrong", ["", "[", "[1", "[1,", '["a]', "[[1],[2]"])
def test_text_that_was_cut(wrong: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # json's own is one
        read_table(wrong)
    with pytest.raises(ValueError):  # noqa: PT011
        read_tables(f'{{"rows":{wrong}')
