"""Cards that stand in a notebook turn over when their connection ends, whoever ends it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import telemagic
from telemagic import cards, live

if TYPE_CHECKING:
    from telemagic.control_fake import FakeLauncher
    from telemagic.session import Session


class Display:
    """Stands for IPython's DisplayHandle."""

    def __init__(self) -> None:
        self.shown: list[str] = []

    def update(self, card: cards.Card) -> None:
        self.shown.append(card.text.splitlines()[0])


def test_every_card_turns_once_and_only_the_last_ones_are_remembered() -> None:
    standing = live.Standing()
    displays = [Display() for _ in range(live.STANDING + 2)]
    for display in displays:
        standing.add(display)
    standing.turn_into(cards.Card("over", ""))
    standing.turn_into(cards.Card("over again", ""))
    assert [display.shown for display in displays] == [[], [], *[["over"]] * live.STANDING]


def test_a_disconnect_turns_the_card_of_the_connect(session: Session) -> None:
    connection = telemagic.connect()
    display = Display()
    connection.standing.add(display)
    session.disconnect()
    (line,) = display.shown  # not "lost", though the data plane closed its socket when we left
    assert line.startswith("Disconnected from demo, namespace shop (")


def test_a_loss_turns_it_and_says_so(session: Session, launcher: FakeLauncher) -> None:
    connection = telemagic.connect()
    display = Display()
    connection.standing.add(display)
    session._loop.run(launcher.started[0].close())
    until = time.monotonic() + 5
    while not display.shown:
        assert time.monotonic() < until
        time.sleep(0.01)
    session.disconnect()
    (line,) = display.shown
    assert line.startswith("Connection lost to demo")
    assert connection.last_error is not None
    assert "has ended" in connection.last_error.message


def test_the_end_of_the_process_turns_it(session: Session) -> None:
    connection = telemagic.connect()
    display = Display()
    connection.standing.add(display)
    session.close()
    assert [line.split(",")[0] for line in display.shown] == ["Disconnected from demo"]
