"""What came of a rehearsed fault, as a card and as data; pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING

from telemagic import cards
from telemagic.promises import NOTHING

if TYPE_CHECKING:
    from telemagic.promises import Promise


@dataclass
class Rehearsal:
    """What was promised, and what happened.

    Attributes
    ----------
    promise
        What should happen.
    context
        Of the connection.
    notices
        Who else used it, as was said before.
    steps
        What happened, each with the seconds since the fault, or since its end.
    seconds
        How long the promise took: until the user saw what is promised, or until all worked again when it was over,
        whichever was longer.
    missed
        What did not come; empty if all did.
    remains
        What of ours was on the machine afterwards.
    """

    promise: Promise
    context: str
    notices: list[str] = field(default_factory=list)
    steps: list[tuple[float, str]] = field(default_factory=list)
    seconds: float = 0.0
    missed: str = ""
    remains: str = ""

    @property
    def verdict(self) -> str:
        """The promise in one word or two: kept, late, not kept."""
        if self.missed or self.remains != self.promise.remains:
            return "not kept"
        return "kept" if self.seconds <= self.promise.within else "late"

    @property
    def is_kept(self) -> bool:
        """Whether all happened, in time."""
        return self.verdict == "kept"

    @property
    def exit_status(self) -> int:
        """What `telemagic fault` exits with: 1 unless the promise was kept."""
        return 0 if self.is_kept else 1

    @property
    def _summary(self) -> str:
        return f"{self.verdict}, {self.seconds:.2f} s of {self.promise.within:g} s"

    def _lines(self) -> list[tuple[str, str]]:
        steps = [(f"{seconds:.2f} s", text) for seconds, text in self.steps]
        missed = [("missed", self.missed)] if self.missed else []
        return [("promised", self.promise.sees), *steps, *missed, ("remains", self.remains)]

    def _card(self) -> cards.Card:
        lines = [f"{self.promise.fault}: {self._summary}"]
        lines += [f"  {name:<9} {text}" for name, text in self._lines()]
        lines += [f"  try: {_AGAIN}"] if self.remains == NOTHING else []
        rows = "".join(
            f'<tr><th scope="row">{escape(name)}</th><td>{escape(text)}</td></tr>'
            for name, text in self._lines()
        )
        note = f'<div class="tm-note">{escape(_AGAIN)}</div>' if self.remains == NOTHING else ""
        tone = {"kept": "good", "late": "fair"}.get(self.verdict, "bad")
        head = cards.head(tone, f"{self.promise.fault} on", self.context, "", self._summary)
        html = cards.banner(self.context) + head + f'<table class="tm-facts">{rows}</table>{note}'
        return cards.Card("\n".join(map(cards.printable, lines)), cards.box(html))

    def __repr__(self) -> str:
        return self._card().text

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        return self._card()._repr_mimebundle_()


_AGAIN = "%tele connect, to be connected again"
