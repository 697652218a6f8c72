"""What a dashboard keeps to sum up, whether anybody looks, and the summary itself."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

from telehelper.observing import FLOW_COLUMNS

from telemagic.widgets.attention import ALIVE_EVERY, FIRST_UNASKED, LAST_UNASKED, SILENCE, Attention
from telemagic.widgets.record import KEPT, SERIES_KEPT, Record
from telemagic.widgets.summary import SHOWN_EVENTS, SHOWN_FLOWS, summary
from tests.browser.traffic import Traffic

# --- attention ---------------------------------------------------------------------------------------------------


def test_silence_ends_attention() -> None:
    attention = Attention(0.0)
    assert attention.is_paid(SILENCE - 0.1)
    attention.hear("alive", 50.0)
    assert attention.is_paid(50.0 + SILENCE - 0.1)
    assert not attention.is_paid(50.0 + SILENCE)


def test_one_view_gone_leaves_the_others_time_to_speak() -> None:
    attention = Attention(0.0)
    attention.hear("gone", 10.0)
    assert attention.is_paid(10.0 + ALIVE_EVERY)
    assert not attention.is_paid(10.0 + 2 * ALIVE_EVERY)
    attention.hear("alive", 20.0)
    assert attention.is_paid(20.0 + SILENCE - 0.1)


def test_going_never_prolongs() -> None:
    attention = Attention(0.0)
    attention.hear("gone", SILENCE - 1)
    assert not attention.is_paid(SILENCE)


def test_while_a_cell_runs_a_snapshot_is_due_unasked() -> None:
    attention = Attention(0.0)
    attention.shown(100.0)
    due = [tenth / 10 for tenth in range(1000, 2600) if attention.is_due(tenth / 10)]
    gaps = [round(after - before, 1) for before, after in pairwise([100.0, *due])]
    assert gaps[:7] == [FIRST_UNASKED, FIRST_UNASKED, 2, 4, 8, 16, LAST_UNASKED]
    assert set(gaps[7:]) == {LAST_UNASKED}


def test_between_cells_views_ask_themselves() -> None:
    attention = Attention(0.0)
    assert not attention.is_due(50.0)
    attention.shown(60.0)
    attention.cell_ended(61.0)
    assert not attention.is_due(100.0)


def test_a_view_that_was_heard_can_wait() -> None:
    attention = Attention(0.0)
    attention.shown(0.0)
    attention.hear("ready", 0.5)
    attention.cell_started()
    assert not attention.is_due(0.4 + LAST_UNASKED)
    assert attention.is_due(0.6 + LAST_UNASKED)


def record_of(*texts: dict[str, Any]) -> Record:
    record = Record()
    for index, text in enumerate(texts):
        record.take(json.dumps(text), index == 0)
    return record


# --- record ------------------------------------------------------------------------------------------------------


def test_nothing_told() -> None:
    record = Record()
    assert record.read() == {}
    assert not record.is_full


def test_changes_are_laid_over_the_snapshot() -> None:
    record = record_of(
        {
            "at": 1,
            "status": {"rtt": 1},
            "cidrs": [["a"]],
            "flows": [[1, "x"], [2, "y"]],
            "series": [[1]],
            "events": [[1, "e"]],
        },
        {"at": 2, "status": {"rtt": 2}, "flows": [[2, "z"], [3, "new"]], "gone": [1], "series": [[2]]},
        {"at": 3, "status": {"rtt": 3}, "events": [[1, "again"], [2, "f"]], "cidrs": [["b"]]},
    )
    assert record.read() == {
        "at": 3,
        "status": {"rtt": 3},
        "cidrs": [["b"]],
        "flows": [[2, "z"], [3, "new"]],
        "series": [[1], [2]],
        "events": [[1, "again"], [2, "f"]],
    }


def test_a_new_snapshot_replaces_all() -> None:
    record = record_of({"at": 1, "flows": [[1]]}, {"at": 2, "flows": [[2]]})
    record.take('{"at": 3}', True)
    assert record.read() == {"at": 3, "flows": [], "events": [], "series": []}


def test_the_record_says_when_it_is_full() -> None:
    record = record_of({"at": 1})
    record.take(" " * KEPT, False)
    assert not record.is_full
    record.take(" ", False)
    assert record.is_full


def test_a_long_snapshot_may_have_longer_changes() -> None:
    record = Record()
    record.take(" " * KEPT, True)
    record.take(" " * 4 * KEPT, False)
    assert not record.is_full


def test_the_series_is_bounded() -> None:
    record = record_of({"at": 1, "series": [[n] for n in range(SERIES_KEPT)]}, {"at": 2, "series": [[-1]]})
    assert len(record.read()["series"]) == SERIES_KEPT


def test_the_record_follows_made_up_traffic() -> None:
    traffic = Traffic(flows=60)
    record = Record()
    record.take(traffic.snapshot(), True)
    for _ in range(20):
        record.take(traffic.step(0.5), False)
    now = json.loads(traffic.snapshot())
    told = record.read()
    assert sorted(told["flows"]) == sorted(now["flows"])
    assert told["status"] == now["status"]


# --- summary -----------------------------------------------------------------------------------------------------


def test_summary_of_busy_traffic() -> None:
    told = json.loads(Traffic(flows=80, context="acme").snapshot())
    card = summary(told)
    for shown in (card.text, card.html):
        assert "Connected to" in shown
        assert "acme" in shown
        assert "postgres.shop:5432" in shown
        assert "refused" in shown
        assert "10.96.0.0/16" in shown
    lines = card.text.splitlines()
    assert lines[0] == "Connected to acme, namespace shop"
    newest = lines.index("  Newest flows")
    events = lines.index("  Events")
    assert events - newest == SHOWN_FLOWS + 2
    assert len(lines) - events <= SHOWN_EVENTS + 2


def test_summary_of_what_is_over() -> None:
    card = summary(json.loads(Traffic(flows=3).snapshot()), over="closed")
    assert card.text.startswith("Disconnected from staging-eu")
    assert "Lost" not in card.text


def test_summary_of_what_was_lost() -> None:
    card = summary(json.loads(Traffic(flows=3).snapshot()), over="lost", reason="the helper has ended")
    assert card.text.startswith("Connection lost to staging-eu")
    assert "Lost         the helper has ended" in card.text
    assert "the helper has ended" in card.html


def test_the_tunnel_has_no_failures_of_its_own() -> None:
    told = json.loads(Traffic(flows=80, failing=40).snapshot())
    lines = summary(told).text.splitlines()
    (tunnel,) = (line for line in lines if line.startswith("    tunnel "))
    assert len(tunnel.split()) == 6, tunnel  # tunnel 2 ms (p99 3 ms)


def test_summary_of_nothing() -> None:
    assert summary({}).text == "No data yet"
    assert "Newest flows" not in summary(json.loads(Traffic(flows=0, failing=0).snapshot())).text


def test_the_summary_has_the_words_of_the_live_view() -> None:
    told = json.loads(Traffic(flows=3, failing=0).snapshot())
    state, reason, connect, dst = map(FLOW_COLUMNS.index, ("state", "reason", "connect", "dst"))
    refused, strange, six = told["flows"]
    refused[state], refused[reason], refused[connect] = "CLOSED", "Connection refused", -1.0
    strange[state], strange[reason], strange[connect] = "CLOSED", "not yours: uid 7", -1.0
    six[dst] = "fd00::9"
    six[FLOW_COLUMNS.index("service")] = six[FLOW_COLUMNS.index("name")] = ""
    lines = summary(told).text.splitlines()
    newest = lines[lines.index("  Newest flows") + 2 :][:3]
    assert [line.split()[0].startswith("[fd00::9]:") for line in newest] == [True, False, False]
    assert [" ".join(line.split()[1:]).partition(" [")[0] for line in newest[1:]] == [
        "failed: not yours: uid 7",
        "refused",
    ]


def test_summary_escapes_what_comes_from_outside() -> None:
    told = json.loads(Traffic(flows=1, context="<script>alert(1)</script>\x1b[2J").snapshot())
    told["flows"][0][FLOW_COLUMNS.index("service")] = "<b>x</b>"
    card = summary(told)
    assert "<script>" not in card.html
    assert "<b>x</b>" not in card.html
    assert "\x1b" not in card.text


def test_summary_takes_rows_of_an_older_data_plane() -> None:
    told = json.loads(Traffic(flows=1).snapshot())
    told["flows"] = [row[:12] for row in told["flows"]]
    assert "postgres" in summary(told).text or ":" in summary(told).text
