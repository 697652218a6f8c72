"""How far connecting has come: one step per phase; what the card, the lines of a terminal and `on_phase` show."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from telehelper.messages import PHASES

if TYPE_CHECKING:
    from telehelper.messages import PhaseChanged


@dataclass(frozen=True, slots=True)
class Step:
    """One phase. ``state``: pending, started, done or failed; ``seconds`` is what it took, 0 while unknown."""

    phase: str
    state: str = "pending"
    detail: str = ""
    seconds: float = 0.0


@dataclass(slots=True)
class Progress:
    """All phases in their order; phases that are not announced beforehand are added where they start."""

    context: str
    namespace: str = ""
    steps: dict[str, Step] = field(default_factory=lambda: {phase: Step(phase) for phase in PHASES})
    note: str = ""

    def update(self, changed: PhaseChanged) -> Step:
        """Take one report of the launcher or the data plane, and return the step as it is now."""
        known = self.steps.get(changed.phase, Step(changed.phase))
        step = Step(known.phase, changed.state, changed.detail or known.detail, changed.seconds)
        if changed.phase not in self.steps:  # before the first phase that has not begun
            begun = {name: s for name, s in self.steps.items() if s.state != "pending"}
            self.steps = {**begun, changed.phase: step, **self.steps}
        self.steps[changed.phase] = step
        return step

    def fail(self, reason: str) -> None:
        """Mark where it broke off: at the phase under way, else at the first that had not begun."""
        if any(step.state == "failed" for step in self.steps.values()):
            return
        for wanted in ("started", "pending"):
            for name, step in self.steps.items():
                if step.state == wanted:
                    self.steps[name] = replace(step, state="failed", detail=reason or step.detail)
                    return
