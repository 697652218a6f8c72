"""What became of a cluster's traffic manager: an object that shows itself, and is a DataFrame if asked."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, NamedTuple

from telemagic import cards, late

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pandas as pd


class Step(NamedTuple):
    """What became of one object in the cluster."""

    object: str
    state: str
    detail: str = ""


class Installed:
    """The steps of an install or an uninstall, in order. Iterates over them; `frame` has them as a table.

    Attributes
    ----------
    yaml
        The objects, as `kubectl apply -f` takes them.
    """

    def __init__(self, title: str, steps: Sequence[Step], yaml: str, *, show_yaml: bool = False) -> None:
        self.title = title
        self.steps = tuple(steps)
        self.yaml = yaml
        self._show_yaml = show_yaml

    def __iter__(self) -> Iterator[Step]:
        return iter(self.steps)

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def frame(self) -> pd.DataFrame:
        """The steps as a table.

        Returns
        -------
        DataFrame
            One row per object; index 0…n-1. object, detail: str; state: category.
        """
        late.load("pandas")  # 0.4 s, and only this needs it
        import pandas as pd

        frame = pd.DataFrame(list(self.steps), columns=list(Step._fields), dtype="str")
        return frame.astype({"state": "category"})

    def __repr__(self) -> str:
        return self._card().text

    def _card(self) -> cards.Card:
        lines = [self.title]
        lines += [
            f"  {one.state:<11} {one.object}{f'  ({one.detail})' if one.detail else ''}" for one in self.steps
        ]
        text = "\n".join(map(cards.printable, lines))
        rows = "".join(
            f'<tr class="tm-{"warned" if one.state in ("skipped", "kept") else "done"}">'
            f'<td><i class="tm-mark" aria-label="{escape(one.state)}"></i></td>'
            f'<th scope="row">{escape(one.state)}</th><td>{escape(one.object)}'
            + (f'<div class="tm-note">{escape(one.detail)}</div>' if one.detail else "")
            + "</td></tr>"
            for one in self.steps
        )
        head = f'<div class="tm-head tm-good"><i class="tm-dot"></i><b>{escape(self.title)}</b></div>'
        html = f'{head}<table class="tm-steps">{rows}</table>'
        if self._show_yaml:
            text += f"\n\n{self.yaml}"
            html += f"<details><summary>YAML</summary><pre>{escape(self.yaml)}</pre></details>"
        return cards.Card(text, cards.box(html))

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        return self._card()._repr_mimebundle_()
