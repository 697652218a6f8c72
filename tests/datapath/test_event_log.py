"""What happened, told once if it happens again soon."""

from __future__ import annotations

from telehelper.datapath.event_log import KEPT, TOGETHER, EventLog
from telehelper.observing import EventRow


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_events_are_numbered_and_in_order() -> None:
    log = EventLog(Clock())
    log.note("refused", "postgres.shop:5432", "connection refused")
    log.note("refused", "catalog.shop:80", "connection refused", count=3)
    assert log.rows() == (
        EventRow(1, 1000.0, "refused", "postgres.shop:5432", "connection refused", 1),
        EventRow(2, 1000.0, "refused", "catalog.shop:80", "connection refused", 3),
    )


def test_the_same_soon_after_is_counted_with_it_and_told_again() -> None:
    clock = Clock()
    log = EventLog(clock)
    log.note("reset", "postgres.shop:5432", "one")
    log.note("reset", "catalog.shop:80")
    seen = log.version
    clock.now += TOGETHER
    log.note("reset", "postgres.shop:5432", "two", count=2)
    assert log.rows(seen) == (EventRow(1, 1000.0, "reset", "postgres.shop:5432", "two", 3),)
    assert [row.number for row in log.rows()] == [1, 2]
    clock.now += 1
    log.note("reset", "postgres.shop:5432", "three")
    assert [(row.number, row.count) for row in log.rows()] == [(1, 3), (2, 1), (3, 1)]
    assert log.rows(log.version) == ()


def test_a_clock_that_was_set_back_joins_nothing() -> None:
    clock = Clock()
    log = EventLog(clock)
    log.note("note", "", "one")
    clock.now -= 3600
    log.note("note", "", "one")
    assert len(log.rows()) == 2


def test_what_is_about_nothing_is_the_same_only_if_it_says_the_same() -> None:
    log = EventLog(Clock())
    log.note("note", "", "one")
    log.note("note", "", "two")
    log.note("note", "", "one")
    assert [(row.detail, row.count) for row in log.rows()] == [("one", 2), ("two", 1)]


def test_of_what_others_can_cause_as_they_like_a_few_are_kept_and_nothing_else_goes_for_it() -> None:
    log = EventLog(Clock(), few={"not yours": 3})
    log.note("refused", "postgres.shop:5432")
    for uid in range(2 * KEPT):
        log.note("not yours", f"uid {uid}")
    assert [row.subject for row in log.rows()] == [
        "postgres.shop:5432",
        *(f"uid {2 * KEPT - back}" for back in (3, 2, 1)),
    ]
    assert len(log._latest) == 4
    for number in range(KEPT):  # they may grow the oldest of all, and go as such
        log.note("refused", f"service-{number}")
    assert {row.kind for row in log.rows()} == {"refused"}
    log.note("not yours", "uid 1")
    assert (len(log.rows()), log.rows()[-1].subject) == (KEPT, "uid 1")


def test_it_is_bounded_and_what_was_forgotten_begins_anew() -> None:
    log = EventLog(Clock())
    for number in range(KEPT + 1):
        log.note("refused", f"service-{number}")
    rows = log.rows()
    assert (len(rows), rows[0].number, rows[-1].number) == (KEPT, 2, KEPT + 1)
    log.note("refused", "service-0")
    assert log.rows()[-1] == EventRow(KEPT + 2, 1000.0, "refused", "service-0", "", 1)
    assert len(log._latest) == KEPT
