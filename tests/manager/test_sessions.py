from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

from telehelper.manager import sessions
from telehelper.manager.sessions import SessionTable

if TYPE_CHECKING:
    import pytest


def table() -> SessionTable:
    number = count(1)
    return SessionTable(60.0, lambda: f"id{next(number)}", lambda: f"token{next(number)}")


def test_found_by_its_token_only() -> None:
    known = table()
    one = known.open("me", 0.0)
    assert one is not None
    assert known.find("token2") is one
    for wrong in ("", "token", "token22", "id1", "tökén"):
        assert known.find(wrong) is None
    assert "token2" not in repr(one)


def test_expires_after_the_last_user_left() -> None:
    known = table()
    one, two = known.open("me", 0.0), known.open("you", 0.0)
    assert one is not None
    assert two is not None
    known.attach(one)
    known.attach(one)
    assert known.expire(59.9) == []
    assert known.expire(60.0) == [two]
    known.detach(one, 100.0)
    assert known.expire(1000.0) == []
    known.detach(one, 1000.0)
    assert known.expire(1059.9) == []
    assert known.expire(1060.0) == [one]
    assert (len(known), known.find(one.token)) == (0, None)


def test_flows_are_summed_and_sessions_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "MAX_SESSIONS", 2)
    known = table()
    for flows in (3, 4):
        session = known.open("me", 0.0)
        assert session is not None
        session.flows = flows
    assert known.flows == 7
    assert known.open("me", 0.0) is None


def test_flows_are_opened_at_a_bounded_rate() -> None:
    one = table().open("me", 0.0)
    assert one is not None
    assert all(one.may_open(1000.0) for _ in range(sessions.MAX_FLOWS))
    assert not one.may_open(1000.0)
    assert not one.may_open(1000.0 + 0.5 / sessions.OPEN_RATE)
    assert all(one.may_open(1001.0) for _ in range(sessions.OPEN_RATE))
    assert not one.may_open(1001.0)
