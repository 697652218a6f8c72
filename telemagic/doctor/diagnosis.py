"""What `telemagic doctor` returns: one finding per line, as a card, as text and as a DataFrame; pure."""

from __future__ import annotations

import enum
from collections import Counter
from html import escape
from typing import TYPE_CHECKING, NamedTuple

from telemagic import cards, late

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import pandas as pd


class Level(enum.Enum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"  # works, less well or not everywhere
    PROBLEM = "problem"  # connecting will fail, or the connection is broken


class Finding(NamedTuple):
    """What one check found, in one line.

    `remedy` is what to do about it, empty if there is nothing to do; `about` is what was looked at.
    """

    check: str
    level: Level
    found: str
    remedy: str = ""
    about: str = ""


class Diagnosis:
    """All findings, in the order of the checks. Iterates over them; `frame` has them as a table."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        self.findings = tuple(findings)

    @classmethod
    def of(cls, parts: Mapping[str, Sequence[Finding]]) -> Diagnosis:
        """Put findings together; the keys say what they are about."""
        return cls([finding._replace(about=about) for about, part in parts.items() for finding in part])

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
    def exit_status(self) -> int:
        """What `telemagic doctor` exits with: 1 if there is a problem."""
        return 0 if self.is_healthy else 1

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
            One row per check; index 0…n-1. about: category; check, found, remedy: str; level: category
            ok < warning < problem.
        """
        late.load("pandas")  # 0.4 s, and only this needs it
        import pandas as pd

        columns = ["about", "check", "level", "found", "remedy"]
        rows = [(one.about, one.check, one.level.value, one.found, one.remedy) for one in self.findings]
        frame = pd.DataFrame(rows, columns=columns, dtype="str")
        levels = pd.CategoricalDtype([level.value for level in Level], ordered=True)
        return frame.astype({"about": "category", "level": levels})

    def __repr__(self) -> str:
        return self._card().text

    def _card(self) -> cards.Card:
        lines = [f"Doctor: {self.summary}"]
        for about, part in self._parts():
            lines += [about] if about else []
            for check, level, found, remedy, _ in part:
                lines.append(f"  {level.value:<8} {check:<18} {found}".rstrip())
                lines += [f"  {'':<8} {'':<18}   try: {remedy}"] if remedy else []
        return cards.Card("\n".join(map(cards.printable, lines)), cards.box(self._head() + self._table()))

    def _parts(self) -> list[tuple[str, list[Finding]]]:
        parts: dict[str, list[Finding]] = {}
        for finding in self.findings:
            parts.setdefault(finding.about, []).append(finding)
        return list(parts.items())

    def _head(self) -> str:
        worst = max((finding.level for finding in self.findings), key=list(Level).index, default=Level.OK)
        chips = "".join(
            f'<span class="tm-chip tm-{_LOOKS[level]}">{text}</span>' for level, text in self._counts()
        )
        return (
            f'<div class="tm-head tm-{_TONES[worst]}"><i class="tm-dot"></i><b>Doctor</b>'
            f'<span>{escape(_SAYS[worst])}</span><span class="tm-right">{chips}</span></div>'
        )

    def _counts(self) -> list[tuple[Level, str]]:
        count = Counter(finding.level for finding in self.findings)
        return [
            (level, f"{count[level]} ok" if level is Level.OK else _plural(count[level], level.value))
            for level in (Level.PROBLEM, Level.WARNING, Level.OK)
            if count[level]
        ]

    def _table(self) -> str:
        bodies = "".join(
            f"<tbody>{_heading(about)}{''.join(map(_row, part))}</tbody>" for about, part in self._parts()
        )
        return f'<table class="tm-steps tm-checks">{bodies}</table>'

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        return self._card()._repr_mimebundle_()


# The marks that the steps of a connect have, in card.css.
_LOOKS = {Level.OK: "done", Level.WARNING: "warned", Level.PROBLEM: "failed"}
_TONES = {Level.OK: "good", Level.WARNING: "fair", Level.PROBLEM: "bad"}
_SAYS = {
    Level.OK: "everything is fine",
    Level.WARNING: "works, with something to know",
    Level.PROBLEM: "something is in the way",
}


def _heading(about: str) -> str:
    return f'<tr class="tm-part"><th colspan="3" scope="colgroup">{escape(about)}</th></tr>' if about else ""


def _row(finding: Finding) -> str:
    check, level, found, remedy, _ = finding
    said = f'<div class="tm-remedy">{_ARROW} {escape(remedy)}</div>' if remedy else ""
    return (
        f'<tr class="tm-{_LOOKS[level]}"><td><i class="tm-mark" role="img" aria-label="{level.value}"></i></td>'
        f'<th scope="row">{escape(check)}</th><td>{escape(found)}{said}</td></tr>'
    )


_ARROW = '<span class="tm-arrow" aria-label="try">&rarr;</span>'


def _plural(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
