"""The dashboard's Python side against a fake data plane: what views are told, and what is left when it is over."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from telehelper.errors import NotConnected, UsageError

from telemagic import live, production
from telemagic.cards import Card
from telemagic.control_fake import FakeLauncher, Script
from telemagic.target import ConnectOptions
from telemagic.widgets import dashboard as module
from telemagic.widgets.attention import ALIVE_EVERY, LAST_UNASKED, SILENCE
from telemagic.widgets.dashboard import COLUMNS, SCRIPTS, Dashboard
from tests.browser.traffic import Traffic

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from telemagic.connection import Connection
    from telemagic.session import Session

TRAFFIC = Traffic(flows=12)


class Heard:
    """What a dashboard sends to its views."""

    def __init__(self, board: Dashboard, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sent: list[tuple[str, dict[str, Any]]] = []
        self._changed = threading.Condition()
        monkeypatch.setattr(board, "send", self._take)

    def _take(self, content: dict[str, Any], buffers: list[bytes]) -> None:
        (text,) = buffers
        with self._changed:
            self.sent.append((content["kind"], json.loads(text)))
            self._changed.notify()

    def wait(self, number: int) -> list[str]:
        """Wait for so many messages; return their kinds."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.sent) >= number, 10), self.sent
            return [kind for kind, _ in self.sent]


@pytest.fixture
def launcher() -> FakeLauncher:
    return FakeLauncher(Script(snapshot=TRAFFIC.snapshot()))


@pytest.fixture
def connection(session: Session) -> Connection:
    return session.connect(ConnectOptions())


@pytest.fixture
def in_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "current_shell", lambda: SimpleNamespace(kernel=object()))


@pytest.fixture
def board(connection: Connection, in_kernel: None) -> Generator[Dashboard, None, None]:
    made = connection.dashboard()
    assert isinstance(made, Dashboard)
    yield made
    made.close()


@pytest.fixture
def heard(board: Dashboard, monkeypatch: pytest.MonkeyPatch) -> Heard:
    return Heard(board, monkeypatch)


def tell(launcher: FakeLauncher, session: Session, text: str) -> None:
    session._loop.run(launcher.started[0].change(text), 5)


def wait_for(condition: Callable[[], object]) -> None:
    until = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.005)


def say(board: Dashboard, kind: str) -> None:
    board._handle_custom_msg({"kind": kind}, [])


# --- what views are told -----------------------------------------------------------------------------------------


def test_a_view_that_appears_gets_a_snapshot_and_then_changes(
    board: Dashboard, heard: Heard, launcher: FakeLauncher, session: Session
) -> None:
    say(board, "ready")
    heard.wait(1)  # a second one may be on its way: the board's own first one, and the view's
    change(heard, launcher, session, 5)
    *snapshots, last = heard.sent
    assert [kind for kind, _ in snapshots] == ["snapshot"] * len(snapshots)
    assert snapshots[-1][1] == json.loads(TRAFFIC.snapshot())
    assert (last[0], last[1]["at"]) == ("change", 5)


def test_a_second_view_gets_a_snapshot_too(board: Dashboard, heard: Heard) -> None:
    say(board, "ready")
    before = len(heard.wait(1))
    say(board, "ready")
    assert heard.wait(before + 1)[-1] == "snapshot"


@pytest.fixture
def asked(board: Dashboard, heard: Heard, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Give what a board that is under way asks for from here on; it is not answered."""
    say(board, "ready")
    heard.wait(1)
    found: list[str] = []
    assert board._subscription is not None
    monkeypatch.setattr(board._subscription, "refresh", lambda: found.append("snapshot"))
    return found


def change(heard: Heard, launcher: FakeLauncher, session: Session, at: int) -> None:
    """Have something change, and wait until the views were told."""
    tell(launcher, session, json.dumps({"at": at, "status": {}}))
    wait_for(lambda: ("change", at) in [(kind, told["at"]) for kind, told in heard.sent])


def test_signs_of_life_cause_nothing(
    board: Dashboard, heard: Heard, launcher: FakeLauncher, session: Session, asked: list[str]
) -> None:
    say(board, "alive")
    change(heard, launcher, session, 6)
    assert asked == []
    say(board, "ready")
    assert asked == ["snapshot"]


def test_text_is_handed_on_unread(
    board: Dashboard, heard: Heard, launcher: FakeLauncher, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw: list[bytes] = []
    say(board, "ready")
    heard.wait(1)  # what changes before the snapshot is in it
    monkeypatch.setattr(board, "send", lambda _content, buffers: raw.extend(buffers))
    tell(launcher, session, "not JSON at all")
    wait_for(lambda: b"not JSON at all" in raw)


def test_nobody_looks_then_nothing_is_sent_until_somebody_does(
    board: Dashboard,
    heard: Heard,
    launcher: FakeLauncher,
    session: Session,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    say(board, "ready")
    heard.wait(1)
    later = time.monotonic() + SILENCE + 1
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: later))
    tell(launcher, session, '{"at": 7, "status": {}}')
    wait_for(lambda: launcher.started[0].intervals == [module.UNSEEN_INTERVAL])
    before = len(heard.sent)
    tell(launcher, session, '{"at": 8, "status": {}}')
    say(board, "alive")
    wait_for(lambda: len(heard.sent) > before)
    wait_for(lambda: launcher.started[0].intervals == [0.5])
    assert {kind for kind, _ in heard.sent} == {"snapshot"}  # no change was sent to nobody


def test_a_long_cell_is_no_silence(board: Dashboard, monkeypatch: pytest.MonkeyPatch) -> None:
    board._cell_started()
    assert board._attention.is_paid(time.monotonic() + 10 * SILENCE)
    board._cell_ended()
    assert board._attention.is_paid(time.monotonic() + ALIVE_EVERY)
    assert not board._attention.is_paid(time.monotonic() + SILENCE)


def test_a_view_that_cannot_be_heard_gets_a_snapshot_too(
    board: Dashboard,
    heard: Heard,
    launcher: FakeLauncher,
    session: Session,
    asked: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    board._cell_started()
    change(heard, launcher, session, 5)
    assert asked == []
    later = time.monotonic() + LAST_UNASKED + 1
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: later))
    change(heard, launcher, session, 6)
    change(heard, launcher, session, 7)
    assert asked == ["snapshot"]


def test_a_full_record_is_replaced_by_a_snapshot(
    board: Dashboard, heard: Heard, launcher: FakeLauncher, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("telemagic.widgets.record.KEPT", 10)
    say(board, "ready")
    heard.wait(1)
    big = json.dumps({"at": 1, "status": {}, "flows": [], "pad": "x" * 5 * len(TRAFFIC.snapshot())})
    tell(launcher, session, big)
    wait_for(lambda: [kind for kind, _ in heard.sent][-2:] == ["change", "snapshot"])
    assert not board._record.is_full


def test_the_traits_say_what_a_view_must_know(board: Dashboard) -> None:
    state = board.get_state()
    assert state["columns"]["flows"][:3] == ["flow", "protocol", "src"]
    assert set(state["columns"]) == set(COLUMNS)
    assert (state["rows"], state["height"], state["production"], state["over"]) == (5000, 290, "", {})
    assert "export default { render }" in state["_esm"]
    assert ".tmd" in state["_css"]


def test_production_contexts_are_marked(
    connection: Connection, in_kernel: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(production, "_patterns", ["*demo*"])
    made = connection.dashboard()
    assert isinstance(made, Dashboard)
    assert made.production == "*demo*"
    made.close()


# --- the end -----------------------------------------------------------------------------------------------------


def test_disconnecting_leaves_a_summary(
    board: Dashboard, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[tuple[Any, dict[str, Any]]] = []
    monkeypatch.setattr("IPython.display.display", lambda what, **options: shown.append((what, options)))
    board._ipython_display_()
    connection.disconnect()
    (first, options), (last, update) = shown  # it is there when `disconnect` returns
    assert "application/vnd.jupyter.widget-view+json" in first
    assert update == {"raw": True, "display_id": options["display_id"], "update": True}
    assert set(last) == {"text/plain", "text/html"}
    assert "Disconnected from" in last["text/html"]
    assert board.over["state"] == "closed"
    assert "application/vnd.jupyter.widget-view+json" not in board._repr_mimebundle_()[0]


def test_disconnecting_unseen_leaves_a_summary_too(
    board: Dashboard, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[dict[str, Any]] = []
    monkeypatch.setattr("IPython.display.display", lambda _what, **options: shown.append(options))
    board._ipython_display_()
    board._subscribe(sending=False)
    connection.disconnect()
    wait_for(lambda: len(shown) == 2)
    assert shown[1]["update"]


def test_losing_the_helper_is_told_and_the_view_stays(
    board: Dashboard, launcher: FakeLauncher, session: Session
) -> None:
    session._loop.run(launcher.started[0].close(), 5)
    wait_for(lambda: board.over)
    assert board.over["state"] == "lost"
    assert "helper" in board.over["reason"]
    say(board, "ready")  # of a view that was reloaded: the trait tells it


def test_a_dashboard_of_what_is_over_is_refused(connection: Connection, in_kernel: None) -> None:
    connection.disconnect()
    with pytest.raises(NotConnected):
        connection.dashboard()


def test_closing_ends_the_watch(board: Dashboard, launcher: FakeLauncher) -> None:
    wait_for(lambda: launcher.started[0].intervals)
    board.close()
    wait_for(lambda: not launcher.started[0].intervals)


# --- without widgets ---------------------------------------------------------------------------------------------


def test_every_bundle_has_text_and_html(board: Dashboard) -> None:
    data, _ = board._repr_mimebundle_()
    assert set(data) == {"application/vnd.jupyter.widget-view+json", "text/plain", "text/html"}
    assert "postgres.shop:5432" in data["text/plain"]


def test_static_and_no_kernel_give_a_card(connection: Connection, in_kernel: None) -> None:
    assert isinstance(connection.dashboard(static=True), Card)


def test_plain_python_gives_a_card(connection: Connection) -> None:
    card = connection.dashboard()
    assert isinstance(card, Card)
    assert "Connected to staging-eu" in card.text


@pytest.mark.parametrize("wrong", [{"hz": 0.0}, {"hz": float("nan")}, {"rows": 0}, {"height": 20}])
def test_numbers_out_of_range(connection: Connection, wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        connection.dashboard(**wrong)


def test_the_magic(connection: Connection, shell: Any) -> None:
    result = shell.run_cell("%tele dashboard --static").result
    assert isinstance(result, Card)
    shell.run_cell("%tele dashboard --hz 50")
    assert shell.run_cell("t = %tele dashboard --rows 10 --height 200").success


def test_the_dashboard_needs_no_ipykernel() -> None:
    code = (
        "import sys; sys.modules['ipykernel'] = None\n"
        "from telemagic.widgets import show\n"
        "assert 'anywidget' not in sys.modules and 'ipywidgets' not in sys.modules\n"
        "import telemagic.widgets.dashboard"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_view_asks_nothing_of_the_network_and_sets_no_html() -> None:
    for path in sorted(module._VIEW.iterdir()):
        text = path.read_text().replace("http://www.w3.org/2000/svg", "")
        assert "http:" not in text, path.name
        assert "https:" not in text, path.name
        assert "innerHTML" not in text, path.name
        assert "import " not in text.replace("!important", "") or path.suffix == ".css", path.name
        assert len(text.splitlines()) <= 400, path.name
    assert {path.name for path in module._VIEW.iterdir()} == {*SCRIPTS, "dashboard.css"}
