"""Text that is put together is what a general encoder would make."""

from __future__ import annotations

import json

from telehelper.datapath.json_text import dump, join, values_of
from telehelper.observing import EVENT_COLUMNS, EventRow

ROW = EventRow(1, 2.5, "note", "", 'say "hi"', 3)


def test_a_row_is_the_values_of_its_columns() -> None:
    assert values_of(ROW) == [1, 2.5, "note", "", 'say "hi"', 3]
    assert len(values_of(ROW)) == len(EVENT_COLUMNS)


def test_parts_are_joined_without_being_read() -> None:
    text = join({"at": 1.5, "status": {"state": "é"}}, {"events": dump([values_of(ROW)]), "flows": "[]"})
    assert json.loads(text) == {"at": 1.5, "status": {"state": "é"}, "events": [values_of(ROW)], "flows": []}
    assert json.loads(join({"at": 1}, {})) == {"at": 1}
