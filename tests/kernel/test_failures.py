"""How an error shows itself: raised in a cell, at the end of one, in a log."""

from __future__ import annotations

import re
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from telehelper.errors import LocalProtocolError, NotConnected, TelemagicError

from telemagic import failures

if TYPE_CHECKING:
    from collections.abc import Generator


def kernel(*, asks: bool) -> Any:
    return SimpleNamespace(kernel=SimpleNamespace(_allow_stdin=asks))


@pytest.mark.parametrize("short", [True, False])
def test_an_interrupt_is_a_word_unless_all_is_wanted(*, short: bool) -> None:
    shell = SimpleNamespace(configurables=[SimpleNamespace(short_errors=short)])
    with pytest.raises(KeyboardInterrupt) as caught, failures.short_interrupts(shell):
        raise KeyboardInterrupt
    assert hasattr(caught.value, "_render_traceback_") == short
    if short:
        assert caught.value._render_traceback_() == ["KeyboardInterrupt"]  # type: ignore[attr-defined]  # IPython's hook


def test_other_errors_pass_an_interrupt_s_shortener() -> None:
    with pytest.raises(ZeroDivisionError) as caught, failures.short_interrupts(None):
        raise ZeroDivisionError
    assert not hasattr(caught.value, "_render_traceback_")


def test_two_lines_plain_and_in_colour() -> None:
    error = NotConnected("no \x1b[2J connection")
    assert failures.lines(error) == [
        "NotConnected: no \\x1b[2J connection",
        "  try: %tele connect",
    ]
    assert failures.lines(error, coloured=True) == [
        "\x1b[1mNotConnected\x1b[0m: no \\x1b[2J connection",
        "\x1b[2m  try: %tele connect\x1b[0m",
    ]
    assert failures.lines(TelemagicError("what")) == ["TelemagicError: what"]
    assert len(failures.lines(TelemagicError("what"), coloured=True)) == 1


def test_a_card_has_type_reason_and_remedy_apart() -> None:
    card = failures.card(NotConnected("not <b>connected</b>"))
    assert card.text == "NotConnected: not <b>connected</b>\n  try: %tele connect"
    assert "<b>NotConnected</b>" in card.html
    assert "not &lt;b&gt;connected" in card.html
    assert "%tele connect" in card.html
    assert 'class="tm-try"' not in failures.card(TelemagicError("what")).html


@pytest.mark.parametrize(
    ("shell", "no_colour", "coloured"),
    [
        (kernel(asks=True), "", True),
        (kernel(asks=True), "1", False),
        (kernel(asks=False), "", False),  # nbclient, papermill
        (SimpleNamespace(kernel=SimpleNamespace()), "", False),
        (None, "", False),
    ],
)
def test_colour_is_for_people(
    shell: Any, no_colour: str, coloured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", no_colour)
    assert failures.shows_colour(shell) is coloured


@pytest.mark.parametrize("is_terminal", [True, False])
def test_in_a_terminal_but_not_in_a_pipe(is_terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(isatty=lambda: is_terminal))
    assert failures.shows_colour(SimpleNamespace(kernel=None)) is is_terminal


def test_an_error_as_a_value_is_a_card_and_has_no_second_text() -> None:
    bundle = NotConnected("not connected")._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "text/html"}
    assert bundle["text/plain"] == "NotConnected: not connected\n  try: %tele connect"


@pytest.fixture
def raising(shell: Any) -> Generator[Any, None, None]:
    def fail(kind: type[TelemagicError] = NotConnected) -> None:
        try:
            int("no number")
        except ValueError as error:
            raise kind("not connected") from error

    shell.user_ns["fail"], shell.user_ns["LocalProtocolError"] = fail, LocalProtocolError
    yield shell
    shell.configurables[:] = [one for one in shell.configurables if not isinstance(one, SimpleNamespace)]


def shown(shell: Any, capsys: pytest.CaptureFixture[str], code: str) -> str:
    capsys.readouterr()
    shell.run_cell(code)
    said = capsys.readouterr()
    return said.out + said.err


def test_raised_in_a_cell_it_is_two_lines(raising: Any, capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(raising, capsys, "fail()")
    assert text.strip().splitlines() == ["NotConnected: not connected", "  try: %tele connect"]


def test_who_wants_the_whole_chain_gets_it_with_the_remedy(
    raising: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    raising.configurables.append(SimpleNamespace(short_errors=False))
    text = re.sub(r"\x1b\[[0-9;]*m", "", shown(raising, capsys, "fail()"))
    assert "ValueError" in text
    assert "no number" in text
    assert "fail()" in text
    assert text.rstrip().splitlines()[-1] == "  try: %tele connect"


def test_a_bug_of_ours_keeps_its_traceback(raising: Any, capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(raising, capsys, "fail(LocalProtocolError)")
    assert "Unexpected exception formatting exception" not in text
    assert "ValueError" in text
    assert "LocalProtocolError" in text.splitlines()[-1]


def test_at_the_end_of_a_cell_it_is_its_text(raising: Any, capsys: pytest.CaptureFixture[str]) -> None:
    code = "try:\n    fail()\nexcept Exception as error:\n    kept = error\nkept"
    assert "NotConnected: not connected\n  try: %tele connect" in shown(raising, capsys, code)
