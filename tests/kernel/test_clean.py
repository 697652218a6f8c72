"""A cluster whose every text is hostile: nothing that a notebook or a script prints of it steers a terminal."""

from __future__ import annotations

import asyncio
import json
import typing
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from telehelper import observing, views
from telehelper.errors import printable
from telehelper.messages import CidrRow, Message, RouteTable, Status

import telemagic
from telemagic.clean import clean, clean_message
from telemagic.control_fake import STATUS, FakeLauncher, Script

if TYPE_CHECKING:
    from telemagic.session import Session

EVIL = "\x1b[2J\x1b]0;owned\x07\r\nfake line\x9b31m\u202etxt.exe"


def hostile(cls: Any) -> Any:
    """Make a message with `EVIL` in every text, in every row of every table."""
    hints = typing.get_type_hints(cls)

    def value(hint: Any) -> Any:
        if hint is str:
            return EVIL
        if typing.get_origin(hint) is tuple:
            return (value(typing.get_args(hint)[0]),)
        if typing.get_origin(hint) is dict:
            return {EVIL: 1}
        return hostile(hint) if is_dataclass(hint) else hint(1)

    return cls(**{field.name: value(hints[field.name]) for field in fields(cls)})


def row(cls: type[Message]) -> list[Any]:
    made = hostile(cls)
    return [getattr(made, field.name) for field in fields(cls)]


FLOWS = json.dumps([row(observing.FlowRow)])


@pytest.fixture
def launcher() -> FakeLauncher:
    status = hostile(Status)
    event = row(observing.EventRow)
    told = {
        "at": 1.0,
        "status": {"state": EVIL, "notices": [EVIL], EVIL: EVIL},
        "flows": json.loads(FLOWS),
        "events": [event],
        "series": [],
    }
    return FakeLauncher(
        Script(
            status=status,
            flows=observing.FlowTable(1.0, FLOWS, {EVIL: 1}),
            routes=hostile(RouteTable),
            events=hostile(observing.EventTable),
            latency=hostile(observing.LatencyTable),
            snapshot=json.dumps(told),
            answers={
                views.GetServices: hostile(views.ServiceTable),
                views.GetPods: hostile(views.PodTable),
            },
        )
    )


def steers(text: str) -> set[str]:
    """Return what of a text is for terminals and not for people."""
    return {char for line in text.split("\n") for char in line if not char.isprintable()}


@pytest.mark.parametrize("table", ["flows", "latency", "events", "routes", "services", "pods"])
def test_tables_print_nothing_but_text(session: Session, table: str) -> None:
    frame = getattr(telemagic.connect(), table)()
    assert len(frame) == 1
    texts = [name for name in frame if str(frame[name].dtype) in ("str", "object", "category")]
    assert texts
    for name in texts:
        (cell,) = frame[name]
        assert cell.isprintable(), name
    for shown in (frame.to_string(), repr(frame), frame.to_csv(lineterminator="\n"), str(frame.attrs)):
        assert steers(shown) == set()
    facts = json.dumps(frame.attrs["telemagic"], ensure_ascii=False)
    assert steers(facts) == set()


def test_the_status_is_text_as_a_card_and_as_data(session: Session) -> None:
    status = telemagic.connect().status
    assert printable(EVIL) in repr(status)
    bundle = status._repr_mimebundle_()
    assert steers(repr(status) + bundle["text/plain"] + bundle["text/html"]) == set()
    assert steers(json.dumps(status.to_dict(), ensure_ascii=False)) == set()
    assert status.manager == printable(EVIL)


def test_changes_are_text_too(session: Session) -> None:
    async def first() -> Any:
        changes = telemagic.connect().watch()
        try:
            return await anext(changes)
        finally:
            await changes.aclose()

    change = asyncio.run(first())
    (event,) = change.events
    assert printable(EVIL) in str(event)
    assert steers(str(event) + event.kind + change.flows.to_string()) == set()
    assert steers(json.dumps(dict(change.status), ensure_ascii=False)) == set()


def test_what_is_text_already_is_not_copied() -> None:
    assert clean_message(STATUS) is STATUS
    dirty = Status(**{field.name: getattr(STATUS, field.name) for field in fields(Status)} | {"via": EVIL})
    cleaned = clean_message(dirty)
    assert (cleaned.via, cleaned.cidrs) == (printable(EVIL), STATUS.cidrs)
    assert cleaned.cidrs is dirty.cidrs


def test_rows_within_rows() -> None:
    rows = (CidrRow("10.0.0.0/8", "pods", EVIL, "certain"),)
    assert clean(rows) == (CidrRow("10.0.0.0/8", "pods", printable(EVIL), "certain"),)
    assert clean([1, True, None, 2.5, {"a": [EVIL]}]) == [1, True, None, 2.5, {"a": [printable(EVIL)]}]


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=20,
)


@given(_json)
def test_whatever_it_is_it_is_printable_then_and_cleaning_again_changes_nothing(value: Any) -> None:
    once = clean(value)
    assert clean(once) is once
    assert json.dumps(once, ensure_ascii=False).isprintable()
