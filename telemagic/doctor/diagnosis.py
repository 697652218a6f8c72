"""What `telemagic doctor` returns: one finding per line, as a card, as text and as a DataFrame; pure."""

from __future__ import annotations

import enum
from collections import Counter
from html import escape
from typing import TYPE_CHECKING, NamedTuple

from telemagic import cards

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pandas as pd


class Level(enum.Enum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"  # works, less well or not everywhere
    PROBLEM = "problem"  # connecting will fail, or the connection is broken


class Finding(NamedTuple):
    """What one check found, in one line. `remedy` is what to do about it; empty if there is nothing to do."""

    check: str
    level: Level
    found: str
    remedy: str = ""


class Diagnosis:
    """All findings, in the order of the checks. Iterates over them; `frame` has them as a table."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        self.findings = tuple(findings)

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.findings)

    def __len__(self) -> int:
        return len(self.findings)

    def __getitem__(self, check: str) -> Finding:
        for finding in self.findings:
            if finding.check == check:
                return finding
        raise KeyError(check)

    @property
    def is_healthy(self) -> bool:
        """Whether there is no problem; there may be warnings."""
        return all(finding.level is not Level.PROBLEM for finding in self.findings)

    @property
    def summary(self) -> str:
        """How many problems and warnings there are."""
        count = Counter(finding.level for finding in self.findings)
        parts = [
            _plural(count[level], level.value) for level in (Level.PROBLEM, Level.WARNING) if count[level]
        ]
        return ", ".join(parts) or "everything is fine"

    @property
    def frame(self) -> pd.DataFrame:
        """The findings as a table.

        Returns
        -------
        DataFrame
            One row per check; index 0…n-1. check, found, remedy: str; level: category ok < warning < problem.
        """
        import pandas as pd  # late: 0.4 s, and only this needs it

        columns = ["check", "level", "found", "remedy"]
        rows = [(one.check, one.level.value, one.found, one.remedy) for one in self.findings]
        frame = pd.DataFrame(rows, columns=columns, dtype="str")
        levels = pd.CategoricalDtype([level.value for level in Level], ordered=True)
        return frame.astype({"level": levels})

    def __repr__(self) -> str:
        return self._card().text

    def _card(self) -> cards.Card:
        lines = [f"Doctor: {self.summary}"]
        for check, level, found, remedy in self.findings:
            lines.append(f"  {level.value:<8} {check:<18} {found}".rstrip())
            lines += [f"  {'':<8} {'':<18}   try: {remedy}"] if remedy else []
        return cards.Card("\n".join(map(cards.printable, lines)), cards.box(self._head() + self._table()))

    def _head(self) -> str:
        tone = "good" if self.is_healthy else "bad"
        return (
            f'<div class="tm-head tm-{tone}"><i class="tm-dot"></i><b>Doctor</b>'
            f'<span class="tm-right">{escape(self.summary)}</span></div>'
        )

    def _table(self) -> str:
        body = "".join(
            f'<tr class="tm-{_LOOKS[level]}"><td><i class="tm-mark" aria-label="{level.value}"></i></td>'
            f'<th scope="row">{escape(check)}</th><td>{escape(found)}'
            + (f'<div class="tm-remedy">try: <code>{escape(remedy)}</code></div>' if remedy else "")
            + "</td></tr>"
            for check, level, found, remedy in self.findings
        )
        return f'<table class="tm-steps tm-checks">{body}</table>'

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        return self._card()._repr_mimebundle_()


# The marks that the steps of a connect have, in card.css.
_LOOKS = {Level.OK: "done", Level.WARNING: "warned", Level.PROBLEM: "failed"}


def _plural(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
