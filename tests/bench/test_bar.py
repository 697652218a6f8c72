"""How far a run is, on each kind of screen."""

from __future__ import annotations

import io
import sys
from typing import Any

import pytest

from telemagic import live
from telemagic.bench import bar


class Screen:
    """What IPython's display() would show; the handle it returns as well."""

    def __init__(self) -> None:
        self.cards: list[Any] = []

    def __call__(self, card: Any, *, display_id: bool) -> Screen:
        assert display_id
        assert not self.cards, "one display, that changes"
        self.update(card)
        return self

    def update(self, card: Any) -> None:
        self.cards.append(card)


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Screen:
    import IPython.display

    found = Screen()
    monkeypatch.setattr(IPython.display, "display", found)
    return found


def test_a_terminal_s_line_is_drawn_in_place_and_leaves_nothing() -> None:
    out = io.StringIO()
    times = iter([0.0, 1.0, 61.2])
    with bar.TerminalBar(out, lambda: next(times)) as shown:
        shown.show(0, 4, "raw")
        shown.show(2, 4, "tcp")
    first, second, last = out.getvalue().split("\r\x1b[K")[1:]
    assert first == "░" * 30 + " 0/4  raw  1 s"
    assert second == "█" * 15 + "░" * 15 + " 2/4  tcp  61 s"
    assert last == ""
    assert "\n" not in out.getvalue()


def test_a_terminal_cannot_be_steered() -> None:
    out = io.StringIO()
    bar.TerminalBar(out).show(1, 2, "\x1b[2J\n")
    assert out.getvalue().count("\x1b") == 1
    assert "\n" not in out.getvalue()


def test_a_notebook_s_card_changes_in_place(screen: Screen) -> None:
    with bar.NotebookBar() as shown:
        shown.show(1, 4, "<raw>")
        shown.show(3, 4, "tcp")
    assert [repr(card) for card in screen.cards] == ["Measuring <raw>: 1/4", "Measuring tcp: 3/4", "Measured"]
    assert '<progress value="1" max="4"' in screen.cards[0].html
    assert screen.cards[-1].html == ""  # the result is a card of its own
    assert "&lt;raw&gt;" in screen.cards[0].html


def test_a_notebook_s_card_says_that_it_broke_off(screen: Screen) -> None:
    def interrupted() -> None:
        with bar.NotebookBar() as shown:
            shown.show(1, 4, "raw")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert repr(screen.cards[-1]) == "Not measured to the end"


def test_a_notebook_s_card_that_never_appeared_does_not_appear_at_the_end(screen: Screen) -> None:
    with bar.NotebookBar():
        pass
    assert screen.cards == []


def test_nothing_is_shown_to_a_pipe(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(live, "current_shell", lambda: None)
    with bar.choose() as shown:
        shown.show(1, 2, "raw")
    assert type(shown) is bar.Bar
    assert capfd.readouterr() == ("", "")


def test_who_gets_what(monkeypatch: pytest.MonkeyPatch) -> None:
    class Kernel:
        kernel = object()

    monkeypatch.setattr(live, "current_shell", lambda: None)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert type(bar.choose()) is bar.TerminalBar
    monkeypatch.setattr(live, "current_shell", Kernel)
    assert type(bar.choose()) is bar.NotebookBar
